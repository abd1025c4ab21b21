//! Nanoseconds per packet of the data plane, by BPF_PROG_TEST_RUN on one core.
//!
//! A wrapper writes a fresh packet of another flow for each run, from a table in random order, and calls the program
//! under test; the same wrapper around a program that only swaps addresses and sends is the floor. All figures
//! contain the floor. Modes that put headers before the frame have a floor of their own, which puts 20 bytes before it.
//! `lookup` is a bare look-up of the packet's flow in a table of the same size and content.
//!
//! Arguments: numbers of flows; `rare`, `live` or `monitor` for these parts alone; and beginnings of names, of which only those cases run.
#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of flows, ports and bytes here are far below the limits of their types"
)]

#[path = "dataplane/batch.rs"]
mod batch;
#[path = "dataplane/live.rs"]
mod live;
#[path = "dataplane/monitor.rs"]
mod monitor;
#[path = "dataplane/packets.rs"]
mod packets;
#[path = "dataplane/quic.rs"]
mod quic;
#[path = "dataplane/rare.rs"]
mod rare;
#[path = "dataplane/setup.rs"]
mod setup;

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use lb_common::{
    addr::{NetV4, NetV6},
    flow::Tuple,
    service::Mode,
};
use lb_tests::lane::Lane;
use packets::{ACK, Address, Frame, SYN};
use setup::{Bench, Program, Way};

/// Rounds of which the median counts.
const ROUNDS: usize = 9;
/// Packets of one round.
const REPEAT: u32 = 1 << 20;
/// Flows known, unless numbers are given; powers of two.
const FLOWS: [u32; 4] = [1, 1 << 10, 1 << 16, 1 << 20];
/// The argument for real devices only.
const LIVE: &str = "live";
/// The argument for what a monitor costs only.
const MONITOR: &str = "monitor";
/// The argument for rare packets only.
const RARE: &str = "rare";
/// How often flows are opened that found no memory.
const ATTEMPTS: usize = 16;

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

fn main() -> Result<()> {
    print_machine()?;
    setup::pin_to_one_core()?;
    let given: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    ensure!(
        given.iter().all(|flows| flows.is_power_of_two()),
        "numbers of flows are powers of two"
    );
    if std::env::args().any(|word| word == LIVE) {
        return live::live(&given);
    }
    if std::env::args().any(|word| word == MONITOR) {
        return monitor::monitor();
    }
    println!(
        "{:<26} {:>6} {:>9} {:>8} {:>9}",
        "case", "family", "flows", "ns", "x floor"
    );
    if std::env::args().any(|word| word == RARE) {
        rare::rare::<NetV4>()?;
        return rare::rare::<NetV6>();
    }
    let flows = if given.is_empty() { &FLOWS[..] } else { &given };
    for &flows in flows {
        family::<NetV4>(flows)?;
        family::<NetV6>(flows)?;
        untranslated::<NetV4>(flows)?;
        untranslated::<NetV6>(flows)?;
    }
    rare::rare::<NetV4>()?;
    rare::rare::<NetV6>()?;
    if is_asked(LIVE) {
        live::live(&given)?;
    }
    if is_asked(MONITOR) {
        monitor::monitor()?;
    }
    Ok(())
}

/// Whether a case is to run: all are, unless the command line has beginnings of names.
fn is_asked(case: &str) -> bool {
    let mut names = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--") && word != RARE && word.parse::<u32>().is_err())
        .peekable();
    names.peek().is_none() || names.any(|name| case.starts_with(&name))
}

/// All cases of a family with `flows` flows.
fn family<A: Address>(flows: u32) -> Result<()> {
    if !is_asked("nat") && !is_asked("not ours") {
        return Ok(());
    }
    let way = Way {
        mode: Mode::Nat,
        v6: A::VIP.is_ipv6(),
    };
    // Each part takes the lane alone: all together would hold it too long.
    let _lane = Lane::alone()?;
    let mut bench = Bench::new::<A>(flows, way)?;
    let mut clients = packets::clients::<A>(flows, A::VIP);

    bench.fill(&frames(&clients, SYN))?;
    let opening = (flows > 1).then(|| opening(&mut bench, flows)).transpose()?;
    // Repeat packets for which the kernel's allocator had no memory in time, as clients do.
    let mut replies = Vec::new();
    for _ in 0..ATTEMPTS {
        bench.run(Program::Lb, flows)?;
        replies = bench.record_flows::<A>()?;
        if replies.len() == clients.len() {
            break;
        }
    }
    ensure!(
        replies.len() == clients.len(),
        "{} flows of {flows} are known",
        replies.len()
    );

    // Until a client has acknowledged the SYN-ACK, each packet of its flow is looked at closely.
    bench.fill(&frames(&replies, SYN | ACK))?;
    bench.run(Program::Lb, flows)?;
    packets::shuffle(&mut clients);
    bench.fill(&frames(&clients, ACK))?;
    bench.run(Program::Lb, REPEAT.max(flows))?;
    let [pass, floor, lookup, known] = measure(
        &mut bench,
        [
            (Program::Pass, XDP_PASS),
            (Program::Swap, XDP_TX),
            (Program::Lookup(A::NAME), XDP_TX),
            (Program::Lb, XDP_TX),
        ],
    )?;
    bench.fill(&frames(&replies, ACK))?;
    bench.run(Program::Lb, REPEAT.max(flows))?;
    let [reply_lookup, reply] = measure(
        &mut bench,
        [(Program::Lookup(A::NAME), XDP_TX), (Program::Lb, XDP_TX)],
    )?;
    bench.fill(&frames(&packets::clients::<A>(flows, A::OTHER), ACK))?;
    let [other] = measure(&mut bench, [(Program::Lb, XDP_PASS)])?;
    bench.have_dnat::<A>()?;
    let [beside_dnat] = measure(&mut bench, [(Program::Lb, XDP_PASS)])?;

    let print = |case: &str, ns: f64| {
        println!(
            "{case:<26} {:>6} {flows:>9} {ns:>8.1} {:>9.2}",
            A::NAME,
            ns / floor
        );
    };
    println!();
    print("empty program", pass);
    print("swap, XDP_TX (floor)", floor);
    print("lookup, forward", lookup);
    print("nat, forward", known);
    print("lookup, reply", reply_lookup);
    print("nat, reply", reply);
    if let Some(ns) = opening {
        print("nat, new flows", ns);
    }
    print("not ours", other);
    print("not ours, beside dnat", beside_dnat);
    Ok(())
}

/// Modes that record no flow in a stable slot: packets of known flows, and SYNs of new ones. `in 4`, `in 6`: the family
/// of the backends.
fn untranslated<A: Address>(flows: u32) -> Result<()> {
    let own = A::VIP.is_ipv6();
    let ways = [
        ("l2dsr", Mode::L2dsr, own),
        ("dnat", Mode::Dnat, own),
        ("ipip in 4", Mode::Ipip, false),
        ("ipip in 6", Mode::Ipip, true),
        ("gue in 4", Mode::Gue, false),
        ("gue in 6", Mode::Gue, true),
    ];
    println!();
    for (name, mode, v6) in ways.into_iter().filter(|(name, ..)| is_asked(name)) {
        let way = Way { mode, v6 };
        let _lane = Lane::alone()?;
        let mut bench = Bench::new::<A>(flows, way)?;
        let mut clients = packets::clients::<A>(flows, A::VIP);
        packets::shuffle(&mut clients);
        let floor = if way.grows() { Program::Push } else { Program::Swap };
        for (what, flags) in [("known", ACK), ("SYNs", SYN)] {
            bench.fill(&frames(&clients, flags))?;
            bench.run(Program::Lb, REPEAT.max(flows))?;
            let [floor, ns] = measure(&mut bench, [(floor, XDP_TX), (Program::Lb, XDP_TX)])?;
            println!(
                "{:<26} {:>6} {flows:>9} {ns:>8.1} {:>9.2}  floor {floor:.1}",
                format!("{name}, {what}"),
                A::NAME,
                ns / floor
            );
        }
    }
    Ok(())
}

/// Opens all flows; the median of as many parts as there are rounds elsewhere.
fn opening(bench: &mut Bench, flows: u32) -> Result<f64> {
    let mut parts = Vec::new();
    for _ in 0..8 {
        parts.push(bench.run(Program::Lb, flows / 8)?.0);
    }
    Ok(median(parts))
}

/// The medians of programs that run in turn, each on the packets there are. Each must end with its verdict.
fn measure<const N: usize>(bench: &mut Bench, programs: [(Program, u32); N]) -> Result<[f64; N]> {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for ((program, verdict), times) in programs.iter().zip(&mut times) {
            let (ns, got) = bench.run(*program, REPEAT)?;
            ensure!(
                got == *verdict,
                "{program:?} ended with XDP action {got}, not {verdict}"
            );
            times.push(ns);
        }
    }
    Ok(times.map(median))
}

fn frames<A: Address>(tuples: &[Tuple<A>], flags: u8) -> Vec<Frame> {
    tuples.iter().map(|tuple| A::frame(tuple, flags)).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print_machine() -> Result<()> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let mut models = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = models.next().map_or("unknown CPU", |(_, name)| name);
    let cpus = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    if kernel.is_empty() {
        bail!("the kernel has no release");
    }
    println!("{cpus} x {model}, Linux {}, one core used\n", kernel.trim());
    Ok(())
}
