//! The daemon is killed at each step between the first write of a change and the last one in the kernel: the next daemon
//! finds the change whole or not at all, and no flow of a living backend is lost on the way.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus::Registry;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{ports::ProgramTarget, testing::Shared, *};
use crate::{
    config::change::Request,
    datapath::{ProgramError, ProgramReport},
    events::EventLog,
    health::{Health, HealthEvent, Memory, agent::AgentView, settings::CheckKind},
    plan::{Programmed, Target, plan},
    state::{
        backend::Admin,
        desired::Desired,
        store::{LenientStore, Record, Store, StoreError, StoreProblem},
        stored::Stored,
        testing::{self, id},
        words::Word as _,
    },
};

const A: &str = "10.0.1.1:8080";
const B: &str = "10.0.1.2:8080";

/// How many writes, to files or to the kernel, are left until the kill.
#[derive(Default)]
struct Fuse {
    left: Mutex<Option<usize>>,
    killed: Condvar,
    /// Notified when a write waits for the kill.
    burnt: Notify,
}

impl Fuse {
    fn left(&self) -> MutexGuard<'_, Option<usize>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, left: Option<usize>) {
        *self.left() = left;
        self.killed.notify_all();
    }

    /// Whether one more write may be made.
    fn burn(&self) -> bool {
        match &mut *self.left() {
            None => true,
            Some(0) => {
                self.burnt.notify_one();
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// Makes a write, or waits for the kill and makes none.
    fn write<R>(&self, write: impl FnOnce() -> R, killed: R) -> R {
        if self.burn() {
            return write();
        }
        let mut left = self.left();
        while left.is_some() {
            left = self.killed.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        killed
    }
}

/// The real store; each write counts towards the kill.
struct Disk {
    store: LenientStore,
    fuse: Arc<Fuse>,
}

impl Store for Disk {
    fn load(&self) -> Result<Option<Stored>, StoreError> {
        self.store.load()
    }

    fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        self.fuse.write(|| self.store.save(stored), Ok(()))
    }

    fn set_aside(&self) -> Result<std::path::PathBuf, StoreError> {
        self.store.set_aside()
    }

    fn recall(&self) -> Vec<Record> {
        self.store.recall()
    }

    fn remember(&self, records: &[Record]) {
        if !records.is_empty() {
            self.fuse.write(|| self.store.remember(records), ());
        }
    }

    fn forget_all_but(&self, records: &[Record]) {
        self.store.forget_all_but(records);
    }

    fn unsaved(&self) -> Option<StoreProblem> {
        self.store.unsaved()
    }

    fn problems(&self) -> Vec<StoreProblem> {
        self.store.problems()
    }
}

/// The maps, written by the real plan, each step of which burns the fuse.
#[derive(Clone, Default)]
struct Kernel {
    maps: Arc<Mutex<Programmed>>,
    fuse: Arc<Fuse>,
}

impl Kernel {
    fn maps(&self) -> MutexGuard<'_, Programmed> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProgramTarget for Kernel {
    async fn reach(&self, _: BTreeSet<IpAddr>) {}

    async fn program(&self, target: Target) -> Result<ProgramReport, ProgramError> {
        let steps = plan(&target, &self.maps()).unwrap();
        for step in &steps {
            if !self.fuse.burn() {
                // The kill comes here.
                std::future::pending::<()>().await;
            }
            self.maps().apply(step);
        }
        Ok(ProgramReport {
            steps: steps.len(),
            elapsed: Duration::ZERO,
        })
    }
}

/// A daemon on a machine.
struct Daemon {
    control: ControlHandle,
    verdicts: mpsc::Sender<HealthEvent>,
    store: Arc<Disk>,
    inherited: Inherited,
    task: tokio::task::JoinHandle<()>,
    _agent_updates: watch::Sender<AgentView>,
}

impl Daemon {
    async fn start(dir: &Path, kernel: &Kernel) -> Self {
        let store = Arc::new(Disk {
            store: opened(dir).await,
            fuse: Arc::clone(&kernel.fuse),
        });
        let stored = store.load().unwrap().unwrap();
        let known = still_needed(&stored.desired, store.recall());
        let inherited = inherit(&stored.desired, &kernel.maps(), &known, AgentView::new());
        let (verdicts, receiver) = mpsc::channel(16);
        let (agent_updates, updates) = watch::channel(AgentView::new());
        let stand_in = Shared::default();
        let parts = Parts {
            writer: kernel.clone(),
            store: Arc::clone(&store) as Arc<dyn Store + Send + Sync>,
            checks: Box::new(stand_in.clone()),
            verdicts: receiver,
            agents: Box::new(stand_in.clone()),
            agent_updates: updates,
            ways: watch::channel(Arc::default()).1,
            host: watch::channel(Arc::default()).1,
            observer: Arc::new(Observer::new(
                Box::new(stand_in),
                tokio::sync::watch::channel(Arc::default()).1,
            )),
            events: Arc::new(EventLog::default()),
            metrics: ApplyMetrics::register(&Registry::new()).unwrap(),
            stored,
            refused: None,
            inherited: inherited.clone(),
        };
        let (task, control) = ControlTask::start(parts).await.unwrap();
        Self {
            control,
            verdicts,
            store,
            inherited,
            task: tokio::spawn(task.run(CancellationToken::new())),
            _agent_updates: agent_updates,
        }
    }

    async fn verdict(&self, backend: &str, memory: Memory) {
        let mut view = self.control.views();
        view.mark_unchanged();
        let event = HealthEvent {
            id: id("web", backend),
            health: memory.verdict(),
            detail: "connection refused".into(),
            at: SystemTime::now(),
            memory,
        };
        self.verdicts.send(event).await.unwrap();
        view.changed().await.unwrap();
    }

    async fn change(&self, change: Change) {
        self.control.change(change, None, false).await.unwrap();
    }

    /// Weight, life and tenths held back of backend b; `None` where it is not in the maps.
    fn b(&self) -> Option<(u32, bool, u8)> {
        let view = self.control.view();
        let service = view.desired.services.values().next().unwrap();
        let there = view.target_backend(&service.key, B.parse().unwrap())?;
        Some((there.weight, there.alive, there.held_back))
    }

    async fn kill(self, fuse: &Fuse) {
        self.task.abort();
        let _ = self.task.await;
        fuse.set(None);
    }
}

/// The store, as soon as the last daemon has let go of it: a write that waited for the kill ends a moment later, and a
/// process that another test starts shares the lock until it runs its own program.
async fn opened(dir: &Path) -> LenientStore {
    loop {
        match LenientStore::open(dir, false) {
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            store => return store.unwrap(),
        }
    }
}

fn memory(health: Health) -> Memory {
    Memory {
        health,
        ..Memory::default()
    }
}

fn set_admin(admin: Admin) -> Change {
    let request = Request::one("admin", admin.word());
    Change::SetBackend("web".parse().unwrap(), "b".parse().unwrap(), request)
}

/// An operator's change of backend b.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Act {
    Drain,
    Disable,
    Remove { now: bool },
    ReportDown,
    Damp,
    BeginSlowly,
}

impl Act {
    async fn of(self, daemon: &Daemon) {
        match self {
            Self::Drain => daemon.change(set_admin(Admin::Draining)).await,
            Self::Disable => daemon.change(set_admin(Admin::Disabled)).await,
            Self::Remove { now } => {
                let (service, backend) = ("web".parse().unwrap(), "b".parse().unwrap());
                daemon
                    .change(Change::RemoveBackend {
                        service,
                        backend,
                        now,
                    })
                    .await;
            }
            Self::ReportDown => {
                let (store, record) = (Arc::clone(&daemon.store), report());
                let reported = tokio::task::spawn_blocking(move || store.remember(&[record]));
                reported.await.unwrap();
                daemon.verdict("b", memory(Health::Down)).await;
            }
            Self::Damp => {
                let damped = Memory {
                    damped: true,
                    falls: vec![1, 2],
                    ..memory(Health::Down)
                };
                daemon.verdict("b", damped).await;
            }
            Self::BeginSlowly => daemon.verdict("b", memory(Health::Up)).await,
        }
    }
}

fn report() -> Record {
    Record::Report {
        target: B.parse().unwrap(),
        down: Some("disk full".into()),
        at: 1_700_000_000_000,
        ttl: 600_000,
    }
}

/// Runs the act with a kill after `left` writes. Returns the daemon that comes after it, and whether the act had ended.
async fn killed_after(dir: &Path, left: usize, act: Act) -> (Daemon, Kernel, bool) {
    let mut service = testing::service("web", 1, &[("a", 30), ("b", 20)]);
    service.health.kind = CheckKind::Tcp;
    service.on_down_after = Duration::ZERO;
    if act == Act::BeginSlowly {
        service.slow_start = Duration::from_secs(600);
    }
    let desired: Desired = testing::desired([service]);
    let kernel = Kernel::default();
    let store = LenientStore::open(dir, false).unwrap();
    store.save(&Stored::by_command(desired)).unwrap();
    let b_before = if act == Act::BeginSlowly {
        Health::Down
    } else {
        Health::Up
    };
    let known = [("a", A, Health::Up), ("b", B, b_before)];
    let known: Vec<Record> = known
        .map(|(name, address, health)| {
            Record::check(&id("web", name), address.parse().unwrap(), memory(health))
        })
        .into();
    store.remember(&known);
    drop(store);
    // The first start is a fresh one; the second takes over, as one does in the middle of its life.
    let first = Daemon::start(dir, &kernel).await;
    for (name, health) in [("a", Health::Up), ("b", b_before)] {
        first.verdict(name, memory(health)).await;
    }
    first.kill(&kernel.fuse).await;
    let daemon = Daemon::start(dir, &kernel).await;
    kernel.fuse.set(Some(left));
    let ended = tokio::select! {
        biased;
        () = kernel.fuse.burnt.notified() => false,
        () = act.of(&daemon) => true,
    };
    daemon.kill(&kernel.fuse).await;
    let next = Daemon::start(dir, &kernel).await;
    (next, kernel, ended)
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_step_leaves_a_change_whole_or_undone() {
    for (act, before, after) in [
        (Act::Drain, Some((20, true, 0)), Some((0, true, 0))),
        (Act::Disable, Some((20, true, 0)), Some((0, false, 0))),
        (
            Act::Remove { now: false },
            Some((20, true, 0)),
            Some((0, true, 0)),
        ),
        (Act::Remove { now: true }, Some((20, true, 0)), None),
        (Act::ReportDown, Some((20, true, 0)), Some((0, false, 0))),
        (Act::Damp, Some((20, true, 0)), Some((0, false, 0))),
        (Act::BeginSlowly, Some((0, false, 0)), Some((20, true, 9))),
    ] {
        let (mut is_after, mut left) = (false, 0);
        loop {
            let dir = tempfile::tempdir().unwrap();
            let (daemon, kernel, ended) = killed_after(dir.path(), left, act).await;
            let b = daemon.b();
            assert!(b == before || b == after, "{act:?}, {left} writes: {b:?}");
            assert!(
                !is_after || b == after,
                "{act:?}, {left} writes: it was there before"
            );
            assert!(!ended || b == after, "{act:?}, {left} writes: it was answered");
            is_after = b == after;
            let b_damped = daemon
                .inherited
                .memories
                .get(&id("web", "b"))
                .map(|(_, memory)| memory.damped);
            assert!(act != Act::Damp || b_damped == Some(is_after), "{left} writes");
            let reported = daemon.store.recall().contains(&report());
            assert!(act != Act::ReportDown || reported || !is_after, "{left} writes");
            if let (Act::Remove { now: false }, true) = (act, is_after) {
                let view = daemon.control.view();
                assert_eq!(view.lingering[0].name.as_str(), "b", "it keeps its name");
            }
            let a = kernel
                .maps()
                .backends
                .values()
                .any(|there| there.address == A.parse().unwrap() && there.alive);
            assert!(a, "{act:?}, {left} writes: the other one lives");
            daemon.kill(&kernel.fuse).await;
            if ended {
                break;
            }
            left += 1;
        }
        assert!(is_after && left > 1, "{act:?}: {left} writes");
    }
}
