//! What would become of a packet, told from the tables that the XDP program reads, step by step and without sending one.
//!
//! The steps are those of `lb-ebpf/src/service.rs` and take their rules from `lb-common`, as the program does. Nothing is
//! written, so nothing changes for any flow.

mod frame;
mod named;
mod pick;
mod service;
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
    flow::Tuple,
    reason::Reason,
    service::{Mode, TCP, UDP},
};

use self::walk::Walk;
pub use crate::datapath::{Answers, AnyTuple, ReadTables, Translated};
use crate::{
    control::ControlView,
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
    /// The frame that would leave, where the tables say all of it.
    pub frame: Option<Vec<u8>>,
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
