//! The programmed state: the content of the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};

use lb_common::{
    backend::{BackendId, Generation},
    clients::ClientRing,
    decap::EndKey,
    guard::{FlowGuard, PrefixKey},
    quic::{Config, ConfigKey, ServerKey},
    ring_slot::RingSlot,
    service::{Mode, RingId, Service as ServiceRecord, ServiceId},
};
use lb_model::state::{guard::Prefix, service::ServiceKey};

/// Where replies of mode `dnat` come from: address, port (0: every one that no other endpoint has) and protocol of a backend.
pub type Endpoint = ServiceKey;

/// The translated source of packets from an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTarget {
    /// The service's address.
    pub address: IpAddr,
    /// Its port; 0 keeps the packet's own.
    pub port: u16,
    /// The service.
    pub service: ServiceId,
    /// The backend.
    pub backend: BackendId,
}

/// The content of the maps, read back from the kernel at start and kept up to date by the writer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Programmed {
    /// Source NAT addresses.
    pub snat_addresses: Vec<IpAddr>,
    /// Source NAT ports; `None` while the settings map was never written.
    pub snat_ports: Option<RangeInclusive<u16>>,
    /// UDP port of GUE packets; 0 while the settings map was never written.
    pub gue_port: u16,
    /// Whether packets that match no service on their port are looked up as port 0, too.
    pub wildcard: bool,
    /// Whether unmatched packets are looked up in `replies`.
    pub dnat: bool,
    /// Whether packets to no other service are looked up among services whose address is a prefix.
    pub prefix_services: bool,
    /// Whether packets for no service may have come through a tunnel that ends here.
    pub ends_tunnels: bool,
    /// The tunnels that end here, as in [`crate::target::content::Target`].
    pub tunnel_ends: BTreeSet<EndKey>,
    /// Services by key.
    pub services: BTreeMap<ServiceKey, ServiceRecord>,
    /// Further ports of services, with their service's record.
    pub aliases: BTreeMap<ServiceKey, ServiceRecord>,
    /// Backends in use.
    pub backends: BTreeMap<BackendId, ProgrammedBackend>,
    /// Generations of all ids that were ever given out, in use or not.
    pub generations: BTreeMap<BackendId, Generation>,
    /// Verdicts of the prefixes in ACLs of services, [`lb_common::guard::ALLOW`] or [`lb_common::guard::DENY`].
    pub prefixes: BTreeMap<PrefixKey, u32>,
    /// The rings of clients that go to groups of backends.
    pub clients: BTreeMap<ServiceId, BTreeMap<Prefix, ClientRing>>,
    /// The service of each endpoint of mode `dnat`.
    pub replies: BTreeMap<Endpoint, ReplyTarget>,
    /// Budgets of services' new flows, including stale ones of services without limits.
    pub flow_guards: BTreeMap<ServiceId, FlowGuard>,
    /// Rings by id.
    pub rings: BTreeMap<RingId, Arc<[RingSlot]>>,
    /// Formats of QUIC connection ids, and the backends that they name.
    pub quic: ProgrammedQuic,
}

/// The identity part of a backend record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgrammedBackend {
    /// Where packets go.
    pub address: SocketAddr,
    /// Of this service.
    pub service: ServiceId,
    /// Generation of the id.
    pub generation: Generation,
    /// How packets reach it.
    pub mode: Mode,
    /// IP protocol of its service.
    pub protocol: u8,
    /// Whether recorded flows go to it.
    pub alive: bool,
    /// Tenths of the weight that a slow start holds back; kept for the next daemon.
    pub held_back: u8,
    /// Where its tunnel's outer sources lie, if each flow has its own.
    pub tunnel_source: Option<Prefix>,
}

/// Content of the maps for connection ids.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ProgrammedQuic {
    /// How they are read.
    pub configs: BTreeMap<ConfigKey, Config>,
    /// The backends that they name.
    pub servers: BTreeMap<ServerKey, BackendId>,
}
