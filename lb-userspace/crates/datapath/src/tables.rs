//! Read access to the tables, one entry at a time.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    backend::{Backend, BackendId, Generation},
    clients::ClientRing,
    flow::{TupleV4, TupleV6},
    hash::HashBy,
    quic::{Config, ConfigKey, ServerKey},
    ring_slot::RingSlot,
    service::{RingId, Service, ServiceId},
    settings::Settings,
    track::{FlowRecord, Table},
};

use crate::{
    neighbours::next_hop::NextHopState,
    state::service::{Protocol, ServiceKey},
};

/// A tuple of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnyTuple {
    /// IPv4.
    V4(TupleV4),
    /// IPv6.
    V6(TupleV6),
}

impl AnyTuple {
    /// The hash that selects its slot.
    pub fn hash(&self, by: HashBy) -> u32 {
        match self {
            Self::V4(tuple) => by.hash_v4(tuple),
            Self::V6(tuple) => by.hash_v6(tuple),
        }
    }
}

/// A flow of mode `nat` in the table, in the direction that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translated {
    /// The packet is a reply of a backend.
    pub is_reply: bool,
    /// Its translated source.
    pub source: SocketAddr,
    /// Its translated destination.
    pub destination: SocketAddr,
    /// The backend that owns the flow.
    pub backend: BackendId,
    /// Its generation when the flow began.
    pub generation: Generation,
    /// The flow's service.
    pub service: ServiceId,
    /// Bits of [`lb_common::flow`].
    pub state: u8,
    /// Interface index on which replies leave.
    pub ifindex: u32,
}

/// The translation of replies from an endpoint, in mode `dnat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answers {
    /// Their translated source; port 0 keeps the packet's own.
    pub source: SocketAddr,
    /// The service.
    pub service: ServiceId,
    /// The backend.
    pub backend: BackendId,
}

/// Reads the tables of a running data plane. Blocks for as long as the system calls take.
pub trait ReadTables: Send + Sync {
    /// Settings of all services.
    ///
    /// # Errors
    /// When the kernel refuses to read; this is the error of all methods.
    fn settings(&self) -> io::Result<Settings>;
    /// The service of this key.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn service(&self, key: &ServiceKey) -> io::Result<Option<Service>>;
    /// The service whose prefix an address lies in, for a port and protocol.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn service_of_prefix(
        &self,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> io::Result<Option<Service>>;
    /// Whether tunnels end at an address, or may come from it: a kind of [`lb_common::decap::EndKey`].
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn ends_tunnels(&self, kind: u8, address: IpAddr) -> io::Result<bool>;
    /// The key of a service's number.
    fn service_key(&self, id: ServiceId) -> Option<ServiceKey>;
    /// A slot of a ring.
    fn slot(&self, ring: RingId, index: u32) -> Option<RingSlot>;
    /// The record of a number.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn backend(&self, id: BackendId) -> io::Result<Option<Backend>>;
    /// Whether the guard of a service refuses a client.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn denies(&self, service: ServiceId, client: IpAddr) -> io::Result<bool>;
    /// The ring of a client, if a prefix of the service's clients has it.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn client_ring(&self, service: ServiceId, client: IpAddr) -> io::Result<Option<ClientRing>>;
    /// The translation of replies of mode `dnat` from an endpoint.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn answers_from(&self, endpoint: &ServiceKey) -> io::Result<Option<Answers>>;
    /// The flow of mode `nat` with packets of this tuple.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn translated(&self, tuple: &AnyTuple) -> io::Result<Option<Translated>>;
    /// The record of a flow of other modes.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn record(&self, tuple: &AnyTuple, table: Table) -> io::Result<Option<FlowRecord>>;
    /// How to read QUIC connection ids of this service and configuration.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn quic_config(&self, key: &ConfigKey) -> io::Result<Option<Config>>;
    /// The backend that a server id names.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn quic_server(&self, key: &ServerKey) -> io::Result<Option<BackendId>>;
    /// How an address is reached.
    fn next_hop(&self, address: IpAddr) -> Option<NextHopState>;
}
