//! Loads by `lb-bench` from the client of a way, and what they gave.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_tests::load_tool::{self, load_tool};
use serde_json::Value;

use crate::world::World;

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

/// What a load gave. Times are in seconds.
pub(crate) struct Loaded(Value);

impl Loaded {
    /// A number of the tool's result.
    fn number(&self, name: &str) -> Result<f64> {
        self.0[name]
            .as_f64()
            .with_context(|| format!("no {name} in {}", self.0))
    }

    /// Whole answers a second.
    ///
    /// # Errors
    /// When the tool does not tell.
    pub(crate) fn per_second(&self) -> Result<f64> {
        self.number("rps")
    }

    /// Bits of answers a second.
    ///
    /// # Errors
    /// As [`Self::per_second`].
    pub(crate) fn bits_per_second(&self) -> Result<f64> {
        Ok(self.number("bytes")? * 8.0 / self.number("duration")?)
    }

    /// A percentile of the latency, such as `p99.9`.
    ///
    /// # Errors
    /// When there was no answer.
    pub(crate) fn latency(&self, name: &str) -> Result<f64> {
        let value = &self.0["latency"][name];
        value.as_f64().with_context(|| format!("no {name} in {}", self.0))
    }

    /// Quantiles from 0 to below 1 with their latencies.
    ///
    /// # Errors
    /// When the tool does not tell.
    pub(crate) fn spectrum(&self) -> Result<Vec<(f64, f64)>> {
        let list = self.0["spectrum"].as_array().context("no spectrum")?;
        let points = list
            .iter()
            .filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?)));
        Ok(points.filter(|(quantile, _)| *quantile < 1.0).collect())
    }

    /// What went wrong, in words; `None` if nothing did.
    pub(crate) fn errors(&self) -> Option<String> {
        let errors = self.0["errors"].as_u64().unwrap_or(u64::MAX);
        (errors > 0).then(|| format!("{errors} errors: {}", self.0["errors_by_kind"]))
    }
}

impl World {
    /// Sends a load from the client of this way.
    ///
    /// # Errors
    /// When the tool cannot send it.
    pub(crate) fn load(&self, load: &Load) -> Result<Loaded> {
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
        let ended = load_tool::run(&mut command).with_context(|| format!("load on {}", self.way.name()))?;
        ended.json().map(Loaded)
    }
}
