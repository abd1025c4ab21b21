//! A backend as the operator wants it.

use std::{net::SocketAddr, time::SystemTime};

use lb_common::service::Mode;

use super::{
    names::{BackendName, GroupName},
    quic::ServerId,
};

/// The operator's state of a backend, apart from its health. Stays until the operator changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Admin {
    /// Takes flows as its health allows.
    #[default]
    Enabled,
    /// Takes no new flows, keeps the ones it has.
    Draining,
    /// Takes no flows; the ones it has move.
    Disabled,
}

/// A real server of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Unique within the service.
    pub name: BackendName,
    /// Destination of packets. Port 0, for services on every port, keeps the packet's own.
    pub address: SocketAddr,
    /// Share of new flows relative to the service's other backends; 0 drains, 1 to 65,535.
    pub weight: u16,
    /// Its mode; `None`: the service's.
    pub mode: Option<Mode>,
    /// Server ids by which QUIC connection ids name it: each counts for the configurations of its length.
    pub server_ids: Vec<ServerId>,
    /// Port of its agent; 0: it has none; `None`: the port of the service's agent table.
    pub agent_port: Option<u16>,
    /// Whether it takes new flows only while too few others can; see `backup` in docs/configuration.md.
    pub backup: bool,
    /// The group that it is of; see `[[service.clients]]` in docs/configuration.md.
    pub group: Option<GroupName>,
    /// State that the operator wants.
    pub admin: Admin,
    /// Time at which a drain ends and the backend is disabled; in whole milliseconds, as it is stored.
    pub drain_until: Option<SystemTime>,
    /// The host name of the service that has this address; see [`super::discovered`].
    pub discovered_by: Option<BackendName>,
}
