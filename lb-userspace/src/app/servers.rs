//! How each listener serves its clients: limits, and what counts them.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, access::Role},
    descriptors, metrics,
    serve::{Limits, Server, ServerMetrics},
};

/// Makes the servers of all listeners.
pub(super) struct Servers {
    /// Notified when much memory is free again.
    pub(super) released: Arc<Notify>,
    counts: ServerMetrics,
    /// File descriptors that the daemon may have.
    descriptors: u64,
    cancel: CancellationToken,
}

impl Servers {
    pub(super) fn new(counts: ServerMetrics, descriptors: u64, cancel: CancellationToken) -> Self {
        Self {
            released: Arc::new(Notify::new()),
            counts,
            descriptors,
            cancel,
        }
    }

    /// Of metrics and page.
    pub(super) fn metrics(&self) -> Server {
        let limits = metrics::limits(self.connections(metrics::MAX_CONNECTIONS));
        self.server(limits, "metrics")
    }

    /// Of the socket with a role.
    pub(super) fn api(&self, role: Role) -> Server {
        match role {
            Role::Admin | Role::Operate => self.server(self.api_limits(api::MAX_CONNECTIONS), "api"),
            Role::Read => self.server(self.api_limits(api::MAX_READERS), "api_read"),
        }
    }

    /// Of the API over TLS.
    pub(super) fn tls(&self) -> Server {
        self.server(self.api_limits(api::MAX_CONNECTIONS), "api_tls")
    }

    /// Permits to follow events through a listener of `most` connections.
    pub(super) fn followers(&self, most: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.api_limits(most).connections / 2))
    }

    fn api_limits(&self, most: usize) -> Limits {
        api::limits(self.connections(most))
    }

    fn connections(&self, most: usize) -> usize {
        descriptors::connections_allowed(self.descriptors, most)
    }

    fn server(&self, limits: Limits, name: &'static str) -> Server {
        Server {
            limits,
            metrics: self.counts.listener(name),
            released: Arc::clone(&self.released),
            cancel: self.cancel.clone(),
        }
    }
}
