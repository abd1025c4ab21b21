//! The daemon's own diagnosis: faults of services, evaluated again whenever state, routes, addresses or interfaces change.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    task,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    facts::Facts,
    faults::{self, is_enabled},
    setup::Setup,
};
use crate::{
    chain::chain,
    config::DaemonSettings,
    control::{ControlHandle, Fault, FaultsByService},
    datapath::{HostAddresses, Interface, Interfaces, NextHops},
    events::{EventKind, EventLog, NewEvent},
    parts::{MissingPart, Part, PartBoard},
    state::{
        desired::Desired,
        names::{BackendName, ServiceName},
    },
};

/// Interval of looking without a notice: the kernel sends none for settings, drivers and other namespaces.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time between two looks at least, so that many changes at once cost one.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Notices of changes.
pub struct Changes {
    /// Desired state.
    pub control: ControlHandle,
    /// Routes and neighbours of backends.
    pub next_hops: watch::Receiver<Arc<NextHops>>,
    /// Addresses of this machine.
    pub host: watch::Receiver<Arc<HostAddresses>>,
    /// Interfaces of the program.
    pub interfaces: Interfaces,
}

/// Where the diagnosis goes.
pub struct Reports {
    /// The present faults, for status and metrics.
    pub faults: watch::Sender<Arc<FaultsByService>>,
    /// Faults that come and go.
    pub events: Arc<EventLog>,
    /// Whether the diagnosis works.
    pub parts: PartBoard,
}

/// Publishes the faults of services, and reports each that comes or goes as an event and in the log, until `cancel`. Cancel-safe.
pub async fn watch(
    mut changes: Changes,
    settings: DaemonSettings,
    reports: Reports,
    cancel: CancellationToken,
) {
    let mut views = changes.control.views();
    let mut ticks = time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let settings = Arc::new(settings);
    let mut diagnosis = Diagnosis::new(reports);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
            Ok(()) = views.changed() => {}
            Ok(()) = changes.next_hops.changed() => {}
            Ok(()) = changes.host.changed() => {}
            Ok(()) = changes.interfaces.changed() => {}
        }
        let desired = Arc::clone(&views.borrow_and_update().desired);
        let next_hops = Arc::clone(&changes.next_hops.borrow_and_update());
        let interfaces = Arc::clone(&changes.interfaces.borrow_and_update());
        changes.host.mark_unchanged();
        let (known, settings) = (diagnosis.last.clone(), Arc::clone(&settings));
        // Dumps of links and addresses are system calls, which may take a while.
        let looked =
            task::spawn_blocking(move || Look::take(known, &settings, desired, next_hops, &interfaces)).await;
        diagnosis.update(looked.unwrap_or_else(|error| Err(error.into())));
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = time::sleep(LOOK_PAUSE) => {}
        }
    }
}

/// A reason why flows of a service fail: the service, the backend if it is one's, and the cause.
type Reason = (ServiceName, Option<BackendName>, String);

/// What is known and was reported.
struct Diagnosis {
    /// The last look; `None` if it failed.
    last: Option<Arc<Look>>,
    /// Reasons that were reported and still hold, and whether for all flows of the service.
    reported: BTreeMap<Reason, bool>,
    reports: Reports,
}

impl Diagnosis {
    const fn new(reports: Reports) -> Self {
        Self {
            last: None,
            reported: BTreeMap::new(),
            reports,
        }
    }

    /// Takes in a look; `None` if nothing has changed. Of a failed one nothing is known, so no fault is shown, and none has ended.
    fn update(&mut self, looked: io::Result<Option<Look>>) {
        match looked {
            Ok(look) => {
                self.reports
                    .parts
                    .found(Part::Diagnosis, "services are diagnosed again".to_owned());
                if let Some(look) = look {
                    self.report(&look.desired, &look.faults);
                    self.reports.faults.send_replace(Arc::clone(&look.faults));
                    self.last = Some(Arc::new(look));
                }
            }
            Err(error) => {
                let missing = MissingPart {
                    message: format!(
                        "cannot diagnose services: {}; faults of their set-up are unknown",
                        chain(&error)
                    ),
                    hint: "`lb doctor` asks the kernel the same things".to_owned(),
                };
                self.reports.parts.lost(Part::Diagnosis, missing);
                self.reports.faults.send_replace(Arc::default());
                self.last = None;
            }
        }
    }

    /// Reports what has come and gone.
    fn report(&mut self, desired: &Desired, faults: &FaultsByService) {
        let holds: BTreeSet<Reason> = faults
            .iter()
            .flat_map(|(service, faults)| faults.iter().map(|fault| reason(service, fault)))
            .collect();
        let before = mem::take(&mut self.reported);
        let (held, ended): (BTreeMap<_, _>, BTreeMap<_, _>) =
            before.into_iter().partition(|(reason, _)| holds.contains(reason));
        for ((service, backend, message), is_total) in ended {
            if !is_wanted(desired, &service, backend.as_ref()) {
                continue;
            }
            let fault = Fault {
                backend,
                is_total,
                message,
                remedies: Vec::new(),
            };
            let message = format!("flows no longer fail for this reason: {}", fault.reason());
            tracing::info!(%service, "{message}");
            self.event(desired, &service, &fault, message);
        }
        self.reported = held;
        for (service, faults) in faults {
            // One backend of those that all fail stands for the others: a reported one, so that the same is not reported again.
            let is_of_all = |fault: &&Fault| fault.is_total && fault.backend.is_some();
            let is_reported = |fault: &&Fault| self.reported.contains_key(&reason(service, fault));
            let mut total = faults.iter().filter(is_of_all);
            let first = total.clone().next();
            let all = total.find(is_reported).or(first);
            let others = faults
                .iter()
                .filter(|fault| !fault.is_total || fault.backend.is_none());
            for fault in others.chain(all) {
                let before = self.reported.insert(reason(service, fault), fault.is_total);
                let message = match (before, &fault.backend) {
                    (Some(before), _) if before == fault.is_total => continue,
                    (Some(_), Some(backend)) if !fault.is_total => {
                        format!(
                            "other flows work again, those of {backend} still fail: {}",
                            fault.message
                        )
                    }
                    (Some(_) | None, Some(_) | None) => format!("flows fail: {}", fault.reason()),
                };
                tracing::warn!(%service, hint = fault.remedies.join(", or "), "{message}");
                self.event(desired, service, fault, message);
            }
        }
    }

    fn event(&self, desired: &Desired, service: &ServiceName, fault: &Fault, message: String) {
        let backend = fault.backend.as_ref().filter(|_| !fault.is_total);
        let event = NewEvent {
            kind: EventKind::Fault,
            service: Some(service.to_string()),
            backend: backend.map(ToString::to_string),
            revision: desired.revision.0,
            message,
            by: None,
        };
        self.reports.events.push(event, SystemTime::now());
    }
}

fn reason(service: &ServiceName, fault: &Fault) -> Reason {
    (service.clone(), fault.backend.clone(), fault.message.clone())
}

/// Whether there is the service, and the backend should take new flows.
fn is_wanted(desired: &Desired, service: &ServiceName, backend: Option<&BackendName>) -> bool {
    let Some(service) = desired.services.get(service) else {
        return false;
    };
    let takes_flows = |name: &BackendName| {
        let mut backends = service.backends.iter();
        backends.any(|backend| backend.name == *name && is_enabled(backend))
    };
    backend.is_none_or(takes_flows)
}

/// What was seen at one moment, and what follows.
struct Look {
    desired: Arc<Desired>,
    next_hops: Arc<NextHops>,
    facts: Facts,
    faults: Arc<FaultsByService>,
}

impl Look {
    /// `None` if nothing has changed since the last one. Blocks for as long as the system calls take.
    fn take(
        last: Option<Arc<Self>>,
        settings: &DaemonSettings,
        desired: Arc<Desired>,
        next_hops: Arc<NextHops>,
        interfaces: &[Interface],
    ) -> io::Result<Option<Self>> {
        let setup = setup(settings, &desired, interfaces);
        let mut facts = Facts::gather_cheap(&setup, &next_hops, last.as_ref().map(|last| &last.facts))?;
        if let Some(last) = last
            && Arc::ptr_eq(&last.desired, &desired)
            && Arc::ptr_eq(&last.next_hops, &next_hops)
            && last.facts == facts
        {
            return Ok(None);
        }
        let seen = facts.clone();
        facts.add_ways(&next_hops);
        let faults = faults::all(&setup, &facts);
        Ok(Some(Self {
            faults: Arc::new(faults),
            facts: seen,
            desired,
            next_hops,
        }))
    }
}

fn setup(settings: &DaemonSettings, desired: &Desired, interfaces: &[Interface]) -> Setup {
    let running = interfaces.iter().filter_map(|interface| {
        let attached = interface.attached.as_ref()?;
        Some((interface.name.clone(), attached.xdp_mode))
    });
    Setup {
        interfaces: interfaces
            .iter()
            .map(|interface| interface.name.clone())
            .collect(),
        xdp_mode: settings.xdp_mode,
        running: running.collect(),
        has_daemon: true,
        daemon_user: None,
        api_files: None,
        pin_dir: settings.pin_dir.clone(),
        desired: desired.clone(),
        addresses: Vec::new(),
        only: Vec::new(),
    }
}
