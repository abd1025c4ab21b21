//! Connections, counted by listener.

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
}

impl Ended {
    /// All of them.
    const ALL: [Self; 6] = [
        Self::Full,
        Self::Displaced,
        Self::Idle,
        Self::SlowRequest,
        Self::SlowReader,
        Self::NoDescriptor,
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
        }
    }
}

/// Metrics of all listeners.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    connections: IntGaugeVec,
    ended: IntCounterVec,
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
        };
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        Ok(metrics)
    }

    /// The metrics of the listener `name`.
    pub fn listener(&self, name: &'static str) -> ListenerMetrics {
        for cause in Ended::ALL {
            // Shown from the start, so that a rate can be computed when the first one comes.
            self.ended.with_label_values(&[name, cause.name()]).inc_by(0);
        }
        ListenerMetrics {
            name,
            connections: self.connections.with_label_values(&[name]),
            ended: self.ended.clone(),
        }
    }
}

/// Metrics of one listener.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    name: &'static str,
    pub(super) connections: IntGauge,
    pub(super) ended: IntCounterVec,
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
