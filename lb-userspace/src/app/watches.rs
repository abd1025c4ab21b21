//! Tasks that watch the daemon at work and report what they find.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{keep_events::keep_events, watchdog};
use crate::{
    config::DaemonSettings,
    control::{ControlHandle, FaultsByService, certificates, own_traffic, passive, pressure},
    datapath::{Interfaces, WriterHandle},
    doctor,
    events::{EventLog, journal::Journal},
    health::HealthHandle,
    parts::PartBoard,
};

/// What the watches read, and where they report.
pub(super) struct Watches<'a> {
    pub(super) writer: &'a WriterHandle,
    pub(super) control: &'a ControlHandle,
    pub(super) health: &'a HealthHandle,
    pub(super) interfaces: &'a Interfaces,
    pub(super) settings: &'a DaemonSettings,
    pub(super) publish_faults: watch::Sender<Arc<FaultsByService>>,
    pub(super) events: &'a Arc<EventLog>,
    pub(super) parts: &'a PartBoard,
    pub(super) cancel: &'a CancellationToken,
}

impl Watches<'_> {
    /// Starts all of them.
    pub(super) fn spawn(self, tracker: &TaskTracker) {
        let control = || self.control.clone();
        let health = || self.health.clone();
        let events = || Arc::clone(self.events);
        let cancel = || self.cancel.clone();
        let stats = || self.writer.stats();
        tracker.spawn(passive::listen(stats(), health(), control(), cancel()));
        tracker.spawn(own_traffic::watch(control(), events(), cancel()));
        let changes = doctor::Changes {
            control: control(),
            next_hops: self.writer.next_hops(),
            host: self.writer.host_addresses(),
            interfaces: self.interfaces.clone(),
        };
        let settings = self.settings.clone();
        let reports = doctor::Reports {
            faults: self.publish_faults,
            events: events(),
            parts: self.parts.clone(),
        };
        tracker.spawn(doctor::watch(changes, settings, reports, cancel()));
        tracker.spawn(pressure::watch(stats(), control(), events(), cancel()));
        let journal = Journal::new(&self.settings.state_dir);
        tracker.spawn(keep_events(journal, events(), self.parts.clone(), cancel()));
        tracker.spawn(certificates::watch(health(), control(), events(), cancel()));
        tracker.spawn(watchdog::run(control(), health(), cancel()));
    }
}
