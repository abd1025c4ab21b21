//! Checks that a port accepts connections.

use std::{net::SocketAddr, time::Duration};

use super::connect::Budget;
use crate::{
    error::{CheckError, Latency},
    probe::{checker::Checker, route::Route},
};

/// Establishes a TCP connection and resets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpChecker;

impl Checker for TcpChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        TcpProbe::default().check(target, timeout).await
    }
}

/// [`TcpChecker`] with its options.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpProbe {
    /// The way of the packets.
    pub route: Route,
    /// Whether to reset the connection before it is complete: the server's kernel answers the connection request, but
    /// the server itself never sees a connection. Behind SYN cookies that is no proof of a free place in its backlog.
    pub half_open: bool,
}

impl Checker for TcpProbe {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        if self.route.proxy.is_some() && !self.half_open {
            budget.connect(self.route).await?;
        } else {
            budget.knock(self.route, self.half_open).await?;
        }
        Ok(Latency(budget.started.elapsed()))
    }
}
