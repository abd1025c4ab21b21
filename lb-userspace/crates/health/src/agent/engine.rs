//! Decides which agents to poll and when, and keeps the state of their answers. Pure: time and answers are passed in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    agent::{
        report::{AgentReport, AgentStatus, AgentView, LastAsked},
        settings::{AgentSettings, AgentSpec, LOST_AFTER, MAX_ASKED},
    },
    engine::START_SPACING,
    error::CheckError,
    phase::{Moment, Phases},
    schedule::Scheduler,
    target::TargetId,
};

/// Part of the interval by which the time between two questions differs from it at random.
const JITTER: u32 = 10;

/// Number of an agent, never used twice.
pub(super) type AgentNo = u64;

/// An agent, shared by all backends that use it.
#[derive(Debug)]
pub(super) struct Agent<I> {
    pub(super) target: SocketAddr,
    pub(super) settings: AgentSettings,
    pub(super) ids: BTreeSet<I>,
    /// Failures since the latest answer.
    failures: u32,
    status: AgentStatus,
}

/// All agents.
#[derive(Debug)]
pub(super) struct AgentEngine<I> {
    agents: BTreeMap<AgentNo, Agent<I>>,
    next_no: AgentNo,
    scheduler: Scheduler<AgentNo>,
    phases: Phases,
}

impl<I: TargetId> AgentEngine<I> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            agents: BTreeMap::new(),
            next_no: 0,
            scheduler: Scheduler::new(MAX_ASKED, seed),
            phases: Phases::new(seed),
        }
    }

    /// Makes the agents equal to `specs` and returns removed ones. Agents that stay are not disturbed; two backends at
    /// one address share one.
    pub(super) fn update(&mut self, specs: Vec<AgentSpec<I>>, now: Instant) -> Vec<AgentNo> {
        let mut known: BTreeMap<(SocketAddr, AgentSettings), AgentNo> = BTreeMap::new();
        for (&no, agent) in &mut self.agents {
            agent.ids.clear();
            known.insert((agent.target, agent.settings.clone()), no);
        }
        let first_new = self.next_no;
        for spec in specs {
            let AgentSpec {
                id,
                target,
                settings,
                initial,
            } = spec;
            let next_no = &mut self.next_no;
            let no = *known.entry((target, settings.clone())).or_insert_with(|| {
                let no = *next_no;
                *next_no += 1;
                no
            });
            let agent = self.agents.entry(no).or_insert_with(|| Agent {
                target,
                settings,
                ids: BTreeSet::new(),
                failures: 0,
                status: AgentStatus {
                    report: AgentReport {
                        word: initial,
                        ..AgentReport::default()
                    },
                    last: None,
                },
            });
            agent.ids.insert(id);
        }
        let gone = self.agents.iter().filter(|(_, agent)| agent.ids.is_empty());
        let gone: Vec<AgentNo> = gone.map(|(no, _)| *no).collect();
        for no in &gone {
            self.agents.remove(no);
            self.scheduler.remove(*no);
        }
        // New agents are polled soon, but not all at once.
        let new: Vec<(&AgentNo, &Agent<I>)> = self.agents.range(first_new..).collect();
        let hurry = START_SPACING.saturating_mul(u32::try_from(new.len()).unwrap_or(u32::MAX));
        let new: Vec<(AgentNo, Duration)> = new
            .into_iter()
            .map(|(no, agent)| (*no, agent.settings.interval.min(hurry)))
            .collect();
        self.scheduler.spread(&new, now);
        gone
    }

    /// When the next agent can be polled.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        self.scheduler.next_deadline()
    }

    /// The next agent to poll now.
    pub(super) fn start_due(&mut self, now: Instant) -> Option<(AgentNo, &Agent<I>)> {
        let due = self.scheduler.start_due(now)?;
        Some((due.key, self.agents.get(&due.key)?))
    }

    /// Records the end of a poll that `started` then. Returns the agent.
    pub(super) fn finish(
        &mut self,
        no: AgentNo,
        started: Instant,
        found: Result<Vec<u8>, CheckError>,
        now: Moment,
    ) -> Option<&Agent<I>> {
        let agent = self.agents.get_mut(&no)?;
        let interval = agent.settings.interval;
        let shift = interval / JITTER;
        let latest = started + interval + shift;
        let next = self.phases.align(agent.target, interval, now, latest);
        let next = next.max(started + interval / 2);
        self.scheduler.finish(no, now.instant, next, shift);

        let report = &mut agent.status.report;
        let (answer, note) = match &found {
            Ok(line) => {
                let (text, note) = report.take_up(line);
                (agent.failures, report.lost) = (0, None);
                (Ok(text), note)
            }
            Err(error) => {
                let why: Arc<str> = error.to_string().into();
                // A local error does not count against the agent.
                if !error.is_local() {
                    agent.failures = agent.failures.saturating_add(1);
                }
                if agent.failures >= LOST_AFTER && report.lost.is_none() {
                    report.lost = Some(Arc::clone(&why));
                }
                (Err(why), None)
            }
        };
        agent.status.last = Some(LastAsked {
            answer,
            note,
            latency: now.instant.saturating_duration_since(started),
            at: now.wall,
        });
        Some(agent)
    }

    /// The status of all agents.
    pub(super) fn statuses(&self) -> BTreeMap<I, AgentStatus> {
        let of = |agent: &Agent<I>| -> Vec<(I, AgentStatus)> {
            let ids = agent.ids.iter();
            ids.map(|id| (id.clone(), agent.status.clone())).collect()
        };
        self.agents.values().flat_map(of).collect()
    }

    /// The reports of all agents.
    pub(super) fn reports(&self) -> AgentView<I> {
        let of = |agent: &Agent<I>| -> Vec<(I, AgentReport)> {
            let ids = agent.ids.iter();
            ids.map(|id| (id.clone(), agent.status.report.clone())).collect()
        };
        self.agents.values().flat_map(of).collect()
    }

    /// Services that have agents.
    pub(super) fn services(&self) -> BTreeSet<I::Service> {
        let ids = self.agents.values().flat_map(|agent| &agent.ids);
        ids.map(|id| id.service().clone()).collect()
    }
}

impl<I: TargetId> Agent<I> {
    /// Its status.
    pub(super) fn status(&self) -> &AgentStatus {
        &self.status
    }

    /// Services that it belongs to.
    pub(super) fn services(&self) -> BTreeSet<&I::Service> {
        self.ids.iter().map(|id| id.service()).collect()
    }
}

#[cfg(test)]
mod tests;
