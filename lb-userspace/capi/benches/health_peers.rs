//! Health checks compared with others, in turn within one run on loopback: ours, a checker of Go's standard library,
//! and HAProxy's; and calls of `lb_health.h` from C and Go. Real servers answer: nginx and dnsmasq. Prints only; needs
//! `cc`, `go`, `nginx`, `dnsmasq` and `haproxy` in `PATH`, which `cargo xtask bench health` provides.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

#[path = "health_peers/callers.rs"]
mod callers;
#[path = "health_peers/engine.rs"]
mod engine;
#[path = "health_peers/haproxy.rs"]
mod haproxy;
#[path = "health_peers/ours.rs"]
mod ours;
#[path = "health_peers/servers.rs"]
mod servers;

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use callers::Callers;
use ours::{Kind, On};
use servers::Servers;

/// Turns of each side. The least of each figure is printed, since other work on the machine only adds to it.
const TURNS: usize = 9;
/// Checks of a turn.
const CHECKS: u32 = 2_000;

/// Cost of a number of checks.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Nanoseconds of the clock for each check.
    clock: f64,
    /// Nanoseconds of the checking side's processors for each check.
    cpu: f64,
    /// Checks that failed, in percent.
    failed: f64,
}

/// A way to check.
struct Case {
    name: &'static str,
    kind: Kind,
    /// Go's name of it; it has no half-open checks.
    go: Option<&'static str>,
    refused: bool,
}

const CASES: [Case; 9] = [
    case("tcp, refused", Kind::Tcp, Some("tcp"), true),
    case("tcp", Kind::Tcp, Some("tcp"), false),
    case("tcp half-open", Kind::HalfOpen, None, false),
    case("http, refused", Kind::HttpNew, Some("http-new"), true),
    case("http, new connection", Kind::HttpNew, Some("http-new"), false),
    case("http, kept connection", Kind::HttpKept, Some("http-kept"), false),
    case("dns, refused", Kind::Dns, Some("dns"), true),
    case("dns", Kind::Dns, Some("dns"), false),
    case("dns, no such name", Kind::DnsMissing, None, false),
];

const fn case(name: &'static str, kind: Kind, go: Option<&'static str>, refused: bool) -> Case {
    Case {
        name,
        kind,
        go,
        refused,
    }
}

impl Case {
    fn address(&self, servers: &Servers) -> SocketAddr {
        match self.kind {
            _ if self.refused => servers.refused,
            Kind::Tcp | Kind::HalfOpen | Kind::HttpNew | Kind::HttpKept => servers.web,
            Kind::Dns | Kind::DnsMissing => servers.dns,
        }
    }

    /// Checks of all sides in turns: ours in each of these ways, and Go's where it has them.
    fn measure<const WAYS: usize>(
        &self,
        servers: &Servers,
        callers: &Callers,
        concurrent: u32,
        ways: [On; WAYS],
    ) -> Result<([Cost; WAYS], Option<Cost>)> {
        let address = self.address(servers);
        let fails = self.refused || matches!(self.kind, Kind::DnsMissing);
        let right = if fails { 100.0 } else { 0.0 };
        let (mut ours, mut go) = (ways.map(|_| Vec::new()), Vec::new());
        for _ in 0..TURNS {
            for (on, costs) in ways.into_iter().zip(&mut ours) {
                let cost = ours::measure(self.kind, address, CHECKS, concurrent, on)?;
                ensure!(
                    cost.failed == right,
                    "{}: {} % of ours failed",
                    self.name,
                    cost.failed
                );
                costs.push(cost);
            }
            if let Some(kind) = self.go {
                let cost = callers.go_checks(kind, address, CHECKS, concurrent)?;
                ensure!(
                    cost.failed == right,
                    "{}: {} % of Go's failed",
                    self.name,
                    cost.failed
                );
                go.push(cost);
            }
        }
        Ok((ours.map(|costs| least(&costs).unwrap_or_default()), least(&go)))
    }
}

/// The least of each figure for itself; `None` of no turns.
fn least(costs: &[Cost]) -> Option<Cost> {
    costs.iter().copied().reduce(|one, other| Cost {
        clock: one.clock.min(other.clock),
        cpu: one.cpu.min(other.cpu),
        failed: one.failed.max(other.failed),
    })
}

/// Microseconds of nanoseconds.
fn micro(nanos: f64) -> String {
    format!("{:.1}", nanos / 1000.0)
}

fn single_checks(servers: &Servers, callers: &Callers) -> Result<()> {
    println!("\nOne check after the other, µs a check: the least of {TURNS} turns of {CHECKS}\n");
    println!("| check | ours | ours, CPU | Go | Go, CPU | ours / Go | CPU |\n|---|---|---|---|---|---|---|");
    for case in &CASES {
        let ([ours], go) = case.measure(servers, callers, 1, [On::One])?;
        let [clock, cpu, ratio, cpu_ratio] = go.map_or_else(Default::default, |go| {
            [
                micro(go.clock),
                micro(go.cpu),
                format!("{:.2}", ours.clock / go.clock),
                format!("{:.2}", ours.cpu / go.cpu),
            ]
        });
        println!(
            "| {} | {} | {} | {clock} | {cpu} | {ratio} | {cpu_ratio} |",
            case.name,
            micro(ours.clock),
            micro(ours.cpu)
        );
    }
    Ok(())
}

fn concurrent_checks(servers: &Servers, callers: &Callers) -> Result<()> {
    println!(
        "\nRounds of concurrent checks, µs of the clock a check: ours on one thread and on all processors, Go on all\n"
    );
    println!(
        "| check | at once | ours, one thread | ours | Go | ours / Go | CPU: ours, one thread | ours | Go |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
    for case in CASES
        .iter()
        .filter(|case| matches!(case.kind, Kind::Tcp | Kind::HttpKept))
    {
        for concurrent in [1, 10, 100, 1_000] {
            let ([one, ours], go) = case.measure(servers, callers, concurrent, [On::One, On::All])?;
            let go = go.unwrap_or_default();
            println!(
                "| {} | {concurrent} | {} | {} | {} | {:.2} | {} | {} | {} |",
                case.name,
                micro(one.clock),
                micro(ours.clock),
                micro(go.clock),
                ours.clock / go.clock,
                micro(one.cpu),
                micro(ours.cpu),
                micro(go.cpu)
            );
        }
    }
    Ok(())
}

fn rates(servers: &Servers) -> Result<()> {
    println!(
        "\n1,000 targets, each checked as often as it can be: checks a second of one processor's time\n"
    );
    println!("| checks | µs of CPU a check | checks a second per core |\n|---|---|---|");
    let mut rows = Vec::new();
    for kind in [Kind::HalfOpen, Kind::Tcp, Kind::HttpKept] {
        rows.push((kind.words(), engine::measure(kind, servers.web)?));
    }
    for (words, http) in [("HAProxy, tcp", false), ("HAProxy, http", true)] {
        rows.push((words, haproxy::measure(http, servers.web)?));
    }
    for (words, cpu) in rows {
        println!("| {words} | {} | {:.0} |", micro(cpu), 1e9 / cpu);
    }
    Ok(())
}

fn main() -> Result<()> {
    let servers = Servers::start()?;
    let callers = Callers::build()?;
    callers.try_example(&servers)?;
    single_checks(&servers, &callers)?;
    concurrent_checks(&servers, &callers)?;
    rates(&servers)?;
    println!("\nCalls of lb_health.h on a running monitor of 1,000 targets, ns a call\n");
    println!("| call | from C | from Go |\n|---|---|---|");
    for (name, c, go) in callers.calls(servers.refused)? {
        println!("| {name} | {c} | {} |", go.unwrap_or_default());
    }
    Ok(())
}
