//! The one owner of the maps: turns targets into writes, one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lb_common::service::RingId;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    directory::Directory,
    execute::Executor,
    faults::DatapathPart,
    kernel_clock::monotonic,
    monitor::{Monitor, MonitorFilter, error::MonitorError},
    neighbours::{NeighbourTask, Wanted},
    netlink::{Notices, Watch},
    slots::Slots,
    stages::Stages,
    sweeper,
};
use crate::{
    attach::keeper::handle::KeeperHandle,
    command::{Command, ProgramReport},
    datapath::Datapath,
    error::{DatapathError, ProgramError},
    flows::{FlowReader, walking::Walking},
    host::HostAddresses,
    interface::Interfaces,
    live::LiveTables,
    neighbours::next_hop::NextHops,
    plan::{Planner, Programmed, Step, Target, TargetService},
    state::{service::ServiceKey, shared::Shared},
    stats::StatsReader,
    transition::Walked,
};

/// Commands that may wait for the writer; senders wait when it is full.
const QUEUE: usize = 16;

/// Time that a monitor has to end before another one is refused: a reader that is gone is noticed within a second.
const MONITOR_ENDS: Duration = Duration::from_secs(2);

/// The owner of the maps, and the tasks around it: next hops and sweeping.
#[derive(Debug)]
pub struct WriterTask {
    executor: Executor,
    planner: Planner,
    programmed: Programmed,
    slots: Slots,
    directory: watch::Sender<Arc<Directory>>,
    wanted: Wanted,
    /// A target was not reached since the addresses to follow were settled.
    failed: bool,
}

/// Handle of a running [`WriterTask`], which ends when all handles are dropped and leaves everything forwarding.
#[derive(Clone, Debug)]
pub struct WriterHandle {
    commands: mpsc::Sender<Command>,
    wanted: Wanted,
    keeper: KeeperHandle,
    stats: StatsReader,
    stages: Stages,
    /// Walks through the flows, for which the sweeper rests.
    walking: Walking,
    /// For one monitor at a time.
    monitors: Arc<Semaphore>,
    /// The target programmed last: the next hops of its backends are followed.
    reached: Arc<Mutex<BTreeMap<ServiceKey, Shared<TargetService>>>>,
}

impl WriterTask {
    /// Starts the writer on a thread for blocking work, and the tasks that keep next hops current and sweep flows,
    /// which end with `cancel`. Within a tokio runtime.
    pub fn spawn(datapath: Datapath, cancel: CancellationToken) -> WriterHandle {
        let stats = datapath.stats();
        let Datapath {
            keeper,
            interfaces,
            paths: _,
            maps,
            programmed,
            executor,
            stages,
            directory,
            flow_counts,
            netlink,
            watch: notices,
            reports,
            changes: _,
            reporter,
            parts: _,
            stats: _,
        } = datapath;
        let keeper = KeeperHandle::spawn(
            keeper,
            interfaces.clone(),
            reports,
            reporter.clone(),
            cancel.clone(),
        );
        let (commands, queue) = mpsc::channel(QUEUE);
        stages.completed_by(keeper.clone());
        let wanted = NeighbourTask::spawn(
            netlink,
            Notices::of(notices, Watch::new, DatapathPart::RouteNotices, reporter.clone()),
            reporter,
            interfaces,
            executor.next_hops(),
            commands.downgrade(),
            cancel.clone(),
        );
        let walking = Walking::default();
        let sweeper = sweeper::run(
            maps,
            directory.subscribe(),
            flow_counts,
            walking.clone(),
            commands.downgrade(),
            cancel,
        );
        tokio::spawn(sweeper);
        let task = Self {
            executor,
            planner: Planner::default(),
            slots: Slots::restarted(&programmed, monotonic()),
            programmed,
            directory,
            wanted: wanted.clone(),
            failed: true,
        };
        tokio::task::spawn_blocking(move || task.run(queue));
        WriterHandle {
            commands,
            wanted,
            keeper,
            stats,
            stages,
            walking,
            monitors: Arc::new(Semaphore::new(1)),
            reached: Arc::default(),
        }
    }

    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.blocking_recv() {
            match command {
                Command::Program(target, reply) => {
                    // The caller may be gone; the work is done.
                    let _ = reply.send(self.program(&target));
                }
                Command::NextHops(hops) => {
                    if let Err(e) = self.executor.set_next_hops(&self.programmed, hops) {
                        tracing::error!(error = %e, "cannot write next hops");
                    }
                }
                Command::OwnMacs(macs) => {
                    if let Err(e) = self.executor.set_own_macs(&macs) {
                        tracing::error!(error = %e, "cannot write link-layer addresses of this machine");
                    }
                }
                Command::Walk(reply) => {
                    // The sweeper may have ended meanwhile.
                    let _ = reply.send(self.slots.round(&self.programmed, monotonic()));
                }
                Command::Walked(walked) => self.end_phases(&walked),
                Command::End(reply) => {
                    let _ = reply.send(());
                    return;
                }
            }
        }
    }

    fn program(&mut self, target: &Target) -> Result<ProgramReport, ProgramError> {
        let start = Instant::now();
        let steps = self
            .planner
            .plan(target, &self.programmed)
            .map_err(|e| ProgramError::Plan(super::error::chain(&e)))?;
        let before = self.programmed.rings.clone();
        let result = self.executor.execute(&steps, &mut self.programmed);
        self.failed |= result.is_err();
        self.slots.swapped(&before, &self.programmed.rings, monotonic());
        self.slots.follow(target);
        self.follow_idle(target);
        // Also after an error: earlier steps took effect.
        self.list(&steps);
        result?;
        if mem::take(&mut self.failed) || steps.iter().any(Step::is_of_backend) {
            let backends = self.programmed.backends.values();
            let addresses: BTreeSet<IpAddr> = backends.map(|backend| backend.address.ip()).collect();
            self.executor.forget_all_but(&addresses);
            self.wanted.set(addresses);
        }
        Ok(ProgramReport {
            steps: steps.len(),
            elapsed: start.elapsed(),
        })
    }
}

impl WriterTask {
    /// Ends the phases of slots that are due. A failure is tried again after the next walk.
    fn end_phases(&mut self, walked: &[(RingId, Walked)]) {
        let steps = self.slots.walked(walked, &self.programmed, monotonic());
        let before = self.programmed.rings.clone();
        if let Err(e) = self.executor.execute(&steps, &mut self.programmed) {
            tracing::error!(
                error = super::error::chain(&e),
                "cannot end the transition of slots"
            );
        }
        self.slots.swapped(&before, &self.programmed.rings, monotonic());
        if !steps.is_empty() {
            self.planner.rings_changed(&self.programmed);
            self.list(&steps);
        }
    }

    /// Takes up the idle timeouts of flows.
    fn follow_idle(&self, target: &Target) {
        let idle = target.services.iter().map(|(key, service)| (*key, service.idle));
        let idle: Arc<BTreeMap<_, _>> = Arc::new(idle.collect());
        self.directory.send_if_modified(|directory| {
            let changes = directory.idle.as_ref() != Some(&idle);
            if changes {
                Arc::make_mut(directory).idle = Some(idle);
            }
            changes
        });
    }

    /// Publishes the programmed state after these steps.
    fn list(&self, steps: &[Step]) {
        let next = Directory::after(&self.directory.borrow(), steps, &self.programmed);
        self.directory.send_replace(Arc::new(next));
    }
}

impl WriterHandle {
    /// Waits as [`Self::program`] does for the next hops of those of these backends that are new.
    pub async fn reach(&self, backends: BTreeSet<IpAddr>) {
        self.wanted.settle(backends).await;
    }

    /// Makes the maps equal to `target`. New backends take packets once their next hop is known, or was asked for in
    /// vain for [`super::neighbours::FIRST_ANSWER_WAIT`].
    ///
    /// Not cancel-safe: a dropped call may still be carried out.
    ///
    /// # Errors
    /// [`ProgramError`]; the state programmed so far stays in effect, and a later call continues from it.
    pub async fn program(&self, target: Target) -> Result<ProgramReport, ProgramError> {
        let services = target.services.clone();
        let addresses: BTreeSet<IpAddr> = {
            let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = |(key, service): &(&ServiceKey, &Shared<TargetService>)| {
                !reached.get(*key).is_some_and(|there| there.is_same(service))
            };
            let new = services.iter().filter(is_new);
            new.flat_map(|(_, service)| service.backends.keys().map(|address| address.ip()))
                .collect()
        };
        self.wanted.settle(addresses).await;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Program(Box::new(target), reply)).await?;
        let report = answer.await.map_err(|_| ProgramError::Closed)??;
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = services;
        Ok(report)
    }

    /// Takes programs, links and maps out of the kernel and ends the writer.
    ///
    /// # Errors
    /// [`DatapathError`] if something could not be removed.
    pub async fn detach(&self) -> Result<(), DatapathError> {
        self.end().await;
        self.keeper.detach().await
    }

    /// Ends the writer and leaves everything in the kernel, forwarding, for a next daemon to take over.
    pub async fn keep(&self) {
        self.end().await;
        self.keeper.keep().await;
    }

    async fn end(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(Command::End(reply)).await.is_ok() {
            // An error means that the writer has ended already.
            let _ = answer.await;
        }
    }

    /// The interfaces, kept current.
    pub fn interfaces(&self) -> Interfaces {
        self.keeper.interfaces()
    }

    /// Waits until the writer or one of the tasks that follow interfaces and next hops has ended; returns its name.
    pub async fn stopped(&self) -> &'static str {
        tokio::select! {
            () = self.commands.closed() => "writer",
            () = self.keeper.stopped() => "interface",
            () = self.wanted.stopped() => "next hop",
        }
    }

    /// How each backend address is reached, kept current; an address is missing until it was looked at.
    pub fn next_hops(&self) -> watch::Receiver<Arc<NextHops>> {
        self.wanted.next_hops()
    }

    /// The addresses of this machine, kept current.
    pub fn host_addresses(&self) -> watch::Receiver<Arc<HostAddresses>> {
        self.wanted.host_addresses()
    }

    /// Has the whole program take the place of the first one, on a thread for blocking work: the next change finds it. Returns
    /// whether it runs; a failure is reported as one of [`crate::DatapathPart::Program`].
    pub async fn load_rest(&self) -> bool {
        let stages = self.stages.clone();
        let loaded = tokio::task::spawn_blocking(move || stages.complete()).await;
        // Without a result the runtime is going down.
        loaded.is_ok_and(|loaded| loaded.is_ok())
    }

    /// Has the program that records packets run on all interfaces, until the result is dropped.
    ///
    /// # Errors
    /// [`MonitorError`]; the usual program runs on.
    pub async fn monitor(&self, filter: MonitorFilter) -> Result<Monitor, MonitorError> {
        let permit = tokio::time::timeout(MONITOR_ENDS, Arc::clone(&self.monitors).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(MonitorError::Busy);
        };
        let directory = self.stats.directory.clone();
        Monitor::begin(
            filter,
            permit,
            self.stages.clone(),
            self.keeper.clone(),
            directory,
        )
        .await
    }

    /// The tables, for explanations of packets.
    pub fn tables(&self) -> LiveTables {
        LiveTables {
            maps: Arc::clone(&self.stats.maps),
            directory: self.stats.directory.clone(),
            next_hops: self.next_hops(),
        }
    }

    /// The flows, to show or remove them.
    pub fn flows(&self) -> FlowReader {
        let (maps, directory) = (Arc::clone(&self.stats.maps), self.stats.directory.clone());
        FlowReader::new(maps, directory, self.walking.clone())
    }

    /// The counters.
    pub fn stats(&self) -> StatsReader {
        self.stats.clone()
    }

    async fn send(&self, command: Command) -> Result<(), ProgramError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| ProgramError::Closed)
    }
}
