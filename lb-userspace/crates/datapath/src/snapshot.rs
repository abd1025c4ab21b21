//! Counters as read at one moment, by the names that users know.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lb_common::{
    counters::{PacketCount, Signals, Traffic},
    reason::Reason,
};

use crate::state::service::ServiceKey;

/// All counters. Since the maps outlive the daemon, they go on counting over restarts.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// One for each interface that is to have the program.
    pub interfaces: Vec<InterfaceStats>,
    /// Frames that could not be redirected; `None` while they are not counted.
    pub redirect_errors: Option<Vec<RedirectErrors>>,
    /// Of programmed services.
    pub services: BTreeMap<ServiceKey, Traffic>,
    /// Of programmed backends.
    pub backends: BTreeMap<(ServiceKey, SocketAddr), BackendStats>,
    /// Half-open flows of programmed services that gave way to new ones, without zeros.
    pub gave_way: BTreeMap<ServiceKey, GaveWay>,
    /// Drops of programmed services, without zeros.
    pub service_drops: BTreeMap<(ServiceKey, Reason), u64>,
    /// How full the maps are.
    pub maps: Vec<MapUse>,
    /// When the count of flows behind `active_flows` and `maps` began; `None` before the first count.
    pub flows_counted_at: Option<Instant>,
    /// How long that count took; zero before the first one.
    pub flows_counted_in: Duration,
}

/// Half-open flows of a service that gave way to new ones, for want of source ports or of room in the flow table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GaveWay {
    /// So far.
    pub total: u64,
    /// Whether some did between the last two looks at the flow table.
    pub lately: bool,
}

/// One interface and the verdicts on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceStats {
    /// Name of the interface.
    pub name: String,
    /// The program runs on it.
    pub attached: bool,
    /// The driver runs the program, not the network stack.
    pub native: bool,
    /// It is up and has a carrier.
    pub up: bool,
    /// Times the program was put back, as [`crate::interface::Interface::repairs`].
    pub repairs: u64,
    /// Every reason, in the order of [`Reason::ALL`], also with 0.
    pub by_reason: Vec<(Reason, PacketCount)>,
    /// Packets that came through a tunnel which ends here. Each has a reason of its own, too.
    pub tunnels_ended: PacketCount,
    /// Packets that the program saw there, by number of the CPU.
    pub by_cpu: Vec<u64>,
    /// Packets that the kernel or the driver lost; `None` where the kernel does not tell.
    pub losses: Option<LinkLosses>,
}

/// Frames that the kernel could not redirect to an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedirectErrors {
    /// The interface that they were to leave by.
    pub interface: String,
    /// Why, as a number of errno(3).
    pub error: i32,
    /// How many, since the daemon counts.
    pub frames: u64,
    /// Whether the last was refused within a minute.
    pub lately: bool,
}

impl RedirectErrors {
    /// The name of the error, as in errno(3); `other` for one that redirection is not known for.
    pub const fn name(&self) -> &'static str {
        match self.error {
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::ENETDOWN => "ENETDOWN",
            libc::EMSGSIZE => "EMSGSIZE",
            libc::EINVAL => "EINVAL",
            libc::ENXIO => "ENXIO",
            libc::ENOSPC => "ENOSPC",
            libc::ENOMEM => "ENOMEM",
            _ => "other",
        }
    }
}

/// Packets that a link lost since it was made, as the kernel and its driver count them: `rtnl_link_stats64` in
/// include/uapi/linux/if_link.h. What each counts differs from driver to driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkLosses {
    /// Received and dropped, for want of room in the kernel or by decision of the driver.
    pub rx_dropped: u64,
    /// Received with errors.
    pub rx_errors: u64,
    /// Not received, since the queue of the device was full.
    pub rx_missed: u64,
    /// Not sent for want of room.
    pub tx_dropped: u64,
    /// Not sent because of errors.
    pub tx_errors: u64,
}

impl LinkLosses {
    /// Every counter with its name.
    pub const fn named(self) -> [(&'static str, u64); 5] {
        [
            ("rx_dropped", self.rx_dropped),
            ("rx_errors", self.rx_errors),
            ("rx_missed", self.rx_missed),
            ("tx_dropped", self.tx_dropped),
            ("tx_errors", self.tx_errors),
        ]
    }
}

/// Traffic and flows of one backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendStats {
    /// Traffic to it and from it.
    pub traffic: Traffic,
    /// Signals of its flows about its health.
    pub signals: Signals,
    /// Recorded flows that are not closed, when last counted.
    pub active_flows: u64,
}

/// Signals of flows about the health of backends, without backends that have none.
pub type BackendSignals = BTreeMap<(ServiceKey, SocketAddr), Signals>;

/// How full a map is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapUse {
    /// Name of the map, one of [`lb_common::map_names::PINNED`].
    pub name: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries at most.
    pub capacity: u64,
    /// Writes and deletions that the kernel has refused since the daemon started.
    pub update_errors: u64,
}
