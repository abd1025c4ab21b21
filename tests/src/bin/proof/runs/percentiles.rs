//! The whole spectrum of latencies at one rate for all ways: half of what the slowest of them can forward.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use lb_tests::report::{
    document::Report,
    plot::{Axis, Line, Plot, Scale},
    samples::{Samples, Unit},
    table::Table,
};

use super::latency::in_turn;
use crate::{context::Context, load::Load, ways::Way, world::World};

/// Connections.
const CONNECTIONS: usize = 64;
/// Percentiles of the table.
const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "p99.99"];
/// Ways of a quick run.
const QUICK: [Way; 1] = [Way::Ipip];

/// What was measured of a way.
#[derive(Default)]
struct Measured {
    latencies: [Samples; PERCENTILES.len()],
    spectra: Vec<Vec<(f64, f64)>>,
}

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let ways = Way::wanted(context, &QUICK)?;
    let worlds = World::start_all(&ways, context)?;
    let closed = Load::new(CONNECTIONS, Duration::from_millis(context.pick(100, 1_000)));
    let mut report = Report::default();
    let mut most = BTreeMap::new();
    for world in &worlds {
        context.progress(&format!("the most that {} takes", world.way.name()));
        most.insert(world.way, world.load(&closed, &mut report).per_second());
    }
    let slowest = most.values().copied().fold(f64::INFINITY, f64::min);
    // Whole thousands, so that figures of two runs are of one rate.
    let rate = context.pick(1_000.0, (slowest / 2.0 / 1_000.0).floor().max(1.0) * 1_000.0);
    report.about(format!(
        "{} requests a second over {CONNECTIONS} kept connections, the same for all ways: half of what the slowest of them takes. Each \
         request has its time beforehand and its latency counts from then, so a stall shows in all requests that it delays. The client, \
         the balancer and two nginx are namespaces of one machine, whose processors they share.",
        Unit::Count.show(rate)
    ));
    let open = Load {
        rate: Some(rate),
        time: Duration::from_millis(context.pick(200, 2_000)),
        ..closed
    };
    let mut all: BTreeMap<Way, Measured> = BTreeMap::new();
    for turn in 0..context.turns() {
        context.progress(&format!("turn {} of {}", turn + 1, context.turns()));
        for world in in_turn(&worlds, turn) {
            let loaded = world.load(&open, &mut report);
            let measured = all.entry(world.way).or_default();
            for (samples, name) in measured.latencies.iter_mut().zip(PERCENTILES) {
                samples.push(loaded.latency(name));
            }
            measured.spectra.push(loaded.spectrum());
        }
    }
    report.check("all other requests were answered", None);
    report.table(table(&ways, &all, &most));
    let line = |way: &Way| {
        Some(Line {
            name: way.short().to_owned(),
            points: middle(&all.get(way)?.spectra),
        })
    };
    report.plot(Plot::lines(
        "",
        &format!(
            "Latency at {} requests a second, open loop",
            Unit::Count.show(rate)
        ),
        Axis::new(
            "share of requests that took no longer",
            Unit::Percent,
            Scale::Quantile,
        ),
        Axis::new("latency", Unit::Seconds, Scale::Log),
        ways.iter().filter_map(line).collect(),
    ));
    Ok(report)
}

fn table(ways: &[Way], all: &BTreeMap<Way, Measured>, most: &BTreeMap<Way, f64>) -> Table {
    let mut columns: Vec<(&str, Unit)> = PERCENTILES.map(|name| (name, Unit::Seconds)).into();
    columns.push(("p99 of direct", Unit::Ratio));
    columns.push(("most requests/s", Unit::Count));
    let mut table = Table::new("Percentiles", "way", &columns);
    for way in ways {
        let Some(measured) = all.get(way) else { continue };
        let mut cells: Vec<Option<Samples>> = measured.latencies.iter().cloned().map(Some).collect();
        let direct = all.get(&way.reference());
        cells.push(direct.map(|direct| measured.latencies[2].per(&direct.latencies[2])));
        cells.push(most.get(way).map(|most| Samples::one(*most)));
        table.row(way.name(), cells);
    }
    table
}

/// The spectrum of the turn whose p99 is the median: one that was seen, not a mixture.
fn middle(spectra: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let p99 = |spectrum: &Vec<(f64, f64)>| {
        let at = spectrum.iter().find(|(quantile, _)| *quantile >= 0.99);
        at.map_or(0.0, |(_, latency)| *latency)
    };
    let mut sorted: Vec<&Vec<(f64, f64)>> = spectra.iter().collect();
    sorted.sort_by(|a, b| p99(a).total_cmp(&p99(b)));
    sorted
        .get(sorted.len() / 2)
        .map(|spectrum| (*spectrum).clone())
        .unwrap_or_default()
}
