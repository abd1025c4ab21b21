//! Applies agent updates to the desired state and the health states. Pure.

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

/// The agents of a desired state. Agents of disabled backends are polled too, so that their reports are known when the
/// backends return.
pub fn specs(desired: &Desired, updates: &AgentView) -> Vec<AgentSpec> {
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
                initial: updates.get(&id).map(|update| update.word).unwrap_or_default(),
                id,
            });
        }
    }
    specs
}

/// The agent updates that stay in force when `new` replaces `old`: for backends that still have an agent and the same
/// address.
pub fn after(old: &Desired, new: &Desired, updates: &AgentView) -> AgentView {
    let stays = |id: &CheckId| {
        let address = |desired: &Desired| desired.backend(&id.0, &id.1).ok().map(|backend| backend.address);
        wants(new, id) && address(old) == address(new)
    };
    let standing = updates.iter().filter(|(id, _)| stays(id));
    standing
        .map(|(id, update)| (id.clone(), update.clone()))
        .collect()
}

/// The desired state with agent updates applied: drain, maintenance, a share of the weight. Backends that the operator
/// drains or disables stay so. Rings keep the size for the configured weights, so that frequent changes of weight do
/// not move most flows.
pub fn in_force<'a>(desired: &'a Desired, updates: &AgentView) -> Cow<'a, Desired> {
    let mut words = BTreeMap::new();
    for (CheckId(service, backend), update) in updates {
        let AgentAnswer {
            admin,
            state: _,
            percent,
        } = update.word;
        let default = AgentAnswer::default();
        if admin != default.admin || percent != default.percent {
            words
                .entry(service)
                .or_insert_with(BTreeMap::new)
                .insert(backend, update.word);
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

/// The operator's setting takes precedence, unless it is the default.
fn admin(operator: Admin, agent: AgentAdmin) -> Admin {
    match (operator, agent) {
        (Admin::Enabled, AgentAdmin::Ready) => Admin::Enabled,
        (Admin::Enabled, AgentAdmin::Drain) => Admin::Draining,
        (Admin::Enabled, AgentAdmin::Maint) => Admin::Disabled,
        (Admin::Draining | Admin::Disabled, _) => operator,
    }
}

/// A percentage of a weight; 0 only if one of them is 0, and at most `u16::MAX`.
fn part(weight: u16, percent: u16) -> u16 {
    if weight == 0 || percent == 0 {
        return 0;
    }
    let part = u32::from(weight) * u32::from(percent) / 100;
    u16::try_from(part.max(1)).unwrap_or(u16::MAX)
}

/// Health states by checks and agents: a backend is down if either reports it.
pub fn judged<'a>(health: &'a HealthView, updates: &AgentView) -> Cow<'a, HealthView> {
    let mut judged = Cow::Borrowed(health);
    for (id, _) in updates.iter().filter(|(_, update)| !update.word.state.is_up()) {
        judged.to_mut().insert(id.clone(), Health::Down);
    }
    judged
}

#[cfg(test)]
mod tests;
