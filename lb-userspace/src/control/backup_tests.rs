//! Backups as the control task drives them: verdicts, events, starts.

use super::{
    Inherited, inherit,
    testing::{Rig, left_behind},
};
use crate::{
    events::EventKind,
    health::{Health, agent::AgentView, settings::CheckKind},
    plan::Programmed,
    state::{
        desired::Desired,
        effective::HealthView,
        stored::Stored,
        testing::{self, id},
    },
};

const A: &str = "10.0.1.1:8080";
const X: &str = "10.0.1.2:8080";

/// One backend and one backup, both checked.
fn desired() -> Desired {
    let mut service = testing::service("web", 1, &[("a", 10), ("x", 20)]);
    service.health.kind = CheckKind::Tcp;
    service.backends[1].backup = true;
    // Flows of a backend that is down go at once.
    service.on_down_after = std::time::Duration::ZERO;
    testing::desired([service])
}

async fn both_up() -> Rig {
    let health = HealthView::from([(id("web", "a"), Health::Up), (id("web", "x"), Health::Up)]);
    let inherited = Inherited {
        health,
        ..Inherited::default()
    };
    Rig::start(desired(), inherited).await
}

fn events_of(rig: &Rig) -> Vec<String> {
    let events = rig.events.list(0, None).into_iter();
    let backup = events.filter(|event| event.kind == EventKind::Backup);
    backup
        .map(|event| format!("{} {}", event.backend.unwrap_or_default(), event.message))
        .collect()
}

#[tokio::test]
async fn backup_serves_while_no_other_can_and_is_reported() {
    let rig = both_up().await;
    assert_eq!(
        (rig.programmed(A), rig.programmed(X)),
        (Some((10, true)), Some((0, true)))
    );
    rig.verdict(id("web", "a"), Health::Down).await;
    assert_eq!(
        (rig.programmed(A), rig.programmed(X)),
        (Some((0, false)), Some((20, true)))
    );
    rig.verdict(id("web", "a"), Health::Up).await;
    assert_eq!(
        (rig.programmed(A), rig.programmed(X)),
        (Some((10, true)), Some((0, true))),
        "the backup keeps its flows"
    );
    assert_eq!(
        events_of(&rig),
        [
            "x backup takes new flows: 0 of 1 other backends can, and backup_below is 1",
            "x backup takes no more new flows: 1 of 1 other backends can, and backup_below is 1",
        ]
    );
}

/// At a start the backup's check may finish first: clients must still not reach the backup.
#[tokio::test(start_paused = true)]
async fn a_backup_that_is_checked_first_takes_no_flows_for_that() {
    // A backup that serves beside the others does not count against them.
    for (below, serves) in [(1, 0), (2, 20)] {
        let mut desired = desired();
        for service in desired.services.values_mut() {
            service.backup_below = below;
        }
        let inherited = inherit(&desired, &Programmed::default(), &[], AgentView::new());
        let first = vec![(id("web", "x"), Health::Up)];
        let rig = Rig::starting(Stored::by_command(desired), inherited, first).await;
        assert_eq!(
            (rig.programmed(A), rig.programmed(X)),
            (Some((10, true)), Some((serves, true)))
        );
        rig.verdict(id("web", "a"), Health::Down).await;
        assert_eq!(
            (rig.programmed(A), rig.programmed(X)),
            (Some((0, false)), Some((20, true)))
        );
    }
}

/// An idle backup has no slot in the ring. That is no sign of a failure: its flows stay over a restart.
#[test]
fn a_daemon_that_is_restarted_takes_no_backup_in_reserve_for_down() {
    for alive in [true, false] {
        let desired = desired();
        let key = desired.services.values().next().unwrap().key;
        let programmed = left_behind(key, &[(A, true), (X, alive)]);
        let inherited = inherit(&desired, &programmed, &[], AgentView::new());
        assert!(inherited.health.is_empty(), "alive: {alive}");
    }
}
