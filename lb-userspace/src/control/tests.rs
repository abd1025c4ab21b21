use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    testing::{Rig, left_behind as maps_of, pass, request},
    *,
};
use crate::{
    chain::chain,
    config::{Config, change::Request, diff::diff, values},
    datapath::BackendStats,
    events::{EventKind, EventLog},
    health::{
        Health, Memory,
        agent::{AgentAdmin, AgentAnswer, AgentReport, AgentSettings, AgentView},
        settings::{CheckKind, PushCheck},
    },
    plan::Programmed,
    state::{
        backend::Admin,
        desired::{Desired, Revision},
        effective::HealthView,
        names::{BackendName, ServiceName},
        removals::MayRemove,
        service::{ON_DOWN_AFTER, OnDown, Service},
        store::Record as Known,
        stored::{FileOrder, Stored},
        testing::{self, id},
        words::Word as _,
    },
};

const A: &str = "10.0.1.1:8080";
const B: &str = "10.0.1.2:8080";

fn two_backends() -> Desired {
    testing::desired([testing::service("web", 1, &[("a", 10), ("b", 20)])])
}

fn checked(desired: Desired) -> Desired {
    let mut desired = desired;
    for service in desired.services.values_mut() {
        service.health.kind = CheckKind::Tcp;
    }
    desired
}

fn both_up() -> Inherited {
    Inherited {
        health: HealthView::from([(id("web", "a"), Health::Up), (id("web", "b"), Health::Up)]),
        ..Inherited::default()
    }
}

fn web() -> ServiceName {
    "web".parse().unwrap()
}

fn name(text: &str) -> BackendName {
    text.parse().unwrap()
}

fn weight(weight: u16) -> Change {
    Change::SetBackend(web(), name("a"), Request::one("weight", i64::from(weight)))
}

fn admin(admin: Admin, deadline: Option<Duration>) -> Change {
    let mut request = Request::one("admin", admin.word());
    if let Some(deadline) = deadline {
        request.insert("drain_until", values::rfc3339(SystemTime::now() + deadline));
    }
    Change::SetBackend(web(), name("a"), request)
}

/// The desired state after a change.
fn follow(change: &Change, desired: &Desired) -> Result<Desired, ControlError> {
    let next = change.follow(&Stored::by_command(desired.clone()))?;
    Ok((*next.desired).clone())
}

fn remove(now: bool) -> Change {
    Change::RemoveBackend {
        service: web(),
        backend: name("a"),
        now,
    }
}

#[tokio::test]
async fn a_change_is_saved_before_it_is_programmed_and_then_published() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    let outcome = rig.control.change(weight(30), None, false).await.unwrap();
    assert_eq!((outcome.revision, outcome.changed), (Revision(1), true));
    assert_eq!(outcome.diff, ["~ backend web/a: weight 10 -> 30"]);
    assert!(outcome.moved[0].share > 0.1, "{:?}", outcome.moved);
    assert_eq!(rig.world.take_log(), ["save 1", "program", "check 0"]);
    assert_eq!(rig.programmed(A), Some((30, true)));
    assert_eq!(rig.control.view().desired.revision, Revision(1));
    assert!(rig.control.view().is_programmed());
    let messages: Vec<_> = rig
        .events
        .list(0, None)
        .into_iter()
        .map(|event| event.message)
        .collect();
    assert_eq!(messages, ["revision 1 in force", "changed: weight 10 -> 30"]);
}

#[tokio::test]
async fn repeated_change_succeeds_without_effect() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    for _ in 0..2 {
        rig.control.change(weight(10), None, false).await.unwrap();
        let there = two_backends().services.remove(&web()).unwrap().backends.remove(0);
        let outcome = rig
            .control
            .change(Change::AddBackend(web(), there), None, false)
            .await
            .unwrap();
        assert_eq!((outcome.revision, outcome.changed), (Revision(0), false));
    }
    assert_eq!(rig.world.take_log(), Vec::<String>::new());
}

#[tokio::test]
async fn dry_run_reports_the_effect_and_changes_nothing() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    let outcome = rig.control.change(weight(30), None, true).await.unwrap();
    assert!(outcome.changed && outcome.diff.len() == 1);
    assert_eq!(outcome.revision, Revision(0));
    assert_eq!(rig.world.take_log(), Vec::<String>::new());
    assert_eq!(rig.control.view().desired.revision, Revision(0));
}

#[tokio::test]
async fn a_caller_that_saw_another_revision_is_refused() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    rig.control
        .change(weight(30), Some(Revision(0)), false)
        .await
        .unwrap();
    let error = rig
        .control
        .change(weight(40), Some(Revision(0)), false)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ControlError::Moved {
                present: Revision(1),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(rig.programmed(A), Some((30, true)));
}

#[tokio::test]
async fn unsaved_change_is_not_programmed() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    rig.world.lock().save_fails = true;
    let error = rig.control.change(weight(30), None, false).await.unwrap_err();
    assert!(matches!(error, ControlError::Save(_)), "{error}");
    assert_eq!(rig.world.take_log(), ["save 1"]);
    assert!(!rig.control.view().last_apply_ok);
    assert!(rig.control.view().is_programmed(), "the old state is in force");
}

#[tokio::test]
async fn failed_programming_is_rolled_back_and_reported() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    rig.world.lock().program_fails = true;
    let error = rig.control.change(weight(30), None, false).await.unwrap_err();
    assert!(chain(&error).contains("no room"), "{}", chain(&error));
    assert_eq!(rig.world.take_log(), ["save 1", "program", "save 0"]);
    let view = rig.control.view();
    assert_eq!((view.desired.revision, view.last_apply_ok), (Revision(0), false));
    assert_eq!(rig.events.list(0, None)[0].kind, EventKind::Refused);
    rig.world.lock().program_fails = false;
    rig.control.change(weight(30), None, false).await.unwrap();
    assert_eq!(rig.programmed(A), Some((30, true)));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_checks_call_down_takes_no_flows_until_it_is_up_again() {
    let rig = Rig::start(checked(two_backends()), both_up()).await;
    rig.verdict(id("web", "a"), Health::Down).await;
    assert_eq!(
        rig.programmed(A),
        Some((0, true)),
        "it keeps its flows for a while"
    );
    assert_eq!(rig.programmed(B), Some((20, true)));
    pass(2 * ON_DOWN_AFTER).await;
    assert_eq!(rig.programmed(A), Some((0, false)));
    rig.verdict(id("web", "a"), Health::Up).await;
    assert_eq!(rig.programmed(A), Some((10, true)));
    assert_eq!(
        rig.world.lock().saved.as_ref().unwrap().desired.revision,
        Revision(0),
        "health is not desired state"
    );
}

#[tokio::test]
async fn max_ejection_is_respected_and_reported() {
    let mut desired = checked(two_backends());
    for service in desired.services.values_mut() {
        service.max_removed_percent = 50;
    }
    let rig = Rig::start(desired, both_up()).await;
    rig.verdict(id("web", "b"), Health::Down).await;
    assert_eq!(
        rig.programmed(B),
        Some((20, true)),
        "b has two thirds of the weight"
    );
    rig.verdict(id("web", "a"), Health::Down).await;
    assert_eq!(rig.programmed(A), Some((0, true)), "a fits into the half");
    assert_eq!(rig.programmed(B), Some((20, true)));
    rig.verdict(id("web", "b"), Health::Up).await;
    let events: Vec<_> = rig
        .events
        .list(0, None)
        .into_iter()
        .filter(|event| event.kind == EventKind::Overruled)
        .map(|event| event.message)
        .collect();
    assert_eq!(
        events,
        [
            "too many backends are down: flows still go to b",
            "panic mode ended: no backend that is down takes flows"
        ]
    );
}

#[tokio::test]
async fn a_new_backend_waits_for_its_first_check_where_another_is_up() {
    let rig = Rig::start(checked(two_backends()), both_up()).await;
    let new = testing::backend(1, 3, "c", 30);
    rig.control
        .change(Change::AddBackend(web(), new), None, false)
        .await
        .unwrap();
    assert_eq!(rig.programmed("10.0.1.3:8080"), Some((0, true)));
    rig.verdict(id("web", "c"), Health::Up).await;
    assert_eq!(rig.programmed("10.0.1.3:8080"), Some((30, true)));
}

#[tokio::test]
async fn new_service_avoids_unanswered_backends_once_one_is_up() {
    let rig = Rig::start(Desired::default(), Inherited::default()).await;
    let service = checked(two_backends()).services.remove(&web()).unwrap();
    let config = Config {
        desired: testing::desired([service.into_inner()]),
        ..Config::default()
    };
    let apply = Change::File(Arc::new(config), FileOrder::Apply, MayRemove::default());
    rig.control.change(apply, None, false).await.unwrap();
    assert_eq!(
        rig.programmed(B),
        Some((20, true)),
        "no backend is known to be up: it is tried"
    );
    rig.verdict(id("web", "a"), Health::Up).await;
    assert_eq!(rig.programmed(B), Some((0, true)));
    rig.verdict(id("web", "b"), Health::Up).await;
    assert_eq!(rig.programmed(B), Some((20, true)));
}

#[tokio::test]
async fn switching_checks_on_takes_no_flow_from_anyone_before_a_verdict() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    let tcp = request("health.kind = \"tcp\"");
    rig.control
        .change(Change::SetService(web(), tcp), None, false)
        .await
        .unwrap();
    assert_eq!(rig.world.take_log(), ["save 1", "program", "check 2"]);
    rig.verdict(id("web", "a"), Health::Up).await;
    assert_eq!(
        rig.programmed(B),
        Some((20, true)),
        "b was never checked, but it may have flows"
    );
}

#[tokio::test]
async fn a_verdict_about_a_backend_that_moved_is_forgotten() {
    let rig = Rig::start(checked(two_backends()), both_up()).await;
    rig.verdict(id("web", "a"), Health::Down).await;
    rig.verdict(id("web", "b"), Health::Down).await;
    let change = Request::one("address", "10.0.1.9:8080");
    rig.control
        .change(Change::SetBackend(web(), name("a"), change), None, false)
        .await
        .unwrap();
    assert_eq!(
        rig.programmed("10.0.1.9:8080"),
        Some((10, true)),
        "no backend is known to be up: it is tried"
    );
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_cannot_be_programmed_is_tried_again() {
    let rig = Rig::start(checked(two_backends()), both_up()).await;
    rig.world.lock().program_fails = true;
    rig.verdict(id("web", "a"), Health::Down).await;
    let view = rig.control.view();
    assert!(view.failure.as_ref().is_some_and(|why| why.contains("no room")));
    let key = view.desired.services[&web()].key;
    assert!(!view.is_programmed() && !view.service_is_programmed(&key));
    rig.world.lock().program_fails = false;
    rig.until(|view| view.is_programmed()).await;
    assert_eq!(rig.programmed(A), Some((0, true)));
    let kinds: Vec<_> = rig
        .events
        .list(0, None)
        .into_iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(
        kinds,
        [
            EventKind::Health,
            EventKind::ProgramFailed,
            EventKind::ProgramRecovered
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_removed_backend_keeps_its_flows_until_they_have_ended() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    let key = rig.control.view().desired.services[&web()].key;
    let count = |flows| {
        let stats = BackendStats {
            active_flows: flows,
            ..BackendStats::default()
        };
        let mut world = rig.world.lock();
        world.snapshot.backends.insert((key, A.parse().unwrap()), stats);
        world.snapshot.flows_counted_at = Some(Instant::now().into_std());
    };
    count(2);
    rig.control.change(remove(false), None, false).await.unwrap();
    assert_eq!(rig.programmed(A), Some((0, true)), "no new flows, old ones stay");
    pass(Duration::from_secs(30)).await;
    count(2);
    pass(Duration::from_secs(30)).await;
    assert_eq!(rig.programmed(A), Some((0, true)));
    count(0);
    rig.until(|view| view.lingering.is_empty()).await;
    assert_eq!(rig.programmed(A), None);
    assert_eq!(
        rig.events.list(0, None).pop().map(|event| event.kind),
        Some(EventKind::Released)
    );
}

/// An operator who removes a service, or all of them, reads how many connections that ends: also those of backends that are removed and
/// finish.
#[tokio::test(start_paused = true)]
async fn flows_of_a_removed_service_are_counted() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    let key = rig.control.view().desired.services[&web()].key;
    for (address, active_flows) in [(A, 2), (B, 3)] {
        let stats = BackendStats {
            active_flows,
            ..BackendStats::default()
        };
        let mut world = rig.world.lock();
        world
            .snapshot
            .backends
            .insert((key, address.parse().unwrap()), stats);
        world.snapshot.flows_counted_at = Some(Instant::now().into_std());
    }
    rig.control.change(remove(false), None, false).await.unwrap();
    let change = Change::RemoveService(web());
    let tried = rig.control.change(change.clone(), None, true).await.unwrap();
    let [moved] = &tried.moved[..] else {
        panic!("{tried:?}");
    };
    assert_eq!((moved.removed, moved.share, moved.flows), (true, 1.0, 5));

    let empty = file(|desired| desired.services.clear());
    let refused = rig
        .control
        .change(empty, None, false)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("no services") && refused.contains("5 established flows"),
        "{refused}"
    );
    let config = Config {
        desired: testing::desired([testing::service("other", 9, &[("z", 1)])]),
        ..Config::default()
    };
    let other = Change::File(Arc::new(config), FileOrder::Apply, MayRemove::default());
    let refused = rig
        .control
        .change(other, None, false)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("move or end 5 established flows; nothing was changed"),
        "{refused}"
    );

    let done = rig.control.change(change, None, false).await.unwrap();
    assert_eq!(done.moved, tried.moved);
}

/// Otherwise a sender with a fixed port would reach no backend for the rest of `transition`.
#[tokio::test(start_paused = true)]
async fn a_removed_backend_that_dies_gives_its_flows_away() {
    for on_down in [OnDown::Move, OnDown::Keep] {
        let mut desired = checked(two_backends());
        desired.services.get_mut(&web()).unwrap().on_down = on_down;
        let rig = Rig::start(desired, both_up()).await;
        rig.world.take_log();
        rig.control.change(remove(false), None, false).await.unwrap();
        let log = rig.world.take_log();
        assert!(
            log.contains(&"check 2".to_owned()),
            "it is still checked: {log:?}"
        );
        let gone = rig.control.view().lingering[0].check_id().unwrap();
        rig.verdict(gone.clone(), Health::Down).await;
        // A short blip moves nothing.
        rig.verdict(gone.clone(), Health::Up).await;
        pass(2 * ON_DOWN_AFTER).await;
        assert_eq!(rig.programmed(A), Some((0, true)));
        rig.verdict(gone, Health::Down).await;
        pass(ON_DOWN_AFTER + Duration::from_secs(2)).await;
        match on_down {
            OnDown::Move => {
                assert_eq!(rig.programmed(A), None);
                let last = rig.events.list(0, None).pop().unwrap();
                assert_eq!(last.kind, EventKind::Released);
                assert!(last.message.contains("down"), "{}", last.message);
                assert!(
                    rig.world.take_log().contains(&"check 1".to_owned()),
                    "and not any more"
                );
            }
            OnDown::Keep => assert_eq!(rig.programmed(A), Some((0, true))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn removed_backend_is_dropped_after_transition() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    let begin = Instant::now();
    rig.control.change(remove(false), None, false).await.unwrap();
    rig.until(|view| view.lingering.is_empty()).await;
    let transition = rig.control.view().desired.settings.transition;
    assert!(begin.elapsed() >= transition && begin.elapsed() < transition + Duration::from_secs(5));
    assert_eq!(rig.programmed(A), None);
}

#[tokio::test]
async fn immediate_removal_and_return_leave_no_draining_backend() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    let backend = rig.control.view().desired.services[&web()].backends[0].clone();
    rig.control.change(remove(true), None, false).await.unwrap();
    assert_eq!(rig.programmed(A), None);
    rig.control
        .change(Change::AddBackend(web(), backend.clone()), None, false)
        .await
        .unwrap();
    rig.control.change(remove(false), None, false).await.unwrap();
    assert_eq!(rig.control.view().lingering.len(), 1);
    rig.control
        .change(Change::AddBackend(web(), backend), None, false)
        .await
        .unwrap();
    assert_eq!(rig.control.view().lingering, []);
    assert_eq!(rig.programmed(A), Some((10, true)));
    rig.control.change(remove(false), None, false).await.unwrap();
    rig.control.change(remove(true), None, false).await.unwrap();
    assert_eq!(
        rig.programmed(A),
        None,
        "a second removal with --now takes effect"
    );
    rig.control.change(remove(true), None, false).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_and_one_without_does_not() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    rig.control
        .change(admin(Admin::Draining, Some(Duration::from_secs(60))), None, false)
        .await
        .unwrap();
    assert_eq!(rig.programmed(A), Some((0, true)));
    assert_eq!(rig.control.view().drain_deadlines.len(), 1);
    rig.until(|view| view.desired.services[&web()].backends[0].admin == Admin::Disabled)
        .await;
    assert_eq!(rig.programmed(A), Some((0, false)));
    assert_eq!(rig.control.view().drain_deadlines.len(), 0);

    rig.control
        .change(admin(Admin::Draining, Some(Duration::from_secs(60))), None, false)
        .await
        .unwrap();
    rig.control
        .change(admin(Admin::Draining, None), None, false)
        .await
        .unwrap();
    pass(Duration::from_secs(3600)).await;
    assert_eq!(rig.programmed(A), Some((0, true)));
}

/// The deadline is saved, so a start knows it, also if it passed meanwhile.
#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_also_after_a_restart() {
    for left in [Some(Duration::from_secs(60)), None] {
        let mut desired = two_backends();
        let backend = &mut desired.services.get_mut(&web()).unwrap().backends[0];
        backend.admin = Admin::Draining;
        backend.drain_until = Some(match left {
            Some(left) => SystemTime::now() + left,
            None => SystemTime::now() - Duration::from_secs(60),
        });
        let rig = Rig::start(desired, Inherited::default()).await;
        assert_eq!(rig.programmed(A), Some((0, true)));
        rig.until(|view| view.desired.services[&web()].backends[0].admin == Admin::Disabled)
            .await;
        assert_eq!(rig.programmed(A), Some((0, false)), "{left:?}");
        let view = rig.control.view();
        assert_eq!(view.desired.services[&web()].backends[0].drain_until, None);
    }
}

/// A file of two backends, reloaded.
fn file(change: impl Fn(&mut Desired)) -> Change {
    let mut desired = two_backends();
    change(&mut desired);
    let config = Config {
        desired,
        ..Config::default()
    };
    Change::File(Arc::new(config), FileOrder::Reload, MayRemove::NOT_ALL)
}

fn with_weight(weight: u16) -> impl Fn(&mut Desired) {
    move |desired| desired.services.get_mut(&web()).unwrap().backends[1].weight = weight
}

#[tokio::test]
async fn reload_undoes_commands_only_if_the_file_has_changed() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    rig.control.change(file(|_| {}), None, false).await.unwrap();
    assert_eq!(
        rig.world.take_log(),
        ["save 0"],
        "the content of the file is stored"
    );
    rig.control
        .change(admin(Admin::Draining, None), None, false)
        .await
        .unwrap();
    let same = rig.control.change(file(|_| {}), None, false).await.unwrap();
    assert_eq!((same.changed, rig.programmed(A)), (false, Some((0, true))));
    assert_eq!(rig.control.view().stored().by_commands().items.len(), 1);
    let saved = rig.world.lock().saved.clone().unwrap();
    assert_eq!(saved, rig.control.view().stored(), "a restart knows both");

    let changed = rig
        .control
        .change(file(with_weight(21)), None, false)
        .await
        .unwrap();
    let replaced = ["~ backend web/a: admin \"draining\" -> \"enabled\""];
    assert_eq!(changed.replaced, replaced);
    assert_eq!(changed.diff.len(), 2);
    assert_eq!(rig.programmed(A), Some((10, true)));
    let events = rig.events.list(0, None);
    let events: Vec<_> = events
        .iter()
        .filter(|event| event.kind == EventKind::Replaced)
        .collect();
    assert!(
        events.len() == 1
            && events[0].backend.as_deref() == Some("a")
            && events[0].message.contains("enabled"),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn refused_file_is_reported_until_one_is_accepted() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    rig.control.refused("lb.toml: 1 error".into()).await;
    rig.until(|view| view.refused.is_some()).await;
    rig.control.change(weight(30), None, false).await.unwrap();
    assert_eq!(
        rig.control
            .view()
            .refused
            .as_ref()
            .map(|refused| refused.why.as_str()),
        Some("lb.toml: 1 error"),
        "a command mends no file"
    );
    let empty = file(|desired| desired.services.clear());
    let error = rig.control.change(empty, None, false).await.unwrap_err();
    assert!(matches!(error, ControlError::NoServices { .. }), "{error}");
    assert!(rig.control.view().refused.is_some());
    rig.control.change(file(|_| {}), None, false).await.unwrap();
    assert_eq!(rig.control.view().refused, None);
}

#[test]
fn a_service_is_added_and_changed_in_the_words_of_the_file() {
    let new_service = "name = \"new\"\naddress = \"192.0.2.99\"\nport = 443\nring_size = 1021\n\
                       health = { kind = \"http\", path = \"/ready\", rise = 5 }";
    let change = |change: Change, desired: &Desired| follow(&change, desired).unwrap();
    let new = |desired: &Desired| -> Service {
        (*desired.services[&"new".parse::<ServiceName>().unwrap()]).clone()
    };

    let first = change(Change::AddService(request(new_service)), &two_backends());
    assert_eq!(new(&first).health.rise, 5);
    let with_backend = change(
        Change::AddBackend("new".parse().unwrap(), testing::backend(9, 1, "x", 1)),
        &first,
    );

    let again = change(Change::AddService(request(new_service)), &with_backend);
    assert_eq!(
        again, with_backend,
        "adding it again succeeds, whatever backends it has by now"
    );

    let set = |text: &str| Change::SetService("new".parse().unwrap(), request(text));
    let second = change(set("health.rise = 7"), &with_backend);
    assert_eq!(new(&second).health.rise, 7);
    assert!(matches!(&new(&second).health.kind, CheckKind::Http(check) if check.path == "/ready"));
    assert_eq!(
        new(&second).backends.len(),
        1,
        "a change of the service keeps its backends"
    );
    assert_eq!(second.services[&web()], two_backends().services[&web()]);

    let third = change(set("port = 444\nhealth.kind = \"tcp\""), &second);
    assert_eq!(new(&third).health.kind, CheckKind::Tcp);
    assert_eq!(
        new(&third).health.rise,
        2,
        "another kind of check starts from the defaults"
    );
    assert_eq!(new(&third).key.port, 444);
}

#[test]
fn values_that_make_no_sense_are_refused_with_a_hint() {
    let add = |text: &str| follow(&Change::AddService(request(text)), &two_backends()).unwrap_err();
    let error = add("name = \"new\"\naddress = \"192.0.2.99\"\nport = 443\nmode = \"natt\"");
    assert!(matches!(error, ControlError::Values(_)), "{error}");
    assert!(error.to_string().contains("natt"), "{error}");
    assert!(error.hint().is_some());
    let error = add("name = \"new\"");
    assert!(error.to_string().contains("address"), "{error}");
}

/// Maps of an earlier daemon in which backend a takes flows and backend b takes none, whose flows live if `b_alive`. One
/// at 10.0.1.7 was removed.
fn left_behind(desired: &Desired, b_alive: bool) -> Programmed {
    let key = desired.services[&web()].key;
    maps_of(key, &[(A, true), (B, b_alive), ("10.0.1.7:8080", true)])
}

/// The memory of checks of a backend of service web.
fn knew(name: &str, address: &str, health: Health) -> Known {
    let memory = Memory {
        health,
        ..Memory::default()
    };
    Known::check(&id("web", name), address.parse().unwrap(), memory)
}

/// Health states are stored as such: whether a backend takes flows in the maps does not show its health.
#[tokio::test]
async fn restart_keeps_stored_health_states() {
    let mut desired = checked(two_backends());
    for service in desired.services.values_mut() {
        service.on_down_after = Duration::ZERO;
    }
    // Under the last daemon b was drained, disabled, or of weight 0, unless it was down.
    for (b, alive, expected) in [
        (Some(Health::Up), true, (20, true)),
        (Some(Health::Up), false, (20, true)),
        (Some(Health::Down), true, (0, false)),
        (Some(Health::Down), false, (0, false)),
        // Its health is unknown: its flows stay, and new ones go where they went before, until the first health state.
        (None, true, (0, true)),
        (None, false, (0, true)),
    ] {
        let mut known: Vec<Known> = b.map(|health| knew("b", B, health)).into_iter().collect();
        known.extend(b.map(|_| knew("a", A, Health::Up)));
        let inherited = inherit(&desired, &left_behind(&desired, alive), &known, AgentView::new());
        let rig = Rig::start(desired.clone(), inherited).await;
        assert_eq!(
            rig.programmed(A),
            Some((10, true)),
            "{b:?}: it took flows and still does"
        );
        assert_eq!(rig.programmed(B), Some(expected), "{b:?}, alive {alive}");
        assert_eq!(
            rig.programmed("10.0.1.7:8080"),
            Some((0, true)),
            "flows of a removed backend still finish"
        );
        rig.verdict(
            id("web", "b"),
            if b == Some(Health::Up) {
                Health::Down
            } else {
                Health::Up
            },
        )
        .await;
        let judged = if b == Some(Health::Up) {
            (0, false)
        } else {
            (20, true)
        };
        assert_eq!(rig.programmed(B), Some(judged), "{b:?}: a check has spoken");
    }
}

#[tokio::test]
async fn another_server_of_the_same_name_has_no_verdict() {
    let desired = checked(two_backends());
    let known = [
        knew("b", "10.0.1.99:8080", Health::Down),
        knew("gone", B, Health::Down),
    ];
    let inherited = inherit(&desired, &left_behind(&desired, true), &known, AgentView::new());
    assert_eq!(inherited.health, HealthView::new());
    assert_eq!(still_needed(&desired, known.to_vec()), [known[0].clone()]);
}

/// A health state in force but not stored would be lost by a restart.
#[tokio::test]
async fn health_state_is_stored_before_it_is_programmed() {
    let rig = Rig::start(checked(two_backends()), both_up()).await;
    rig.verdict(id("web", "a"), Health::Down).await;
    assert_eq!(rig.world.take_log(), ["remember 1", "program"]);
    let remembered = rig.world.lock().remembered.clone();
    assert_eq!(remembered, [knew("a", A, Health::Down)]);
}

/// The verdict waits in the journal for as long as the disk does; the flows must not.
#[tokio::test]
async fn a_disk_that_hangs_holds_no_verdict_up() {
    let rig = Rig::start(checked(two_backends()), both_up()).await;
    let (disk, hangs) = std::sync::mpsc::channel();
    rig.world.lock().hangs = Some(hangs);
    let verdict = rig.verdict(id("web", "a"), Health::Down);
    tokio::time::timeout(Duration::from_secs(30), verdict)
        .await
        .unwrap();
    assert_eq!(rig.programmed(A), Some((0, true)));
    // No further thread waits for the disk; what comes meanwhile is stored when it works again.
    rig.verdict(id("web", "b"), Health::Down).await;
    rig.verdict(id("web", "a"), Health::Up).await;
    assert_eq!(rig.world.lock().remembered, []);
    drop(disk);
    let stored = [
        knew("a", A, Health::Down),
        knew("a", A, Health::Up),
        knew("b", B, Health::Down),
    ];
    while rig.world.lock().remembered.len() < stored.len() {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.world.lock().remembered, stored);
}

/// A change that is not on disk yet is not in force; verdicts are, about the state that is.
#[tokio::test]
async fn a_change_that_waits_for_the_disk_holds_no_verdict_up() {
    let rig = Rig::start(checked(two_backends()), both_up()).await;
    let (hangs, begun) = std::sync::mpsc::sync_channel(0);
    rig.world.lock().save_hangs = Some(hangs);
    let control = rig.control.clone();
    let change = tokio::spawn(async move { control.change(weight(30), None, false).await });
    let begun = tokio::task::spawn_blocking(move || begun.recv().map(|()| begun));
    let disk = begun.await.unwrap().unwrap();

    let verdict = rig.verdict(id("web", "b"), Health::Down);
    tokio::time::timeout(Duration::from_secs(30), verdict)
        .await
        .unwrap();
    assert_eq!(
        (rig.programmed(A), rig.programmed(B)),
        (Some((10, true)), Some((0, true)))
    );
    assert!(rig.control.answers().await, "the watchdog would end the daemon");
    assert!(!change.is_finished(), "it is not on disk");
    assert_eq!(rig.control.view().desired.revision, Revision(0));

    drop(disk);
    assert_eq!(change.await.unwrap().unwrap().revision, Revision(1));
    assert_eq!(
        (rig.programmed(A), rig.programmed(B)),
        (Some((30, true)), Some((0, true)))
    );
    assert_eq!(
        rig.world.take_log(),
        ["remember 1", "program", "save 1", "program", "check 2"]
    );
}

/// The watchdog's notices end with the answers.
#[tokio::test]
async fn task_answers_while_it_runs() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    let control = rig.control.clone();
    assert!(control.answers().await);
    drop(rig);
    while control.answers().await {}
}

#[tokio::test]
async fn repeated_health_state_is_reported_once() {
    let stored = Stored::by_command(checked(two_backends()));
    let again = vec![(id("web", "a"), Health::Up); 2];
    let rig = Rig::starting(stored, both_up(), again).await;
    rig.verdict(id("web", "b"), Health::Down).await;
    let events = rig.events.list(0, None).into_iter();
    let events: Vec<_> = events.filter(|event| event.kind == EventKind::Health).collect();
    assert!(
        events.len() == 1 && events[0].backend.as_deref() == Some("b"),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_not_saved_is_saved_again() {
    let rig = Rig::start(two_backends(), Inherited::default()).await;
    rig.world.lock().unsaved = true;
    rig.control.change(weight(30), None, false).await.unwrap();
    rig.world.take_log();
    pass(Duration::from_millis(2_500)).await;
    assert_eq!(rig.world.take_log(), ["save 1", "save 1"]);
    rig.world.lock().unsaved = false;
    pass(Duration::from_secs(60)).await;
    assert_eq!(rig.world.take_log(), ["save 1"]);
}

#[tokio::test]
async fn a_ring_keeps_its_size_while_a_backend_comes_and_goes() {
    let names: Vec<String> = (1..=10).map(|n| format!("b{n}")).collect();
    let backends: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let desired = testing::desired([testing::service("web", 1, &backends)]);
    let rig = Rig::start(desired, Inherited::default()).await;
    let size = || {
        let world = rig.world.lock();
        let mut services = world
            .programmed
            .iter()
            .flat_map(|target| target.services.values());
        services.next().map(|service| service.ring_size)
    };
    assert_eq!(size(), Some(1_021));
    let new = testing::backend(1, 11, "b11", 1);
    rig.control
        .change(Change::AddBackend(web(), new), None, false)
        .await
        .unwrap();
    assert_eq!(size(), Some(4_093));
    let remove = Change::RemoveBackend {
        service: web(),
        backend: name("b11"),
        now: true,
    };
    rig.control.change(remove, None, false).await.unwrap();
    assert_eq!(size(), Some(4_093));
}

#[test]
fn first_replaced_changes_are_listed_and_the_rest_counted() {
    let state = |weight| {
        let names: Vec<String> = (0..150).map(|n| format!("b{n}")).collect();
        let backends: Vec<_> = names.iter().map(|name| (name.as_str(), weight)).collect();
        testing::desired([testing::service("web", 1, &backends)])
    };
    let events = EventLog::default();
    report_replaced(&events, Revision(1), &diff(&state(1), &state(2)), None);
    let events = events.list(0, None);
    assert_eq!(events.len(), 101);
    let last = &events.last().unwrap().message;
    assert_eq!(last, "and 50 more changes made by command");
}

#[tokio::test]
async fn agent_update_stays_and_unknown_agents_are_forgotten() {
    let desired = two_backends();
    let update = AgentReport {
        word: AgentAnswer {
            admin: AgentAdmin::Drain,
            ..AgentAnswer::default()
        },
        ..AgentReport::default()
    };
    let view = AgentView::from([(id("web", "b"), update)]);
    let mut asked = desired.clone();
    asked.services.get_mut(&web()).unwrap().agent = Some(AgentSettings {
        port: Some(9),
        ..AgentSettings::default()
    });
    let programmed = left_behind(&desired, true);
    assert_eq!(inherit(&asked, &programmed, &[], view.clone()).agents, view);
    assert_eq!(inherit(&desired, &programmed, &[], view).agents, AgentView::new());
}

/// A fresh start: checks run first.
#[tokio::test(start_paused = true)]
async fn fresh_start_avoids_backends_that_have_not_answered() {
    let desired = checked(two_backends());
    let known = [knew("a", A, Health::Up), knew("b", B, Health::Up)];
    let inherited = inherit(&desired, &Programmed::default(), &known, AgentView::new());
    let begin = Instant::now();
    let rig = Rig::starting(
        Stored::by_command(desired),
        inherited,
        vec![(id("web", "a"), Health::Up)],
    )
    .await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(rig.programmed(A), Some((10, true)));
    assert_eq!(
        rig.programmed(B),
        Some((0, true)),
        "its state before does not count"
    );
    rig.verdict(id("web", "b"), Health::Up).await;
    assert_eq!(rig.programmed(B), Some((20, true)));
}

#[tokio::test(start_paused = true)]
async fn fresh_start_uses_all_backends_if_none_answers_in_time() {
    let desired = checked(two_backends());
    let inherited = inherit(&desired, &Programmed::default(), &[], AgentView::new());
    let begin = Instant::now();
    let rig = Rig::starting(Stored::by_command(desired), inherited, Vec::new()).await;
    assert!(begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < Duration::from_secs(2));
    assert_eq!(rig.programmed(A), Some((10, true)));
    assert_eq!(rig.programmed(B), Some((20, true)));
    rig.verdict(id("web", "a"), Health::Up).await;
    assert_eq!(rig.programmed(B), Some((0, true)), "another answers: b has to");
}

#[tokio::test(start_paused = true)]
async fn fresh_start_waits_neither_for_reports_nor_for_unchecked_backends() {
    let mut push = two_backends();
    for service in push.services.values_mut() {
        service.health.kind = CheckKind::Push(PushCheck::default());
    }
    for (desired, reports) in [(two_backends(), false), (push, true)] {
        let inherited = inherit(&desired, &Programmed::default(), &[], AgentView::new());
        let begin = Instant::now();
        let rig = Rig::starting(Stored::by_command(desired), inherited, Vec::new()).await;
        assert!(
            begin.elapsed() < Duration::from_millis(100),
            "{:?}",
            begin.elapsed()
        );
        if reports {
            rig.verdict(id("web", "a"), Health::Up).await;
        }
        assert_eq!(rig.programmed(B), Some((20, true)), "it may never report");
    }
}

/// Flows of an address that a host name loses end where they began.
#[tokio::test(start_paused = true)]
async fn addresses_that_a_host_name_loses_linger_for_their_flows() {
    let mut service = testing::service("web", 1, &[("a", 10)]);
    service.hosts.push(testing::host("app", "app.example.org"));
    let rig = Rig::start(testing::desired([service]), Inherited::default()).await;
    let found = |addresses: &[&str]| {
        Change::Discovered(vec![crate::control::change::Discovered {
            service: web(),
            host: name("app"),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }])
    };
    let change = |change| rig.control.change(change, None, false);
    let first = change(found(&["10.0.0.1", "10.0.0.2"])).await.unwrap();
    assert_eq!(first.diff.len(), 2, "{first:?}");
    let drain = Request::one("admin", "draining");
    change(Change::SetBackend(web(), name("app-10.0.0.2"), drain))
        .await
        .unwrap();
    let second = change(found(&["10.0.0.2", "10.0.0.3"])).await.unwrap();
    assert_eq!(second.revision.0, first.revision.0 + 2);
    let view = rig.control.view();
    let lingering: Vec<&str> = view.lingering.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(lingering, ["app-10.0.0.1"]);
    let stays = view.desired.backend(&web(), &name("app-10.0.0.2")).unwrap();
    assert_eq!(stays.admin, Admin::Draining);
    let again = change(found(&["10.0.0.3", "10.0.0.2"])).await.unwrap();
    assert_eq!((again.changed, again.revision), (false, second.revision));
    // An answer for a host name that was removed meanwhile changes nothing.
    let gone = Change::Discovered(vec![crate::control::change::Discovered {
        service: web(),
        host: name("other"),
        addresses: std::collections::BTreeSet::from(["10.0.0.9".parse().unwrap()]),
    }]);
    assert!(!change(gone).await.unwrap().changed);
}
