use std::sync::mpsc;

use tokio::task::yield_now;

use super::*;

const PLENTY: Duration = Duration::from_secs(60);

/// A checker whose results the test decides. Each check reports its begin and waits for its result.
struct Scripted {
    begun: mpsc::Sender<()>,
    results: tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Result<Latency, CheckError>>>,
}

impl Checker for Scripted {
    async fn check(&self, _: SocketAddr, _: Duration) -> Result<Latency, CheckError> {
        let _ = self.begun.send(());
        match self.results.lock().await.recv().await {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }
}

fn target() -> SocketAddr {
    "10.0.0.1:80".parse().unwrap()
}

fn refused() -> Result<Latency, CheckError> {
    Err(CheckError::Refused(target()))
}

fn config() -> MonitorConfig {
    MonitorConfig::new(
        target(),
        &CheckSettings {
            fall: 2,
            rise: 2,
            ..CheckSettings::default()
        },
    )
}

fn monitor() -> (
    HealthCheckMonitor<Scripted>,
    tokio::sync::mpsc::Sender<Result<Latency, CheckError>>,
    mpsc::Receiver<()>,
) {
    let (results, receiver) = tokio::sync::mpsc::channel(100);
    let (begun, begins) = mpsc::channel();
    let checker = Scripted {
        begun,
        results: tokio::sync::Mutex::new(receiver),
    };
    (HealthCheckMonitor::new(checker, config()), results, begins)
}

async fn until_attempts(monitor: &HealthCheckMonitor<Scripted>, attempts: u64) -> MonitorStats {
    loop {
        let stats = monitor.stats();
        if stats.attempts == attempts {
            return stats;
        }
        // Simulated time: jumps to the next check.
        time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn verdict_and_counts_follow_the_results() {
    let (monitor, results, _begins) = monitor();
    assert!(!monitor.is_healthy(), "unknown is not healthy");
    monitor.start().unwrap();
    let latency = Latency(Duration::from_millis(3));
    let busy = Err(CheckError::Local {
        target: target(),
        error: crate::LocalError::Descriptors,
    });
    let steps = [
        (Ok(latency), true, (1, 0)),
        (refused(), true, (0, 1)),
        (busy, true, (0, 1)),
        (refused(), false, (0, 2)),
        (Ok(latency), false, (1, 0)),
        (Ok(latency), true, (2, 0)),
    ];
    for (attempt, (result, healthy, in_a_row)) in (1..).zip(steps) {
        results.send(result).await.unwrap();
        let stats = until_attempts(&monitor, attempt).await;
        assert_eq!(monitor.is_healthy(), healthy, "after {attempt}");
        assert_eq!(
            (stats.consecutive_successes, stats.consecutive_failures),
            in_a_row,
            "after {attempt}"
        );
    }
    let stats = monitor.stats();
    assert_eq!((stats.attempts, stats.successes, stats.failures), (6, 3, 2));
    assert_eq!(stats.last_latency, Some(latency));
    assert_eq!(stats.last_error.as_deref(), Some(&CheckError::Refused(target())));
}

#[tokio::test(start_paused = true)]
async fn stopped_monitor_has_no_state_and_makes_no_checks() {
    let (monitor, results, begins) = monitor();
    monitor.start().unwrap();
    monitor.start().unwrap();
    results.send(Ok(Latency::default())).await.unwrap();
    until_attempts(&monitor, 1).await;
    assert!(monitor.is_healthy());
    monitor.stop();
    assert!(!monitor.is_healthy());
    begins.try_iter().for_each(drop);
    time::sleep(PLENTY).await;
    assert_eq!(begins.try_recv(), Err(mpsc::TryRecvError::Empty));
    // It can begin again, without a verdict.
    monitor.start().unwrap();
    results.send(refused()).await.unwrap();
    until_attempts(&monitor, 2).await;
    assert!(!monitor.is_healthy());
}

#[tokio::test(start_paused = true)]
async fn dropping_a_monitor_ends_its_checks() {
    let (monitor, results, begins) = monitor();
    monitor.start().unwrap();
    yield_now().await;
    drop(monitor);
    // The checker, and with it both channels, goes with the check in flight.
    time::timeout(PLENTY, results.closed())
        .await
        .expect("the end of the check");
    assert_eq!(begins.iter().count(), 1);
}

#[test]
fn monitors_outside_of_any_runtime_share_one() {
    let (first, to_first, begins_first) = monitor();
    let (second, _to_second, begins_second) = monitor();
    first.start().unwrap();
    second.start().unwrap();
    begins_first.recv_timeout(PLENTY).unwrap();
    begins_second.recv_timeout(PLENTY).unwrap();
    to_first.blocking_send(refused()).unwrap();
    assert_eq!(shared_runtime().unwrap().metrics().num_workers(), 1);
}
