//! From desired state, health states and agent reports to ordered writes of the data plane's tables. Pure: time is
//! passed in.
//!
//! [`target`] applies health, agents and drains to the desired state; [`plan`] compares the [`Target`] with the
//! [`Programmed`] state and gives the [`Step`]s. [`ring`] and [`transition`] decide which backend owns a slot and how
//! it changes hands.
//!
//! This crate must not know maps, sockets, files or clocks, nor its callers; it links neither BPF, HTTP servers nor a
//! command line.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests begin at some time"))]

mod apply;
mod build;
mod flags;
pub mod groups;
mod guard;
mod ids;
mod plan_cache;
mod planner;
mod quic;
mod replies;
pub mod ring;
pub mod target;
#[cfg(test)]
mod tests;
pub mod transition;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use lb_common::{
    backend::{BackendId, Generation, TENTHS},
    clients::ClientRing,
    decap::EndKey,
    flow::IdleTimeouts,
    guard::{FlowGuard, PrefixKey},
    limits::{MAX_BACKENDS, MAX_GUARD_PREFIXES, MAX_SERVICES, MAX_SNAT_ADDRESSES},
    ring_slot::RingSlot,
    service::{Mode, RingId, Service as ServiceRecord, ServiceId},
};

pub use self::{
    planner::{Planner, plan},
    quic::{ProgrammedQuic, QuicStep, TargetQuic},
};
use lb_model::{
    health,
    state::{
        self,
        guard::{Guard, Prefix},
        service::{Affinity, Algorithm, OnEmpty, ServiceKey, Tracking},
        shared::Shared,
    },
};

use self::{groups::Group, ring::RingError};

/// Why a target cannot be programmed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// More than the service maps hold.
    #[error("{0} services, counted with their further ports, are more than the {MAX_SERVICES} that fit")]
    TooManyServices(usize),
    /// More than there are backend ids.
    #[error("{0} backends are more than the {max} that fit", max = MAX_BACKENDS - 1)]
    TooManyBackends(usize),
    /// More source NAT addresses of one family than fit.
    #[error("{0} source NAT addresses of one family are more than the {MAX_SNAT_ADDRESSES} that fit")]
    TooManySnatAddresses(usize),
    /// More prefixes of clients than the guards of all services may have.
    #[error("{0} prefixes in guards are more than the {MAX_GUARD_PREFIXES} that fit")]
    TooManyPrefixes(usize),
    /// More configurations of QUIC connection ids than fit.
    #[error("{0} [[service.quic]] tables are more than the {max} that fit", max = lb_common::limits::MAX_QUIC_CONFIGS)]
    TooManyQuicConfigs(usize),
    /// More server ids than fit.
    #[error("{0} server_ids are more than the {max} that fit", max = lb_common::limits::MAX_QUIC_SERVERS)]
    TooManyQuicServers(usize),
    /// No id is free, even after all removals.
    #[error("no free {of} id")]
    IdsExhausted {
        /// The kind of the id.
        of: &'static str,
    },
    /// A service's ring cannot be built.
    #[error("ring of the service on {}", .key.address_text())]
    Ring {
        /// The service.
        key: ServiceKey,
        /// Why.
        #[source]
        source: RingError,
    },
}

/// The state to program: the effective state, reduced to the parts that the data plane needs.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// Source NAT addresses; empty: each backend's route decides.
    pub snat_addresses: Vec<IpAddr>,
    /// Source NAT ports.
    pub snat_ports: RangeInclusive<u16>,
    /// UDP port of GUE packets.
    pub gue_port: u16,
    /// The tunnels that end at this machine: prefixes that they come from, and addresses at which they end.
    pub tunnel_ends: BTreeSet<EndKey>,
    /// How long a changed slot remembers its owner before.
    pub transition: Duration,
    /// Services by address, port and protocol.
    pub services: BTreeMap<ServiceKey, Shared<TargetService>>,
}

impl Target {
    /// Shares services that are equal in another target, so that comparing pointers suffices to see that they need no
    /// work.
    pub fn share_with(&mut self, other: &Self) {
        for (key, service) in &mut self.services {
            if let Some(there) = other.services.get(key).filter(|there| *there == service) {
                *service = there.clone();
            }
        }
    }
}

/// A service that should be programmed.
#[derive(Clone, PartialEq, Debug)]
pub struct TargetService {
    /// Its further ports.
    pub more_ports: Vec<u16>,
    /// Mode of backends without their own.
    pub mode: Mode,
    /// `All` is already resolved into the backends' weights.
    pub on_empty: OnEmpty,
    /// How new flows choose.
    pub algorithm: Algorithm,
    /// The part of a tuple that selects the backend.
    pub affinity: Affinity,
    /// Which flows are recorded.
    pub tracking: Tracking,
    /// When idle flows are forgotten.
    pub idle: IdleTimeouts,
    /// Its ACLs and rate limits.
    pub guard: Guard,
    /// Slots of the ring.
    pub ring_size: u32,
    /// Whether it has every port of an address of this machine, so that packets for the machine's own sockets pass.
    pub shares_address: bool,
    /// How connection ids of QUIC name its backends, if they do.
    pub quic: Option<TargetQuic>,
    /// Clients of its family that go to groups of its backends.
    pub clients: BTreeMap<Prefix, Group>,
    /// Backends by address.
    pub backends: BTreeMap<SocketAddr, TargetBackend>,
}

impl TargetService {
    /// Whether its slots must remember previous owners: some backend gets packets without a record in mode `nat`'s
    /// table. Slots taken in turn need not, since they say nothing about a flow.
    pub fn remembers(&self) -> bool {
        self.algorithm == Algorithm::Maglev && self.records()
    }

    /// Whether flows are recorded for it, other than mode `nat`'s.
    pub fn records(&self) -> bool {
        self.backends.values().any(|backend| backend.mode != Mode::Nat)
    }

    /// Shares of slots of its backends, in their order. Not their weights in force, of which small ones have no tenths.
    pub fn shares(&self) -> impl Iterator<Item = u32> {
        let rising = self.backends.values().any(|backend| backend.held_back > 0);
        self.backends.values().map(move |backend| match rising {
            true => backend.weight * u32::from(backend.tenths()),
            false => backend.weight,
        })
    }

    /// Whether all of them are recorded, not only flows in changing slots.
    pub fn records_all(&self) -> bool {
        self.records() && self.tracking == Tracking::Full
    }
}

/// A backend that should be programmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TargetBackend {
    /// How packets reach it.
    pub mode: Mode,
    /// Effective weight; 0: no new flows.
    pub weight: u32,
    /// Whether its recorded flows still go to it. A backend that takes new flows is always alive.
    pub alive: bool,
    /// Tenths of the weight that a slow start holds back; fewer than [`TENTHS`].
    pub held_back: u8,
    /// Where its tunnel's outer sources lie, if each flow has its own.
    pub tunnel_source: Option<Prefix>,
    /// The group that it is of.
    pub group: Group,
}

impl TargetBackend {
    /// The weight in force, slow start included: 0 only where the weight is.
    pub fn weight_in_force(&self) -> u32 {
        (self.weight * u32::from(self.tenths())).div_ceil(u32::from(TENTHS))
    }

    /// Tenths of its weight that it has.
    pub const fn tenths(&self) -> u8 {
        TENTHS.saturating_sub(self.held_back)
    }
}

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
    /// The tunnels that end here, as in [`Target`].
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

/// One write. The order of a plan matters: backend before ring, ring before service, removal in reverse.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Settings, and the source NAT addresses they count.
    WriteSettings {
        /// Source NAT addresses.
        snat_addresses: Vec<IpAddr>,
        /// Source NAT ports.
        snat_ports: RangeInclusive<u16>,
        /// UDP port of GUE packets.
        gue_port: u16,
        /// Whether any service has port 0.
        wildcard: bool,
        /// Whether any backend is of mode `dnat`.
        dnat: bool,
        /// Whether the address of any service is a prefix.
        prefix_services: bool,
        /// Whether tunnels end at this machine.
        ends_tunnels: bool,
    },
    /// A backend's identity; the writer adds the next hop.
    WriteBackend {
        /// Its id.
        id: BackendId,
        /// Its content.
        backend: ProgrammedBackend,
    },
    /// Sets the service of an endpoint, replaced atomically.
    WriteReply {
        /// The endpoint.
        endpoint: Endpoint,
        /// Their translation.
        reply: ReplyTarget,
    },
    /// A whole ring, swapped in at once.
    WriteRing {
        /// Its id.
        ring: RingId,
        /// Its slots.
        slots: Arc<[RingSlot]>,
    },
    /// A prefix in the guard of a service.
    WritePrefix {
        /// The prefix.
        key: PrefixKey,
        /// Its verdict.
        verdict: u32,
    },
    /// About connection ids of QUIC.
    Quic(QuicStep),
    /// The budgets of a service's new flows.
    WriteFlowGuard {
        /// The service.
        service: ServiceId,
        /// The budgets.
        guard: FlowGuard,
    },
    /// Sets the ring of the clients of a prefix.
    WriteClients {
        /// The service.
        service: ServiceId,
        /// The clients.
        prefix: Prefix,
        /// Their ring.
        ring: ClientRing,
    },
    /// Has the clients of a prefix use the ring of the prefix around it, or of the service.
    RemoveClients {
        /// The service.
        service: ServiceId,
        /// The clients.
        prefix: Prefix,
    },
    /// Adds a source or an end of tunnels.
    WriteTunnelEnd {
        /// Its key.
        key: EndKey,
    },
    /// A service record, replaced at once.
    WriteService {
        /// Its key.
        key: ServiceKey,
        /// Its content.
        service: ServiceRecord,
    },
    /// A service goes.
    RemoveService {
        /// Its key.
        key: ServiceKey,
        /// Its number, whose counters are cleared.
        id: ServiceId,
    },
    /// Waits until all runs of the program that began before have ended.
    Barrier,
    /// Removes a source or an end of tunnels.
    RemoveTunnelEnd {
        /// Its key.
        key: EndKey,
    },
    /// A prefix that no service has any more.
    RemovePrefix {
        /// The prefix.
        key: PrefixKey,
    },
    /// Removes an unreferenced ring.
    RemoveRing {
        /// Its id.
        ring: RingId,
    },
    /// An endpoint that no packet was sent to any more.
    RemoveReply {
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// Frees an unreferenced backend; its id may be reused with the next generation.
    FreeBackend {
        /// Its id.
        id: BackendId,
    },
}

impl Step {
    /// Whether it is about a backend's identity.
    pub const fn is_of_backend(&self) -> bool {
        matches!(self, Self::WriteBackend { .. } | Self::FreeBackend { .. })
    }

    /// Whether ids or map entries may mean another service or backend after the step. False for rings.
    pub const fn changes_names(&self) -> bool {
        !matches!(
            self,
            Self::WriteRing { .. } | Self::RemoveRing { .. } | Self::Barrier
        )
    }
}
