//! Which backups take flows, and how that fits with all else that decides about it.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    health::agent::{AgentAdmin, AgentAnswer, AgentReport, AgentState, AgentView},
    state::{
        service::{OnDown, OnEmpty},
        testing::{self, id},
    },
    target::{
        agents,
        content::TargetBackend,
        effective::{self, Blocked, RemovedBackends},
        removal,
        slow_start::SlowStart,
    },
};

/// A service with backends a, b and c, and backups x and y of weights 3 and 1.
fn service() -> Service {
    let mut service = testing::service("web", 1, &[("a", 10), ("b", 10), ("c", 10), ("x", 3), ("y", 1)]);
    for backend in &mut service.backends[3..] {
        backend.backup = true;
    }
    service
}

/// All layers as the control task lays them: weight and life of each backend.
fn target(service: &Service, health: &HealthView, updates: &AgentView) -> Vec<TargetBackend> {
    let desired = testing::desired([service.clone()]);
    let desired = agents::in_force(&desired, updates);
    let health = agents::judged(health, updates);
    let desired = in_force(&desired, &health, &Blocked::new());
    let limited = removal::limited(&desired, &health);
    let target = effective::target(&desired, &limited, &RemovedBackends::new());
    let target = SlowStart::default().hold_back(target, &desired, &health, Instant::now());
    let there = &target.services[&service.key].backends;
    service
        .backends
        .iter()
        .map(|backend| there[&backend.address])
        .collect()
}

fn weights(service: &Service, health: &HealthView, updates: &AgentView) -> Vec<u32> {
    let target = target(service, health, updates);
    target.iter().map(|backend| backend.weight).collect()
}

fn down(names: &[&str]) -> HealthView {
    let down = names.iter().map(|name| (id("web", name), Health::Down));
    down.collect()
}

/// Clients reach the sorry server only when no other backend can serve.
#[test]
fn backups_take_flows_while_fewer_than_backup_below_others_can() {
    for (below, failed, expected) in [
        (1, &[][..], [10, 10, 10, 0, 0]),
        (1, &["a", "b"], [0, 0, 10, 0, 0]),
        (1, &["a", "b", "c"], [0, 0, 0, 3, 1]),
        (1, &["a", "b", "c", "x"], [0, 0, 0, 0, 1]),
        (1, &["x"], [10, 10, 10, 0, 0]),
        (2, &["a"], [0, 10, 10, 0, 0]),
        (2, &["a", "b"], [0, 0, 10, 3, 1]),
        (3, &["a"], [0, 10, 10, 3, 1]),
        (4, &[], [10, 10, 10, 3, 1]),
    ] {
        let mut service = service();
        service.backup_below = below;
        let got = weights(&service, &down(failed), &AgentView::new());
        assert_eq!(got, expected, "below {below} with {failed:?} down");
    }
}

#[test]
fn backends_that_the_operator_or_an_agent_takes_out_cannot_take_flows() {
    let none = AgentView::new();
    let mut drained = service();
    drained.backends[0].admin = Admin::Draining;
    drained.backends[1].admin = Admin::Disabled;
    assert_eq!(weights(&drained, &HealthView::new(), &none), [0, 0, 10, 0, 0]);
    drained.backends[2].weight = 0;
    assert_eq!(weights(&drained, &HealthView::new(), &none), [0, 0, 0, 3, 1]);
    // The same rules hold for backups.
    drained.backends[3].admin = Admin::Draining;
    assert_eq!(weights(&drained, &HealthView::new(), &none), [0, 0, 0, 0, 1]);

    let updates = |word: AgentAnswer| -> AgentView {
        let update = AgentReport {
            word,
            ..AgentReport::default()
        };
        ["a", "b", "c"]
            .iter()
            .map(|name| (id("web", name), update.clone()))
            .collect()
    };
    let ready = AgentAnswer::default();
    for word in [
        AgentAnswer {
            admin: AgentAdmin::Drain,
            ..ready
        },
        AgentAnswer {
            admin: AgentAdmin::Maint,
            ..ready
        },
        AgentAnswer { percent: 0, ..ready },
        AgentAnswer {
            state: AgentState::Down,
            ..ready
        },
    ] {
        assert_eq!(
            weights(&service(), &HealthView::new(), &updates(word)),
            [0, 0, 0, 3, 1],
            "{word}"
        );
    }
    let half = AgentAnswer { percent: 50, ..ready };
    assert_eq!(
        weights(&service(), &HealthView::new(), &updates(half)),
        [5, 5, 5, 0, 0]
    );
}

#[test]
fn backends_that_cannot_be_reached_cannot_take_flows() {
    let service = service();
    let blocked: Blocked = service.backends[..3]
        .iter()
        .map(|backend| backend.address.ip())
        .collect();
    assert_eq!(others(&service, &HealthView::new(), &blocked), (0, 3));
    assert_eq!(others(&service, &HealthView::new(), &Blocked::new()), (3, 3));
    let desired = testing::desired([service]);
    assert!(matches!(
        in_force(&desired, &HealthView::new(), &blocked),
        Cow::Borrowed(_)
    ));
}

/// A flow on a backup lives on when the others are back, as on any backend that drains.
#[test]
fn a_backup_in_reserve_keeps_its_flows_while_it_is_up() {
    for (health, on_down, alive) in [
        (Health::Up, OnDown::Move, true),
        (Health::Unchecked, OnDown::Move, true),
        (Health::Down, OnDown::Move, false),
        (Health::Down, OnDown::Keep, true),
    ] {
        let mut service = service();
        service.on_down = on_down;
        let view = HealthView::from([(id("web", "x"), health)]);
        let backup = target(&service, &view, &AgentView::new())[3];
        assert_eq!(
            (backup.weight, backup.alive),
            (0, alive),
            "{health:?} {on_down:?}"
        );
    }
    let mut disabled = service();
    disabled.backends[3].admin = Admin::Disabled;
    assert!(!target(&disabled, &HealthView::new(), &AgentView::new())[3].alive);
}

/// After a broken check the backups must not be the only servers, and they must not count as backends that checks left.
#[test]
fn backups_serve_beside_backends_in_panic_mode() {
    let mut service = service();
    service.max_removed_percent = 50;
    let none = AgentView::new();
    for (failed, expected) in [
        (&["a"][..], [0, 10, 10, 0, 0]),
        (&["a", "b"], [0, 10, 10, 0, 0]),
        (&["a", "b", "c"], [0, 10, 10, 3, 1]),
        (&["a", "b", "c", "x", "y"], [0, 10, 10, 0, 0]),
    ] {
        assert_eq!(
            weights(&service, &down(failed), &none),
            expected,
            "{failed:?} down"
        );
    }
}

#[test]
fn without_backends_all_serve_with_on_empty_all() {
    let mut service = service();
    service.on_empty = OnEmpty::All;
    let all = down(&["a", "b", "c", "x", "y"]);
    assert_eq!(weights(&service, &all, &AgentView::new()), [10, 10, 10, 3, 1]);
    let others = down(&["a", "b", "c"]);
    assert_eq!(weights(&service, &others, &AgentView::new()), [0, 0, 0, 3, 1]);
}

/// An activated backup is needed at once; backends that recover meanwhile start slowly beside it.
#[test]
fn activated_backup_has_its_whole_weight_at_once() {
    let service = Service {
        slow_start: Duration::from_secs(90),
        backup_below: 3,
        ..service()
    };
    let desired = testing::desired([service.clone()]);
    let (mut slow, start) = (SlowStart::default(), Instant::now());
    let mut held_back = |failed: &[&str], seconds| -> Vec<u8> {
        let health = down(failed);
        let desired = in_force(&desired, &health, &Blocked::new());
        let target = effective::target(&desired, &health, &RemovedBackends::new());
        let target = slow.hold_back(target, &desired, &health, start + Duration::from_secs(seconds));
        let there = &target.services[&service.key].backends;
        service
            .backends
            .iter()
            .map(|backend| there[&backend.address].held_back)
            .collect()
    };
    assert_eq!(held_back(&[], 0), [0; 5]);
    assert_eq!(held_back(&[], 90), [0; 5]);
    assert_eq!(held_back(&["a"], 91), [0; 5]);
    assert_eq!(held_back(&[], 100), [9, 0, 0, 0, 0]);
}

/// Clients of the others must not move because backups come and go with another ring.
#[test]
fn the_ring_keeps_its_size_and_only_services_with_backups_in_reserve_change() {
    let plain = testing::service("plain", 2, &[("a", 1)]);
    let desired = testing::desired([service(), plain]);
    let in_reserve = in_force(&desired, &HealthView::new(), &Blocked::new());
    let serving = in_force(&desired, &down(&["a", "b", "c"]), &Blocked::new());
    assert!(matches!(serving, Cow::Borrowed(_)));
    let size = |desired: &Desired| {
        let target = effective::target(desired, &HealthView::new(), &RemovedBackends::new());
        target.services[&service().key].ring_size
    };
    assert_eq!(size(&in_reserve), size(&serving));
    let plain = "plain".parse().unwrap();
    assert_eq!(in_reserve.services[&plain], desired.services[&plain]);
}
