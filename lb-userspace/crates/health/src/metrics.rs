//! Counters of the health engine.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::{agent::metrics::AgentMetrics, breaker::BreakerState, machine::Outcome};
use crate::health_state::Health;

/// Upper bounds of the latency buckets, in seconds: from a kept connection on the same segment to long time-outs.
const LATENCY_BUCKETS: [f64; 13] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];

/// Upper bounds of the lag buckets, in seconds: timers are exact to 1 ms, over 50 ms something is wrong.
const LAG_BUCKETS: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0];

const BREAKER_STATES: [BreakerState; 3] = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];

/// Metrics of the health engine, `lb_health_*` except the health states themselves.
#[derive(Clone, Debug)]
pub struct HealthMetrics {
    checks: IntCounterVec,
    duration: HistogramVec,
    transitions: IntCounterVec,
    breaker: IntCounterVec,
    pub(super) agents: AgentMetrics,
    pub(super) lag: Histogram,
    pub(super) in_flight: IntGauge,
}

impl HealthMetrics {
    /// Metrics that `registry` shows.
    ///
    /// # Errors
    /// When `registry` has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            checks: IntCounterVec::new(
                Opts::new(
                    "lb_health_checks_total",
                    "Checks by result; local_error: the check could not be made",
                ),
                &["service", "result"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "lb_health_check_duration_seconds",
                    "Time from start to result of a check",
                )
                .buckets(LATENCY_BUCKETS.to_vec()),
                &["service"],
            )?,
            transitions: IntCounterVec::new(
                Opts::new(
                    "lb_health_transitions_total",
                    "Changes of a backend's health state, by the new state",
                ),
                &["service", "to"],
            )?,
            breaker: IntCounterVec::new(
                Opts::new(
                    "lb_health_breaker_transitions_total",
                    "Changes of a backend's circuit breaker, by the new state",
                ),
                &["service", "to"],
            )?,
            agents: AgentMetrics::register(registry)?,
            lag: Histogram::with_opts(
                HistogramOpts::new(
                    "lb_health_scheduler_lag_seconds",
                    "Delay between the planned and the real start of a check",
                )
                .buckets(LAG_BUCKETS.to_vec()),
            )?,
            in_flight: IntGauge::new("lb_health_checks_in_flight", "Checks without a result yet")?,
        };
        registry.register(Box::new(metrics.checks.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.transitions.clone()))?;
        registry.register(Box::new(metrics.breaker.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        Ok(metrics)
    }

    /// Shows every series of a service from zero.
    pub fn show(&self, service: &str) {
        self.service(service);
        self.agents.show(service);
    }

    /// The metrics of one service, looked up once so that a check pays no look-up.
    pub(super) fn service(&self, name: &str) -> ServiceMetrics {
        ServiceMetrics {
            success: self.checks.with_label_values(&[name, "success"]),
            failure: self.checks.with_label_values(&[name, "failure"]),
            local_error: self.checks.with_label_values(&[name, "local_error"]),
            duration: self.duration.with_label_values(&[name]),
            up: self.transitions.with_label_values(&[name, Health::Up.as_str()]),
            down: self.transitions.with_label_values(&[name, Health::Down.as_str()]),
            breaker: BREAKER_STATES.map(|state| self.breaker.with_label_values(&[name, state.as_str()])),
        }
    }

    /// Forgets a service that is checked no more.
    pub(super) fn forget(&self, name: &str) {
        // An error means that the series never existed.
        for result in ["success", "failure", "local_error"] {
            let _ = self.checks.remove_label_values(&[name, result]);
        }
        let _ = self.duration.remove_label_values(&[name]);
        for to in [Health::Up, Health::Down] {
            let _ = self.transitions.remove_label_values(&[name, to.as_str()]);
        }
        for to in BREAKER_STATES {
            let _ = self.breaker.remove_label_values(&[name, to.as_str()]);
        }
    }

    /// Checks of a service that had a result so far.
    #[cfg(test)]
    pub(super) fn checks_counted(&self, service: &str, result: &str) -> u64 {
        self.checks.with_label_values(&[service, result]).get()
    }
}

/// Metrics of one service.
#[derive(Clone, Debug)]
pub(super) struct ServiceMetrics {
    success: IntCounter,
    failure: IntCounter,
    local_error: IntCounter,
    duration: Histogram,
    up: IntCounter,
    down: IntCounter,
    breaker: [IntCounter; 3],
}

impl ServiceMetrics {
    pub(super) fn count(&self, outcome: Outcome, latency: Duration) {
        match outcome {
            Outcome::Success => self.success.inc(),
            Outcome::Failure => self.failure.inc(),
            Outcome::Local => return self.local_error.inc(),
        }
        self.duration.observe(latency.as_secs_f64());
    }

    pub(super) fn count_breaker(&self, to: BreakerState) {
        let states = BREAKER_STATES.iter().zip(&self.breaker);
        for (_, counter) in states.filter(|(state, _)| **state == to) {
            counter.inc();
        }
    }

    pub(super) fn count_transition(&self, to: Health) {
        match to {
            Health::Up => self.up.inc(),
            Health::Down => self.down.inc(),
            Health::Unchecked => {}
        }
    }
}
