//! Services some of whose clients go to a group of backends.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Result, ensure};
use lb_common::{reason::Reason, service::Mode};
use lb_userspace::{
    plan::{TargetBackend, TargetService, groups::Group},
    state::{
        guard::Prefix,
        service::{Protocol, ServiceKey},
    },
};

use super::{
    ACK, FAMILIES, SYN, TX,
    bench::{Bench, with_backend},
    build::{Frame, Side, V4},
    flows,
    fragments::split,
    modes::tunnelled,
    vlan::TAGS,
};

const NEAR: Group = Group(1);
const CANARY: Group = Group(2);
const NAT: u16 = 8300;
const NATS_PREFIX: u16 = 8310;
const DNATS: u16 = 8320;
const DIRECT: u16 = 8330;
const TUNNEL: u16 = 8340;

/// Clients of the two groups, and of none; the first one's prefix lies in that of the second. Each with the last digit of the port of
/// its backend.
fn clients(side: Side) -> [(&'static str, IpAddr, u16); 3] {
    [
        ("of the canary", side.client(0).ip(), 2),
        ("of the near ones", side.strange_client(), 1),
        ("of none", side.nowhere(), 0),
    ]
}

/// A service on a port, whose backends of the three groups have that port of `at` and those that follow.
fn service(side: Side, mode: Mode, port: u16, at: Side) -> TargetService {
    let client = side.client(0).ip();
    let most = Prefix::most(client);
    let backend = TargetBackend {
        mode,
        weight: 1,
        alive: true,
        held_back: 0,
        tunnel_source: None,
        group: Group::GENERAL,
    };
    let backends = [Group::GENERAL, NEAR, CANARY].into_iter().zip(port..);
    TargetService {
        clients: BTreeMap::from([
            (Prefix::around(client, most - 16), NEAR),
            (Prefix::around(client, most), CANARY),
        ]),
        backends: backends
            .map(|(group, port)| (at.backend(port), TargetBackend { group, ..backend }))
            .collect(),
        ..with_backend(mode, at.backend(port))
    }
}

/// An address of the service whose address is a prefix.
fn in_prefix(side: Side) -> SocketAddr {
    SocketAddr::new(side.datagrams(), NATS_PREFIX)
}

fn key(side: Side, port: u16, protocol: Protocol) -> ServiceKey {
    ServiceKey::new(side.vip(port).ip(), port, protocol)
}

fn bench() -> Result<Bench> {
    let services = FAMILIES.into_iter().flat_map(|side| {
        let around = Prefix::around(in_prefix(side).ip(), Prefix::most(in_prefix(side).ip()) - 2);
        [
            (key(side, NAT, Protocol::Tcp), service(side, Mode::Nat, NAT, side)),
            (
                ServiceKey::of_prefix(around, NATS_PREFIX, Protocol::Tcp),
                service(side, Mode::Nat, NATS_PREFIX, side),
            ),
            (
                key(side, DNATS, Protocol::Tcp),
                service(side, Mode::Dnat, DNATS, side),
            ),
            (
                key(side, DIRECT, Protocol::Tcp),
                service(side, Mode::L2dsr, DIRECT, side),
            ),
            (
                key(side, DIRECT, Protocol::Udp),
                service(side, Mode::L2dsr, DIRECT, side),
            ),
            (
                key(side, TUNNEL, Protocol::Tcp),
                service(side, Mode::Ipip, TUNNEL, V4),
            ),
        ]
    });
    Bench::beside(services)
}

/// The listed slot of a flow, also where its client's prefix has a ring of its own, and where the service's address is a prefix.
#[test]
fn flows_are_listed_with_the_slot_of_their_clients_ring() -> Result<()> {
    let bench = bench()?;
    bench.ports(3000..=3999)?;
    for side in FAMILIES {
        for (name, client, _) in clients(side) {
            for (port, vip) in [(40_000, side.vip(NAT)), (40_001, in_prefix(side))] {
                let client = SocketAddr::new(client, port);
                let slot = flows::explained(&bench, client, vip, Protocol::Tcp)?;
                bench.run(&Frame::tcp(client, vip, SYN, 64, b""))?;
                let flow = flows::of(&bench, client)?;
                ensure!(
                    slot.is_some() && flow.slot == slot,
                    "{name}: {flow:#?}, not {slot:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_client_goes_to_the_group_of_its_longest_prefix() -> Result<()> {
    let bench = bench()?;
    let mut number = 0;
    for side in FAMILIES {
        for (name, client, last) in clients(side) {
            for (vip, port) in [(side.vip(NAT), NAT), (in_prefix(side), NATS_PREFIX)] {
                number += 1;
                bench.one_port(3000 + number)?;
                let (client, snat) = (SocketAddr::new(client, 40_000 + number), side.snat(3000 + number));
                let backend = side.backend(port + last);
                for (flags, payload) in [(SYN, &b""[..]), (ACK, b"more")] {
                    let sent = Frame::tcp(client, vip, flags, 64, payload);
                    let wanted = Frame::tcp(snat, backend, flags, 63, payload).lb_to_backend();
                    bench.expect(name, &sent, TX, &wanted, Reason::SentBack)?;
                }
                let reply = Frame::tcp(backend, snat, SYN | ACK, 64, b"").backend_to_lb();
                let wanted = Frame::tcp(vip, client, SYN | ACK, 63, b"").lb_to_client();
                bench.expect(name, &reply, TX, &wanted, Reason::SentBack)?;
            }
            let client = SocketAddr::new(client, 40_000);
            let sent = Frame::tcp(client, side.vip(DNATS), SYN, 64, b"");
            let wanted = Frame::tcp(client, side.backend(DNATS + last), SYN, 63, b"").lb_to_backend();
            bench.expect(name, &sent, TX, &wanted, Reason::SentBack)?;
        }
    }
    Ok(())
}

/// Backends get these as they came, so only the counters tell which one it was.
#[test]
fn packets_that_are_not_translated_go_to_the_group_too() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        for (name, client, last) in clients(side) {
            let client = SocketAddr::new(client, 40_000);
            let direct = |frame: &Frame| frame.clone().lb_to_backend();
            let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
            let syn = Frame::tcp(client, side.vip(DIRECT), SYN, 64, b"");
            let reply = Frame::tcp(side.vip(DIRECT), client, ACK, 64, b"data");
            let error = Frame::unreachable(SocketAddr::new(side.nowhere(), 0), side.vip(0), 64, &reply, 8);
            let parts = split(&Frame::udp(client, side.vip(DIRECT), 64, &[7; 90]), last.into());
            let tunnel = Frame::tcp(client, side.vip(TUNNEL), ACK, 64, b"data");
            let outer = tunnelled(&tunnel, V4, None, 0);
            let mut all = vec![
                (DIRECT, tcp, syn.clone(), direct(&syn)),
                (DIRECT, tcp, syn.clone().tagged(TAGS[0].1), direct(&syn)),
                (DIRECT, tcp, error.clone(), direct(&error)),
                (TUNNEL, tcp, tunnel, outer),
            ];
            let parts = parts
                .into_iter()
                .map(|part| (DIRECT, udp, part.clone(), direct(&part)));
            all.extend(parts);
            for (port, protocol, sent, wanted) in all {
                let at = if port == TUNNEL { V4 } else { side };
                let place = (key(side, port, protocol), at.backend(port + last));
                let packets = || -> Result<u64> { Ok(bench.snapshot()?.backends[&place].traffic.packets) };
                let before = packets()?;
                bench.expect(name, &sent, TX, &wanted, Reason::SentBack)?;
                ensure!(
                    packets()? == before + 1,
                    "{name}: another backend than {place:?} got it"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn without_a_backend_of_its_group_a_client_goes_to_the_others() -> Result<()> {
    let services = FAMILIES.into_iter().map(|side| {
        let mut service = service(side, Mode::Dnat, DNATS, side);
        for (_, backend) in service
            .backends
            .iter_mut()
            .filter(|(_, backend)| backend.group == NEAR)
        {
            backend.weight = 0;
        }
        (key(side, DNATS, Protocol::Tcp), service)
    });
    let bench = Bench::beside(services)?;
    for side in FAMILIES {
        for (name, client, last) in clients(side) {
            // Not the canary's.
            let last = if last == 1 { 0 } else { last };
            let client = SocketAddr::new(client, 40_000);
            let sent = Frame::tcp(client, side.vip(DNATS), SYN, 64, b"");
            let wanted = Frame::tcp(client, side.backend(DNATS + last), SYN, 63, b"").lb_to_backend();
            bench.expect(name, &sent, TX, &wanted, Reason::SentBack)?;
        }
    }
    Ok(())
}
