use std::{net::TcpListener, time::SystemTime};

use prometheus::Registry;

use super::*;
use crate::{
    settings::{CheckKind, CheckSettings, PushCheck},
    testing::{self, CheckId, CheckSpec, HealthEvent, HealthHandle},
};

/// Longer than any stall of the machine.
const PLENTY: Duration = Duration::from_secs(60);

fn quick() -> CheckSettings {
    let ms = Duration::from_millis(1);
    CheckSettings {
        kind: CheckKind::Tcp,
        interval: 20 * ms,
        fast_interval: 5 * ms,
        down_interval_max: 20 * ms,
        timeout: PLENTY,
        ..CheckSettings::default()
    }
}

fn id(backend: &str) -> CheckId {
    testing::id("web", backend)
}

fn spec(backend: &str, target: SocketAddr, initial: Health) -> CheckSpec {
    CheckSpec {
        id: id(backend),
        target,
        path: None,
        settings: quick(),
        initial,
    }
}

fn spawn() -> (
    HealthHandle,
    mpsc::Receiver<HealthEvent>,
    CancellationToken,
    Registry,
) {
    let registry = Registry::new();
    let cancel = CancellationToken::new();
    let metrics = HealthMetrics::register(&registry).unwrap();
    let (handle, events) = HealthTask::spawn(HealthConfig::new(1), metrics, cancel.clone()).unwrap();
    (handle, events, cancel, registry)
}

async fn next(events: &mut mpsc::Receiver<HealthEvent>) -> HealthEvent {
    time::timeout(PLENTY, events.recv())
        .await
        .expect("an event")
        .expect("a running engine")
}

/// The watchdog's notices end with the answers.
#[tokio::test]
async fn engine_answers_while_it_runs() {
    let (handle, _events, cancel, _registry) = spawn();
    assert!(handle.answers().await);
    cancel.cancel();
    handle.stopped().await;
    assert!(!handle.answers().await);
}

#[tokio::test]
async fn backend_that_dies_and_returns_is_reported() {
    let (handle, mut events, cancel, registry) = spawn();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    handle.update(vec![spec("a", target, Health::Unchecked)]);
    let event = next(&mut events).await;
    assert_eq!(
        (event.id, event.health, event.detail.as_str()),
        (id("a"), Health::Up, "ok")
    );

    drop(listener);
    let event = next(&mut events).await;
    assert_eq!(event.health, Health::Down);
    assert_eq!(event.detail, format!("connection refused by {target}"));
    let status = handle.snapshot()[&id("a")].clone();
    assert_eq!((status.health, status.since), (Health::Down, event.at));
    assert!(!status.last_check.unwrap().ok());

    let _listener = TcpListener::bind(target).unwrap();
    assert_eq!(next(&mut events).await.health, Health::Up);

    let names: Vec<String> = registry
        .gather()
        .iter()
        .map(|family| family.name().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "lb_health_breaker_transitions_total",
            "lb_health_check_duration_seconds",
            "lb_health_checks_in_flight",
            "lb_health_checks_total",
            "lb_health_scheduler_lag_seconds",
            "lb_health_transitions_total"
        ]
    );
    cancel.cancel();
    time::timeout(PLENTY, handle.stopped())
        .await
        .expect("the engine stops");
    assert_eq!(events.recv().await, None);
}

/// A report takes effect at once, not at the next interval and not after several reports; a backend whose report
/// expires is down; one that never reported is neither up nor down.
#[tokio::test]
async fn reports_make_verdicts_at_once_and_expire() {
    let (handle, mut events, _cancel, _registry) = spawn();
    let target: SocketAddr = "10.0.0.11:8080".parse().unwrap();
    let push = |interval| CheckSpec {
        settings: CheckSettings {
            kind: CheckKind::Push(PushCheck { ttl: PLENTY }),
            interval,
            fast_interval: interval,
            ..quick()
        },
        ..spec("a", target, Health::Unchecked)
    };
    let day = crate::MAX_INTERVAL;
    let says = |says: Result<(), &str>, ttl| Report {
        says: says.map_err(Into::into),
        at: time::Instant::now(),
        ttl,
    };
    let status = || handle.snapshot().get(&id("a")).cloned();
    handle.update(vec![push(day)]);
    let began = Instant::now();
    while status().and_then(|status| status.last_check).is_none() {
        assert!(began.elapsed() < PLENTY, "no look at the reports");
        tokio::task::yield_now().await;
    }
    let unknown = status().unwrap();
    assert_eq!(unknown.health, Health::Unchecked);
    assert_eq!(
        unknown.last_check.unwrap().detail(),
        "cannot check 10.0.0.11:8080: nothing has been reported yet"
    );
    for (report, health, detail) in [
        (Ok(()), Health::Up, "ok"),
        (
            Err("disk full"),
            Health::Down,
            "reported down: disk full, by 10.0.0.11:8080",
        ),
        (Ok(()), Health::Up, "ok"),
    ] {
        handle.report(target, says(report, PLENTY));
        let event = next(&mut events).await;
        assert_eq!((event.health, event.detail.as_str()), (health, detail));
    }
    // Expires before the next look: only the interval detects it.
    handle.update(vec![CheckSpec {
        initial: Health::Up,
        ..push(Duration::from_millis(20))
    }]);
    handle.report(target, says(Ok(()), Duration::ZERO));
    let event = next(&mut events).await;
    assert_eq!(
        (event.health, event.detail.as_str()),
        (Health::Down, "no report within 0ns by 10.0.0.11:8080")
    );
}

#[tokio::test]
async fn removing_a_check_in_flight_ends_it() {
    let (handle, mut events, _cancel, _registry) = spawn();
    // Never answers, and its time-out is far away: only removal can end the check.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = CheckSettings {
        kind: CheckKind::Http(Default::default()),
        timeout: crate::MAX_INTERVAL,
        ..quick()
    };
    let target = silent.local_addr().unwrap();
    handle.update(vec![CheckSpec {
        id: id("a"),
        target,
        path: None,
        settings: http,
        initial: Health::Unchecked,
    }]);
    let (mut peer, _) = silent.accept().unwrap();

    let good = TcpListener::bind("127.0.0.1:0").unwrap();
    handle.update(vec![spec("b", good.local_addr().unwrap(), Health::Unchecked)]);
    assert_eq!(next(&mut events).await.id, id("b"));
    // Request, then the end by reset.
    let end = tokio::task::spawn_blocking(move || std::io::Read::read_to_end(&mut peer, &mut Vec::new()));
    let end = time::timeout(PLENTY, end).await.expect("the end of the check");
    assert!(end.unwrap().is_err());
    assert_eq!(handle.snapshot().keys().collect::<Vec<_>>(), [&id("b")]);
}

#[tokio::test]
async fn dropping_all_handles_ends_the_engine() {
    let (handle, mut events, _cancel, _registry) = spawn();
    let other = handle.clone();
    drop(handle);
    other.update(Vec::new());
    drop(other);
    assert_eq!(time::timeout(PLENTY, events.recv()).await, Ok(None));
}

/// A slow receiver loses intermediate events, but never the latest health state.
#[tokio::test]
async fn a_full_channel_keeps_the_latest_verdict() {
    let metrics = HealthMetrics::register(&Registry::new()).unwrap();
    let (_, agents) = AgentTask::new(1, metrics.agents.clone());
    let (mut task, _handle, mut events) =
        Runner::new(HealthConfig::new(1), metrics, RealEnvironment::default(), agents);
    let event = |backend: &str, health| HealthEvent {
        id: id(backend),
        health,
        detail: String::new(),
        at: SystemTime::UNIX_EPOCH,
        memory: Memory::default(),
    };
    for number in 0..EVENT_DEPTH {
        task.publish(vec![event(&format!("b{number}"), Health::Up)]);
        task.deliver();
    }
    for health in [Health::Up, Health::Down, Health::Up, Health::Down] {
        task.publish(vec![event("late", health)]);
        task.deliver();
    }
    for _ in 0..EVENT_DEPTH {
        assert_eq!(next(&mut events).await.health, Health::Up);
    }
    room(&task.events).await;
    task.deliver();
    assert_eq!(next(&mut events).await, event("late", Health::Down));
    assert!(task.outbox.is_empty());
}
