//! Metrics of the control task, with the process's metrics, in the registry of the client library.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, process_collector::ProcessCollector,
};

use crate::{datapath::ProgramReport, state::desired::Revision};

/// Upper bounds of the buckets of `lb_apply_seconds`: from one map write to thousands of rings.
const APPLY_BUCKETS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];

/// Counters of the control task.
#[derive(Clone, Debug)]
pub struct ApplyMetrics {
    revision: IntGauge,
    last_apply: IntGauge,
    saved: IntGauge,
    seconds: Histogram,
}

impl ApplyMetrics {
    /// Registers these metrics in `registry`, with the `process_*` metrics.
    ///
    /// # Errors
    /// `registry` has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let metrics = Self {
            revision: IntGauge::new("lb_config_revision", "Revision of the desired state in force")?,
            last_apply: IntGauge::new(
                "lb_config_last_apply_success",
                "Whether the last requested change is in force",
            )?,
            saved: IntGauge::new(
                "lb_state_saved",
                "Whether the state in force is stored, so that a restart keeps it",
            )?,
            seconds: Histogram::with_opts(
                HistogramOpts::new("lb_apply_seconds", "Time to program a changed state")
                    .buckets(APPLY_BUCKETS.to_vec()),
            )?,
        };
        metrics.last_apply.set(1);
        metrics.saved.set(1);
        registry.register(Box::new(metrics.revision.clone()))?;
        registry.register(Box::new(metrics.last_apply.clone()))?;
        registry.register(Box::new(metrics.saved.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }

    /// The revision in force.
    pub fn revision(&self, revision: Revision) {
        self.revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
    }

    /// Whether the latest change is in force.
    pub fn last_apply(&self, ok: bool) {
        self.last_apply.set(ok.into());
    }

    /// Whether the state in force is stored.
    pub fn saved(&self, saved: bool) {
        self.saved.set(saved.into());
    }

    /// How long programming took.
    pub fn programmed(&self, report: &ProgramReport) {
        self.seconds.observe(report.elapsed.as_secs_f64());
    }
}

/// Counts reloads.
#[derive(Debug)]
pub struct ReloadMetrics {
    reloads: IntCounterVec,
    last: IntGauge,
}

impl ReloadMetrics {
    /// Metrics that `registry` shows, from zero.
    ///
    /// # Errors
    /// `registry` has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            reloads: IntCounterVec::new(
                Opts::new(
                    "lb_config_reloads_total",
                    "Reloads of the configuration file (`lb reload`, SIGHUP), by result",
                ),
                &["result"],
            )?,
            last: IntGauge::new(
                "lb_config_last_reload_timestamp_seconds",
                "Time of the last reload that succeeded, in seconds since 1970; 0: none since the start",
            )?,
        };
        for result in ["success", "refused"] {
            metrics.reloads.with_label_values(&[result]).inc_by(0);
        }
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.last.clone()))?;
        Ok(metrics)
    }

    /// A reload at `now` has a result.
    pub fn count(&self, succeeded: bool, now: SystemTime) {
        let result = if succeeded { "success" } else { "refused" };
        self.reloads.with_label_values(&[result]).inc();
        if succeeded {
            let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.last.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }
}
