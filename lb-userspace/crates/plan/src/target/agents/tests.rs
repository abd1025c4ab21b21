//! Agent updates together with the operator's settings and health states.

use super::*;
use crate::{
    health::agent::{AgentReport, AgentState},
    state::{service::Service, testing},
    target::effective,
};

fn says(admin: AgentAdmin, state: AgentState, percent: u16) -> AgentReport {
    AgentReport {
        word: AgentAnswer {
            admin,
            state,
            percent,
        },
        ..AgentReport::default()
    }
}

fn with_agents(backends: &[(&str, u16)]) -> Desired {
    let service = Service {
        agent: Some(AgentSettings {
            port: Some(9),
            ..AgentSettings::default()
        }),
        ..testing::service("web", 1, backends)
    };
    testing::desired([service])
}

/// Operator, agent and check about one backend of weight 100: weight in force, and whether its flows stay.
#[test]
fn the_operators_word_counts_more_and_each_can_take_a_backend_out() {
    use Admin::{Disabled, Draining, Enabled};
    use AgentAdmin::{Drain, Maint, Ready};
    use AgentState::{Down, Fail, Stopped, Up};
    for (operator, agent, check, expected) in [
        (Enabled, says(Ready, Up, 100), Health::Up, (100, true)),
        (Enabled, says(Ready, Up, 25), Health::Up, (25, true)),
        (Enabled, says(Ready, Up, 250), Health::Unchecked, (250, true)),
        (Enabled, says(Ready, Up, 0), Health::Up, (0, true)),
        (Enabled, says(Drain, Up, 100), Health::Up, (0, true)),
        (Enabled, says(Maint, Up, 100), Health::Up, (0, false)),
        // Both must be up.
        (Enabled, says(Ready, Up, 100), Health::Down, (0, false)),
        (Enabled, says(Ready, Down, 100), Health::Up, (0, false)),
        (Enabled, says(Ready, Stopped, 100), Health::Unchecked, (0, false)),
        (Enabled, says(Ready, Fail, 100), Health::Down, (0, false)),
        // The operator's setting stays, with any report.
        (Draining, says(Ready, Up, 50), Health::Up, (0, true)),
        (Disabled, says(Ready, Up, 50), Health::Up, (0, false)),
        (Draining, says(Maint, Up, 100), Health::Up, (0, true)),
        (Disabled, says(Drain, Up, 50), Health::Up, (0, false)),
    ] {
        let mut desired = with_agents(&[("a", 100), ("b", 100)]);
        let service = desired.services.values_mut().next().unwrap();
        service.backends[0].admin = operator;
        let (key, address) = (service.key, service.backends[0].address);
        let updates = AgentView::from([(testing::id("web", "a"), agent.clone())]);
        let health = HealthView::from([(testing::id("web", "a"), check)]);
        let target = effective::target(
            &in_force(&desired, &updates),
            &judged(&health, &updates),
            &effective::RemovedBackends::new(),
        );
        let there = target.services[&key].backends[&address];
        assert_eq!(
            (there.weight, there.alive),
            expected,
            "{operator:?} {agent:?} {check:?}"
        );
        assert_eq!(
            desired.services[&"web".parse().unwrap()].backends[0].weight,
            100,
            "the configured weight stays"
        );
    }
}

#[test]
fn share_of_a_weight_is_zero_only_if_one_of_them_is() {
    for (weight, percent, expected) in [
        (100, 100, 100),
        (100, 33, 33),
        (1, 1, 1),
        (0, 200, 0),
        (7, 0, 0),
        (3, 50, 1),
        (300, 25_600, u16::MAX),
    ] {
        assert_eq!(part(weight, percent), expected, "{percent} % of {weight}");
    }
}

/// A weight that goes up and down must not resize the ring, which would move flows of all backends.
#[test]
fn agents_do_not_change_the_size_of_a_ring() {
    let desired = with_agents(&[("a", 100), ("b", 100), ("c", 100)]);
    let size = |updates: &AgentView| {
        let target = effective::target(
            &in_force(&desired, updates),
            &HealthView::new(),
            &effective::RemovedBackends::new(),
        );
        target.services.values().next().unwrap().ring_size
    };
    let odd = AgentView::from([
        (
            testing::id("web", "a"),
            says(AgentAdmin::Ready, AgentState::Up, 3),
        ),
        (
            testing::id("web", "b"),
            says(AgentAdmin::Drain, AgentState::Up, 20_000),
        ),
    ]);
    assert_eq!(size(&odd), size(&AgentView::new()));
}

#[test]
fn agent_update_ends_with_the_agent_or_the_backends_address() {
    let id = testing::id("web", "a");
    let updates = AgentView::from([(id.clone(), says(AgentAdmin::Drain, AgentState::Up, 5))]);
    let old = with_agents(&[("a", 1)]);
    let changed = |change: &dyn Fn(&mut Service)| {
        let mut new = old.clone();
        change(new.services.values_mut().next().unwrap());
        after(&old, &new, &updates)
    };
    assert_eq!(changed(&|service| service.backends[0].weight = 9), updates);
    let port = |service: &mut Service| service.agent.as_mut().unwrap().port = Some(10);
    assert_eq!(changed(&port), updates, "polled elsewhere, the same backend");
    let none = AgentView::new();
    assert_eq!(changed(&|service| service.agent = None), none);
    assert_eq!(changed(&|service| service.backends[0].agent_port = Some(0)), none);
    assert_eq!(
        changed(&|service| service.agent.as_mut().unwrap().enabled = false),
        none
    );
    assert_eq!(
        changed(&|service| service.backends[0].address.set_ip([10, 9, 9, 9].into())),
        none
    );
    assert_eq!(changed(&|service| service.backends.clear()), none);
}
