//! Packets of every kind that clients and backends send. All are whole, and their checksums right.
#![expect(
    clippy::unwrap_used,
    reason = "a packet that cannot be built is a mistake in the table"
)]

use std::net::SocketAddr;

use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header, icmpv4, icmpv6};
use lb_userspace::state::service::Protocol;

use super::build::{Frame, Side, ip};

/// Where the IP header begins.
pub(crate) const IP: usize = 14;
/// TCP flags.
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const URG: u8 = 32;
const ECE: u8 = 64;
const CWR: u8 = 128;

/// IPv6 extension headers by their numbers; the first byte of each is set when it is put in.
type Extensions = &'static [(u8, &'static [u8])];

const HOP_BY_HOP: (u8, &[u8]) = (0, &[0, 0, 1, 4, 0, 0, 0, 0]);
const DESTINATION: (u8, &[u8]) = (60, &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
/// No segment is left, so the destination is the last one.
const ROUTING: (u8, &[u8]) = (43, &[0, 0, 4, 0, 0, 0, 0, 0]);

/// A difference from a plain packet.
#[derive(Clone, Copy)]
enum Change {
    Nothing,
    /// DSCP and ECN.
    Marked(u8),
    /// IPv4 options.
    Options(&'static [u8]),
    /// IPv4 without DF.
    MayFragment,
    /// IPv6 extension headers.
    Extensions(Extensions),
    /// An IPv6 flow label.
    Labelled,
    /// A payload of zeros.
    Zeros,
    /// UDP without a checksum.
    NoChecksum,
    /// Zeros after the packet.
    Padded,
}

/// A kind of packet.
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    flags: u8,
    payload: usize,
    change: Change,
}

impl Kind {
    fn new(name: impl Into<String>, protocol: Protocol, payload: usize, change: Change) -> Self {
        let flags = if protocol == Protocol::Tcp { ACK } else { 0 };
        Self {
            name: name.into(),
            protocol,
            flags,
            payload,
            change,
        }
    }

    /// A plain packet.
    pub(crate) fn plain(protocol: Protocol) -> Self {
        Self::new("plain", protocol, 11, Change::Nothing)
    }

    /// A flow's first packet.
    pub(crate) fn first(protocol: Protocol) -> Self {
        let mut kind = Self::plain(protocol);
        if protocol == Protocol::Tcp {
            (kind.flags, kind.payload) = (SYN, 0);
        }
        kind
    }

    /// A packet long enough for several fragments.
    pub(crate) fn fragmented(protocol: Protocol) -> Self {
        Self::new("fragmented", protocol, 90, Change::Nothing)
    }

    /// It is a TCP SYN without ACK.
    pub(crate) const fn opens(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Its checksum cannot be derived from its headers.
    pub(crate) const fn is_without_sum(&self) -> bool {
        matches!(self.change, Change::NoChecksum | Change::Extensions(_))
    }

    /// Bytes of the frame after the packet.
    pub(crate) const fn padding(&self) -> usize {
        if matches!(self.change, Change::Padded) {
            24
        } else {
            0
        }
    }

    /// From the client's station to the balancer's.
    pub(crate) fn build(&self, from: SocketAddr, to: SocketAddr, hops: u8) -> Frame {
        let frame = self.build_packet(from, to, hops);
        let len = frame.len();
        frame.padded(len + self.padding())
    }

    /// Like [`Self::build`], without bytes after the packet.
    pub(crate) fn build_packet(&self, from: SocketAddr, to: SocketAddr, hops: u8) -> Frame {
        let payload: Vec<u8> = match self.change {
            Change::Zeros => vec![0; self.payload],
            Change::Nothing
            | Change::Padded
            | Change::Marked(_)
            | Change::Options(_)
            | Change::MayFragment
            | Change::Extensions(_)
            | Change::Labelled
            | Change::NoChecksum => (1..=u8::MAX).cycle().take(self.payload).collect(),
        };
        let frame = match self.protocol {
            Protocol::Tcp => Frame::tcp(from, to, self.flags, hops, &payload),
            Protocol::Udp => Frame::udp(from, to, hops, &payload),
        };
        match self.change {
            Change::Nothing | Change::Padded | Change::Zeros => frame,
            Change::Marked(class) => frame.marked(class),
            Change::Options(options) => with_options(&frame, options),
            Change::MayFragment => frame.may_fragment(),
            Change::Extensions(headers) => extended(&frame, headers),
            Change::Labelled => frame.set16(IP + 2, 0xabcd),
            Change::NoChecksum => {
                let l4 = if from.is_ipv4() { IP + 20 } else { IP + 40 };
                frame.set16(l4 + 6, 0)
            }
        }
    }
}

fn with_options(frame: &Frame, options: &[u8]) -> Frame {
    let (mut header, payload) = Ipv4Header::from_slice(&frame.bytes()[IP..]).unwrap();
    let len = payload.len();
    header.options = options.try_into().unwrap();
    header.set_payload_len(len).unwrap();
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = frame.bytes()[..IP].to_vec();
    header.write(&mut bytes).unwrap();
    bytes.extend(payload);
    Frame::from_bytes(bytes)
}

fn extended(frame: &Frame, headers: Extensions) -> Frame {
    let (mut header, payload) = Ipv6Header::from_slice(&frame.bytes()[IP..]).unwrap();
    let last = header.next_header.0;
    let after = headers.iter().skip(1).map(|(number, _)| *number).chain([last]);
    let mut rest = Vec::new();
    for ((_, bytes), next) in headers.iter().zip(after) {
        rest.push(next);
        rest.extend(&bytes[1..]);
    }
    rest.extend(payload);
    header.next_header = IpNumber(headers[0].0);
    header.set_payload_length(rest.len()).unwrap();
    let mut bytes = frame.bytes()[..IP].to_vec();
    header.write(&mut bytes).unwrap();
    bytes.extend(rest);
    Frame::from_bytes(bytes)
}

/// Every kind that a family has.
pub(crate) fn kinds(side: Side) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for (name, flags) in [
        ("syn", SYN),
        ("syn that asks for ECN", SYN | ECE | CWR),
        ("syn, ack", SYN | ACK),
        ("fin, ack", FIN | ACK),
        ("rst", RST),
        ("rst, ack", RST | ACK),
        ("psh, ack", PSH | ACK),
        ("urg, ack", URG | ACK),
        ("no flag", 0),
        ("all flags", 0xff),
    ] {
        kinds.push(Kind {
            flags,
            ..Kind::new(name, Protocol::Tcp, 0, Change::Nothing)
        });
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut add = |name: &str, change| {
            kinds.push(Kind::new(format!("{protocol:?}, {name}"), protocol, 37, change));
        };
        // Every ECN, with and without a DSCP.
        for class in [0, 1, 2, 3, 0xb8, 0xb9, 0xba, 0xbb, 0xff] {
            add(&format!("class {class:#x}"), Change::Marked(class));
        }
        add("padded", Change::Padded);
        add("zeros", Change::Zeros);
        if side.vip(0).is_ipv4() {
            add("time stamps", Change::Options(&[68, 8, 5, 0, 0, 0, 0, 0]));
            add("router alert", Change::Options(&[148, 4, 0, 0]));
            add("all options there is room for", Change::Options(&[1; 40]));
            add("may be fragmented", Change::MayFragment);
        } else {
            add("hop by hop", Change::Extensions(&[HOP_BY_HOP]));
            add("destination options", Change::Extensions(&[DESTINATION]));
            add("routing", Change::Extensions(&[ROUTING]));
            add(
                "all of them",
                Change::Extensions(&[HOP_BY_HOP, DESTINATION, ROUTING, DESTINATION]),
            );
            add("flow label", Change::Labelled);
        }
        for payload in [0, 1, 2, 1_001] {
            let name = format!("{protocol:?}, {payload} bytes");
            kinds.push(Kind::new(name, protocol, payload, Change::Nothing));
        }
    }
    kinds.push(Kind::new("no checksum", Protocol::Udp, 5, Change::NoChecksum));
    kinds
}

/// ICMP errors.
pub(crate) const ERRORS: [Error; 6] = [
    Error::NoRoute,
    Error::NoPort,
    Error::TooBig,
    Error::HopsExceeded,
    Error::NotReassembled,
    Error::Parameter,
];

/// Kind of an ICMP error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Error {
    NoRoute,
    NoPort,
    TooBig,
    HopsExceeded,
    NotReassembled,
    Parameter,
}

impl Error {
    /// An error that quotes an IP header and `quoted_l4` bytes after it of `about`.
    pub(crate) fn build(
        self,
        from: SocketAddr,
        to: SocketAddr,
        hops: u8,
        about: &Frame,
        quoted_l4: usize,
    ) -> Frame {
        const MTU: u16 = 1_300;
        let header = if from.is_ipv4() { 20 } else { 40 };
        let quoted = &about.bytes()[IP..IP + header + quoted_l4];
        let mut bytes = Vec::new();
        if from.is_ipv4() {
            use icmpv4::{DestUnreachableHeader as Dest, ParameterProblemHeader, TimeExceededCode};
            let message = match self {
                Self::NoRoute => Icmpv4Type::DestinationUnreachable(Dest::Network),
                Self::NoPort => Icmpv4Type::DestinationUnreachable(Dest::Port),
                Self::TooBig => {
                    Icmpv4Type::DestinationUnreachable(Dest::FragmentationNeeded { next_hop_mtu: MTU })
                }
                Self::HopsExceeded => Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
                Self::NotReassembled => {
                    Icmpv4Type::TimeExceeded(TimeExceededCode::FragmentReassemblyTimeExceeded)
                }
                Self::Parameter => {
                    Icmpv4Type::ParameterProblem(ParameterProblemHeader::PointerIndicatesError(20))
                }
            };
            ip(from, to, hops)
                .icmpv4(message)
                .write(&mut bytes, quoted)
                .unwrap();
        } else {
            use icmpv6::{
                DestUnreachableCode as Dest, ParameterProblemCode, ParameterProblemHeader, TimeExceededCode,
            };
            let message = match self {
                Self::NoRoute => Icmpv6Type::DestinationUnreachable(Dest::NoRoute),
                Self::NoPort => Icmpv6Type::DestinationUnreachable(Dest::Port),
                Self::TooBig => Icmpv6Type::PacketTooBig { mtu: MTU.into() },
                Self::HopsExceeded => Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded),
                Self::NotReassembled => {
                    Icmpv6Type::TimeExceeded(TimeExceededCode::FragmentReassemblyTimeExceeded)
                }
                Self::Parameter => Icmpv6Type::ParameterProblem(ParameterProblemHeader {
                    code: ParameterProblemCode::ErroneousHeaderField,
                    pointer: 40,
                }),
            };
            ip(from, to, hops)
                .icmpv6(message)
                .write(&mut bytes, quoted)
                .unwrap();
        }
        Frame::from_bytes(bytes)
    }
}
