//! Asks backends through the path that packets of clients take: whether they end tunnels, hold the service's address, serve its port,
//! and whether their answers come back. Needs no daemon: the packets are made here, as the program makes them.

mod asked;
mod judge;
mod packet;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    process,
    time::{Duration, Instant},
};

use lb_common::service::Mode;

use self::{
    asked::{Aim, Asked, Came, Subject},
    packet::{Answer, Arrival, Asks, Outer, Question},
};
use super::{facts::Facts, faults::is_enabled, finding::Finding, setup::Setup};
use crate::{
    datapath::{
        HostAddress, NextHopState,
        host_network::{HostWay, PacketSocket},
    },
    state::{
        backend::Backend,
        service::{Protocol, Service},
    },
};

/// Times that a question is asked, and the time for an answer to each.
const TIMES: u32 = 3;
const WAIT: Duration = Duration::from_millis(400);
/// Backends that are asked at once.
const AT_ONCE: usize = 64;
/// The source port where every port is used by source NAT or by connections of this machine.
const LAST_PORT: u16 = u16::MAX;

/// What backends answer through the path. Takes a second for each [`AT_ONCE`] of them that do not answer.
///
/// # Errors
/// Without `CAP_NET_RAW`.
pub(super) fn paths(setup: &Setup, facts: &Facts) -> io::Result<Vec<Finding>> {
    let port = source_port(
        &setup.desired.settings.snat_ports,
        facts.settings.get("ipv4/ip_local_port_range").map(String::as_str),
    );
    let mut subjects: Vec<Subject<'_>> = setup
        .services()
        .filter(|service| !service.key.is_prefix())
        .flat_map(|service| {
            let enabled = service.backends.iter().filter(|backend| is_enabled(backend));
            enabled.filter_map(move |backend| subject(setup, facts, service, backend, port))
        })
        .collect();
    for (at, asked) in subjects
        .iter_mut()
        .flat_map(|subject| &mut subject.asked)
        .enumerate()
    {
        asked.question.asks = numbered(asked.question.asks, u32::try_from(at).unwrap_or_default());
    }
    let socket = PacketSocket::open(port)?;
    for some in subjects.chunks_mut(AT_ONCE) {
        ask(&socket, some)?;
    }
    Ok(judge::all(setup, facts, &subjects))
}

/// A port that neither source NAT nor the kernel gives to flows.
fn source_port(snat: &RangeInclusive<u16>, local: Option<&str>) -> u16 {
    let mut ends = local
        .unwrap_or_default()
        .split_whitespace()
        .map(str::parse::<u16>);
    let local = match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 32_768..=60_999,
    };
    let mut ports = (1024..=LAST_PORT).rev();
    ports
        .find(|port| !snat.contains(port) && !local.contains(port))
        .unwrap_or(LAST_PORT)
}

/// The same question with numbers by which its answers are known.
fn numbered(asks: Asks, number: u32) -> Asks {
    let [.., high, low] = number.to_be_bytes();
    match asks {
        Asks::Connection { port, .. } => Asks::Connection {
            port,
            // Another run has other numbers.
            sequence: process::id().wrapping_shl(16).wrapping_add(number),
        },
        Asks::Echo { id, .. } => Asks::Echo {
            id,
            number: u16::from_be_bytes([high, low]),
        },
    }
}

fn subject<'a>(
    setup: &Setup,
    facts: &'a Facts,
    service: &'a Service,
    backend: &'a Backend,
    port: u16,
) -> Option<Subject<'a>> {
    let address = backend.address.ip();
    let way = facts.ways.get(&address)?;
    let (NextHopState::Reached { via, interface, .. }, Some(mac)) = (&way.state, way.mac) else {
        return None;
    };
    let mode = backend.mode.unwrap_or(service.mode);
    let link = facts.link(interface)?;
    let asked = match mode {
        Mode::L2dsr => direct(setup, facts, service, backend, way, None, port),
        Mode::Ipip | Mode::Gue => {
            let gue_port = (mode == Mode::Gue).then_some(setup.desired.settings.gue_port);
            let outer = Outer {
                source: outer_source(setup, way, address)?,
                backend: address,
                gue_port,
            };
            direct(setup, facts, service, backend, way, Some(outer), port)
        }
        Mode::Nat | Mode::Dnat => translated(setup, facts, service, backend, way, mode, port),
    };
    (!asked.is_empty()).then_some(Subject {
        service,
        backend,
        mode,
        link,
        mac,
        is_routed: *via != address,
        asked,
    })
}

/// Source of outer headers.
fn outer_source(setup: &Setup, way: &HostWay, address: IpAddr) -> Option<IpAddr> {
    let mut given = setup.desired.settings.tunnel_sources.iter();
    let given = given.find(|prefix| prefix.address().is_ipv4() == address.is_ipv4());
    given.map(|prefix| prefix.address()).or_else(|| source_of(way))
}

const fn source_of(way: &HostWay) -> Option<IpAddr> {
    match &way.state {
        NextHopState::Reached { source, .. } => *source,
        NextHopState::Waiting { .. }
        | NextHopState::Local
        | NextHopState::Unreachable
        | NextHopState::NotEthernet { .. }
        | NextHopState::TooManyTags { .. } => None,
    }
}

/// Questions of modes that leave the packet as it is.
fn direct(
    setup: &Setup,
    facts: &Facts,
    service: &Service,
    backend: &Backend,
    way: &HostWay,
    outer: Option<Outer>,
    port: u16,
) -> Vec<Asked> {
    let vip = service.key.address;
    let fits = |source: &IpAddr| source.is_ipv4() == vip.is_ipv4();
    let source = source_of(way).filter(fits).or_else(|| {
        let own = own_addresses(setup, facts).find(|own| fits(&own.address));
        own.map(|own| own.address)
    });
    let Some(source) = source.map(|source| SocketAddr::new(source, port)) else {
        return Vec::new();
    };
    let question = |aim, destination, asks| Asked {
        aim,
        question: Question {
            source,
            destination,
            asks,
            outer,
        },
        answer: None,
    };
    let echo = Asks::Echo { id: port, number: 0 };
    let mut asked = vec![question(Aim::Address, vip, echo)];
    if let (Protocol::Tcp, port @ 1..) = (service.key.protocol, service.key.port) {
        asked.push(question(Aim::Server, vip, Asks::Connection { port, sequence: 0 }));
    }
    let own = backend.address.ip();
    if outer.is_some() && fits(&own) {
        asked.push(question(Aim::Tunnel, own, echo));
    }
    asked
}

/// Questions of modes that translate the destination, and maybe the source.
fn translated(
    setup: &Setup,
    facts: &Facts,
    service: &Service,
    backend: &Backend,
    way: &HostWay,
    mode: Mode,
    port: u16,
) -> Vec<Asked> {
    let address = backend.address.ip();
    let to = match (backend.address.port(), service.key.port) {
        (0, port) | (port, _) => port,
    };
    let (Some(source), Protocol::Tcp, 1..) = (source_of(way), service.key.protocol, to) else {
        return Vec::new();
    };
    let question = |aim, source| Asked {
        aim,
        question: Question {
            source: SocketAddr::new(source, port),
            destination: address,
            asks: Asks::Connection {
                port: to,
                sequence: 0,
            },
            outer: None,
        },
        answer: None,
    };
    let other = if mode == Mode::Nat {
        let mut given = setup.desired.settings.snat_addresses.iter().copied();
        given.find(|given| given.is_ipv4() == address.is_ipv4())
    } else {
        // Clients are elsewhere, too.
        let mut elsewhere =
            own_addresses(setup, facts).filter(|own| !facts.shares_network(own.address, address));
        elsewhere
            .find(|own| own.address.is_ipv4() == address.is_ipv4())
            .map(|own| own.address)
    };
    let mut asked = vec![question(Aim::Server, source)];
    asked.extend(
        other
            .filter(|other| *other != source)
            .map(|other| question(Aim::Return, other)),
    );
    asked
}

/// Addresses of this machine by which others reach it: those of the setup's interfaces, none of a service or of the link alone.
fn own_addresses<'a>(setup: &'a Setup, facts: &'a Facts) -> impl Iterator<Item = &'a HostAddress> {
    let interfaces: BTreeSet<u32> = facts.interfaces(setup).map(|link| link.ifindex).collect();
    let services: BTreeSet<IpAddr> = setup
        .desired
        .services
        .values()
        .map(|service| service.key.address)
        .collect();
    facts.addresses.iter().filter(move |own| {
        let is_of_link = match own.address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        interfaces.contains(&own.ifindex) && !own.duplicate && !is_of_link && !services.contains(&own.address)
    })
}

/// Asks some backends, up to [`TIMES`] times.
fn ask(socket: &PacketSocket, subjects: &mut [Subject<'_>]) -> io::Result<()> {
    for _ in 0..TIMES {
        for subject in &*subjects {
            for asked in subject.asked.iter().filter(|asked| asked.answer.is_none()) {
                send(socket, subject, &asked.question, asked.question.packet());
            }
        }
        let deadline = Instant::now() + WAIT;
        while subjects
            .iter()
            .flat_map(|subject| &subject.asked)
            .any(|asked| asked.answer.is_none())
        {
            let Some(arrived) = socket.receive(deadline)? else {
                break;
            };
            let Some(arrival) = Arrival::of(&arrived.packet) else {
                continue;
            };
            for subject in &mut *subjects {
                for at in 0..subject.asked.len() {
                    let Some(asked) = subject.asked.get_mut(at) else {
                        continue;
                    };
                    let Some(answer) = asked.question.answer(&arrival) else {
                        continue;
                    };
                    asked.answer.get_or_insert(Came {
                        answer,
                        ifindex: arrived.ifindex,
                        mac: arrived.mac,
                        is_sound: arrival.is_sound,
                    });
                    if answer == Answer::Accepted {
                        let question = asked.question;
                        send(socket, subject, &question, question.reset());
                    }
                }
            }
        }
    }
    Ok(())
}

/// Sends a packet. One that cannot be sent has no answer; why not is found by the checks of interfaces.
fn send(socket: &PacketSocket, subject: &Subject<'_>, question: &Question, packet: Option<Vec<u8>>) {
    let to = question.outer.map_or(question.destination, |outer| outer.backend);
    if let Some(packet) = packet {
        let _ = socket.send(subject.link.ifindex, subject.mac, to, &packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_port_belongs_to_nobody_else() {
        for (snat, local, expected) in [
            (1024..=32_767, Some("32768\t60999"), 65_535),
            (1024..=32_767, None, 65_535),
            (61_000..=65_535, Some("32768 60999"), 32_767),
            (1024..=65_535, Some("32768 60999"), LAST_PORT),
        ] {
            assert_eq!(source_port(&snat, local), expected, "{snat:?}, {local:?}");
        }
    }
}
