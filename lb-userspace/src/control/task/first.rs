//! The first state that a start programs. A take-over programs at once. A fresh start does not know which backends work
//! and interrupts no traffic by waiting, so it runs checks first and sends no client to a dead backend.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{ControlTask, converge::target};
use crate::{
    clock::{now, until},
    control::{ports::ProgramTarget, verdicts},
    datapath::ProgramError,
    health::{CheckId, Health, settings::Through},
    plan::target::Inputs,
    state::{
        backend::{Admin, Backend},
        effective::{self, Blocked},
        service::{Service, ServiceKey},
    },
};

/// How long a start waits for first verdicts where each service has a backend that is up.
const ONE_IS_ENOUGH: Duration = Duration::from_millis(200);
/// How long a start waits for first verdicts at all.
const FIRST_VERDICTS: Duration = Duration::from_secs(1);

impl<P: ProgramTarget> ControlTask<P> {
    /// Programs the first state and begins its checks.
    pub(super) async fn first_program(&mut self) -> Result<(), ProgramError> {
        let waits = !self.unverified.is_empty();
        if waits {
            self.program_for_checks().await?;
            self.run_checks();
            self.first_verdicts().await;
        }
        let mut pace = self.pace.clone();
        let host = Arc::clone(&self.inbox.host.borrow());
        let inputs = Inputs {
            health: &self.health,
            agents: &self.agents,
            blocked: &Blocked::new(),
            is_own: &|prefix| host.has_any_of(prefix),
            own: host.addresses(),
        };
        let wanted = target(&self.desired, inputs, &self.lingering, self.before(), &mut pace);
        self.program(wanted).await?;
        self.pace = pace;
        if !waits {
            self.run_checks();
        }
        Ok(())
    }

    /// Checks through the VIP need their services programmed. No backend takes new flows yet.
    async fn program_for_checks(&mut self) -> Result<(), ProgramError> {
        let by_path = |service: &&Service| service.health.through == Through::Vip;
        let services = self.desired.services.values().map(|service| &**service);
        let of = |service: &Service| {
            let key = service.key;
            service
                .backends
                .iter()
                .map(move |backend| (key, backend.address))
                .collect::<Vec<_>>()
        };
        let places: Vec<(ServiceKey, SocketAddr)> = services.filter(by_path).flat_map(of).collect();
        if places.is_empty() {
            return Ok(());
        }
        let keys: BTreeSet<ServiceKey> = places.iter().map(|(key, _)| *key).collect();
        let mut wanted = effective::target(&self.desired, &self.health, &effective::RemovedBackends::new());
        wanted.services.retain(|key, _| keys.contains(key));
        effective::hold(&mut wanted, &places);
        self.program(Arc::new(wanted)).await?;
        // That state was for checks alone: the first real target is computed as if nothing were programmed.
        self.programmed = None;
        Ok(())
    }

    /// Collects health states until enough are known, or for as long as a start may wait.
    async fn first_verdicts(&mut self) {
        let began = now();
        while let Some(deadline) = self.waits_until(began) {
            tokio::select! {
                event = self.inbox.verdicts.recv() => match event {
                    Some(event) => drop(self.on_health_event(event).await),
                    None => return,
                },
                () = until(Some(deadline)) => {}
            }
        }
    }

    /// Until when a start that `began` to wait keeps waiting; `None`: no longer. It does not wait for reports of kind
    /// push, which may come at any time.
    fn waits_until(&self, began: Instant) -> Option<Instant> {
        let takes_part = |backend: &&Backend| backend.admin == Admin::Enabled && backend.weight > 0;
        let verdict = |service: &Service, backend: &Backend| {
            let id = CheckId(service.name.clone(), backend.name.clone());
            self.health.get(&id).copied().unwrap_or_default()
        };
        let (mut all, mut one_each) = (true, true);
        let services = self.desired.services.values().map(|service| &**service);
        let asked = |service: &&Service| verdicts::finds_out(service);
        for service in services.filter(asked) {
            let verdicts = || {
                service
                    .backends
                    .iter()
                    .filter(takes_part)
                    .map(|backend| verdict(service, backend))
            };
            if verdicts().all(|verdict| verdict != Health::Unchecked) {
                continue;
            }
            all = false;
            one_each &= verdicts().any(|verdict| verdict == Health::Up);
        }
        let patience = if one_each { ONE_IS_ENOUGH } else { FIRST_VERDICTS };
        let deadline = began + patience;
        (!all && now() < deadline).then_some(deadline)
    }
}
