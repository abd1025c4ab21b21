//! Latency by connections: what a client waits for small answers that it asks for one after the other on each connection.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use lb_tests::report::{
    document::Report,
    plot::{Axis, Line, Plot, Scale},
    samples::{Samples, Unit},
    table::Table,
};

use crate::{
    context::Context,
    load::Load,
    targets::{self, Bound},
    ways::Way,
    world::World,
};

/// Connections.
const COUNTS: [usize; 5] = [100, 500, 1_000, 2_000, 10_000];
/// Of a quick run.
const FEW: [usize; 1] = [8];
/// Percentiles of the table. The plot has the third.
const PERCENTILES: [&str; 4] = ["p50", "p90", "p99", "p99.9"];
const P99: usize = 2;
/// Most that our p99 may be, of that of plain forwarding.
const MOST: f64 = 1.05;

/// What was measured of a way with a number of connections.
#[derive(Default)]
struct Measured {
    rate: Samples,
    latencies: [Samples; PERCENTILES.len()],
}

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let mut report = Report::new(
        "Small requests over kept connections, each of which sends again as soon as it has its answer, so the machine is busy all the \
         time and latency grows with the connections. The client, the balancer and two nginx are namespaces of one machine, whose \
         processors they share. A ratio is that to plain forwarding over the same machines in the same turn.",
    );
    let ways = Way::wanted(context, &Way::ALL)?;
    let worlds = World::start_all(&ways, context)?;
    let counts = context.pick(&FEW[..], &COUNTS[..]);
    let time = Duration::from_millis(context.pick(100, 700));
    let mut all: BTreeMap<(usize, Way), Measured> = BTreeMap::new();
    for turn in 0..context.turns() {
        for count in counts {
            context.progress(&format!(
                "turn {} of {}, {count} connections",
                turn + 1,
                context.turns()
            ));
            for world in in_turn(&worlds, turn) {
                if world.way.most_connections().is_some_and(|most| most < *count) {
                    continue;
                }
                let loaded = world.load(&Load::new(*count, time), &mut report);
                let measured = all.entry((*count, world.way)).or_default();
                measured.rate.push(loaded.per_second());
                for (samples, name) in measured.latencies.iter_mut().zip(PERCENTILES) {
                    samples.push(loaded.latency(name));
                }
            }
        }
    }
    report.check("all other requests were answered", None);
    for count in counts {
        report.table(table(*count, &ways, &all));
    }
    report.plot(plot(counts, &ways, &all));
    let rate = (|way| Some(&all.get(&(1_000, way))?.rate), Unit::Count);
    targets::against_direct(&mut report, "requests-1000", &ways, rate, Bound::AtLeast(0.95));
    for (count, target) in COUNTS.iter().zip(targets::P99_BY_CONNECTIONS) {
        let p99 = (
            |way| Some(&all.get(&(*count, way))?.latencies[P99]),
            Unit::Seconds,
        );
        targets::against_direct(&mut report, target, &ways, p99, Bound::AtMost(MOST));
    }
    report.note("HAProxy is one process with two descriptors a connection, of which this machine allows 20,000: it is left out at 10,000.");
    Ok(report)
}

/// The ways in the order of a turn: forth and back, so that none always comes after the same one.
pub(super) fn in_turn(worlds: &[World], turn: usize) -> Vec<&World> {
    let mut order: Vec<&World> = worlds.iter().collect();
    if turn % 2 == 1 {
        order.reverse();
    }
    order
}

fn table(count: usize, ways: &[Way], all: &BTreeMap<(usize, Way), Measured>) -> Table {
    let mut columns: Vec<(&str, Unit)> = PERCENTILES.map(|name| (name, Unit::Seconds)).into();
    columns.push(("p99 of direct", Unit::Ratio));
    columns.push(("requests/s", Unit::Count));
    let title = format!("{} connections", Unit::Count.show(count as f64));
    let mut table = Table::new(title, "way", &columns);
    for way in ways {
        let Some(measured) = all.get(&(count, *way)) else {
            continue;
        };
        let reference = all.get(&(count, way.reference()));
        let mut cells: Vec<Option<Samples>> = measured.latencies.iter().cloned().map(Some).collect();
        cells.push(reference.map(|reference| measured.latencies[P99].per(&reference.latencies[P99])));
        cells.push(Some(measured.rate.clone()));
        table.row(way.name(), cells);
    }
    table
}

fn plot(counts: &[usize], ways: &[Way], all: &BTreeMap<(usize, Way), Measured>) -> Plot {
    let point = |count: &usize, way: &Way| {
        let measured = all.get(&(*count, *way))?;
        Some((*count as f64, measured.latencies[P99].median()))
    };
    let lines = ways.iter().map(|way| Line {
        name: way.short().to_owned(),
        points: counts.iter().filter_map(|count| point(count, way)).collect(),
    });
    Plot::lines(
        "",
        "p99 latency by connections, closed loop",
        Axis::new("connections", Unit::Count, Scale::Log),
        Axis::new("p99", Unit::Seconds, Scale::Log),
        lines.collect(),
    )
}
