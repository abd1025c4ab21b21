//! Many checks at once, without a task for each.

use std::{future::poll_fn, mem, net::SocketAddr, panic, sync::Arc, task::Poll, time::Duration};

use tokio::{
    runtime::Handle,
    task::{self, JoinSet},
};

use crate::{
    error::{CheckError, Latency, LocalError},
    probe::checker::Checker,
};

/// Checks that a thread begins in a row before its other tasks have a turn: some half a millisecond.
const IN_A_ROW: usize = 64;

/// The result of a check.
type Outcome = Result<Latency, CheckError>;

/// Makes each check once, all at the same time, as [`Checker::check`] does. Returns the results in the order of `checks`.
///
/// The threads of the caller's tokio runtime share them. Each thread begins one check after the other: a check that is
/// answered at once, as by a target on this machine, ends there, and only a check that has to wait gets a task.
/// Dropping the future ends all of them. Panics where a check does, and outside of a runtime.
pub async fn check_all<C: Checker>(checks: Vec<(Arc<C>, SocketAddr)>, timeout: Duration) -> Vec<Outcome> {
    let threads = Handle::current().metrics().num_workers().max(1);
    let share = checks.len().div_ceil(threads).max(1);
    if share >= checks.len() {
        return check_share(checks, timeout).await;
    }
    let mut results = unmade(&checks);
    let mut running = JoinSet::new();
    let (mut left, mut first) = (checks, 0);
    while !left.is_empty() {
        let rest = left.split_off(share.min(left.len()));
        let mine = mem::replace(&mut left, rest);
        let place = first;
        first += mine.len();
        running.spawn(async move { (place, check_share(mine, timeout).await) });
    }
    while let Some((place, outcomes)) = next(&mut running).await {
        results.splice(place..place + outcomes.len(), outcomes);
    }
    results
}

/// The checks that one task makes.
async fn check_share<C: Checker>(checks: Vec<(Arc<C>, SocketAddr)>, timeout: Duration) -> Vec<Outcome> {
    let mut results = unmade(&checks);
    let mut running = JoinSet::new();
    for (place, (checker, target)) in checks.into_iter().enumerate() {
        if place % IN_A_ROW == IN_A_ROW - 1 {
            task::yield_now().await;
        }
        let mut check = Box::pin(async move { checker.check(target, timeout).await });
        match poll_fn(|context| Poll::Ready(check.as_mut().poll(context))).await {
            Poll::Ready(outcome) => results[place] = outcome,
            Poll::Pending => drop(running.spawn(async move { (place, check.await) })),
        }
    }
    while let Some((place, outcome)) = next(&mut running).await {
        results[place] = outcome;
    }
    results
}

/// Placeholders for the results, which stay if the runtime ends first.
fn unmade<C>(checks: &[(Arc<C>, SocketAddr)]) -> Vec<Outcome> {
    let unmade = |(_, target): &(Arc<C>, SocketAddr)| {
        Err(CheckError::Local {
            target: *target,
            error: LocalError::Aborted,
        })
    };
    checks.iter().map(unmade).collect()
}

/// The result of the next task to end.
async fn next<T: 'static>(running: &mut JoinSet<T>) -> Option<T> {
    loop {
        match running.join_next().await? {
            Ok(value) => return Some(value),
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    panic::resume_unwind(panic);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{self, Instant};

    use super::*;

    const PLENTY: Duration = Duration::from_secs(60);

    /// Succeeds after a number of milliseconds that is the target's port, or at once with 0; fails with port 1, panics
    /// with 2.
    struct Slow;

    impl Checker for Slow {
        async fn check(&self, target: SocketAddr, _: Duration) -> Outcome {
            let wait = Duration::from_millis(target.port().into());
            match target.port() {
                0 => {}
                1 => return Err(CheckError::Refused(target)),
                2 => panic!("a defect"),
                _ => time::sleep(wait).await,
            }
            Ok(Latency(wait))
        }
    }

    fn target(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    async fn checked(ports: &[u16]) -> Vec<Outcome> {
        let checker = Arc::new(Slow);
        let checks = ports.iter().map(|port| (Arc::clone(&checker), target(*port)));
        check_all(checks.collect(), PLENTY).await
    }

    fn expected(port: u16) -> Outcome {
        match port {
            1 => Err(CheckError::Refused(target(1))),
            _ => Ok(Latency(Duration::from_millis(port.into()))),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn each_result_stands_in_the_place_of_its_check() {
        for count in [0, 1, 2, 3, 4, 100, 1000] {
            let ports: Vec<u16> = [0, 1, 3, 4, 0].into_iter().cycle().take(count).collect();
            let wanted: Vec<Outcome> = ports.iter().map(|port| expected(*port)).collect();
            assert_eq!(checked(&ports).await, wanted, "{count} checks");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_target_does_not_hold_up_the_others() {
        let began = Instant::now();
        let results = checked(&[1000; 500]).await;
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(
            began.elapsed(),
            Duration::from_secs(1),
            "all wait at the same time"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_future_ends_its_checks() {
        let checker = Arc::new(Slow);
        let checks = vec![(Arc::clone(&checker), target(60_000)); 10];
        let waited = time::timeout(Duration::from_secs(1), check_all(checks, PLENTY)).await;
        assert!(waited.is_err());
        // Their tasks are dropped when they have their turn.
        task::yield_now().await;
        assert_eq!(Arc::strong_count(&checker), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_defect_is_not_taken_for_a_result() {
        for ports in [&[2][..], &[0, 3, 2, 0]] {
            let ports = ports.to_owned();
            let ended = tokio::spawn(async move { checked(&ports).await }).await;
            assert!(ended.unwrap_err().is_panic());
        }
    }
}
