//! A packet to explain.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    flow::Tuple,
    service::{TCP, UDP},
};

use crate::{datapath::AnyTuple, state::service::Protocol};

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
