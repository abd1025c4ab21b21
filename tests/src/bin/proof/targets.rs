//! The figures to reach, and how what was measured is held against them.

use lb_tests::report::{
    document::{Figure, Report},
    samples::{Samples, Unit},
};

use crate::ways::Way;

/// A figure to reach.
pub(crate) struct Target {
    /// By this name, results say which one they are about.
    pub(crate) name: &'static str,
    /// What is measured.
    pub(crate) what: &'static str,
    /// What the documents promise that this project starts from.
    pub(crate) theirs: &'static str,
    /// What we want to reach.
    pub(crate) goal: &'static str,
    /// Ours by the benchmark of health checks, if that measures it, and whether it was reached.
    pub(crate) of_health: Option<(&'static str, &'static str)>,
}

const fn target(name: &'static str, what: &'static str, theirs: &'static str, goal: &'static str) -> Target {
    Target {
        name,
        what,
        theirs,
        goal,
        of_health: None,
    }
}

/// As [`target`], measured by the benchmark of health checks.
const fn of_health(
    what: &'static str,
    theirs: &'static str,
    goal: &'static str,
    ours: &'static str,
    reached: &'static str,
) -> Target {
    Target {
        name: "",
        what,
        theirs,
        goal,
        of_health: Some((ours, reached)),
    }
}

/// p99 by connections, in the order of the counts of the run `latency` that have one.
pub(crate) const P99_BY_CONNECTIONS: [&str; 4] = ["p99-100", "p99-500", "p99-1000", "p99-2000"];

/// Figures with real sockets, beside other ways to forward.
pub(crate) const BESIDE_OTHERS: &[Target] = &[
    target(
        "requests-direct",
        "requests/s, 64 kept connections, in every mode",
        "",
        "at least 0.95 of plain forwarding",
    ),
    target(
        "connections-direct",
        "new connections/s, in every mode",
        "",
        "at least 0.95 of plain forwarding",
    ),
    target(
        "bulk-direct",
        "bits/s of large transfers, in every mode",
        "",
        "at least 0.95 of plain forwarding",
    ),
    target(
        "p99-direct",
        "p99 of requests, 64 kept connections, in every mode",
        "",
        "at most 1.05 of plain forwarding",
    ),
    target(
        "requests-nftables",
        "requests/s beside nftables DNAT",
        "",
        "ahead",
    ),
    target("p99-nftables", "p99 beside nftables DNAT", "", "below"),
    target(
        "connections-nftables",
        "new connections/s beside nftables DNAT",
        "",
        "ahead",
    ),
    target(
        "requests-proxies",
        "requests/s beside HAProxy and nginx",
        "",
        "at least 1.6 of theirs",
    ),
    target(
        "connections-proxies",
        "new connections/s beside HAProxy and nginx",
        "",
        "at least 1.3 of theirs",
    ),
    target("p99-proxies", "p99 beside HAProxy and nginx", "", "below"),
];

/// Figures that other documents promise of balancers.
pub(crate) const PROMISED: &[Target] = &[
    target(
        "p99-1000",
        "p99 at 1,000 connections",
        "8.73 ms (below 10 ms)",
        "at most 1.05 of plain forwarding",
    ),
    target(
        "p99-100",
        "p99 at 100 connections",
        "3.45 ms",
        "at most 1.05 of plain forwarding",
    ),
    target(
        "p99-500",
        "p99 at 500 connections",
        "5.12 ms",
        "at most 1.05 of plain forwarding",
    ),
    target(
        "p99-2000",
        "p99 at 2,000 connections",
        "15.21 ms",
        "at most 1.05 of plain forwarding",
    ),
    target(
        "throughput",
        "throughput",
        "8.52 GB/s on loopback (above 5 GB/s)",
        "at least 0.95 of plain forwarding",
    ),
    target(
        "requests-1000",
        "requests/s of a TCP forwarder, 1,000 connections",
        "45,000, with p50 1.2 ms and p99 8.5 ms",
        "at least 0.95 of plain forwarding",
    ),
    target(
        "memory-connection",
        "memory a connection",
        "8 KB",
        "at most 64 B a tracked flow, 0 untracked; 0 in the daemon",
    ),
    target(
        "detection",
        "detection of a failure",
        "5.2 s (below 5 s)",
        "below 300 ms with fast settings",
    ),
    target("recovery", "recovery", "10.2 s", "`rise` x interval + 50 ms"),
    target(
        "distribution-ring",
        "deviation from weights, of the ring",
        "below 2 %",
        "below 1 %",
    ),
    target(
        "distribution-flows",
        "deviation from weights, of 20,000 new flows",
        "below 2 %",
        "within 2 %",
    ),
    target(
        "active-connections",
        "active connections",
        "above 50,000",
        "above 1,000,000",
    ),
    target(
        "endpoint",
        "health endpoint",
        "above 10,000 requests/s, p50 below 1 ms, p99 below 10 ms",
        "the same or better",
    ),
    of_health(
        "circuit breaker: check; check and record",
        "below 1 µs; below 5 µs",
        "below 50 ns; below 100 ns",
        "to be measured",
        "",
    ),
    target(
        "cold-start",
        "cold start",
        "below 100 ms",
        "below 100 ms to READY",
    ),
    target(
        "warm-start",
        "warm start",
        "below 5 ms",
        "no packet lost in a take-over",
    ),
    target("memory-binary", "size of the program", "4 MB", "below 15 MB"),
    target(
        "memory-daemon",
        "resident memory of the daemon",
        "",
        "below 30 MB",
    ),
    of_health(
        "TCP check, refused",
        "42.3 µs; 88.3 µs (Go)",
        "at most 0.45 of Go",
        "8.7 µs; Go here 28.2 µs",
        "yes",
    ),
    of_health(
        "HTTP check, refused",
        "51.9 µs; about 95 µs (Go)",
        "at most 0.5 of Go",
        "14.8 µs; Go here 39.8 µs",
        "yes",
    ),
    of_health(
        "HTTP check, kept connection",
        "",
        "at most 12 µs of CPU",
        "9.9 µs of CPU",
        "yes",
    ),
    of_health(
        "DNS check",
        "56.0 µs, refused",
        "at most theirs, with a real answer",
        "33.0 µs",
        "yes",
    ),
    of_health(
        "creation of a monitor",
        "54.7 ns",
        "at most 50 ns",
        "25 ns",
        "yes",
    ),
    of_health(
        "`is_healthy`; `stats`",
        "about 100 ns",
        "at most 5 ns; 50 ns",
        "0.6 ns; 16 ns",
        "yes",
    ),
    of_health(
        "1, 10, 100 checks at a time, for each",
        "64.2, 10.2, 4.4 µs on 6 processors",
        "at most theirs",
        "8.5, 7.0, 4.8 µs",
        "no: two processors need 4.4 µs for the kernel's part of 100",
    ),
    of_health(
        "state of a monitor through C",
        "325 µs",
        "at most 100 ns",
        "28 ns",
        "yes",
    ),
];

/// What a ratio of ours to another one may be.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }

    /// The ratio that is nearer to breaking the bound.
    fn worse(self, a: f64, b: f64) -> f64 {
        match self {
            Self::AtLeast(_) => a.min(b),
            Self::AtMost(_) => a.max(b),
        }
    }
}

/// Holds each mode against plain forwarding in the same turn.
pub(crate) fn against_direct<'a>(
    report: &mut Report,
    target: &'static str,
    ways: &[Way],
    (samples, unit): (impl Fn(Way) -> Option<&'a Samples>, Unit),
    bound: Bound,
) {
    let ratio = |way: &Way| {
        let (ours, direct) = (samples(*way)?, samples(way.reference())?);
        Some((way.short(), ours.per(direct).median(), unit.show(ours.median())))
    };
    let of = |is_wanted: fn(&Way) -> bool| {
        let ways = ways.iter().filter(|way| is_wanted(way));
        ways.filter_map(ratio).collect::<Vec<_>>()
    };
    let peers = of(|way| way.is_peer());
    let peers = peers
        .iter()
        .map(|(name, ratio, absolute)| format!("{name} {} ({absolute})", Unit::Ratio.show(*ratio)));
    let peers: Vec<_> = peers.collect();
    add(
        report,
        target,
        &of(|way| way.mode().is_some()),
        peers.join(", "),
        bound,
    );
}

/// Holds each mode against those of these peers that were measured, by the worst ratio to any of them.
pub(crate) fn against_peers<'a>(
    report: &mut Report,
    target: &'static str,
    ways: &[Way],
    peers: &[Way],
    (samples, unit): (impl Fn(Way) -> Option<&'a Samples>, Unit),
    bound: Bound,
) {
    let peers: Vec<Way> = peers.iter().copied().filter(|peer| ways.contains(peer)).collect();
    let worst = |way: &Way| {
        let ours = samples(*way)?;
        let ratios = peers
            .iter()
            .filter_map(|peer| Some(ours.per(samples(*peer)?).median()));
        let ratio = ratios.reduce(|a, b| bound.worse(a, b))?;
        Some((way.short(), ratio, unit.show(ours.median())))
    };
    let modes = ways.iter().filter(|way| way.mode().is_some());
    let absolute = peers.iter().filter_map(|peer| {
        let median = samples(*peer)?.median();
        Some(format!("{} {}", peer.short(), unit.show(median)))
    });
    let absolute: Vec<_> = absolute.collect();
    add(
        report,
        target,
        &modes.filter_map(worst).collect::<Vec<_>>(),
        absolute.join(", "),
        bound,
    );
}

/// Adds a figure: names of modes, with their ratios and with what was measured.
fn add(report: &mut Report, target: &'static str, ours: &[(&str, f64, String)], peers: String, bound: Bound) {
    if ours.is_empty() {
        return;
    }
    let missed: Vec<_> = ours
        .iter()
        .filter(|(_, ratio, _)| !bound.holds(*ratio))
        .map(|(name, ..)| *name)
        .collect();
    let texts = ours
        .iter()
        .map(|(name, ratio, absolute)| format!("{name} {} ({absolute})", Unit::Ratio.show(*ratio)));
    report.figure(Figure {
        target,
        is_met: Some(missed.is_empty()),
        ours: texts.collect::<Vec<_>>().join(", "),
        peers,
        note: missed.join(", "),
    });
}
