//! Connections, counted by listener.

use axum::http::{Method, StatusCode};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Why a connection was refused, or ended by the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Every connection was busy.
    Full,
    /// It was idle, and a new one came while all were taken.
    Displaced,
    /// No request came.
    Idle,
    /// A request did not come to its end.
    SlowRequest,
    /// The client did not read the answer.
    SlowReader,
    /// `accept` found no file descriptor.
    NoDescriptor,
    /// The client's address may not connect.
    Forbidden,
    /// The TLS handshake failed, for example without a certificate.
    Handshake,
}

impl Ended {
    /// All of them.
    const ALL: [Self; 8] = [
        Self::Full,
        Self::Displaced,
        Self::Idle,
        Self::SlowRequest,
        Self::SlowReader,
        Self::NoDescriptor,
        Self::Forbidden,
        Self::Handshake,
    ];

    /// Its label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Displaced => "displaced",
            Self::Idle => "idle",
            Self::SlowRequest => "slow_request",
            Self::SlowReader => "slow_reader",
            Self::NoDescriptor => "no_descriptor",
            Self::Forbidden => "forbidden",
            Self::Handshake => "handshake",
        }
    }
}

/// Metrics of all listeners.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    connections: IntGaugeVec,
    ended: IntCounterVec,
    requests: IntCounterVec,
}

impl ServerMetrics {
    /// Metrics that `registry` shows.
    ///
    /// # Errors
    /// When `registry` has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            connections: IntGaugeVec::new(
                Opts::new("lb_listener_connections", "Open connections of clients"),
                &["listener"],
            )?,
            ended: IntCounterVec::new(
                Opts::new(
                    "lb_listener_ended_total",
                    "Connections of clients that the daemon refused or ended, by cause",
                ),
                &["listener", "cause"],
            )?,
            requests: IntCounterVec::new(
                Opts::new(
                    "lb_listener_requests_total",
                    "Requests that were answered, by method and status",
                ),
                &["listener", "method", "status"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        Ok(metrics)
    }

    /// The metrics of the listener `name`.
    pub fn listener(&self, name: &'static str) -> ListenerMetrics {
        // Shown from the start, so that a rate can be computed when the first one comes.
        self.requests.with_label_values(&[name, "GET", "200"]).inc_by(0);
        for cause in Ended::ALL {
            self.ended.with_label_values(&[name, cause.name()]).inc_by(0);
        }
        ListenerMetrics {
            name,
            connections: self.connections.with_label_values(&[name]),
            ended: self.ended.clone(),
            requests: self.requests.clone(),
        }
    }
}

/// Metrics of one listener.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    name: &'static str,
    pub(super) connections: IntGauge,
    pub(super) ended: IntCounterVec,
    requests: IntCounterVec,
}

impl ListenerMetrics {
    /// The listener's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A connection was refused or ended.
    pub fn count(&self, cause: Ended) {
        self.ended.with_label_values(&[self.name, cause.name()]).inc();
    }

    /// A request was answered.
    pub(super) fn answered(&self, method: &Method, status: StatusCode) {
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
            // A client may send any word.
            _ => "other",
        };
        let labels = [self.name, method, status.as_str()];
        self.requests.with_label_values(&labels).inc();
    }

    /// A connection is open until the result is dropped.
    pub(super) fn open(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }
}

/// Counts an open connection.
pub(super) struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
