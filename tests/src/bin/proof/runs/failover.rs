//! A backend fails and returns under a steady load of new flows: how long new flows go on to reach it, and how soon they do again.
//!
//! Each kind of failure has two backends of its own, of which one fails. Services with different settings share them, and HAProxy stands
//! beside the balancer on the same machine, with the same backends and intervals: all of them see the same failures.

mod flows;
mod rig;
mod turn;

use std::{process::Command, ptr, time::Duration};

use anyhow::Result;
use lb_tests::report::{
    document::{Figure, Report},
    plot::Plot,
    samples::{Samples, Unit},
    table::Table,
};

use self::{
    flows::LIMIT,
    rig::{Fault, Rig, System, Target},
    turn::{FLAP, Outcome},
};
use crate::context::Context;

/// How backends are checked.
struct Settings {
    name: &'static str,
    /// Keys of `[service.health]`.
    keys: &'static str,
    /// The same for HAProxy, if it has it: `timeout check`, and words of `server`.
    haproxy: Option<(&'static str, &'static str)>,
}

static DEFAULT: Settings = Settings {
    name: "default",
    keys: "",
    haproxy: Some(("1s", "inter 2s fastinter 500ms rise 2 fall 3")),
};
static ACTIVE: Settings = Settings {
    name: "default, active checks alone",
    keys: "passive = false",
    haproxy: None,
};
static BREAKER: Settings = Settings {
    name: "default, out after 5 failed flows",
    keys: "breaker_failures = 5",
    haproxy: Some((
        "1s",
        "inter 2s fastinter 500ms rise 2 fall 3 observe layer4 error-limit 5 on-error mark-down",
    )),
};
static FAST: Settings = Settings {
    name: "fast",
    keys: "interval = \"50ms\"\nfast_interval = \"20ms\"\ndown_interval_max = \"50ms\"\ntimeout = \"50ms\"",
    haproxy: Some(("50ms", "inter 50ms fastinter 20ms downinter 50ms rise 2 fall 3")),
};
static DAMPED: Settings = Settings {
    name: "fast, flap damping",
    keys: "interval = \"50ms\"\nfast_interval = \"20ms\"\ndown_interval_max = \"50ms\"\ntimeout = \"50ms\"\n\
           flap_limit = 2\nflap_window = \"10s\"\nflap_hold = \"3s\"",
    haproxy: None,
};

/// Services whose backends fail together.
struct Group {
    title: &'static str,
    /// Of the plot's file.
    suffix: &'static str,
    services: Vec<(Fault, &'static Settings)>,
    /// Time between two new flows to each service.
    period: Duration,
    /// How long backends are down: longer than any service takes to find that.
    down_for: Duration,
}

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let mut report = Report::new(format!(
        "New connections at a steady rate to services with two backends, of which one fails and returns. *Detection* is the time from \
         the command that makes it fail to the begin of the last new connection that had no answer within {} ms; *recovery* that from \
         the command that heals it to the begin of the first new connection that it answers. All services see the same failures at \
         the same time. HAProxy runs beside the balancer on the same machine and checks the same servers. Checks are of kind `http`. \
         *default*: every key at its default, passive checks with them. *fast*: a check every 50 ms, every 20 ms once one has failed, \
         with a time limit of 50 ms, for which docs/health-checks.md promises 265 ms at most. HAProxy has the same intervals and numbers of \
         checks; it checks a server that is down every interval, however long that lasts. A flapping server is down and up for \
         {} s each; its detection is that of the whole time.",
        LIMIT.as_millis(),
        FLAP.as_secs()
    ));
    // The programs of tests have no HAProxy.
    let has_haproxy = !context.is_quick() && context.wants_peer("haproxy");
    if has_haproxy {
        context.add_version("HAProxy", Command::new("haproxy").arg("-v"))?;
    }
    let mut medians = Vec::new();
    for group in groups(context) {
        let mut rig = Rig::start(&group.services, has_haproxy)?;
        let mut outcomes: Vec<Vec<Outcome>> = rig.targets.iter().map(|_| Vec::new()).collect();
        for turn in 0..context.turns() {
            context.progress(&format!(
                "{}, turn {} of {}",
                group.title,
                turn + 1,
                context.turns()
            ));
            let ended = turn::fail_and_return(&mut rig, group.period, group.down_for)?;
            for (all, outcome) in outcomes.iter_mut().zip(ended) {
                all.push(outcome);
            }
        }
        let mut rows: Vec<(&Target, &Vec<Outcome>)> = rig.targets.iter().zip(&outcomes).collect();
        rows.sort_by_key(|(target, _)| target.fault);
        add(&mut report, &group, &rows);
        let counts = |target: &Target| {
            let is_one = |settings: &'static Settings| ptr::eq(target.settings, &raw const *settings);
            (is_one(&FAST) || is_one(&DEFAULT)) && target.fault != Fault::Flapping
        };
        medians.extend(
            rows.iter()
                .filter(|(target, _)| counts(target))
                .map(|(target, outcomes)| Medians {
                    system: target.system,
                    is_fast: ptr::eq(target.settings, &raw const FAST),
                    detection: samples(outcomes, |outcome| outcome.detection).median(),
                    recovery: samples(outcomes, |outcome| outcome.recovery).median(),
                }),
        );
    }
    add_figures(&mut report, &medians);
    Ok(report)
}

/// The services of a run.
fn groups(context: &Context) -> Vec<Group> {
    let of = |faults: &[Fault], settings: &[&'static Settings]| -> Vec<(Fault, &'static Settings)> {
        faults
            .iter()
            .flat_map(|fault| settings.iter().map(|settings| (*fault, *settings)))
            .collect()
    };
    let fast = |faults: &[Fault]| Group {
        title: "Fast settings",
        suffix: "",
        services: of(faults, &[&FAST]),
        period: Duration::from_millis(context.pick(20, 5)),
        down_for: Duration::from_millis(context.pick(1_000, 2_000)),
    };
    if context.is_quick() {
        return vec![fast(&[Fault::Killed, Fault::Slow])];
    }
    let mut slow = of(&Fault::LASTING, &[&DEFAULT, &ACTIVE, &BREAKER]);
    slow.extend(of(&[Fault::Flapping], &[&DEFAULT, &BREAKER, &FAST, &DAMPED]));
    let slow = Group {
        title: "Default settings, and flapping",
        suffix: "-default",
        services: slow,
        period: Duration::from_millis(25),
        down_for: Duration::from_millis(9_500),
    };
    let groups = [("fast", fast(&Fault::LASTING)), ("default", slow)].into_iter();
    groups
        .filter(|(name, _)| context.wants(name))
        .map(|(_, group)| group)
        .collect()
}

fn samples(outcomes: &[Outcome], value: fn(&Outcome) -> f64) -> Samples {
    Samples::new(outcomes.iter().map(value).collect())
}

/// Adds the table and the plot of a group.
fn add(report: &mut Report, group: &Group, rows: &[(&Target, &Vec<Outcome>)]) {
    let columns = [
        ("detection", Unit::Seconds),
        ("recovery", Unit::Seconds),
        ("flows lost meanwhile", Unit::Count),
        ("of all", Unit::Percent),
    ];
    let mut table = Table::new(group.title, "failure, balancer, settings", &columns);
    let (mut bars, mut is_whole) = (Vec::new(), true);
    for (target, outcomes) in rows {
        let name = format!(
            "{}, {}, {}",
            target.fault.name(),
            target.system.name(),
            target.settings.name
        );
        let detection = samples(outcomes, |outcome| outcome.detection);
        bars.push((name.clone(), detection.clone()));
        let cells = [
            detection,
            samples(outcomes, |outcome| outcome.recovery),
            samples(outcomes, |outcome| outcome.lost as f64),
            samples(outcomes, |outcome| {
                100.0 * outcome.lost as f64 / outcome.flows.max(1) as f64
            }),
        ];
        is_whole &= outcomes.iter().all(|outcome| outcome.flows > 0);
        table.row(name, cells.map(Some));
    }
    let what = format!(
        "{}: flows to every service began while a backend was down",
        group.title
    );
    report.check(what, (!is_whole).then(|| "none to some of them".to_owned()));
    report.table(table);
    let title = format!("{}: from a failure to the last lost flow", group.title);
    report.plot(Plot::bars(group.suffix, &title, Unit::Seconds, bars));
}

/// Medians of a service with fast or default settings.
struct Medians {
    system: System,
    is_fast: bool,
    detection: f64,
    recovery: f64,
}

fn add_figures(report: &mut Report, all: &[Medians]) {
    type Value = fn(&Medians) -> f64;
    // Two successes, each an interval later at most. Detection has a goal with fast settings alone.
    let figures: [(&str, [Option<f64>; 2], Value); 2] = [
        ("detection", [Some(0.3), None], |of| of.detection),
        (
            "recovery",
            [Some(2.0 * 0.05 + 0.05), Some(2.0 * 2.0 + 0.05)],
            |of| of.recovery,
        ),
    ];
    for (target, limits, value) in figures {
        let worst = |system, is_fast| {
            all.iter()
                .filter(|of| (of.system, of.is_fast) == (system, is_fast))
                .map(value)
                .reduce(f64::max)
        };
        let both = |system| [true, false].map(|is_fast| worst(system, is_fast));
        let show = |[fast, default]: [Option<f64>; 2]| {
            let texts = [(fast, ""), (default, " with default settings")];
            let texts = texts
                .iter()
                .filter_map(|(worst, of)| Some(format!("{} at most{of}", Unit::Seconds.show((*worst)?))));
            texts.collect::<Vec<_>>().join(", ")
        };
        let ours = both(System::Lb);
        if ours[0].is_none() {
            continue;
        }
        let theirs = show(both(System::HaProxy));
        let is_met = ours
            .iter()
            .zip(limits)
            .all(|(ours, limit)| ours.zip(limit).is_none_or(|(ours, limit)| ours < limit));
        report.figure(Figure {
            target,
            ours: show(ours),
            peers: if theirs.is_empty() {
                theirs
            } else {
                format!("HAProxy {theirs}")
            },
            is_met: Some(is_met),
            note: "the largest median of each kind of failure, with fast settings where no others are named"
                .to_owned(),
        });
    }
}
