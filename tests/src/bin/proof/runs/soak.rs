//! Mixed traffic and random changes, round after round. After each round everything is put back, and the daemon and its maps are
//! looked at: descriptors, threads and entries must be what they were after the first round, and memory may not go on growing.

mod changes;
mod look;

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_tests::report::{
    document::Report,
    plot::{Axis, Line, Plot, Scale},
    samples::{Samples, Unit},
    table::Table,
};

use self::{changes::Rig, look::Look};
use crate::context::Context;

/// Seconds that rounds go on for; `LB_SOAK_SECONDS` has another number.
const SECONDS: u64 = 90;
const QUICK_SECONDS: u64 = 4;
/// Length of a round, without what it takes until all is quiet.
const ROUND: Duration = Duration::from_secs(10);
const QUICK_ROUND: Duration = Duration::from_millis(800);
/// Rounds at least: memory is compared over halves.
const LEAST_ROUNDS: usize = 4;

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let mut report = Report::new(
        "Services of modes `nat` and `dnat`, TCP and UDP, in both families, with checks every 50 ms; new connections, kept connections, \
         datagrams, scrapes, commands, and a random change of services and backends every 30 ms. After each round everything is put \
         back, flows run out, and the daemon is looked at. `LB_SOAK_SECONDS=3600` makes it an hour; `LB_SOAK_SEED` repeats a run.",
    );
    let seconds = number("LB_SOAK_SECONDS")?.unwrap_or(context.pick(QUICK_SECONDS, SECONDS));
    let seed = number("LB_SOAK_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let round = context.pick(QUICK_ROUND, ROUND);
    let mut rig = Rig::start(seed)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let begun = Instant::now();
    let mut looks: Vec<Look> = Vec::new();
    while looks.len() < LEAST_ROUNDS || Instant::now() < end {
        context.progress(&format!("round {}, seed {seed}", looks.len() + 1));
        rig.round(round)?;
        looks.push(Look::at_rest(&rig.site.daemon, looks.first(), begun)?);
    }
    add(&mut report, &rig, &looks, seed);
    Ok(report)
}

fn number(variable: &str) -> Result<Option<u64>> {
    let Some(text) = env::var_os(variable) else {
        return Ok(None);
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    Ok(Some(number.with_context(|| format!("{variable} is no number"))?))
}

fn add(report: &mut Report, rig: &Rig, looks: &[Look], seed: u64) {
    let columns = [
        ("daemon", Unit::Bytes),
        ("descriptors", Unit::Count),
        ("threads", Unit::Count),
        ("map entries", Unit::Count),
        ("checks so far", Unit::Count),
    ];
    let mut table = Table::new("The daemon at rest", "round", &columns);
    for (number, look) in (1..).zip(looks) {
        // Of a long run the begin and each hundredth round.
        if number <= 10 || number % 100 == 0 || number == looks.len() {
            let entries = look.entries.values().sum::<f64>();
            let cells = [
                look.memory,
                look.descriptors as f64,
                look.threads as f64,
                entries,
                look.checks,
            ];
            table.row(number.to_string(), cells.map(|value| Some(Samples::one(value))));
        }
    }
    report.table(table);
    let mut done = Table::new("What was done", "what", &[("number", Unit::Count)]);
    for (what, count) in rig.done() {
        done.row(what, [Some(Samples::one(count))]);
    }
    report.table(done);
    if let (Some(first), Some(last)) = (looks.first(), looks.last()) {
        report.check(
            "as many descriptors as after the first round",
            last.more_descriptors(first),
        );
        report.check(
            "as many threads as after the first round",
            last.more_threads(first),
        );
        report.check(
            "entries of maps as after the first round",
            last.other_entries(first),
        );
    }
    report.check("memory has ceased to grow", look::growth(looks));
    report.check(
        "every kept connection to a service that nothing changed survived",
        rig.lost(),
    );
    let line = |name: &str, value: fn(&Look) -> f64| Line {
        name: name.to_owned(),
        points: looks.iter().map(|look| (look.at, value(look))).collect(),
    };
    report.plot(Plot::lines(
        "",
        "Memory of the daemon at rest",
        Axis::new("time", Unit::Seconds, Scale::Linear),
        Axis::new("resident", Unit::Bytes, Scale::Linear),
        vec![line("daemon", |look| look.memory)],
    ));
    report.note(format!("seed {seed}"));
}
