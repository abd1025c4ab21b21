//! Slow start as the control task drives it: timers, events, refusals of the data plane, restarts.

use std::time::Duration;

use lb_common::{
    backend::{BackendId, Generation},
    ring_slot::RingSlot,
    service::{Mode, RingId, Service as Record, ServiceId, TCP, TRANSLATES},
};
use tokio::time::Instant;

use super::{
    Inherited, inherit,
    testing::{Rig, pass},
};
use crate::{
    events::EventKind,
    health::{Health, agent::AgentView, settings::CheckKind},
    plan::{Programmed, ProgrammedBackend},
    state::{
        desired::Desired,
        effective::HealthView,
        testing::{self, id},
    },
};

const A: &str = "10.0.1.1:8080";
const B: &str = "10.0.1.2:8080";
const OVER: Duration = Duration::from_secs(90);

fn desired() -> Desired {
    let mut service = testing::service("web", 1, &[("a", 100), ("b", 5)]);
    service.health.kind = CheckKind::Tcp;
    service.slow_start = OVER;
    testing::desired([service])
}

/// Only a takes flows, and has done so for long.
async fn b_is_down() -> Rig {
    let health = HealthView::from([(id("web", "a"), Health::Up), (id("web", "b"), Health::Down)]);
    let inherited = Inherited {
        health,
        ..Inherited::default()
    };
    let rig = Rig::start(desired(), inherited).await;
    pass(OVER).await;
    rig.world.take_log();
    rig
}

fn events_of(rig: &Rig) -> Vec<String> {
    let events = rig.events.list(0, None).into_iter();
    let slow = events.filter(|event| event.kind == EventKind::SlowStart);
    slow.map(|event| format!("{} {}", event.backend.unwrap_or_default(), event.message))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn recovered_backend_gets_its_weight_in_reported_steps() {
    let rig = b_is_down().await;
    assert_eq!((rig.held_back(A), rig.programmed(B)), (0, Some((0, false))));
    let begin = Instant::now();
    rig.verdict(id("web", "b"), Health::Up).await;
    assert_eq!((rig.held_back(A), rig.held_back(B)), (0, 9));
    let view = rig.control.view();
    assert_eq!(view.whole_at.len(), 1);
    rig.world.take_log();
    rig.until(|view| view.whole_at.is_empty()).await;
    assert!((OVER..OVER + OVER / 9).contains(&begin.elapsed()));
    assert_eq!(rig.held_back(B), 0);
    assert_eq!(
        rig.world.take_log(),
        ["program"; 9],
        "one write for each step, none else"
    );
    let events = events_of(&rig);
    assert!(
        events[0].starts_with("b starts slowly, full weight at "),
        "{events:?}"
    );
    assert_eq!(events[1..], ["b has its whole weight"]);
}

#[tokio::test(start_paused = true)]
async fn backend_that_fails_in_slow_start_starts_over() {
    let rig = b_is_down().await;
    rig.verdict(id("web", "b"), Health::Up).await;
    pass(OVER / 2).await;
    assert_eq!(rig.held_back(B), 5);
    rig.verdict(id("web", "b"), Health::Down).await;
    assert_eq!(rig.programmed(B), Some((0, true)));
    assert!(rig.control.view().whole_at.is_empty());
    rig.verdict(id("web", "b"), Health::Up).await;
    assert_eq!(rig.held_back(B), 9);
    assert_eq!(
        events_of(&rig).len(),
        2,
        "it began twice and never came to its whole weight"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rise_begins_when_it_is_programmed() {
    let rig = b_is_down().await;
    rig.world.lock().program_fails = true;
    rig.verdict(id("web", "b"), Health::Up).await;
    pass(OVER).await;
    rig.world.lock().program_fails = false;
    rig.until(|view| view.is_programmed()).await;
    assert_eq!(rig.held_back(B), 9);
    rig.until(|view| view.whole_at.is_empty()).await;
    assert_eq!(rig.held_back(B), 0);
}

#[tokio::test(start_paused = true)]
async fn restart_continues_slow_start() {
    let desired = desired();
    let key = desired.services.values().next().unwrap().key;
    let mut programmed = Programmed::default();
    programmed.services.insert(
        key,
        Record {
            ring_size: 2,
            ring: RingId(4),
            id: ServiceId(3),
            mode: Mode::Nat as u8,
            on_empty: 1,
            flags: TRANSLATES,
            ..Record::default()
        },
    );
    for (number, address, held_back) in [(1, A, 0), (2, B, 4)] {
        programmed.backends.insert(
            BackendId(number),
            ProgrammedBackend {
                address: address.parse().unwrap(),
                service: ServiceId(3),
                generation: Generation(1),
                mode: Mode::Nat,
                protocol: TCP,
                alive: true,
                held_back,
                tunnel_source: None,
            },
        );
    }
    let slots = [1, 2].map(|number| RingSlot::stable(BackendId(number)));
    programmed.rings.insert(RingId(4), slots.into());
    let rig = Rig::start(
        desired.clone(),
        inherit(&desired, &programmed, &[], AgentView::new()),
    )
    .await;
    assert_eq!((rig.held_back(A), rig.held_back(B)), (0, 4));
    let begin = Instant::now();
    rig.until(|view| view.whole_at.is_empty()).await;
    let took = begin.elapsed();
    assert!((OVER / 9 * 4..OVER / 9 * 5).contains(&took), "{took:?}");
}
