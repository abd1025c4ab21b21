//! What `lb monitor` costs: the usual program against the one that records packets, with filters that take nothing, a part, and all
//! that comes; each in the wrapper, and with live frames over a pair of devices.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, RingBuf};
use lb_common::{
    addr::{NetAddr, NetV4},
    backend::BackendId,
    map_names,
    monitor::{FILTER_BACKENDS, Filter},
    reason::{Action, Reason},
    service::{Mode, ServiceId},
};
use lb_tests::lane::Lane;

use crate::{
    REPEAT, ROUNDS, XDP_TX, frames,
    live::Wire,
    packets::{self, ACK, Address},
    setup::{Bench, MONITORED, Program, USUAL, Way, map_mut},
};

/// `--sample 1/N` of the case that has it.
const SAMPLE: u32 = 100;

/// A filter, and its name here.
type Case = (&'static str, Filter);

fn cases() -> [Case; 4] {
    let all = Filter {
        reasons: u64::MAX,
        allowance: u64::MAX,
        client: NetAddr::default(),
        client_mask: NetAddr::default(),
        sample: 1,
        service: ServiceId::NONE,
        backend_count: 0,
        backends: [BackendId::NONE; FILTER_BACKENDS],
        by_client: 0,
        pad: 0,
    };
    let drops = Reason::ALL
        .iter()
        .filter(|reason| matches!(reason.action(), Action::Drop | Action::Aborted));
    let drops = drops.fold(0, |drops, reason| drops | 1 << *reason as u32);
    [
        (
            "drops, of which there are none",
            Filter {
                reasons: drops,
                ..all
            },
        ),
        (
            "another service",
            Filter {
                service: ServiceId(77),
                ..all
            },
        ),
        (
            "1 of 100",
            Filter {
                sample: SAMPLE,
                ..all
            },
        ),
        ("all, beyond the rate", Filter { allowance: 0, ..all }),
    ]
}

/// Measures and prints all cases.
pub(crate) fn monitor() -> Result<()> {
    println!(
        "\n{:<10} {:<32} {:>18}  {:>18}",
        "monitor", "filter", "program: ns, more", "on veth: ns, x"
    );
    for (name, mode) in [("l2dsr", Mode::L2dsr), ("ipip", Mode::Ipip), ("nat", Mode::Nat)] {
        let _lane = Lane::alone()?;
        let programs = in_wrapper(mode)?;
        let live = live(mode)?;
        let [(usual, on_veth), ..] = programs.iter().zip(&live).collect::<Vec<_>>()[..] else {
            continue;
        };
        let filters = std::iter::once("off").chain(cases().map(|(filter, _)| filter));
        for (filter, (ns, wire)) in filters.zip(programs.iter().zip(&live)) {
            println!(
                "{name:<10} {filter:<32} {ns:>10.1} {:>7.1}  {wire:>10.1} {:>7.3}",
                ns - usual,
                wire / on_veth
            );
        }
    }
    Ok(())
}

/// One flow of a service, through the program of an object.
fn bench(object: &str, mode: Mode) -> Result<Bench> {
    let mut bench = Bench::of::<NetV4>(object, 1, Way { mode, v6: false })?;
    bench.fill(&frames(&packets::clients::<NetV4>(1, NetV4::VIP), ACK))?;
    if mode == Mode::Nat {
        // Its first packet begins the flow, and its second one acknowledges.
        bench.fill(&frames(&packets::clients::<NetV4>(1, NetV4::VIP), packets::SYN))?;
        bench.run(Program::Lb, 1)?;
        let replies = bench.record_flows::<NetV4>()?;
        bench.fill(&frames(&replies, packets::SYN | ACK))?;
        bench.run(Program::Lb, 1)?;
        bench.fill(&frames(&packets::clients::<NetV4>(1, NetV4::VIP), ACK))?;
    }
    bench.run(Program::Lb, REPEAT)?;
    Ok(bench)
}

/// Nanoseconds of a packet in the wrapper: of the usual program, and of each case. The least of rounds in turn.
fn in_wrapper(mode: Mode) -> Result<Vec<f64>> {
    let (mut usual, mut monitored) = (bench(USUAL, mode)?, bench(MONITORED, mode)?);
    let mut least = vec![f64::INFINITY; 1 + cases().len()];
    for _ in 0..ROUNDS {
        let mut times = vec![run(&mut usual)?];
        for (_, filter) in cases() {
            begin(&mut monitored, filter)?;
            times.push(run(&mut monitored)?);
        }
        keep_least(&mut least, &times);
    }
    Ok(least)
}

fn run(bench: &mut Bench) -> Result<f64> {
    let (ns, action) = bench.run(Program::Lb, REPEAT)?;
    ensure!(action == XDP_TX, "ended with XDP action {action}");
    Ok(ns)
}

/// The same of live frames from end to end.
fn live(mode: Mode) -> Result<Vec<f64>> {
    let mut wires = [
        Wire::new(bench(USUAL, mode)?)?,
        Wire::new(bench(MONITORED, mode)?)?,
    ];
    for wire in &mut wires {
        wire.run_lb()?;
    }
    let [usual, monitored] = &mut wires;
    let mut least = vec![f64::INFINITY; 1 + cases().len()];
    for _ in 0..ROUNDS {
        let mut times = vec![usual.send(REPEAT)?];
        for (_, filter) in cases() {
            begin(&mut monitored.bench, filter)?;
            times.push(monitored.send(REPEAT)?);
        }
        keep_least(&mut least, &times);
    }
    Ok(least)
}

fn keep_least(least: &mut [f64], times: &[f64]) {
    for (least, time) in least.iter_mut().zip(times) {
        *least = least.min(*time);
    }
}

/// Sets a filter, and makes room for records.
fn begin(bench: &mut Bench, filter: Filter) -> Result<()> {
    let mut map: Array<_, Filter> = map_mut(&mut bench.lb, map_names::MONITOR_FILTER)?.try_into()?;
    map.set(0, filter, 0)?;
    let records = bench
        .lb
        .map_mut(map_names::MONITOR_RECORDS)
        .context("no ring buffer")?;
    let mut records: RingBuf<&mut MapData> = records.try_into()?;
    while records.next().is_some() {}
    Ok(())
}
