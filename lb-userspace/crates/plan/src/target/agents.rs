//! What agents say about backends, laid over what the operator and the checks say. Pure.

use std::{borrow::Cow, collections::BTreeMap};

use super::{backend::Admin, desired::Desired, effective::HealthView};
use crate::health::{
    CheckId, Health,
    agent::{AgentAdmin, AgentAnswer, AgentSettings, AgentSpec, AgentView},
};

/// Whether a word about `id` matters.
pub fn wants(desired: &Desired, CheckId(service, backend): &CheckId) -> bool {
    let Ok(there) = desired.service(service) else {
        return false;
    };
    let backend = desired.backend(service, backend);
    backend.is_ok_and(|backend| there.agent_of(backend).is_some())
}

/// The agents of a desired state. Those of backends that are disabled are asked too, so that their word is known when
/// these return.
pub fn specs(desired: &Desired, said: &AgentView) -> Vec<AgentSpec> {
    let mut specs = Vec::new();
    for service in desired.services.values() {
        for backend in &service.backends {
            let Some(target) = service.agent_of(backend) else {
                continue;
            };
            let id = CheckId(service.name.clone(), backend.name.clone());
            specs.push(AgentSpec {
                target,
                settings: AgentSettings {
                    port: Some(target.port()),
                    ..service.agent.clone().unwrap_or_default()
                },
                initial: said.get(&id).map(|said| said.word).unwrap_or_default(),
                id,
            });
        }
    }
    specs
}

/// What still stands when `new` follows `old`: what was said about backends that have agents and stand where they stood.
pub fn after(old: &Desired, new: &Desired, said: &AgentView) -> AgentView {
    let stays = |id: &CheckId| {
        let address = |desired: &Desired| desired.backend(&id.0, &id.1).ok().map(|backend| backend.address);
        wants(new, id) && address(old) == address(new)
    };
    let standing = said.iter().filter(|(id, _)| stays(id));
    standing.map(|(id, said)| (id.clone(), said.clone())).collect()
}

/// The desired state as agents want it: drained, in maintenance, with a part of its weight. What the operator drains or
/// disables stays so whatever its agent says. Rings keep the size that the configured weights ask for, so that a weight
/// that changes all the time does not move everybody.
pub fn in_force<'a>(desired: &'a Desired, said: &AgentView) -> Cow<'a, Desired> {
    let mut words = BTreeMap::new();
    for (CheckId(service, backend), said) in said {
        let AgentAnswer {
            admin,
            state: _,
            percent,
        } = said.word;
        let default = AgentAnswer::default();
        if admin != default.admin || percent != default.percent {
            words
                .entry(service)
                .or_insert_with(BTreeMap::new)
                .insert(backend, said.word);
        }
    }
    if words.is_empty() {
        return Cow::Borrowed(desired);
    }
    let mut desired = desired.clone();
    for (name, words) in words {
        let Some(service) = desired.services.get_mut(name) else {
            continue;
        };
        for backend in &mut service.backends {
            if let Some(word) = words.get(&backend.name) {
                backend.admin = admin(backend.admin, word.admin);
                backend.weight = part(backend.weight, word.percent);
            }
        }
    }
    Cow::Owned(desired)
}

/// Whose word counts: the operator's, unless that is the default.
fn admin(operator: Admin, agent: AgentAdmin) -> Admin {
    match (operator, agent) {
        (Admin::Enabled, AgentAdmin::Ready) => Admin::Enabled,
        (Admin::Enabled, AgentAdmin::Drain) => Admin::Draining,
        (Admin::Enabled, AgentAdmin::Maint) => Admin::Disabled,
        (Admin::Draining | Admin::Disabled, _) => operator,
    }
}

/// So many percent of a weight; 0 only where one of them is, and no more than fits.
fn part(weight: u16, percent: u16) -> u16 {
    if weight == 0 || percent == 0 {
        return 0;
    }
    let part = u32::from(weight) * u32::from(percent) / 100;
    u16::try_from(part.max(1)).unwrap_or(u16::MAX)
}

/// The verdicts of checks and agents together: a backend is down if either says so.
pub fn judged<'a>(health: &'a HealthView, said: &AgentView) -> Cow<'a, HealthView> {
    let mut judged = Cow::Borrowed(health);
    for (id, _) in said.iter().filter(|(_, said)| !said.word.state.is_up()) {
        judged.to_mut().insert(id.clone(), Health::Down);
    }
    judged
}

#[cfg(test)]
mod tests;
