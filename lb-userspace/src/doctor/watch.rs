//! The daemon's own diagnosis: faults of services, evaluated again whenever state, routes, addresses or interfaces change.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    task,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{facts::Facts, faults, setup::Setup};
use crate::{
    chain::chain,
    config::DaemonSettings,
    control::{ControlHandle, Fault, FaultsByService, broken},
    datapath::{HostAddresses, Interface, Interfaces, NextHops},
    events::{EventKind, EventLog, NewEvent},
    state::{desired::Desired, names::ServiceName},
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

/// Publishes the faults of services, and reports each that comes or goes as an event and in the log, until `cancel`. Cancel-safe.
pub async fn watch(
    mut changes: Changes,
    settings: DaemonSettings,
    publish: watch::Sender<Arc<FaultsByService>>,
    events: Arc<EventLog>,
    cancel: CancellationToken,
) {
    let mut views = changes.control.views();
    let mut ticks = time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let settings = Arc::new(settings);
    let mut last: Option<Arc<Look>> = None;
    let mut reported = BTreeSet::new();
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
        let revision = desired.revision.0;
        let (known, settings) = (last.clone(), Arc::clone(&settings));
        // Dumps of links and addresses are system calls, which may take a while.
        let looked =
            task::spawn_blocking(move || Look::take(known, &settings, desired, next_hops, &interfaces)).await;
        match looked {
            Ok(Ok(Some(look))) => {
                let found = look.reasons();
                report(&events, revision, &reported, &found);
                reported = found;
                publish.send_replace(Arc::clone(&look.faults));
                last = Some(Arc::new(look));
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(error = chain(&error), "cannot diagnose services, retrying"),
            Err(error) => tracing::error!(error = chain(&error), "cannot diagnose services"),
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = time::sleep(LOOK_PAUSE) => {}
        }
    }
}

/// A service and why its flows fail.
type Reason = (ServiceName, Fault);

/// What was seen at one moment, and what follows.
struct Look {
    desired: Arc<Desired>,
    next_hops: Arc<NextHops>,
    facts: Facts,
    faults: Arc<FaultsByService>,
    /// Services that are broken for reasons that the API reads itself.
    broken: Vec<Reason>,
}

impl Look {
    /// `None` if nothing has changed since the last one. Blocks for as long as the system calls take.
    fn take(
        last: Option<Arc<Self>>,
        settings: &DaemonSettings,
        desired: Arc<Desired>,
        next_hops: Arc<NextHops>,
        interfaces: &[Interface],
    ) -> std::io::Result<Option<Self>> {
        let setup = setup(settings, &desired, interfaces);
        let mut facts = Facts::gather_cheap(&setup, &next_hops)?;
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
        let is_broken = desired.services.values().filter_map(|service| {
            let broken = broken(&desired, service, &next_hops, |setting| facts.forwards(setting))?;
            let fault = Fault {
                backend: None,
                message: broken.to_string(),
                remedies: broken.remedies(service),
            };
            Some((service.name.clone(), fault))
        });
        let broken = is_broken.collect();
        Ok(Some(Self {
            faults: Arc::new(faults),
            broken,
            facts: seen,
            desired,
            next_hops,
        }))
    }

    fn reasons(&self) -> BTreeSet<Reason> {
        let faults = self
            .faults
            .iter()
            .flat_map(|(service, faults)| faults.iter().map(|fault| (service.clone(), fault.clone())));
        faults.chain(self.broken.iter().cloned()).collect()
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
        pin_dir: settings.pin_dir.clone(),
        desired: desired.clone(),
        addresses: Vec::new(),
        only: Vec::new(),
    }
}

/// Reports what has come and gone.
fn report(events: &EventLog, revision: u64, before: &BTreeSet<Reason>, now: &BTreeSet<Reason>) {
    let event = |(service, fault): &Reason, message: String| {
        let event = NewEvent {
            kind: EventKind::Fault,
            service: Some(service.to_string()),
            backend: fault.backend.as_ref().map(ToString::to_string),
            revision,
            message,
        };
        events.push(event, SystemTime::now());
    };
    for ended in before.difference(now) {
        tracing::info!(service = %ended.0, fault = ended.1.message, "flows no longer fail for this reason");
        event(
            ended,
            format!("flows no longer fail for this reason: {}", ended.1.message),
        );
    }
    for new in now.difference(before) {
        let (service, fault) = new;
        tracing::warn!(%service, hint = fault.remedies.join(", or "), "flows fail: {}", fault.message);
        event(new, format!("flows fail: {}", fault.message));
    }
}
