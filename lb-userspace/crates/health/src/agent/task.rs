//! Polls agents: sockets, timers and channels around the engine's decisions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    ask::ask,
    engine::{AgentEngine, AgentNo},
};
use crate::{
    agent::{
        metrics::AgentMetrics,
        report::{AgentStatus, AgentView},
        settings::AgentSpec,
    },
    board::Board,
    clock::{now, until},
    error::{CheckError, LocalError},
    phase::Moment,
    target::TargetId,
};

/// Sets the agents to poll and reads their reports. Dropping all handles stops the task.
#[derive(Clone, Debug)]
pub struct AgentHandle<I: TargetId> {
    specs: watch::Sender<Vec<AgentSpec<I>>>,
    reports: watch::Receiver<AgentView<I>>,
    board: Board<BTreeMap<I, AgentStatus>>,
}

impl<I: TargetId> AgentHandle<I> {
    /// Makes the agents equal to `specs`, soon after the call. Unchanged ones are not disturbed. Only the latest call
    /// matters.
    pub fn update(&self, specs: Vec<AgentSpec<I>>) {
        // Without agents, before and after, the task need not wake.
        self.specs.send_if_modified(|present| {
            let changed = *present != specs;
            *present = specs;
            changed
        });
    }

    /// The reports of agents; changes with a report, or when an agent is lost or found.
    pub fn reports(&self) -> watch::Receiver<AgentView<I>> {
        self.reports.clone()
    }

    /// The present status of all agents: one allocation, no copy.
    pub fn snapshot(&self) -> Arc<BTreeMap<I, AgentStatus>> {
        self.board.snapshot()
    }
}

/// The loop.
pub(crate) struct AgentTask<I: TargetId> {
    engine: AgentEngine<I>,
    metrics: AgentMetrics,
    specs: watch::Receiver<Vec<AgentSpec<I>>>,
    reports: watch::Sender<AgentView<I>>,
    board: Board<BTreeMap<I, AgentStatus>>,
    services: BTreeSet<I::Service>,
    running: JoinSet<Result<Vec<u8>, CheckError>>,
    aborts: HashMap<AgentNo, AbortHandle>,
    started: HashMap<Id, (AgentNo, Instant)>,
}

impl<I: TargetId> AgentTask<I> {
    /// A task without agents, whose schedule is randomised by `seed`.
    pub(crate) fn new(seed: u64, metrics: AgentMetrics) -> (Self, AgentHandle<I>) {
        let (specs_sender, specs) = watch::channel(Vec::new());
        let (said_sender, reports) = watch::channel(AgentView::new());
        let board = Board::default();
        let task = Self {
            engine: AgentEngine::new(seed),
            metrics,
            specs,
            reports: said_sender,
            board: board.clone(),
            services: BTreeSet::new(),
            running: JoinSet::new(),
            aborts: HashMap::new(),
            started: HashMap::new(),
        };
        let handle = AgentHandle {
            specs: specs_sender,
            reports,
            board,
        };
        (task, handle)
    }

    /// Polls until `cancel`, or until all handles are dropped.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        loop {
            self.start_due();
            let deadline = self.engine.next_deadline();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = self.specs.changed() => match changed {
                    Ok(()) => self.update(),
                    Err(_) => return,
                },
                Some(joined) = self.running.join_next_with_id() => {
                    self.finish(joined);
                    while let Some(joined) = self.running.try_join_next_with_id() {
                        self.finish(joined);
                    }
                }
                () = until(deadline) => {}
            }
        }
    }

    fn update(&mut self) {
        let specs = self.specs.borrow_and_update().clone();
        for gone in self.engine.update(specs, now()) {
            if let Some(asking) = self.aborts.remove(&gone) {
                asking.abort();
            }
        }
        let services = self.engine.services();
        self.metrics
            .forget(self.services.difference(&services).map(AsRef::as_ref));
        self.services = services;
        self.board.write(|board| *board = self.engine.statuses());
        let reports = self.engine.reports();
        self.reports.send_if_modified(|present| {
            let changed = *present != reports;
            *present = reports;
            changed
        });
    }

    fn start_due(&mut self) {
        let now = now();
        while let Some((no, agent)) = self.engine.start_due(now) {
            let (target, settings) = (agent.target, agent.settings.clone());
            let asking = self
                .running
                .spawn(async move { ask(target, &settings.send, settings.timeout).await });
            self.started.insert(asking.id(), (no, now));
            self.aborts.insert(no, asking);
        }
    }

    fn finish(&mut self, joined: Result<(Id, Result<Vec<u8>, CheckError>), JoinError>) {
        let (id, found) = match joined {
            Ok((id, found)) => (id, Some(found)),
            Err(error) => (error.id(), None),
        };
        let Some((no, started)) = self.started.remove(&id) else {
            return;
        };
        self.aborts.remove(&no);
        let now = Moment {
            instant: now(),
            wall: SystemTime::now(),
        };
        let found = found.unwrap_or_else(|| {
            Err(CheckError::Local {
                target: (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
                error: LocalError::Aborted,
            })
        });
        let answered = found.is_ok();
        let Some(agent) = self.engine.finish(no, started, found, now) else {
            return;
        };
        for service in agent.services() {
            self.metrics.count(service.as_ref(), answered);
        }
        self.board.write(|board| {
            for id in &agent.ids {
                board.insert(id.clone(), agent.status().clone());
            }
        });
        let report = &agent.status().report;
        self.reports.send_if_modified(|view| {
            let mut changed = false;
            for id in &agent.ids {
                let before = view.insert(id.clone(), report.clone());
                let same = before.is_some_and(|before| {
                    before.word == report.word && before.lost.is_some() == report.lost.is_some()
                });
                changed |= !same;
            }
            changed
        });
    }
}
