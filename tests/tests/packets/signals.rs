//! What flows tell about their backends.

use anyhow::{Result, ensure};
use lb_common::counters::Signals;

use super::{
    ACK, FAMILIES, SYN,
    bench::{Bench, TX},
    build::Frame,
};

const RST: u8 = 4;

/// All that was told so far, of all backends.
fn told(bench: &Bench) -> Result<Signals> {
    let sum = bench
        .signals()?
        .into_values()
        .fold(Signals::default(), |sum, told| Signals {
            unanswered: sum.unanswered + told.unanswered,
            refused: sum.refused + told.refused,
            unreachable: sum.unreachable + told.unreachable,
        });
    Ok(sum)
}

/// Each packet, and what it adds: SYNs without answer, refused flows, errors.
#[test]
fn only_a_backend_that_fails_its_flows_is_told_on() -> Result<()> {
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
            ("it is repeated", 0, from_client(0, SYN), (1, 0, 0)),
            ("and again", 0, from_client(0, SYN), (1, 0, 0)),
            ("the answer", 0, from_backend(0, SYN | ACK), (0, 0, 0)),
            ("a SYN that crossed with it", 0, from_client(0, SYN), (0, 0, 0)),
            ("data", 0, from_client(0, ACK), (0, 0, 0)),
            ("a reset later on", 0, from_backend(0, RST | ACK), (0, 0, 0)),
            ("another flow's SYN", 1, from_client(1, SYN), (0, 0, 0)),
            ("is refused", 1, from_backend(1, RST | ACK), (0, 1, 0)),
            ("once", 1, from_backend(1, RST | ACK), (0, 0, 0)),
            ("a client's reset", 2, from_client(2, SYN), (0, 0, 0)),
            ("is nobody's fault", 2, from_client(2, RST), (0, 0, 0)),
            ("a flow that finds no way", 3, from_client(3, SYN), (0, 0, 0)),
            ("says a router", 3, error(3, SYN), (0, 0, 1)),
            (
                "too big is no failure",
                3,
                Frame::too_big(side.backend(0), side.snat(port + 3), &sent_on(3, SYN), 1400).backend_to_lb(),
                (0, 0, 0),
            ),
            (
                "nor is a client that is gone",
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
            let before = told(&bench)?;
            let (action, ..) = bench.run(&frame)?;
            ensure!(action == TX, "{name}: action {action}");
            let after = told(&bench)?;
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
