//! Steps of a plan.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

use lb_common::{
    backend::BackendId,
    clients::ClientRing,
    decap::EndKey,
    guard::{FlowGuard, PrefixKey},
    quic::{Config, ConfigKey, ServerKey},
    ring_slot::RingSlot,
    service::{RingId, Service as ServiceRecord, ServiceId},
};
use lb_model::state::{guard::Prefix, service::ServiceKey};

use crate::programmed::{Endpoint, ProgrammedBackend, ReplyTarget};

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

/// One write about connection ids.
#[derive(Clone, PartialEq, Debug)]
pub enum QuicStep {
    /// How connection ids are read.
    WriteConfig {
        /// The service and its configuration.
        key: ConfigKey,
        /// The content.
        config: Box<Config>,
    },
    /// The backend that a server id names.
    WriteServer {
        /// Its server id.
        key: ServerKey,
        /// Its id.
        backend: BackendId,
    },
    /// Removes a server id.
    RemoveServer {
        /// The server id.
        key: ServerKey,
    },
    /// Connection ids are not read so any more.
    RemoveConfig {
        /// The service and its configuration.
        key: ConfigKey,
    },
}
