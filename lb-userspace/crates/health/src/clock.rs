//! The clock that tests can stop.

use std::time::Instant;

use tokio::time;

/// The time on it.
pub fn now() -> Instant {
    time::Instant::now().into_std()
}

/// Waits until then; without a deadline, for ever.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
