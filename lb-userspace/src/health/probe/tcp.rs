//! Is there someone who accepts connections?

use std::{net::SocketAddr, time::Duration};

use super::{Checker, connect::Budget};
use crate::health::error::{CheckError, Latency};

/// Establishes a TCP connection and resets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpChecker;

impl Checker for TcpChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let budget = Budget::start(target, timeout);
        budget.connect().await?;
        Ok(Latency(budget.started.elapsed()))
    }
}
