//! A result, as text and as JSON.

use std::{fmt::Write, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    assertion::Verdict,
    measured::{Measured, latency},
    options::Plan,
};

/// Percentiles of a report.
const PERCENTILES: [f64; 7] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0];
/// A share of the threads' time above which the tool itself may be the limit.
const BUSY: f64 = 0.9;

/// A result beside the plan and the assertions that it is reported with.
pub(crate) struct Report<'a> {
    /// What was planned.
    pub(crate) plan: &'a Plan,
    /// What was measured.
    pub(crate) measured: &'a Measured,
    /// What became of the assertions.
    pub(crate) verdicts: &'a [Verdict<'a>],
}

impl Report<'_> {
    /// What a reader must know to read the figures.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.plan.rate.is_none() {
            notes.push(
                "closed loop: no request is due while a connection waits, so latencies hide stalls; use --rate for them"
                    .to_owned(),
            );
        }
        if self.measured.stats.unsent > 0 {
            notes.push(format!(
                "the rate was not reached: {} requests were due and never sent; their waiting times count as latencies. Raise -c, or \
                 lower --rate",
                self.measured.stats.unsent
            ));
        }
        if self.measured.stats.overslept > 0 {
            notes.push(format!(
                "{} requests started late because this tool got no CPU in time: their latencies are its own in part",
                self.measured.stats.overslept
            ));
        }
        if self.measured.utilisation(self.plan.threads) > BUSY {
            notes.push("this tool may be the limit: its threads were busy all the time; raise -t, or give it more CPUs".to_owned());
        }
        let remedies = self
            .measured
            .stats
            .failures()
            .filter_map(|(failure, _)| failure.remedy());
        notes.extend(remedies.map(str::to_owned));
        notes
    }

    /// The report for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let stats = &self.measured.stats;
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<12} {value}");
        };
        line("load", describe(self.plan));
        line(
            "requests",
            format!(
                "{} in {}, {:.1}/s",
                stats.answers,
                latency(self.measured.measured),
                self.measured.rate()
            ),
        );
        line("received", self.received());
        line("connections", format!("{} opened", self.measured.opened));
        for (name, value) in self.latencies() {
            line(&name, value.map_or_else(|| "-".to_owned(), latency));
        }
        for (status, count) in stats.statuses() {
            line(&format!("status {status}"), count.to_string());
        }
        line("errors", self.errors());
        if self.plan.rate.is_some() {
            line(
                "late starts",
                format!(
                    "{} without a free connection, {} by this tool, worst {}",
                    stats.late,
                    stats.overslept,
                    latency(stats.latest)
                ),
            );
            line("not sent", stats.unsent.to_string());
        }
        line(
            "this tool",
            format!(
                "{} of CPU a request, {:.0} % of {} threads",
                latency(self.measured.cpu_per_exchange()),
                self.measured.utilisation(self.plan.threads) * 100.0,
                self.plan.threads
            ),
        );
        for note in self.notes() {
            line("note", note);
        }
        for verdict in self.verdicts {
            line("assertion", verdict.to_string());
        }
        text
    }

    fn received(&self) -> String {
        #[allow(clippy::cast_precision_loss, reason = "a figure of four digits")]
        let bytes = self.measured.stats.bytes as f64;
        format!(
            "{:.3} MB, {:.3} MB/s",
            bytes / 1e6,
            self.measured.per_second(bytes) / 1e6
        )
    }

    fn errors(&self) -> String {
        let kinds: Vec<_> = self
            .measured
            .stats
            .failures()
            .map(|(failure, count)| format!("{} {count}", failure.name()))
            .collect();
        if kinds.is_empty() {
            return "0".to_owned();
        }
        format!("{} ({})", self.measured.stats.errors(), kinds.join(", "))
    }

    fn latencies(&self) -> Vec<(String, Option<Duration>)> {
        let stats = &self.measured.stats;
        let mut all = vec![
            ("min".to_owned(), stats.least()),
            ("mean".to_owned(), stats.mean()),
        ];
        all.extend(PERCENTILES.map(|percent| {
            if percent < 100.0 {
                (format!("p{percent}"), stats.percentile(percent))
            } else {
                ("max".to_owned(), stats.greatest())
            }
        }));
        all
    }

    /// The report for programs. Times are in seconds.
    pub(crate) fn json(&self) -> Value {
        let plan = self.plan;
        let stats = &self.measured.stats;
        let latencies: Map<_, _> = self
            .latencies()
            .into_iter()
            .map(|(name, value)| (name, json!(value.map(|value| value.as_secs_f64()))))
            .collect();
        let statuses: Map<_, _> = stats
            .statuses()
            .map(|(status, count)| (status.to_string(), count.into()))
            .collect();
        let errors: Map<_, _> = stats
            .failures()
            .map(|(failure, count)| (failure.name().to_owned(), count.into()))
            .collect();
        let targets: Vec<_> = plan.targets.iter().map(|target| target.text.as_str()).collect();
        json!({
            "targets": targets,
            "loop": if plan.rate.is_some() { "open" } else { "closed" },
            "rate": plan.rate,
            "connections": plan.connections,
            "streams": plan.streams,
            "threads": plan.threads,
            "keepalive": plan.keepalive,
            "warm_up": plan.warm_up.as_secs_f64(),
            "duration": self.measured.measured.as_secs_f64(),
            "requests": stats.answers,
            "rps": self.measured.rate(),
            "bytes": stats.bytes,
            "connections_opened": self.measured.opened,
            "latency": latencies,
            "spectrum": stats.spectrum().map(|(share, latency)| json!([share, latency.as_secs_f64()])).collect::<Vec<_>>(),
            "status": statuses,
            "errors": stats.errors(),
            "errors_by_kind": errors,
            "late": stats.late,
            "overslept": stats.overslept,
            "latest_start": stats.latest.as_secs_f64(),
            "unsent": stats.unsent,
            "cpu": self.measured.cpu.as_secs_f64(),
            "cpu_per_request": self.measured.cpu_per_exchange().as_secs_f64(),
            "notes": self.notes(),
            "assertions": self.verdicts
                .iter()
                .map(|verdict| json!({"text": verdict.text, "passed": verdict.passed, "value": verdict.value}))
                .collect::<Vec<_>>(),
        })
    }
}

/// The load in one line.
fn describe(plan: &Plan) -> String {
    let targets: Vec<_> = plan.targets.iter().map(|target| target.text.as_str()).collect();
    let load = match plan.rate {
        Some(rate) => format!("open loop, {rate} requests/s"),
        None => "closed loop".to_owned(),
    };
    let streams = if plan.streams > 1 {
        format!(" with {} streams", plan.streams)
    } else {
        String::new()
    };
    let kept = if plan.keepalive {
        ""
    } else {
        ", a new one for each request"
    };
    format!(
        "{}: {load}, {} connections{streams}{kept}, {} threads",
        targets.join(" "),
        plan.connections,
        plan.threads
    )
}
