//! Test doubles for the ports of the control task.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_common::{
    backend::{BackendId, Generation},
    ring_slot::RingSlot,
    service::{Mode, RingId, Service, ServiceId, TCP, TRANSLATES},
};
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    ApplyMetrics, ControlHandle, ControlTask, Inherited, Observer, Parts, ReadCounters, Reading,
    ports::{AskAgents, ProgramTarget, RunChecks},
};
use crate::{
    config::change::Request,
    datapath::{DatapathError, HostAddresses, NextHops, ProgramError, ProgramReport, Snapshot},
    events::EventLog,
    health::{
        CheckId, CheckSpec, Health, HealthEvent, Memory,
        agent::{AgentReport, AgentSpec, AgentView},
    },
    plan::{Programmed, ProgrammedBackend, Target},
    state::{
        desired::Desired,
        service::ServiceKey,
        store::{Record, Store, StoreError, StoreProblem},
        stored::Stored,
    },
};

/// How long a test waits for a state at most. Simulated time, which passes at once when nothing else is to be done.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Advances simulated time and runs everything due in it. For tests with a paused clock.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// A request that has these keys of the configuration file.
pub(crate) fn request(toml: &str) -> Request {
    toml.parse::<toml::Table>().unwrap().into()
}

/// The calls of the test doubles, and their answers.
#[derive(Default)]
pub(crate) struct World {
    /// The calls, in order: `save 7`, `program`, `check 2`.
    pub(crate) log: Vec<String>,
    /// The saved state.
    pub(crate) saved: Option<Stored>,
    /// The records stored beside it.
    pub(crate) remembered: Vec<Record>,
    /// The programmed state.
    pub(crate) programmed: Option<Target>,
    /// The first programmed state.
    pub(crate) first_programmed: Option<Target>,
    /// The state directory cannot be written.
    pub(crate) save_fails: bool,
    /// The next write of records waits until the sender is dropped.
    pub(crate) hangs: Option<std::sync::mpsc::Receiver<()>>,
    /// The next write of a state says that it has begun, and waits until the receiver of that is dropped.
    pub(crate) save_hangs: Option<std::sync::mpsc::SyncSender<()>>,
    /// The state in force differs from the saved one.
    pub(crate) unsaved: bool,
    /// The data plane refuses.
    pub(crate) program_fails: bool,
    /// The agents to poll.
    pub(crate) asked: Vec<AgentSpec>,
    /// The counters.
    pub(crate) snapshot: Snapshot,
}

/// Shared by all stand-ins of one test.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls since the last one.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }
}

impl ProgramTarget for Shared {
    async fn reach(&self, _: BTreeSet<IpAddr>) {}

    async fn program(&self, target: Target) -> Result<ProgramReport, ProgramError> {
        let mut world = self.lock();
        world.log.push("program".into());
        if world.program_fails {
            return Err(ProgramError::Plan("no room".into()));
        }
        world.first_programmed.get_or_insert_with(|| target.clone());
        world.programmed = Some(target);
        Ok(ProgramReport {
            steps: 1,
            elapsed: std::time::Duration::from_micros(50),
        })
    }
}

impl Store for Shared {
    fn load(&self) -> Result<Option<Stored>, StoreError> {
        Ok(self.lock().saved.clone())
    }

    fn set_aside(&self) -> Result<PathBuf, StoreError> {
        Ok(PathBuf::new())
    }

    fn recall(&self) -> Vec<Record> {
        self.lock().remembered.clone()
    }

    fn remember(&self, records: &[Record]) {
        let hangs = self.lock().hangs.take();
        if let Some(hangs) = hangs {
            let _ = hangs.recv();
        }
        let mut world = self.lock();
        world.log.push(format!("remember {}", records.len()));
        world.remembered.extend_from_slice(records);
    }

    fn forget_all_but(&self, records: &[Record]) {
        self.lock().remembered = records.to_vec();
    }

    fn unsaved(&self) -> Option<StoreProblem> {
        let unsaved = self.lock().unsaved;
        unsaved.then(|| StoreProblem {
            message: "the state is not saved".into(),
            hint: String::new(),
        })
    }

    fn problems(&self) -> Vec<StoreProblem> {
        Vec::new()
    }

    fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        let hangs = self.lock().save_hangs.take();
        if let Some(hangs) = hangs {
            // The first is taken at once, the second never.
            let _ = hangs.send(()).and_then(|()| hangs.send(()));
        }
        let mut world = self.lock();
        world.log.push(format!("save {}", stored.desired.revision.0));
        if world.save_fails {
            return Err(StoreError::Write {
                file: "/state".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            });
        }
        world.saved = Some(stored.clone());
        Ok(())
    }
}

impl RunChecks for Shared {
    fn run(&self, checks: Vec<CheckSpec>) {
        self.lock().log.push(format!("check {}", checks.len()));
    }
}

impl AskAgents for Shared {
    fn ask(&self, agents: Vec<AgentSpec>) {
        self.lock().asked = agents;
    }
}

impl ReadCounters for Shared {
    fn read(&self) -> Result<Reading, DatapathError> {
        Ok(Reading {
            snapshot: self.lock().snapshot.clone(),
            ..Reading::default()
        })
    }
}

fn verdict(id: CheckId, health: Health) -> HealthEvent {
    HealthEvent {
        id,
        health,
        detail: "connection refused".into(),
        at: std::time::SystemTime::now(),
        memory: Memory {
            health,
            ..Memory::default()
        },
    }
}

/// Maps of an earlier daemon in which the first of these backends takes new flows; each has its flows if it is alive.
pub(crate) fn left_behind(key: ServiceKey, backends: &[(&str, bool)]) -> Programmed {
    let mut programmed = Programmed::default();
    let record = Service {
        ring_size: 1,
        ring: RingId(4),
        id: ServiceId(3),
        mode: Mode::Nat as u8,
        on_empty: 1,
        flags: TRANSLATES,
        ..Service::default()
    };
    programmed.services.insert(key, record);
    for (number, (address, alive)) in (1..).zip(backends) {
        let there = ProgrammedBackend {
            address: address.parse().unwrap(),
            service: record.id,
            generation: Generation(1),
            mode: Mode::Nat,
            protocol: TCP,
            alive: *alive,
            held_back: 0,
            tunnel_source: None,
        };
        programmed.backends.insert(BackendId(number), there);
    }
    let ring = [RingSlot::stable(BackendId(1))].into();
    programmed.rings.insert(record.ring, ring);
    programmed
}

/// A running control task among stand-ins.
pub(crate) struct Rig {
    pub(crate) world: Shared,
    pub(crate) control: ControlHandle,
    pub(crate) events: Arc<EventLog>,
    pub(crate) observer: Arc<Observer>,
    verdicts: mpsc::Sender<HealthEvent>,
    agent_updates: watch::Sender<AgentView>,
    /// How backends are reached.
    pub(crate) ways: watch::Sender<Arc<NextHops>>,
    /// The balancer's own addresses.
    pub(crate) host: watch::Sender<Arc<HostAddresses>>,
    cancel: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Rig {
    pub(crate) async fn start(desired: Desired, inherited: Inherited) -> Self {
        Self::start_with(Stored::by_command(desired), inherited).await
    }

    pub(crate) async fn start_with(stored: Stored, inherited: Inherited) -> Self {
        Self::starting(stored, inherited, Vec::new()).await
    }

    /// A start during which checks give these verdicts.
    pub(crate) async fn starting(
        stored: Stored,
        inherited: Inherited,
        first: Vec<(CheckId, Health)>,
    ) -> Self {
        let world = Shared::default();
        world.lock().saved = Some(stored.clone());
        let (verdicts, receiver) = mpsc::channel(16);
        for (id, health) in first {
            verdicts.send(verdict(id, health)).await.unwrap();
        }
        let (agent_updates, updates) = watch::channel(AgentView::new());
        let (ways, follows) = watch::channel(Arc::new(NextHops::new()));
        let (host, lives_at) = watch::channel(Arc::new(HostAddresses::default()));
        let events = Arc::new(EventLog::default());
        let observer = Arc::new(Observer::new(
            Box::new(world.clone()),
            tokio::sync::watch::channel(Arc::default()).1,
        ));
        let parts = Parts {
            writer: world.clone(),
            store: Arc::new(world.clone()),
            checks: Box::new(world.clone()),
            verdicts: receiver,
            agents: Box::new(world.clone()),
            agent_updates: updates,
            ways: follows,
            host: lives_at,
            observer: Arc::clone(&observer),
            events: Arc::clone(&events),
            metrics: ApplyMetrics::register(&Registry::new()).unwrap(),
            stored,
            refused: None,
            inherited,
        };
        let (task, control) = ControlTask::start(parts).await.unwrap();
        let cancel = CancellationToken::new();
        tokio::spawn(task.run(cancel.clone()));
        world.take_log();
        Self {
            world,
            control,
            events,
            observer,
            verdicts,
            agent_updates,
            ways,
            host,
            cancel,
        }
    }

    /// Checks change their verdict. Returns when the task has taken it up.
    pub(crate) async fn verdict(&self, id: CheckId, health: Health) {
        let mut view = self.control.view.clone();
        view.mark_unchanged();
        self.verdicts.send(verdict(id, health)).await.unwrap();
        view.changed().await.unwrap();
    }

    /// An agent reports.
    pub(crate) fn agent_reports(&self, id: CheckId, update: AgentReport) {
        self.agent_updates.send_modify(|view| {
            view.insert(id, update);
        });
    }

    /// Returns when the task has published something new that satisfies `condition`. For tests with a paused clock.
    pub(crate) async fn until(&self, condition: impl FnMut(&Arc<super::ControlView>) -> bool) {
        let mut view = self.control.view.clone();
        let reached = tokio::time::timeout(PATIENCE, view.wait_for(condition)).await;
        assert!(
            matches!(reached, Ok(Ok(_))),
            "not reached within {PATIENCE:?}: {:#?}",
            self.control.view()
        );
    }

    /// Tenths of a backend's weight that are programmed as held back.
    pub(crate) fn held_back(&self, address: &str) -> u8 {
        let address = address.parse().unwrap();
        let world = self.world.lock();
        let mut services = world
            .programmed
            .iter()
            .flat_map(|target| target.services.values());
        let there = services.find_map(|service| service.backends.get(&address));
        there.unwrap().held_back
    }

    /// Programmed weight and life of a backend at this address; `None` where it is not programmed.
    pub(crate) fn programmed(&self, address: &str) -> Option<(u32, bool)> {
        let address = address.parse().unwrap();
        let world = self.world.lock();
        let mut services = world
            .programmed
            .iter()
            .flat_map(|target| target.services.values());
        services
            .find_map(|service| service.backends.get(&address))
            .map(|there| (there.weight, there.alive))
    }
}
