//! What the API shows and changes.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::SystemTime};

use tokio::sync::{Mutex, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{parser::FileParser, refusals::Refusals, reloads::Reloads};
use crate::{
    config::{
        DaemonSettings,
        lb::{changed_since_start, needs_restart},
    },
    config_file::ConfigFile,
    control::{ControlHandle, Observer},
    datapath::{Interfaces, Monitor, MonitorError, MonitorFilter, ReadFlows, WriterHandle},
    discovery,
    events::{EventLog, journal::Journal},
    explain::ReadTables,
    health::{CheckId, CheckStatuses, HealthHandle, Report, agent::AgentStatus},
    parts::PartBoard,
    state::store::Store,
};

/// Reads the state of checks, and takes reports.
pub trait ReadChecks: Send + Sync {
    /// All checks by backend.
    fn checks(&self) -> Arc<CheckStatuses>;

    /// All agents by backend.
    fn agents(&self) -> Arc<BTreeMap<CheckId, AgentStatus>>;

    /// Takes a report about the backend at `target`.
    fn report(&self, target: SocketAddr, report: Report);
}

impl ReadChecks for HealthHandle {
    fn checks(&self) -> Arc<CheckStatuses> {
        self.snapshot()
    }

    fn agents(&self) -> Arc<BTreeMap<CheckId, AgentStatus>> {
        Self::agents(self).snapshot()
    }

    fn report(&self, target: SocketAddr, report: Report) {
        Self::report(self, target, report);
    }
}

/// Begins monitors.
pub trait BeginMonitor: Send + Sync {
    /// As [`WriterHandle::monitor`].
    fn begin(
        &self,
        filter: MonitorFilter,
    ) -> Pin<Box<dyn Future<Output = Result<Monitor, MonitorError>> + Send + '_>>;
}

impl BeginMonitor for WriterHandle {
    fn begin(
        &self,
        filter: MonitorFilter,
    ) -> Pin<Box<dyn Future<Output = Result<Monitor, MonitorError>> + Send + '_>> {
        Box::pin(self.monitor(filter))
    }
}

/// Requests about flows at once, each of which holds threads for as long as its reader takes.
pub const MAX_WALKS: usize = 4;

/// The same through the socket for reading.
pub(super) const MAX_READ_WALKS: usize = 2;

/// Readings of the journal at once, each of which holds a thread for as long as its reader takes; further ones wait.
pub const MAX_JOURNAL_READS: usize = 2;

/// Access to flows.
pub struct Flows {
    /// Reads and removes them.
    pub tables: Box<dyn ReadFlows>,
    /// Permits for requests, [`MAX_WALKS`].
    pub permits: Arc<Semaphore>,
    /// Permits for requests of the socket for reading, so that they leave the others to commands.
    pub read_permits: Arc<Semaphore>,
}

impl Flows {
    /// Access by these tables.
    pub fn new(tables: impl ReadFlows + 'static) -> Self {
        Self {
            tables: Box::new(tables),
            permits: Arc::new(Semaphore::new(MAX_WALKS)),
            read_permits: Arc::new(Semaphore::new(MAX_READ_WALKS)),
        }
    }
}

/// Everything that the API shows and changes.
pub struct Api {
    /// Requests changes.
    pub control: ControlHandle,
    /// Reads counters.
    pub observer: Arc<Observer>,
    /// Reads checks.
    pub checks: Box<dyn ReadChecks>,
    /// Reads the tables that packets meet.
    pub tables: Box<dyn ReadTables>,
    /// Begins monitors of packets.
    pub monitors: Box<dyn BeginMonitor>,
    /// Reads and removes flows.
    pub flows: Flows,
    /// Held while counters are read for a client: readers that wait for each other would keep changes waiting, too, which read them.
    pub looks: Arc<Mutex<()>>,
    /// The events.
    pub events: Arc<EventLog>,
    /// The events before those, on disk.
    pub journal: Journal,
    /// Permits to read it, [`MAX_JOURNAL_READS`].
    pub journal_permits: Arc<Semaphore>,
    /// Keeps the state.
    pub store: Arc<dyn Store + Send + Sync>,
    /// The configuration file that the daemon was started with.
    pub config: Option<Arc<ConfigFile>>,
    /// Interfaces that are to have the program.
    pub interfaces: Interfaces,
    /// How host names of backends do.
    pub hosts: discovery::Hosts,
    /// Parts that are missing.
    pub parts: PartBoard,
    /// The start settings of the daemon.
    pub settings: DaemonSettings,
    /// Those of the configuration file at that time, without options of `lb run`, if it could be used.
    pub file_at_start: Option<DaemonSettings>,
    /// When the daemon started.
    pub started: SystemTime,
    /// Permits for clients that follow events.
    pub followers: Arc<Semaphore>,
    /// The same for the socket for reading.
    pub read_followers: Arc<Semaphore>,
    /// Refused requests.
    pub refusals: Refusals,
    /// Reloads of the configuration file.
    pub reloads: Reloads,
    /// Parses configuration files.
    pub parser: FileParser,
    /// Ends streams when the daemon leaves.
    pub cancel: CancellationToken,
    /// Tasks that the daemon waits for when it leaves.
    pub tracker: TaskTracker,
}

impl Api {
    /// What the daemon's own file changes that only the next start reads.
    pub(super) fn waits_for_restart(&self, file: &DaemonSettings) -> Vec<String> {
        match &self.file_at_start {
            Some(at_start) => changed_since_start(&self.settings, at_start, file),
            None => needs_restart(&self.settings, file),
        }
    }
}
