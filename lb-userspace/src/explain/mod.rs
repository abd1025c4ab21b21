//! Explains the verdict for a packet step by step, from the tables that the XDP program reads, without sending one.
//!
//! An explanation goes from stage to stage as the program does: both take the order of their decisions from [`lb_wire::order`], and the
//! rules from `lb-common`. An explanation only reads, so it changes no flow.

mod frame;
mod named;
mod pick;
mod service;
mod stages;
#[cfg(test)]
mod tests;
mod transmit;
mod tunnel;
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

/// The outer header of a packet that came through a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// How it carries the packet.
    pub kind: OuterKind,
    /// Its source.
    pub source: IpAddr,
    /// Its destination, of the same family.
    pub destination: IpAddr,
}

/// How an outer header carries a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OuterKind {
    /// IP in IP.
    Ipip,
    /// Generic UDP Encapsulation, to the port of `gue_port`.
    Gue,
}

/// A packet to explain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Address and port of the sender.
    pub source: SocketAddr,
    /// Destination address and port, of the same family.
    pub destination: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whether it is a TCP SYN without ACK.
    pub opens: bool,
    /// Index of the interface on which it arrives.
    pub ifindex: u32,
    /// Its TTL or hop limit.
    pub ttl: u8,
    /// Bytes of the IP packet; 0: it fits every MTU.
    pub length: u16,
    /// Its destination QUIC connection id, from the first octet on; empty: none.
    pub connection_id: Vec<u8>,
    /// The header around it, if it comes through a tunnel; the other fields are those of the packet within.
    pub outer: Option<Outer>,
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

/// The verdict for a packet, and the steps that lead to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The reason under which it would count.
    pub reason: Reason,
    /// The service it belongs to.
    pub service: Option<ServiceKey>,
    /// The backend that it goes to or comes from; `None` also where that cannot be predicted.
    pub backend: Option<SocketAddr>,
    /// The mode of the backend.
    pub mode: Option<Mode>,
    /// The ring slot of its flow.
    pub slot: Option<u32>,
    /// Whether its flow is recorded.
    pub tracked: bool,
    /// Index of the interface on which it would leave.
    pub ifindex: Option<u32>,
    /// The frame that would leave, where the tables determine all of it.
    pub frame: Option<Vec<u8>>,
    /// Whether the tunnel that it comes through ends here; `None` for a packet without one.
    pub tunnel_ends: Option<bool>,
    /// The steps, one sentence each.
    pub steps: Vec<String>,
}

impl Explanation {
    /// A verdict without a service or steps.
    const fn of(reason: Reason) -> Self {
        Self {
            reason,
            service: None,
            backend: None,
            mode: None,
            slot: None,
            tracked: false,
            ifindex: None,
            frame: None,
            tunnel_ends: None,
            steps: Vec::new(),
        }
    }
}

/// Explains the verdict for a packet. `view` has the names.
///
/// # Errors
/// When a table cannot be read.
pub fn explain(question: &Question, tables: &dyn ReadTables, view: &ControlView) -> io::Result<Explanation> {
    if let Some(outer) = &question.outer {
        return tunnel::explain(outer, question, tables, view);
    }
    let tuple = question
        .tuple()
        .ok_or_else(|| io::Error::other("source and destination are of different families"))?;
    Walk::new(question, tuple, tables, view).explain()
}
