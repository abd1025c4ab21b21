//! Random services, and random packets to them with the questions about them, for [`super::explain`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context, Result, anyhow};
use fastrand::Rng;
use lb_common::{
    quic::Config,
    service::{Mode, ServiceId},
};
use lb_userspace::{
    explain::{Outer, OuterKind, Question},
    plan::{Target, TargetBackend, TargetQuic, TargetService, groups::Group},
    state::{
        effective,
        guard::{Guard, Prefix, Rate},
        service::{Affinity, OnEmpty, Protocol, ServiceKey, Tracking},
    },
};

use super::{
    ACK, FAMILIES, SYN,
    bench::{self, INGRESS, with_backend},
    build::{Case, Frame, Side, V4, V6},
    decap::{Tunnel, within},
    fragments,
};

/// Ports of services: TCP and UDP each, the last one in vain.
const PORTS: [u16; 6] = [80, 81, 82, 83, 84, 85];
/// Clients' ports in use, so that flows are met again.
const CLIENT_PORTS: u16 = 12;
/// Source ports of mode `nat`, more than there are flows.
pub(super) const SNAT: std::ops::RangeInclusive<u16> = 3000..=5999;
/// A rate that no test reaches.
const NO_LIMIT: Rate = Rate {
    per_second: 1_000_000,
    burst: 1_000_000,
};
/// Bytes of a server id, and of the nonce behind it, in plain connection ids.
const SERVER_ID: usize = 3;
const NONCE: usize = 4;

/// Services in random settings, on one address of each family and on a prefix beside it, and the end of tunnels. All backends have
/// this mode; without one any, also backends of several modes in one service.
pub(super) fn target(rng: &mut Rng, mode: Option<Mode>) -> Result<Target> {
    let mut services = BTreeMap::new();
    for side in FAMILIES {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for port in PORTS.into_iter().filter(|port| *port != PORTS[5]) {
                let key = ServiceKey::new(side.vip(port).ip(), port, protocol);
                let service = service(rng, mode, side, protocol, 9_000 + 10 * port)?;
                services.insert(key, service.into());
            }
            let prefix = ServiceKey::of_prefix(around(side), PORTS[0], protocol);
            let service = service(rng, mode, side, protocol, 9_005 + 10 * PORTS[0])?;
            services.insert(prefix, service.into());
        }
    }
    let mut target = Target {
        services,
        ..bench::target(|_, _| {})
    };
    let tiers: Vec<Prefix> = FAMILIES.map(|side| whole(side.nowhere())).into();
    let ends = FAMILIES.map(|side| side.snat(0).ip());
    effective::end_tunnels(&mut target, &tiers, &ends.into_iter().collect());
    Ok(target)
}

fn whole(address: IpAddr) -> Prefix {
    Prefix::around(address, Prefix::most(address))
}

/// A prefix with addresses of no other service.
fn around(side: Side) -> Prefix {
    let bits = if side.vip(0).is_ipv4() { 28 } else { 124 };
    Prefix::around(in_prefix(side, 0), bits)
}

fn in_prefix(side: Side, last: u8) -> IpAddr {
    if side.vip(0).is_ipv4() {
        Ipv4Addr::new(203, 0, 113, last).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, last.into()).into()
    }
}

/// A service whose backends have ports from this one on.
fn service(
    rng: &mut Rng,
    all: Option<Mode>,
    side: Side,
    protocol: Protocol,
    first: u16,
) -> Result<TargetService> {
    let modes = [Mode::Nat, Mode::Dnat, Mode::L2dsr, Mode::Ipip, Mode::Gue];
    let any = modes[rng.usize(..modes.len())];
    let mode = all.unwrap_or(any);
    let mut service = with_backend(mode, side.backend(first));
    service.backends.clear();
    for last in 0..rng.u16(..4) {
        // Of another family or mode than its service.
        let family = if rng.u8(..3) == 0 {
            [V4, V6][rng.usize(..2)]
        } else {
            side
        };
        let other = modes[rng.usize(..modes.len())];
        let mode = if all.is_none() && rng.u8(..4) == 0 {
            other
        } else {
            mode
        };
        // A reply of mode dnat has the service's family.
        let family = if mode == Mode::Dnat { side } else { family };
        let address = SocketAddr::new(family.backend(0).ip(), first + last);
        let backend = TargetBackend {
            mode,
            weight: 1,
            alive: true,
            held_back: 0,
            tunnel_source: None,
            group: Group(rng.u16(..2)),
        };
        service.backends.insert(address, backend);
    }
    let one_of = |rng: &mut Rng| rng.u8(..3) == 0;
    if one_of(rng) {
        service.on_empty = OnEmpty::Reject;
    }
    if one_of(rng) {
        service.affinity = [Affinity::Source, Affinity::Port][rng.usize(..2)];
    }
    if one_of(rng) {
        let client = [side.client(0).ip(), side.strange_client()][rng.usize(..2)];
        service.clients = BTreeMap::from([(whole(client), Group(1))]);
    }
    if one_of(rng) {
        service.tracking = Tracking::Full;
    }
    if rng.bool() {
        service.guard = guard(rng, side);
    }
    if protocol == Protocol::Udp && one_of(rng) {
        service.quic = Some(quic(&service)?);
    }
    Ok(service)
}

/// ACLs that refuse one client, and limits that no client reaches.
fn guard(rng: &mut Rng, side: Side) -> Guard {
    let limit = |rng: &mut Rng| [Rate::default(), NO_LIMIT][rng.usize(..2)];
    let guard = Guard {
        new_flows: limit(rng),
        source_new_flows: limit(rng),
        ..Guard::default()
    };
    if rng.bool() {
        Guard {
            deny: vec![whole(side.strange_client())],
            ..guard
        }
    } else {
        Guard {
            allow: vec![whole(side.client(0).ip())],
            ..guard
        }
    }
}

/// Connection ids that name the backends of a service by their order.
fn quic(service: &TargetService) -> Result<TargetQuic> {
    let config = Config::new(0, SERVER_ID, NONCE, None).map_err(|error| anyhow!("{error:?}"))?;
    let mut servers = BTreeMap::new();
    for (address, number) in service.backends.keys().zip(1..) {
        let key = config.key_of(ServiceId::NONE, &[number; SERVER_ID]);
        servers.insert(*address, vec![key.context("a server id of another length")?]);
    }
    Ok(TargetQuic {
        configs: vec![config],
        servers,
    })
}

/// A frame and the question about its packet.
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) frame: Frame,
}

/// A packet that its sender may have sent: a client, or the backend of a flow, one of `replies`.
pub(super) fn packet(rng: &mut Rng, replies: &[(SocketAddr, SocketAddr, Protocol)]) -> Asked {
    let side = FAMILIES[rng.usize(..2)];
    let protocol = [Protocol::Tcp, Protocol::Udp][rng.usize(..2)];
    let port = PORTS[rng.usize(..PORTS.len())];
    let client = match rng.u8(..12) {
        0 => side.vip(0).ip(),
        1 | 2 => side.strange_client(),
        3 => not_a_host(rng, side),
        _ => side.client(0).ip(),
    };
    let destination = match rng.u8(..8) {
        0 => side.snat(3000 + rng.u16(..20)),
        1 => SocketAddr::new(in_prefix(side, rng.u8(..16)), port),
        _ => side.vip(port),
    };
    let source = SocketAddr::new(client, 40_000 + rng.u16(..CLIENT_PORTS));
    let (source, destination, protocol) = match rng.u8(..6) {
        0 if !replies.is_empty() => replies[rng.usize(..replies.len())],
        _ => (source, destination, protocol),
    };
    let opens = protocol == Protocol::Tcp && rng.bool();
    let ttl = [64, 64, 64, 2, 1, 0][rng.usize(..6)];
    let (connection_id, payload) = match rng.u8(..3) {
        0 if protocol == Protocol::Udp => of_connection(rng),
        _ => (Vec::new(), vec![0; [0, 10, 400][rng.usize(..3)]]),
    };
    let frame = match protocol {
        Protocol::Tcp => Frame::tcp(source, destination, if opens { SYN } else { ACK }, ttl, &payload),
        Protocol::Udp => Frame::udp(source, destination, ttl, &payload),
    };
    let question = Question {
        source,
        destination,
        protocol,
        opens,
        ifindex: INGRESS,
        ttl,
        length: u16::try_from(frame.len() - 14).unwrap_or(u16::MAX),
        connection_id,
        outer: None,
    };
    if rng.u8(..8) == 0 {
        tunnelled(rng, question, &frame)
    } else {
        Asked { question, frame }
    }
}

/// The packet as another tier of balancers sends it on, or as somebody else does.
fn tunnelled(rng: &mut Rng, question: Question, packet: &Frame) -> Asked {
    let outer = FAMILIES[rng.usize(..2)];
    let source = [outer.nowhere(), outer.nowhere(), outer.strange_client()][rng.usize(..3)];
    let destination = [outer.snat(0).ip(), outer.snat(0).ip(), outer.vip(0).ip()][rng.usize(..3)];
    let (kind, tunnel) = [(OuterKind::Ipip, Tunnel::Ipip), (OuterKind::Gue, Tunnel::Gue1)][rng.usize(..2)];
    let frame = within(packet, source, destination, tunnel, 0)
        .set(5, 2)
        .set(11, 1);
    let outer = Outer {
        kind,
        source,
        destination,
    };
    Asked {
        question: Question {
            outer: Some(outer),
            ..question
        },
        frame,
    }
}

/// A connection id that may name a backend, and the payload that begins with it.
fn of_connection(rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let configuration = if rng.u8(..6) == 0 { 0x20 } else { 0 };
    let length = u8::try_from(SERVER_ID + NONCE).unwrap_or_default();
    let server = [rng.u8(1..5); SERVER_ID];
    let id = [&[configuration | length], &server[..], &[rng.u8(..); NONCE]].concat();
    let payload = if rng.bool() {
        [&[0x40], &id[..], &vec![0x5a; rng.usize(..40)]].concat()
    } else {
        let length = u8::try_from(id.len()).unwrap_or_default();
        [&[0xc0, 0, 0, 0, 1, length], &id[..], &[0x5a; 40]].concat()
    };
    (id, payload)
}

/// An address that is not of a host: some of these no packet may come from.
fn not_a_host(rng: &mut Rng, side: Side) -> IpAddr {
    if side.vip(0).is_ipv4() {
        let first = [0, 127, 224, 240][rng.usize(..4)];
        Ipv4Addr::new(first, 0, 0, 1).into()
    } else {
        [
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        ][rng.usize(..3)]
        .into()
    }
}

/// A packet that no question can be about, of a flow, a fragment, an error or broken: it changes what the next explanation reads.
pub(super) fn disturbance(rng: &mut Rng, asked: &Asked, hostile: &[Case]) -> Frame {
    const FIN: u8 = 1;
    const RST: u8 = 4;
    let Question {
        source,
        destination,
        protocol,
        ..
    } = asked.question;
    let tcp = |flags| Frame::tcp(source, destination, flags, 64, b"");
    match (rng.u8(..8), protocol) {
        (0 | 1, Protocol::Tcp) => tcp(FIN | ACK),
        (2, Protocol::Tcp) => tcp(RST),
        (3, Protocol::Tcp) => tcp(SYN | ACK),
        (0..4, _) => {
            let datagram = Frame::udp(source, destination, 64, &[0x5a; 60]);
            let mut pieces = fragments::split(&datagram, rng.u32(..64));
            pieces.swap_remove(rng.usize(..pieces.len()))
        }
        (4 | 5, _) => {
            let quoted = Frame::udp(destination, source, 63, &[0x5a; 20]);
            Frame::unreachable(source, destination, 64, &quoted, 8)
        }
        _ => hostile[rng.usize(..hostile.len())].frame.clone(),
    }
}
