//! `lb explain` and the program agree: random packets to random services have the reason that an explanation predicts.
//! `LB_EXPLAIN_PACKETS` sets the number for each set of services, `LB_EXPLAIN_SEED` the seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use aya::maps::Array;
use fastrand::Rng;
use lb_common::{
    backend::{ALIVE, Backend, IN_USE},
    map_names,
    reason::Reason,
    service::Mode,
};
use lb_tests::frames;
use lb_userspace::{
    control::ControlView,
    explain::{Explanation, Question, explain},
    plan::{Target, TargetBackend, TargetService, groups::Group},
    state::{
        guard::{Guard, Prefix},
        service::{Affinity, OnEmpty, Protocol, ServiceKey, Tracking},
    },
};

use super::{
    ACK, FAMILIES, SYN,
    bench::{self, Bench, INGRESS, with_backend},
    build::{Frame, Side, V4, V6},
    fuzz::setting,
};

/// Sets of services, each of which is programmed afresh.
const SETS: u64 = 4;
/// Packets to each.
const PACKETS: u64 = 1_000;
/// Ports of services: TCP and UDP each, some in vain.
const PORTS: [u16; 6] = [80, 81, 82, 83, 84, 85];
/// Clients' ports in use, so that flows are met again.
const CLIENT_PORTS: u16 = 12;
/// Ports of source NAT, more than there are flows.
const SNAT: std::ops::RangeInclusive<u16> = 3000..=5999;
/// Bytes of a packet that fit the way to a backend with a small MTU.
const SMALL_MTU: u16 = 300;
/// Most backends in use.
const BACKENDS: u32 = 128;
/// Reasons that the packets of all sets must reach.
const REACHED: [Reason; 11] = [
    Reason::SentBack,
    Reason::NotOurs,
    Reason::TooBigAnswered,
    Reason::NoBackend,
    Reason::RejectedReset,
    Reason::RejectedUnreachable,
    Reason::NoFlowReset,
    Reason::TtlExpired,
    Reason::MartianSource,
    Reason::ClientDenied,
    Reason::ModeMissing,
];

#[test]
fn random_packets_have_the_reason_that_is_explained() -> Result<()> {
    let count = setting("LB_EXPLAIN_PACKETS", PACKETS)?;
    let seed = setting("LB_EXPLAIN_SEED", 3)?;
    let mut met = BTreeSet::new();
    for set in 0..SETS {
        let mut rng = Rng::with_seed(seed + set);
        one_set(&mut rng, count, &mut met).with_context(|| format!("set {set} of seed {seed}"))?;
    }
    let missed: Vec<_> = REACHED.iter().filter(|reason| !met.contains(*reason)).collect();
    ensure!(missed.is_empty(), "never met: {missed:?}");
    Ok(())
}

fn one_set(rng: &mut Rng, count: u64, met: &mut BTreeSet<Reason>) -> Result<()> {
    let first = target(rng);
    // Some backends drain, so that slots change hands and older flows are looked up.
    let mut second = first.clone();
    for service in second.services.values_mut() {
        let mut changed = TargetService::clone(service);
        for backend in changed.backends.values_mut() {
            backend.weight = backend.weight.min(u32::from(rng.u8(..3) > 0));
        }
        *service = changed.into();
    }
    let view = view(&second);
    let bench = Bench::of_each(vec![first, second])?;
    bench.ports(SNAT)?;
    prepare(&bench, rng)?;
    let mut counted = bench.counted()?;
    let mut replies = Vec::new();
    for number in 0..count {
        let (question, frame) = packet(rng, &replies);
        let explained = explain(&question, bench.tables(), &view)?;
        let (_, output) = bench.many(|runner| {
            let (action, output) = runner.run(frame.bytes())?;
            Ok((action, output.to_vec()))
        })?;
        let after = bench.counted()?;
        let reason = after.iter().find(|(reason, count)| counted[*reason] != **count);
        let reason = *reason.context("no packet was counted")?.0;
        ensure!(
            is_explained(&explained, reason),
            "packet {number} was counted {reason:?}, and explained as {:?}: {:#?}\n{question:#?}",
            explained.reason,
            explained.steps
        );
        met.insert(reason);
        counted = after;
        if reason == Reason::SentBack && explained.mode == Some(Mode::Nat) {
            let sent = frames::Frame::parse(&output).context("no whole packet was sent")?;
            replies.push((sent.destination, sent.source, question.protocol));
        }
    }
    Ok(())
}

/// What explanations take names from: there are none.
pub(crate) fn view(target: &Target) -> ControlView {
    ControlView {
        desired: Arc::default(),
        wanted: Arc::new(target.clone()),
        programmed: None,
        failure: None,
        lingering: Vec::new(),
        drain_deadlines: BTreeMap::new(),
        whole_at: BTreeMap::new(),
        last_apply_ok: true,
        applied: None,
        refused: None,
    }
}

/// Whether a packet with this reason is explained. Budgets and routes are not part of an explanation.
fn is_explained(explained: &Explanation, reason: Reason) -> bool {
    let over_budget = [
        (Reason::TooBigAnswered, Reason::TooBig),
        (Reason::RejectedUnreachable, Reason::UnreachableRate),
    ];
    explained.reason == reason || over_budget.contains(&(explained.reason, reason))
}

/// Has frames leave where they came in, some backends dead, and some behind a small MTU.
fn prepare(bench: &Bench, rng: &mut Rng) -> Result<()> {
    let mut records: Array<_, Backend> = Array::try_from(bench.map(map_names::BACKENDS)?)?;
    for id in 1..=BACKENDS {
        let mut record = records.get(&id, 0)?;
        if record.has(IN_USE) {
            bench::resolve(&mut record);
            if rng.u8(..6) == 0 {
                record.flags &= !ALIVE;
            }
            if rng.u8(..4) == 0 {
                record.mtu = SMALL_MTU;
            }
            records.set(id, record, 0)?;
        }
    }
    Ok(())
}

/// Services of every kind in random settings, on one address of each family, and a prefix beside it.
fn target(rng: &mut Rng) -> Target {
    let mut services = BTreeMap::new();
    for side in FAMILIES {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for port in PORTS.into_iter().filter(|port| *port != PORTS[5]) {
                let key = ServiceKey::new(side.vip(port).ip(), port, protocol);
                services.insert(key, service(rng, side, 9_000 + 10 * port).into());
            }
            let prefix = ServiceKey::of_prefix(around(side), PORTS[0], protocol);
            services.insert(prefix, service(rng, side, 9_005 + 10 * PORTS[0]).into());
        }
    }
    Target {
        services,
        ..bench::target(|_, _| {})
    }
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
fn service(rng: &mut Rng, side: Side, first: u16) -> TargetService {
    let modes = [Mode::Nat, Mode::Dnat, Mode::L2dsr, Mode::Ipip, Mode::Gue];
    let mode = modes[rng.usize(..modes.len())];
    let mut service = with_backend(mode, side.backend(first));
    service.backends.clear();
    for last in 0..rng.u16(..4) {
        // Of another family or mode than its service.
        let family = if rng.u8(..3) == 0 {
            [V4, V6][rng.usize(..2)]
        } else {
            side
        };
        let mode = if rng.u8(..4) == 0 {
            modes[rng.usize(..modes.len())]
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
        service.affinity = Affinity::Source;
    }
    if one_of(rng) {
        let client = [side.client(0).ip(), side.strange_client()][rng.usize(..2)];
        let near = Prefix::around(client, Prefix::most(client));
        service.clients = BTreeMap::from([(near, Group(1))]);
    }
    if one_of(rng) {
        service.tracking = Tracking::Full;
    }
    if one_of(rng) {
        let client = side.strange_client();
        service.guard = Guard {
            deny: vec![Prefix::around(client, if client.is_ipv4() { 32 } else { 128 })],
            ..Guard::default()
        };
    }
    service
}

/// A packet, and the question about it.
fn packet(rng: &mut Rng, replies: &[(SocketAddr, SocketAddr, Protocol)]) -> (Question, Frame) {
    let side = FAMILIES[rng.usize(..2)];
    let protocol = [Protocol::Tcp, Protocol::Udp][rng.usize(..2)];
    let port = PORTS[rng.usize(..PORTS.len())];
    let client = match rng.u8(..12) {
        0 => side.vip(0).ip(),
        1 => side.strange_client(),
        2 => not_a_host(rng, side),
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
    let payload = vec![0; [0, 10, 400][rng.usize(..3)]];
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
        connection_id: Vec::new(),
        outer: None,
    };
    (question, frame)
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
