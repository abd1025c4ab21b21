//! What would become of a packet, told from the tables that the XDP program reads, step by step and without sending one.
//!
//! The steps are those of `lb-ebpf/src/service.rs` and take their rules from `lb-common`, as the program does. Nothing is
//! written, so nothing changes for any flow.

mod named;
mod pick;
#[cfg(test)]
mod tests;
mod transmit;
mod walk;
mod words;

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    backend::{Backend, BackendId, Generation},
    flow::{Tuple, TupleV4, TupleV6},
    hash,
    quic::{Config, ConfigKey, ServerKey},
    reason::Reason,
    ring_slot::RingSlot,
    service::{Mode, RingId, Service, ServiceId, TCP, UDP},
    settings::Settings,
    track::{FlowRecord, Table},
};

use self::walk::Walk;
use crate::{
    control::ControlView,
    datapath::NextHopState,
    state::service::{Protocol, ServiceKey},
};

/// A packet to explain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who sent it.
    pub source: SocketAddr,
    /// Where it is addressed to; of the same family.
    pub destination: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// It is a TCP SYN without ACK.
    pub opens: bool,
    /// Index of the interface that it comes in on.
    pub ifindex: u32,
    /// Its TTL or hop limit.
    pub ttl: u8,
    /// Bytes of the IP packet; 0: it fits everywhere.
    pub length: u16,
    /// The QUIC connection id that it is sent to, from the first octet on; empty: none.
    pub connection_id: Vec<u8>,
}

impl Question {
    /// TTL of an ordinary packet.
    pub const TTL: u8 = 64;
}

/// The tuple of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnyTuple {
    /// IPv4.
    V4(TupleV4),
    /// IPv6.
    V6(TupleV6),
}

impl Question {
    /// The tuple that the packet carries; `None` if its two addresses are not of one family.
    pub fn tuple(&self) -> Option<AnyTuple> {
        let ports = (
            NetPort::new(self.source.port()),
            NetPort::new(self.destination.port()),
        );
        let protocol = match self.protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
        };
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Some(AnyTuple::V4(Tuple::new(
                NetV4::from(src),
                NetV4::from(dst),
                ports.0,
                ports.1,
                protocol,
            ))),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(AnyTuple::V6(Tuple::new(
                NetV6::from(src),
                NetV6::from(dst),
                ports.0,
                ports.1,
                protocol,
            ))),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

impl AnyTuple {
    fn hash(&self, by_source: bool) -> u32 {
        match (self, by_source) {
            (Self::V4(tuple), false) => hash::tuple_v4(tuple),
            (Self::V4(tuple), true) => hash::source_v4(tuple),
            (Self::V6(tuple), false) => hash::tuple_v6(tuple),
            (Self::V6(tuple), true) => hash::source_v6(tuple),
        }
    }
}

/// A flow of mode `nat` in the table, in the direction that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translated {
    /// The packet is a backend's answer.
    pub is_reply: bool,
    /// What its source becomes.
    pub source: SocketAddr,
    /// What its destination becomes.
    pub destination: SocketAddr,
    /// The backend that owns the flow.
    pub backend: BackendId,
    /// Its generation when the flow began.
    pub generation: Generation,
    /// The flow's service.
    pub service: ServiceId,
    /// Bits of [`lb_common::flow`].
    pub state: u8,
    /// Where answers leave.
    pub ifindex: u32,
}

/// What becomes of packets from an endpoint, in mode `dnat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answers {
    /// What their source becomes; port 0 keeps the packet's own.
    pub source: SocketAddr,
    /// The service.
    pub service: ServiceId,
    /// The backend.
    pub backend: BackendId,
}

/// Reads the tables of a running data plane. Blocks for as long as the system calls take.
pub trait ReadTables: Send + Sync {
    /// What holds for all services.
    ///
    /// # Errors
    /// When the kernel refuses to read, as all of these.
    fn settings(&self) -> io::Result<Settings>;
    /// The service of this key.
    ///
    /// # Errors
    /// As above.
    fn service(&self, key: &ServiceKey) -> io::Result<Option<Service>>;
    /// The key of a service's number.
    fn service_key(&self, id: ServiceId) -> Option<ServiceKey>;
    /// A slot of a ring.
    fn slot(&self, ring: RingId, index: u32) -> Option<RingSlot>;
    /// The record of a number.
    ///
    /// # Errors
    /// As above.
    fn backend(&self, id: BackendId) -> io::Result<Option<Backend>>;
    /// Whether the guard of a service refuses a client.
    ///
    /// # Errors
    /// As above.
    fn denies(&self, service: ServiceId, client: IpAddr) -> io::Result<bool>;
    /// Whose answers of mode `dnat` come from an endpoint, and the address that they get.
    ///
    /// # Errors
    /// As above.
    fn answers_from(&self, endpoint: &ServiceKey) -> io::Result<Option<Answers>>;
    /// The flow of mode `nat` whose packets carry this tuple.
    ///
    /// # Errors
    /// As above.
    fn translated(&self, tuple: &AnyTuple) -> io::Result<Option<Translated>>;
    /// The record of a flow of other modes.
    ///
    /// # Errors
    /// As above.
    fn record(&self, tuple: &AnyTuple, table: Table) -> io::Result<Option<FlowRecord>>;
    /// How connection ids of QUIC are read that begin as the key says.
    ///
    /// # Errors
    /// As above.
    fn quic_config(&self, key: &ConfigKey) -> io::Result<Option<Config>>;
    /// Whom a server id in them names.
    ///
    /// # Errors
    /// As above.
    fn quic_server(&self, key: &ServerKey) -> io::Result<Option<BackendId>>;
    /// How an address is reached.
    fn next_hop(&self, address: IpAddr) -> Option<NextHopState>;
}

/// What would become of the packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The reason it would be counted for.
    pub reason: Reason,
    /// The service it belongs to.
    pub service: Option<ServiceKey>,
    /// The backend it goes to, or comes from; `None` also where nobody can say before it comes.
    pub backend: Option<SocketAddr>,
    /// How it gets there.
    pub mode: Option<Mode>,
    /// The slot that its flow leads to.
    pub slot: Option<u32>,
    /// Whether its flow is recorded.
    pub tracked: bool,
    /// Where it would leave.
    pub ifindex: Option<u32>,
    /// How that comes about, one sentence each.
    pub steps: Vec<String>,
}

/// What would become of a packet. `view` has the names.
///
/// # Errors
/// When a table cannot be read.
pub fn explain(question: &Question, tables: &dyn ReadTables, view: &ControlView) -> io::Result<Explanation> {
    let tuple = question
        .tuple()
        .ok_or_else(|| io::Error::other("source and destination are of different families"))?;
    Walk::new(question, tuple, tables, view).tell()
}
