//! Bounded waiting: the only place of the harness that sleeps.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the bounded wait that all others use"
)]

use std::{
    io, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// The least that a condition is waited for: tests are about what happens, not about how fast a machine is that does much
/// else at the same time.
const LIMIT_MIN: Duration = Duration::from_secs(60);

/// Polls until `probe` gives a value, for `limit` or a minute at most; `what` names the condition in the error.
///
/// # Errors
/// When the time is over, or at once when `probe` fails.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let limit = limit.max(LIMIT_MIN);
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {limit:?} in vain: {what}");
        }
        thread::sleep(POLL);
    }
}

/// Looks until `probe` is true, as [`until`].
///
/// # Errors
/// As [`until`].
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, limit, || Ok(probe()?.then_some(())))
}

/// Like [`until_true`], while the tasks of this thread's runtime continue.
///
/// # Errors
/// As [`until`].
pub async fn until_true_async(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let limit = limit.max(LIMIT_MIN);
    let end = Instant::now() + limit;
    while !probe()? {
        if Instant::now() >= end {
            bail!("waited {limit:?} in vain: {what}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// The result of a call with its own timeout. Such a call can end with EINTR, without any signal, after the machine was
/// suspended for a moment: it is repeated.
///
/// # Errors
/// Those of the call.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Paces a load generator. Never use it to wait for a condition.
pub fn pace(time: Duration) {
    thread::sleep(time);
}
