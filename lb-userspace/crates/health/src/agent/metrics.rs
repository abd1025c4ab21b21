//! Counters of questions to agents.

use std::collections::BTreeSet;

use prometheus::{IntCounterVec, Opts, Registry};

const ANSWER: &str = "answer";
const FAILURE: &str = "failure";

/// `lb_agent_polls_total`.
#[derive(Clone, Debug)]
pub(crate) struct AgentMetrics {
    polls: IntCounterVec,
}

impl AgentMetrics {
    /// Metrics that `registry` shows.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let polls = Opts::new("lb_agent_polls_total", "Polls of agents, by result");
        let polls = IntCounterVec::new(polls, &["service", "result"])?;
        registry.register(Box::new(polls.clone()))?;
        Ok(Self { polls })
    }

    /// Shows every series of a service from zero.
    pub(crate) fn show(&self, service: &str) {
        for result in [ANSWER, FAILURE] {
            self.polls.with_label_values(&[service, result]).inc_by(0);
        }
    }

    pub(super) fn count(&self, service: &str, answered: bool) {
        let result = if answered { ANSWER } else { FAILURE };
        self.polls.with_label_values(&[service, result]).inc();
    }

    /// Forgets services that have agents no more.
    pub(super) fn forget<'a>(&self, gone: impl Iterator<Item = &'a str>) {
        for service in gone.collect::<BTreeSet<_>>() {
            for result in [ANSWER, FAILURE] {
                // An error means that the series never existed.
                let _ = self.polls.remove_label_values(&[service, result]);
            }
        }
    }
}
