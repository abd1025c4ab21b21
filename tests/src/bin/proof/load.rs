//! Loads by `lb-bench` from the client of a way, and what they gave.

use std::time::Duration;

use anyhow::Result;
use lb_tests::{
    load_tool::{self, load_tool},
    report::document::Report,
};
use serde_json::Value;

use crate::world::World;

/// A load that takes this long and has no answer has failed.
const LONGEST: Duration = Duration::from_secs(20);

/// Requests of a client.
#[derive(Clone)]
pub(crate) struct Load {
    /// Connections.
    pub(crate) connections: usize,
    /// Requests a second; `None` as fast as answers come.
    pub(crate) rate: Option<f64>,
    /// Whether connections are kept.
    pub(crate) is_kept: bool,
    /// The path.
    pub(crate) path: &'static str,
    /// Time that is measured.
    pub(crate) time: Duration,
    /// Time before that.
    pub(crate) warm_up: Duration,
}

impl Load {
    /// Requests over this many kept connections, as fast as answers come.
    pub(crate) const fn new(connections: usize, time: Duration) -> Self {
        Self {
            connections,
            rate: None,
            is_kept: true,
            path: "/",
            time,
            warm_up: Duration::from_millis(200),
        }
    }
}

/// What a load gave. Times are in seconds. Where the tool tells nothing, as when it failed, figures are not numbers.
pub(crate) struct Loaded(Value);

impl Loaded {
    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or(f64::NAN)
    }

    /// Whole answers a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.number("rps")
    }

    /// Bits of answers a second.
    pub(crate) fn bits_per_second(&self) -> f64 {
        self.number("bytes") * 8.0 / self.number("duration")
    }

    /// A percentile of the latency, such as `p99.9`.
    pub(crate) fn latency(&self, name: &str) -> f64 {
        self.0["latency"][name].as_f64().unwrap_or(f64::NAN)
    }

    /// Quantiles from 0 to below 1 with their latencies.
    pub(crate) fn spectrum(&self) -> Vec<(f64, f64)> {
        let list = self.0["spectrum"].as_array().into_iter().flatten();
        let points = list.filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?)));
        points.filter(|(quantile, _)| *quantile < 1.0).collect()
    }

    /// Whether nothing was answered, nor refused.
    fn is_empty(&self) -> bool {
        self.0["requests"] == 0 && self.0["errors"] == 0
    }

    /// What went wrong, in words; `None` if nothing did.
    fn errors(&self) -> Option<String> {
        let errors = self.0["errors"].as_u64().unwrap_or(u64::MAX);
        (errors > 0).then(|| format!("{errors} requests failed: {}", self.0["errors_by_kind"]))
    }
}

impl World {
    /// Sends a load from the client of this way; one without any answer, as a short one on a busy machine, again for longer. If it
    /// fails, or some of its requests, the report says so, and the run goes on.
    pub(crate) fn load(&self, load: &Load, report: &mut Report) -> Loaded {
        let mut loaded = self.send(load);
        let mut longer = load.clone();
        while loaded.as_ref().is_ok_and(Loaded::is_empty) && longer.time < LONGEST {
            longer.time *= 4;
            loaded = self.send(&longer);
        }
        let error = match &loaded {
            Ok(loaded) => loaded.errors(),
            Err(error) => Some(format!("{error:#}")),
        };
        if error.is_some() {
            let what = format!(
                "{} with {} connections to {}",
                self.way.name(),
                load.connections,
                load.path
            );
            report.check(what, error);
        }
        loaded.unwrap_or(Loaded(Value::Null))
    }

    fn send(&self, load: &Load) -> Result<Loaded> {
        let mut command = load_tool(&self.net.client.ns)?;
        let time = |time: Duration| format!("{}ms", time.as_millis());
        command
            .args(["--json", "-c", &load.connections.to_string()])
            .args(["-d", &time(load.time), "-w", &time(load.warm_up)]);
        if let Some(rate) = load.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        if !load.is_kept {
            command.arg("--no-keepalive");
        }
        for target in &self.targets {
            command.arg(format!("http://{target}{}", load.path));
        }
        load_tool::run(&mut command)?.json().map(Loaded)
    }
}
