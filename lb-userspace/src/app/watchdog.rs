//! The watchdog of the service manager (sd_watchdog_enabled(3)): it restarts a daemon that sends no notice in time. The kernel
//! forwards on meanwhile, but nothing takes failed backends out.

use std::{env, process, time::Duration};

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::notify::{Notice, notify};
use crate::{control::ControlHandle, health::HealthHandle};

/// Rounds in the time that the service manager allows between two notices: one may be late.
const ROUNDS: u32 = 4;

/// Sends notices until `cancel`, each after control and the health checks have both answered: where one is frozen, the notices end.
/// Does nothing where no service manager waits for them.
pub(super) async fn run(control: ControlHandle, health: HealthHandle, cancel: CancellationToken) {
    let Some(limit) = limit(|name| env::var(name).ok()) else {
        return;
    };
    let both_answer = || {
        let (control, health) = (control.clone(), health.clone());
        async move {
            let (control, health) = tokio::join!(control.answers(), health.answers());
            control && health
        }
    };
    let alive = || {
        if let Err(error) = notify(Notice::Alive) {
            tracing::warn!(%error, "cannot notify the service manager that the daemon works");
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = rounds(limit / ROUNDS, both_answer, alive) => {}
    }
}

/// Calls `alive` after each time that `answered` is true, until it is false.
async fn rounds<F>(interval: Duration, mut answered: impl FnMut() -> F, mut alive: impl FnMut())
where
    F: Future<Output = bool>,
{
    while answered().await {
        alive();
        time::sleep(interval).await;
    }
}

/// Time that the service manager allows between two notices, by the variables of this process.
fn limit(variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    if variable("WATCHDOG_PID").is_some_and(|pid| pid != process::id().to_string()) {
        return None;
    }
    let micros = variable("WATCHDOG_USEC")?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future};

    use super::*;

    #[test]
    fn only_a_process_that_is_watched_sends_notices() {
        let own = process::id().to_string();
        for (usec, pid, expected) in [
            (None, None, None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (Some("30000000"), None, Some(Duration::from_secs(30))),
            (
                Some("500000"),
                Some(own.as_str()),
                Some(Duration::from_millis(500)),
            ),
            (Some("500000"), Some("1"), None),
        ] {
            let variable = |name: &str| match name {
                "WATCHDOG_USEC" => usec.map(str::to_owned),
                _ => pid.map(str::to_owned),
            };
            assert_eq!(limit(variable), expected, "{usec:?} {pid:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_freezes_or_ends_ends_the_notices() {
        for freezes in [true, false] {
            let (asked, sent) = (Cell::new(0), Cell::new(0));
            let answered = || async {
                asked.set(asked.get() + 1);
                if asked.get() == 3 && freezes {
                    future::pending::<()>().await;
                }
                asked.get() < 3
            };
            let alive = || sent.set(sent.get() + 1);
            let run = rounds(Duration::from_secs(1), answered, alive);
            assert_eq!(
                time::timeout(Duration::from_secs(3600), run).await.is_err(),
                freezes
            );
            assert_eq!((asked.get(), sent.get()), (3, 2), "{freezes}");
        }
    }
}
