//! Fresh starts and take-overs: which checks they wait for, and which state they inherit.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Change, inherit, still_needed,
    testing::{Rig, left_behind, pass, request},
};
use crate::{
    health::{
        BreakerState, Health, Memory,
        agent::AgentView,
        millis,
        settings::{CheckKind, PushCheck, Through},
    },
    plan::Programmed,
    state::{
        backend::Admin,
        desired::Desired,
        service::{ON_DOWN_AFTER, Service},
        store::Record as Known,
        stored::Stored,
        testing::{self, id},
    },
};

const A: &str = "10.0.1.1:8080";
const B: &str = "10.0.1.2:8080";

fn web(change: impl FnOnce(&mut Service)) -> Service {
    let mut service = testing::service("web", 1, &[("a", 10), ("b", 20)]);
    service.health.kind = CheckKind::Tcp;
    change(&mut service);
    service
}

/// A start without programmed or stored state, during which checks report these health states.
async fn fresh(desired: Desired, first: &[(&str, Health)]) -> Rig {
    let inherited = inherit(&desired, &Programmed::default(), &[], AgentView::new());
    let first = first.iter().map(|(name, health)| (id("web", name), *health));
    Rig::starting(Stored::by_command(desired), inherited, first.collect()).await
}

/// Checks through the forwarding path need their service there, but no client must find it yet.
#[tokio::test(start_paused = true)]
async fn service_checked_through_the_vip_serves_no_client_before() {
    let by_path = web(|service| service.health.through = Through::Vip);
    let other = testing::service("other", 2, &[("c", 10)]);
    let desired = testing::desired([by_path.clone(), other]);
    let rig = fresh(desired, &[("a", Health::Up), ("b", Health::Down)]).await;
    let first = rig.world.lock().first_programmed.clone().unwrap();
    assert_eq!(first.services.keys().collect::<Vec<_>>(), [&by_path.key]);
    let mut weights = first.services[&by_path.key]
        .backends
        .values()
        .map(|there| there.weight);
    assert!(weights.all(|weight| weight == 0));
    assert_eq!(
        (rig.programmed(A), rig.programmed(B)),
        (Some((10, true)), Some((0, false))),
        "a backend that is down has no flows to keep"
    );
}

#[tokio::test(start_paused = true)]
async fn fresh_start_waits_only_for_checked_backends_that_take_flows() {
    let mut push = testing::service("push", 2, &[("c", 10)]);
    push.health.kind = CheckKind::Push(PushCheck::default());
    for desired in [
        testing::desired([web(|service| service.backends[1].admin = Admin::Disabled)]),
        testing::desired([web(|service| service.backends[1].weight = 0)]),
        testing::desired([web(|service| drop(service.backends.remove(1))), push]),
    ] {
        let begin = Instant::now();
        fresh(desired, &[("a", Health::Up)]).await;
        assert!(
            begin.elapsed() < Duration::from_millis(100),
            "{:?}",
            begin.elapsed()
        );
    }
}

fn knew(name: &str, address: &str, memory: Memory) -> Known {
    Known::check(&id("web", name), address.parse().unwrap(), memory)
}

/// A restart must not move flows of a backend that just went down, or whose breaker is open.
#[tokio::test(start_paused = true)]
async fn a_backend_that_is_down_keeps_its_flows_over_a_restart_as_without_one() {
    let down = Memory {
        health: Health::Down,
        ..Memory::default()
    };
    let open = Memory {
        health: Health::Up,
        breaker: BreakerState::Open,
        ..Memory::default()
    };
    for (memory, alive, at_first, then) in [
        (&down, true, true, false),
        (&down, false, false, false),
        (&open, true, true, true),
    ] {
        let service = web(|_| ());
        let programmed = left_behind(service.key, &[(A, true), (B, alive)]);
        let up = Memory {
            health: Health::Up,
            ..Memory::default()
        };
        let known = [knew("a", A, up), knew("b", B, memory.clone())];
        let desired = testing::desired([service]);
        let inherited = inherit(&desired, &programmed, &known, AgentView::new());
        let rig = Rig::start(desired, inherited).await;
        assert_eq!(
            rig.programmed(B),
            Some((0, at_first)),
            "{memory:?}, alive: {alive}"
        );
        pass(2 * ON_DOWN_AFTER).await;
        assert_eq!(rig.programmed(B), Some((0, then)), "{memory:?}, alive: {alive}");
    }
}

/// A backend is no longer unverified once its checks were off.
#[tokio::test(start_paused = true)]
async fn re_enabled_checks_start_over_after_a_fresh_start() {
    let rig = fresh(testing::desired([web(|_| ())]), &[]).await;
    for kind in ["none", "tcp"] {
        let request = request(&format!("health.kind = \"{kind}\""));
        let change = Change::SetService("web".parse().unwrap(), request);
        rig.control.change(change, None, false).await.unwrap();
    }
    rig.verdict(id("web", "a"), Health::Up).await;
    assert_eq!(rig.programmed(B), Some((20, true)), "it may have flows by now");
}

#[test]
fn a_next_start_needs_reports_about_backends_and_removals_of_others() {
    let desired = testing::desired([web(|_| ())]);
    let report = |target: &str| Known::Report {
        target: target.parse().unwrap(),
        down: None,
        at: 1,
        ttl: 1,
    };
    let removed = |target: &str| Known::Removed {
        service: "192.0.2.1:80".into(),
        protocol: "tcp".into(),
        backend: "a".into(),
        target: target.parse().unwrap(),
        until: millis(std::time::SystemTime::now()),
    };
    let elsewhere = "10.0.1.9:8080";
    let known = vec![report(A), report(elsewhere), removed(A), removed(elsewhere)];
    assert_eq!(still_needed(&desired, known), [report(A), removed(elsewhere)]);
}
