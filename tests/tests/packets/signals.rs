//! Passive signals of backends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use aya::{
    Pod,
    maps::{HashMap, Map},
};
use lb_common::{
    counters::Signals,
    flow::{FORWARD, NatFlowV4, NatFlowV6, TupleV4, TupleV6},
    limits::SYN_REPEAT_MILLIS,
    map_names,
};

use super::{
    ACK, FAMILIES, SYN,
    bench::{Bench, TX},
    build::Frame,
};

const RST: u8 = 4;

/// All signals so far, of all backends.
fn signals(bench: &Bench) -> Result<Signals> {
    let sum = bench
        .signals()?
        .into_values()
        .fold(Signals::default(), |sum, one| Signals {
            unanswered: sum.unanswered + one.unanswered,
            refused: sum.refused + one.refused,
            unreachable: sum.unreachable + one.unreachable,
        });
    Ok(sum)
}

/// Each packet, and the signals that it adds: SYNs without answer, refused flows, errors.
#[test]
fn only_failed_flows_of_a_backend_are_signalled() -> Result<()> {
    let bench = Bench::new()?;
    for (port, side) in [(3000, FAMILIES[0]), (3100, FAMILIES[1])] {
        let (vip, backend) = (side.vip(80), side.backend(8080));
        let from_client = |n: u16, flags| Frame::tcp(side.client(40_000 + n), vip, flags, 64, b"");
        let from_backend =
            |n: u16, flags| Frame::tcp(backend, side.snat(port + n), flags, 64, b"").backend_to_lb();
        let sent_on =
            |n: u16, flags| Frame::tcp(side.snat(port + n), backend, flags, 63, b"").lb_to_backend();
        let error = |n: u16, flags| {
            Frame::unreachable(side.backend(0), side.snat(port + n), 64, &sent_on(n, flags), 8)
                .backend_to_lb()
        };
        let cases = [
            ("a first SYN", 0, from_client(0, SYN), (0, 0, 0)),
            (
                "it is repeated before an answer can be there",
                0,
                from_client(0, SYN),
                (0, 0, 0),
            ),
            ("the answer", 0, from_backend(0, SYN | ACK), (0, 0, 0)),
            ("a SYN that crossed with it", 0, from_client(0, SYN), (0, 0, 0)),
            ("data", 0, from_client(0, ACK), (0, 0, 0)),
            ("a reset later on", 0, from_backend(0, RST | ACK), (0, 0, 0)),
            ("another flow's SYN", 1, from_client(1, SYN), (0, 0, 0)),
            ("is refused", 1, from_backend(1, RST | ACK), (0, 1, 0)),
            ("once", 1, from_backend(1, RST | ACK), (0, 0, 0)),
            ("a client's reset", 2, from_client(2, SYN), (0, 0, 0)),
            ("is no signal", 2, from_client(2, RST), (0, 0, 0)),
            ("a flow that finds no way", 3, from_client(3, SYN), (0, 0, 0)),
            ("says a router", 3, error(3, SYN), (0, 0, 1)),
            (
                "too big is no failure",
                3,
                Frame::too_big(side.backend(0), side.snat(port + 3), &sent_on(3, SYN), 1400).backend_to_lb(),
                (0, 0, 0),
            ),
            (
                "nor is a client that went away",
                3,
                Frame::unreachable(
                    side.client(0),
                    side.vip(0),
                    64,
                    &Frame::tcp(vip, side.client(40_003), ACK, 63, b""),
                    8,
                ),
                (0, 0, 0),
            ),
        ];
        for (name, n, frame, (unanswered, refused, unreachable)) in cases {
            bench.one_port(port + n)?;
            let before = signals(&bench)?;
            let (action, ..) = bench.run(&frame)?;
            ensure!(action == TX, "{name}: action {action}");
            let after = signals(&bench)?;
            let added = (
                after.unanswered - before.unanswered,
                after.refused - before.refused,
                after.unreachable - before.unreachable,
            );
            ensure!(
                added == (unanswered, refused, unreachable),
                "{name}, {vip}: {added:?}"
            );
        }
    }
    Ok(())
}

/// Forgets how long ago the SYNs of all flows are: more than a client waits before it repeats one.
fn wait_for_a_repetition(bench: &Bench) -> Result<()> {
    fn age<K: Pod, V: Pod>(map: Map, change: impl Fn(&mut V)) -> Result<()> {
        let mut flows: HashMap<_, K, V> = HashMap::try_from(map)?;
        for (tuple, mut flow) in flows.iter().collect::<Result<Vec<_>, _>>()? {
            change(&mut flow);
            flows.insert(tuple, flow, 0)?;
        }
        Ok(())
    }
    let earlier = |direction, handshake: &mut u32| {
        if direction == FORWARD {
            *handshake = handshake.wrapping_sub(SYN_REPEAT_MILLIS);
        }
    };
    age::<TupleV4, NatFlowV4>(bench.map(map_names::FLOWS_V4)?, |flow| {
        earlier(flow.direction, &mut flow.handshake)
    })?;
    age::<TupleV6, NatFlowV6>(bench.map(map_names::FLOWS_V6)?, |flow| {
        earlier(flow.direction, &mut flow.handshake)
    })
}

/// RFC 6298: a client waits for a second. One alone may have been refused for its own sake, or lie.
#[test]
fn a_repeated_syn_counts_after_a_timeout_and_from_several_clients() -> Result<()> {
    let bench = Bench::new()?;
    bench.ports(3000..=3999)?;
    for side in FAMILIES {
        let neighbour = |port| match side.client(port).ip() {
            IpAddr::V4(ip) => SocketAddr::from((Ipv4Addr::from_bits(ip.to_bits() ^ 1), port)),
            IpAddr::V6(ip) => SocketAddr::from((Ipv6Addr::from_bits(ip.to_bits() ^ 1), port)),
        };
        let one = |n: u16| Frame::tcp(side.client(41_000 + n), side.vip(80), SYN, 64, b"");
        let other = |n: u16| Frame::tcp(neighbour(41_000 + n), side.vip(80), SYN, 64, b"");
        for n in 0..20 {
            bench.run(&one(n))?;
            bench.run(&other(n))?;
        }
        let repeat = |frames: &[Frame]| -> Result<u64> {
            let before = signals(&bench)?.unanswered;
            for frame in frames {
                bench.run(frame)?;
            }
            Ok(signals(&bench)?.unanswered - before)
        };
        let all: Vec<Frame> = (0..20).flat_map(|n| [one(n), other(n)]).collect();
        wait_for_a_repetition(&bench)?;
        let alone: Vec<Frame> = (0..20).map(one).collect();
        ensure!(repeat(&alone)? == 0, "one client alone");
        ensure!(repeat(&[other(0)])? == 1, "a second client");
        wait_for_a_repetition(&bench)?;
        ensure!(repeat(&all)? >= 39, "several clients");
    }
    Ok(())
}
