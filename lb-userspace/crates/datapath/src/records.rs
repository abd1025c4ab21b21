//! Backend records: their content, and the steps to change one while programs read it.
//!
//! The backend map is an array, so a program may read a record while it is being written. Hence the rule of
//! [`lb_common::backend::Backend`]: fields that packets use together change only while [`RESOLVED`] is clear and no program
//! run that saw it set is still under way. A record therefore changes in up to three writes with a grace period
//! between each two: `RESOLVED` off, new content, `RESOLVED` on. Meanwhile packets ask the kernel's routes instead.

use lb_common::{
    addr::{NetAddr, NetPort},
    backend::{ALIVE, Backend, Generation, IN_USE, IPV6, MAX_SOURCE_BITS, RESOLVED},
};

use crate::{neighbours::next_hop::NextHop, plan::ProgrammedBackend, state::guard::Prefix};

/// The record of a backend; resolved if the MAC address of its next hop is known.
pub(super) fn record(backend: &ProgrammedBackend, hop: Option<&NextHop>) -> Backend {
    let ProgrammedBackend {
        address,
        service,
        generation,
        mode,
        protocol,
        alive,
        held_back,
        tunnel_source,
    } = *backend;
    let mut record = Backend {
        address: address.ip().into(),
        port: NetPort::new(address.port()),
        flags: IN_USE,
        generation,
        service,
        mode: mode as u8,
        protocol,
        ..Backend::default()
    };
    if alive {
        record.flags |= ALIVE;
    }
    if address.is_ipv6() {
        record.flags |= IPV6;
    }
    if let Some(hop) = hop {
        record.source = hop.source.map(NetAddr::from).unwrap_or_default();
        record.mtu = u16::try_from(hop.mtu).unwrap_or(u16::MAX);
        record.ifindex = hop.ifindex;
        record.source_mac = hop.source_mac;
        record.vlans = hop.vlans;
        if let Some(mac) = hop.mac {
            record.next_hop_mac = mac;
            record.flags |= RESOLVED;
        }
    }
    if let Some(prefix) = tunnel_source {
        record.source = prefix.address().into();
        record = record.with_source_bits(prefix.free_bits().min(MAX_SOURCE_BITS));
    }
    record.with_held_back(held_back)
}

/// Where the outer sources of a record's tunnel lie, if each flow has its own.
pub(super) fn tunnel_source(record: &Backend) -> Option<Prefix> {
    let source = record.source.to_ip();
    let length = Prefix::most(source).checked_sub(record.source_bits())?;
    (record.source_bits() != 0).then(|| Prefix::around(source, length))
}

/// The next hop that a record holds.
pub(super) fn next_hop(record: &Backend) -> NextHop {
    NextHop {
        ifindex: record.ifindex,
        mac: record.has(RESOLVED).then_some(record.next_hop_mac),
        source_mac: record.source_mac,
        vlans: record.vlans,
        source: (record.source != NetAddr::default() && record.source_bits() == 0)
            .then(|| record.source.to_ip()),
        mtu: u32::from(record.mtu),
    }
}

/// The record of a free id: it keeps only the generation.
pub(super) fn freed(record: &Backend) -> Backend {
    Backend {
        generation: record.generation,
        ..Backend::default()
    }
}

/// The record with its flows stopped or allowed, and its slow start, all else as it is: one write, since one flag decides,
/// and programs do not look at the other.
pub(super) const fn with_state(mut record: Backend, backend: &ProgrammedBackend) -> Backend {
    if backend.alive {
        record.flags |= ALIVE;
    } else {
        record.flags &= !ALIVE;
    }
    record.with_held_back(backend.held_back)
}

/// The record of a backend that comes back to life, while it is still dead: readers must not take flows of before for
/// its own, and what they read together is not written at once.
pub(super) const fn reborn(mut record: Backend, generation: Generation) -> Backend {
    record.flags &= !ALIVE;
    record.generation = generation;
    record
}

/// Whether the record already stands for this backend in this generation, apart from whether it is alive.
pub(super) fn same_identity(current: &Backend, backend: &ProgrammedBackend) -> bool {
    let wanted = record(backend, None);
    current.has(IN_USE)
        && (
            current.generation,
            current.address,
            current.port,
            current.service,
            current.mode,
            current.protocol,
        ) == (
            wanted.generation,
            wanted.address,
            wanted.port,
            wanted.service,
            wanted.mode,
            wanted.protocol,
        )
}

/// The writes that turn `current` into `wanted`, in order, with a grace period between each two; `None` where a write
/// would change nothing.
pub(super) fn writes(current: &Backend, wanted: &Backend) -> [Option<Backend>; 3] {
    if current == wanted {
        return [None; 3];
    }
    if *current == Backend::default() {
        // The id was never given out, so neither a ring nor a flow leads a packet here.
        return [None, None, Some(*wanted)];
    }
    let unresolved = |record: &Backend| Backend {
        flags: record.flags & !RESOLVED,
        ..*record
    };
    let (off, content) = (unresolved(current), unresolved(wanted));
    [
        (current.has(RESOLVED)).then_some(off),
        (content != off).then_some(content),
        wanted.has(RESOLVED).then_some(*wanted),
    ]
}

#[cfg(test)]
mod tests {
    use lb_common::{
        service::{Mode, ServiceId, TCP},
        vlan::Vlans,
    };

    use super::*;

    fn backend(address: &str, alive: bool) -> ProgrammedBackend {
        ProgrammedBackend {
            address: address.parse().unwrap(),
            service: ServiceId(3),
            generation: Generation(7),
            mode: Mode::Nat,
            protocol: TCP,
            alive,
            held_back: 0,
            tunnel_source: None,
        }
    }

    fn hop(mac: Option<[u8; 6]>) -> NextHop {
        NextHop {
            ifindex: 4,
            mac,
            source_mac: [2; 6],
            vlans: Vlans::NONE,
            source: Some("10.0.0.1".parse().unwrap()),
            mtu: 1500,
        }
    }

    #[test]
    fn a_record_is_resolved_only_with_the_mac_of_its_next_hop() {
        let backend = backend("10.0.0.11:8080", true);
        let waiting = record(&backend, Some(&hop(None)));
        assert!(!waiting.has(RESOLVED));
        assert_eq!(
            waiting.source.to_ip(),
            "10.0.0.1".parse::<std::net::IpAddr>().unwrap()
        );
        let resolved = record(&backend, Some(&hop(Some([9; 6]))));
        assert!(resolved.has(RESOLVED | ALIVE | IN_USE));
        assert!(!resolved.has(IPV6));
        assert_eq!(
            (resolved.next_hop_mac, resolved.ifindex, resolved.mtu),
            ([9; 6], 4, 1500)
        );
        assert!(record(&self::backend("[2001:db8::1]:80", false), None).has(IPV6));
        for hop in [hop(None), hop(Some([9; 6]))] {
            assert_eq!(
                next_hop(&record(&backend, Some(&hop))),
                hop,
                "a restart knows what was known"
            );
        }
    }

    /// The backend with outer sources from a prefix.
    fn spread(backend: ProgrammedBackend) -> ProgrammedBackend {
        ProgrammedBackend {
            mode: Mode::Ipip,
            tunnel_source: Some("10.200.0.0/20".parse().unwrap()),
            ..backend
        }
    }

    #[test]
    fn a_record_with_a_prefix_of_outer_sources_has_it_and_no_address_of_the_host() {
        let backend = spread(backend("10.0.0.11:8080", true));
        let hop = hop(Some([9; 6]));
        let record = record(&backend, Some(&hop));
        assert_eq!(tunnel_source(&record), backend.tunnel_source);
        let known = NextHop { source: None, ..hop };
        assert_eq!(next_hop(&record), known, "the prefix is no address of the host");
        let plain = self::record(&self::backend("10.0.0.11:8080", true), Some(&hop));
        assert_eq!(tunnel_source(&plain), None);
    }

    #[test]
    fn no_packet_meets_a_half_changed_next_hop() {
        let backend = backend("10.0.0.11:8080", true);
        let records = [
            Backend::default(),
            record(&backend, None),
            record(&backend, Some(&hop(None))),
            record(&backend, Some(&hop(Some([9; 6])))),
            record(&backend, Some(&hop(Some([8; 6])))),
            record(&spread(backend), Some(&hop(Some([8; 6])))),
        ];
        for current in records {
            for wanted in records {
                let mut now = current;
                for write in writes(&current, &wanted).into_iter().flatten() {
                    let same_but_flags = Backend { flags: 0, ..now } == Backend { flags: 0, ..write };
                    let same_but_flags = same_but_flags && now.source_bits() == write.source_bits();
                    let never_used = now == Backend::default();
                    assert!(
                        same_but_flags || never_used || !(now.has(RESOLVED) || write.has(RESOLVED)),
                        "content changes with the flag clear before and after, or where no packet can come"
                    );
                    now = write;
                }
                assert_eq!(now, wanted);
            }
        }
    }

    #[test]
    fn an_id_in_new_hands_is_not_the_backend_it_was() {
        let one = backend("10.0.0.11:8080", true);
        let current = record(&one, None);
        assert!(same_identity(&current, &one));
        assert!(same_identity(
            &current,
            &ProgrammedBackend { alive: false, ..one }
        ));
        for other in [
            ProgrammedBackend {
                generation: Generation(8),
                ..one
            },
            ProgrammedBackend {
                mode: Mode::Ipip,
                ..one
            },
            backend("10.0.0.12:8080", true),
            backend("10.0.0.11:8081", true),
        ] {
            assert!(!same_identity(&current, &other));
        }
        assert!(!same_identity(&freed(&current), &one));
        assert_eq!(
            freed(&current).generation,
            Generation(7),
            "the next owner gets another generation"
        );
    }
}
