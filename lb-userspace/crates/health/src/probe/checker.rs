//! The trait of all checkers.

use std::{future::Future, net::SocketAddr, time::Duration};

use crate::error::{CheckError, Latency};

/// Makes one kind of check.
pub trait Checker: Send + Sync + 'static {
    /// Checks `target` once and takes at most `timeout` for all of it: connection, request and answer. Dropping the
    /// future ends the check and closes its connection.
    ///
    /// # Errors
    /// Why it failed; [`CheckError::is_local`] separates errors that do not count against the target.
    fn check(
        &self,
        target: SocketAddr,
        timeout: Duration,
    ) -> impl Future<Output = Result<Latency, CheckError>> + Send;

    /// Makes the next check use a new connection, for checkers that keep one. Called when the target is suspect or
    /// fails, so that the check sees what new clients see.
    fn renew(&self) {}
}
