//! Checks through the VIP: their targets, and the trait that opens their way into the forwarding path.

use std::{
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use lb_common::service::Mode;

use super::word::Word as _;

/// A way through the forwarding path: from a service to one of its backends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckPath {
    /// The service's address, and its port; 0 is any.
    pub vip: SocketAddr,
    /// The service's protocol, by its number in IP headers.
    pub protocol: u8,
    /// The backend.
    pub backend: SocketAddr,
    /// How packets reach it.
    pub mode: Mode,
}

impl CheckPath {
    /// The checked address: the service's, with its port, or with `port` if the service has port 0.
    pub(super) fn target(&self, port: Option<u16>) -> SocketAddr {
        let port = match self.vip.port() {
            0 => port.unwrap_or(self.backend.port()),
            port => port,
        };
        SocketAddr::new(self.vip.ip(), port)
    }
}

impl fmt::Display for CheckPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the path ({}) of {}", self.mode.word(), self.backend)
    }
}

/// Where a check enters the path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeRoute {
    /// The address to connect to in the place of the service's.
    pub address: SocketAddr,
    /// The interface to leave by.
    pub device: Arc<str>,
}

/// The entrance, or why there is none on this machine.
pub type RouteFuture<'a> = Pin<Box<dyn Future<Output = Result<ProbeRoute, String>> + Send + 'a>>;

/// Leads checks into the forwarding path.
pub trait Paths: fmt::Debug + Send + Sync {
    /// The entrance of a path for a check of `port`, from the address `source` if set. Creates or repairs the
    /// interfaces first. Cancel-safe.
    fn open<'a>(&'a self, path: &'a CheckPath, port: u16, source: Option<IpAddr>) -> RouteFuture<'a>;
}
