//! Plans one target after the other, without looking at services again that did not change.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::limits::{MAX_BACKENDS, MAX_GUARD_PREFIXES, MAX_SERVICES, MAX_SNAT_ADDRESSES};

use crate::{
    draft::Draft, error::PlanError, plan_cache::SettledServices, programmed::Programmed, quic, step::Step,
    target::content::Target,
};

/// Plans one target after the other. Gives the same steps as [`plan`], sooner.
#[derive(Debug, Default)]
pub struct Planner {
    settled: SettledServices,
    /// Services that the last plan had to look at.
    looked_at: usize,
}

/// The steps from the programmed state to the target, in an order in which every prefix leaves the data plane working:
/// backends before rings, rings before services, then removals in reverse. Empty without differences. Ids that the plan
/// frees are reused by a later plan only. If the ids run out for that reason, removals come first, then additions. #
/// Errors [`PlanError`] if the target does not fit the data plane's limits; write nothing then.
pub fn plan(target: &Target, programmed: &Programmed) -> Result<Vec<Step>, PlanError> {
    Planner::default().plan(target, programmed)
}

impl Planner {
    /// As [`plan`]; services that did not change since the last call, and are the very same in `target`, are not looked at
    /// again.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn plan(&mut self, target: &Target, programmed: &Programmed) -> Result<Vec<Step>, PlanError> {
        check_limits(target)?;
        self.looked_at = 0;
        self.settled.keep(target);
        let result = match self.steps(target, programmed) {
            Err(PlanError::IdsExhausted { .. }) => {
                // The state that it is planned from does not exist yet.
                self.settled.clear();
                let steps = self.in_two(target, programmed);
                self.settled.clear();
                steps
            }
            result => result,
        };
        if result.is_err() {
            self.settled.clear();
        }
        result
    }

    /// Services that the last plan had to look at, for tests and logs.
    pub const fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// Records that rings were swapped outside of a plan, and drops the old ones.
    pub fn rings_changed(&mut self, programmed: &Programmed) {
        self.settled.keep_rings(programmed);
    }

    /// Removals first, then additions.
    fn in_two(&mut self, target: &Target, programmed: &Programmed) -> Result<Vec<Step>, PlanError> {
        let mut steps = self.steps(&remaining(target, programmed), programmed)?;
        let mut between = programmed.clone();
        for step in &steps {
            between.apply(step);
        }
        steps.extend(self.steps(target, &between)?);
        Ok(steps)
    }

    fn steps(&mut self, target: &Target, programmed: &Programmed) -> Result<Vec<Step>, PlanError> {
        let mut draft = Draft::new(programmed);
        let mut changed = Vec::new();
        for (key, service) in &target.services {
            match self.settled.get(key, service, programmed) {
                Some(settled) if draft.keep(*key, settled) => {}
                Some(_) | None => changed.push((key, service)),
            }
        }
        self.looked_at += changed.len();
        draft.know(changed.iter().map(|(key, _)| *key));
        for (key, service) in changed {
            let settled = draft.service(*key, service)?;
            self.settled.set(*key, settled);
        }
        Ok(draft.finish(target))
    }
}

fn check_limits(target: &Target) -> Result<(), PlanError> {
    let more_ports: usize = target
        .services
        .values()
        .map(|service| service.more_ports.len())
        .sum();
    let services = target.services.len() + more_ports;
    if services > MAX_SERVICES as usize {
        return Err(PlanError::TooManyServices(services));
    }
    let backends = target
        .services
        .values()
        .map(|service| service.backends.len())
        .sum();
    if backends >= MAX_BACKENDS as usize {
        return Err(PlanError::TooManyBackends(backends));
    }
    let guards = target.services.values().map(|service| &service.guard);
    let prefixes = guards.map(|guard| guard.allow.len() + guard.deny.len()).sum();
    if prefixes > MAX_GUARD_PREFIXES as usize {
        return Err(PlanError::TooManyPrefixes(prefixes));
    }
    quic::check_limits(target)?;
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let count = target
            .snat_addresses
            .iter()
            .filter(|address| family(address))
            .count();
        if count > MAX_SNAT_ADDRESSES as usize {
            return Err(PlanError::TooManySnatAddresses(count));
        }
    }
    Ok(())
}

/// The part of the target that exists already: its services, with their existing backends.
fn remaining(target: &Target, programmed: &Programmed) -> Target {
    let there: BTreeSet<_> = programmed
        .backends
        .values()
        .map(|backend| (backend.service, backend.address, backend.mode as u8))
        .collect();
    let mut target = target.clone();
    target
        .services
        .retain(|key, service| match programmed.services.get(key) {
            Some(record) => {
                service
                    .backends
                    .retain(|address, backend| there.contains(&(record.id, *address, backend.mode as u8)));
                true
            }
            None => false,
        });
    target
}
