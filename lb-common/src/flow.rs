//! Flows: the tuple of a packet as it arrives, and its translation by NAT.
//!
//! One table per family holds both directions of a NAT flow, each under the tuple its packets arrive with: the
//! client's packets under (client, VIP), the backend's under (backend, source NAT address). Each value has the
//! rewritten tuple, so [`NatFlow::peer`] leads from either entry to the other. The [`REPLY`] entry owns the source
//! port: it is inserted first and only if absent, and removed last. If the [`FORWARD`] entry were removed after it,
//! another client could get the port while packets of the old one are still translated to it. A [`REPLY`] entry whose
//! [`NatFlow::peer`] is missing, or leads back to another tuple, remains from a flow that moved to another backend; it
//! is removed on its own.

use crate::{
    addr::{NetPort, NetV4, NetV6},
    backend::{BackendId, Generation},
    limits::{
        TCP_CLOSED_IDLE_SECS, TCP_ESTABLISHED_IDLE_SECS, TCP_OPENING_IDLE_SECS, TCP_RESET_IDLE_SECS,
        UDP_IDLE_SECS, UDP_OPENING_IDLE_SECS,
    },
    plain_data,
    service::{ServiceId, TCP},
    vlan::Vlans,
};

/// The tuple of a packet, as it arrives. `A` is [`NetV4`] or [`NetV6`].
///
/// Aligned to 8 bytes, so that it is copied and compared by words of that size.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub src_port: NetPort,
    /// Destination port.
    pub dst_port: NetPort,
    /// [`TCP`] or [`crate::service::UDP`].
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
    /// Zero. Not one array with `pad`: filling that is a call of memset, byte by byte.
    pub pad_end: u16,
}

/// An IPv4 tuple, 16 bytes.
pub type TupleV4 = Tuple<NetV4>;
/// An IPv6 tuple, 40 bytes.
pub type TupleV6 = Tuple<NetV6>;

impl<A: Copy> Tuple<A> {
    /// The tuple of a packet of `protocol`.
    #[inline(always)]
    pub const fn new(src: A, dst: A, src_port: NetPort, dst_port: NetPort, protocol: u8) -> Self {
        Self {
            src,
            dst,
            src_port,
            dst_port,
            protocol,
            pad: 0,
            pad_end: 0,
        }
    }

    /// Ports as one word.
    #[inline(always)]
    const fn ports(&self) -> u32 {
        ((self.src_port.0 as u32) << 16) | self.dst_port.0 as u32
    }
}

impl TupleV4 {
    /// A cheap word that distinguishes this tuple from most others; not a hash.
    #[inline(always)]
    pub const fn check(&self) -> u32 {
        self.src.0 ^ self.dst.0.rotate_left(8) ^ self.ports()
    }
}

impl TupleV6 {
    /// A cheap word that distinguishes this tuple from most others; not a hash.
    #[inline(always)]
    pub const fn check(&self) -> u32 {
        let [a, b, c, d] = self.src.0;
        let [e, f, g, h] = self.dst.0;
        (a ^ b ^ c ^ d) ^ (e ^ f ^ g ^ h).rotate_left(8) ^ self.ports()
    }
}

/// How the client's last packet arrived on layer 2. Replies go back the same way, independent of routes. The addresses
/// are in the order of the frame.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastHop {
    /// MAC address the packet was sent to: our own on the interface.
    pub own_mac: [u8; 6],
    /// MAC address of the hop it came from.
    pub peer_mac: [u8; 6],
    /// Index of the interface.
    pub ifindex: u32,
    /// VLANs it came in.
    pub vlans: Vlans,
}

/// The flow entry of the client's direction.
pub const FORWARD: u8 = 1;
/// The flow entry of the backend's direction.
pub const REPLY: u8 = 2;
/// The backend's direction where no flow is recorded: replies go by the kernel's routes. In no entry of the table.
pub const ROUTED: u8 = 3;

/// The end of this direction is there. The backend's: it has answered, with more than a RST. A TCP client's: it has
/// acknowledged the backend's SYN-ACK, which a forged source never sees. A UDP client's: it has sent a second datagram.
pub const PROVEN: u8 = 1 << 0;
/// This direction has sent a FIN, and no SYN since.
pub const FIN: u8 = 1 << 1;
/// The last packet of this direction was a RST. The real end's next packet clears a forged one.
pub const RST: u8 = 1 << 2;

/// How far above the first expected number the acknowledgement may be that proves a client: a server may send as much
/// before it. RFC 6928 section 2 allows ten segments; a guess hits it once in 65,536 times.
const PROVES_WITHIN: u32 = 1 << 16;

/// Whether an acknowledgement number proves that the client has seen the SYN-ACK after which `expected` is the next
/// number.
#[inline(always)]
pub const fn proves(acknowledged: u32, expected: u32) -> bool {
    acknowledged.wrapping_sub(expected) < PROVES_WITHIN
}

/// Value of a NAT flow. `A` is [`NetV4`] or [`NetV6`]. Aligned as [`Tuple`] is.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NatFlow<A> {
    /// Source address after translation.
    pub src: A,
    /// Destination address after translation.
    pub dst: A,
    /// Source port after translation.
    pub src_port: NetPort,
    /// Destination port after translation.
    pub dst_port: NetPort,
    /// One's complement sum to add to the IPv4 header checksum (0 for IPv6), without the TTL's part.
    pub ip_delta: u16,
    /// One's complement sum to add to the TCP or UDP checksum.
    pub l4_delta: u16,
    /// [`Tuple::check`] of the tuple this entry stands under. Memory of a removed entry may be given to another flow
    /// while a packet still reads it, so the reader copies the value, reads this field last, and treats another value
    /// than its own as a missed look-up.
    pub check: u32,
    /// The backend that owns the flow.
    pub backend: BackendId,
    /// The backend id's generation when the flow was recorded; another one now means that the backend was removed.
    pub generation: Generation,
    /// The service the flow belongs to.
    pub service: ServiceId,
    /// [`FORWARD`] or [`REPLY`].
    pub direction: u8,
    /// Bits [`PROVEN`], [`FIN`], [`RST`] of this direction.
    pub state: u8,
    /// CLOCK_MONOTONIC (coarse) in seconds when this direction last carried a packet.
    pub last_seen: u32,
    /// In the [`REPLY`] entry: the way back to the client. In the [`FORWARD`] entry: the same, so that a packet that
    /// comes another way is noticed without a look at the other entry.
    pub last_hop: LastHop,
    /// In the [`REPLY`] entry of a TCP flow: the sequence number after the backend's last SYN-ACK, see [`proves`]; 0
    /// before that. In the [`FORWARD`] entry: CLOCK_MONOTONIC in milliseconds, modulo 2^32, of the client's last SYN
    /// that may count as a signal, see [`crate::limits::SYN_REPEAT_MILLIS`].
    pub handshake: u32,
}

/// An IPv4 NAT flow, 56 bytes.
pub type NatFlowV4 = NatFlow<NetV4>;
/// An IPv6 NAT flow, 80 bytes.
pub type NatFlowV6 = NatFlow<NetV6>;

impl<A: Copy> NatFlow<A> {
    /// The tuple under which the other direction of this flow stands: packets that answer the translated ones.
    #[inline(always)]
    pub const fn peer(&self, protocol: u8) -> Tuple<A> {
        Tuple::new(self.dst, self.src, self.dst_port, self.src_port, protocol)
    }
}

/// Seconds that a flow stays known after its last packet in either direction, by its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdleTimeouts {
    /// Both directions have carried packets.
    pub established: u32,
    /// One direction alone has.
    pub half_open: u32,
    /// TCP: both ends have ended the flow, by FIN or RST, or it was reset before it was established.
    pub closed: u32,
}

impl IdleTimeouts {
    /// The default times of a protocol.
    #[inline(always)]
    pub const fn of(protocol: u8) -> Self {
        if protocol == TCP {
            Self {
                established: TCP_ESTABLISHED_IDLE_SECS,
                half_open: TCP_OPENING_IDLE_SECS,
                closed: TCP_CLOSED_IDLE_SECS,
            }
        } else {
            Self {
                established: UDP_IDLE_SECS,
                half_open: UDP_OPENING_IDLE_SECS,
                closed: UDP_OPENING_IDLE_SECS,
            }
        }
    }

    /// The time of a flow with these states of its two directions.
    #[inline(always)]
    pub const fn secs(&self, protocol: u8, forward: u8, reply: u8) -> u32 {
        let established = if protocol == TCP {
            is_open(forward, reply)
        } else {
            // Answered: a server may send even if the client is silent.
            reply & PROVEN != 0
        };
        if protocol == TCP && is_closed(forward, reply) {
            self.closed
        } else if !established {
            self.half_open
        } else if protocol == TCP && (forward | reply) & RST != 0 && self.established > TCP_RESET_IDLE_SECS {
            TCP_RESET_IDLE_SECS
        } else {
            self.established
        }
    }
}

/// Whether a TCP flow with these states was established.
#[inline(always)]
const fn is_open(forward: u8, reply: u8) -> bool {
    forward & reply & PROVEN != 0
}

/// Whether a TCP flow with these states is over, by the packets of both ends. A RST from one side into an established
/// flow may be forged, and the other end may have ignored it (RFC 5961 section 3): alone it does not close the flow.
#[inline(always)]
pub const fn is_closed(forward: u8, reply: u8) -> bool {
    const ENDS: u8 = FIN | RST;
    let reset = (forward | reply) & RST != 0;
    (forward & ENDS != 0 && reply & ENDS != 0) || (reset && !is_open(forward, reply))
}

const _: () = assert!(size_of::<TupleV4>() == 16);
const _: () = assert!(size_of::<TupleV6>() == 40);
const _: () = assert!(size_of::<NatFlowV4>() == 56);
const _: () = assert!(size_of::<NatFlowV6>() == 80);

plain_data!(TupleV4, TupleV6, NatFlowV4, NatFlowV6);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_leads_to_the_other_direction_and_back() {
        let client = Tuple::new(NetV4(1), NetV4(2), NetPort::new(40_000), NetPort::new(80), TCP);
        let backend = Tuple::new(NetV4(4), NetV4(3), NetPort::new(8_080), NetPort::new(1_024), TCP);
        let translated = |to: &TupleV4, direction| NatFlow {
            src: to.dst,
            dst: to.src,
            src_port: to.dst_port,
            dst_port: to.src_port,
            ip_delta: 0,
            l4_delta: 0,
            check: 0,
            backend: BackendId(1),
            generation: Generation(1),
            service: ServiceId(1),
            direction,
            state: 0,
            last_seen: 0,
            last_hop: LastHop::default(),
            handshake: 0,
        };
        assert_eq!(translated(&backend, FORWARD).peer(TCP), backend);
        assert_eq!(translated(&client, REPLY).peer(TCP), client);
        assert_ne!(client.check(), backend.check());
    }

    #[test]
    fn a_flow_is_forgotten_no_sooner_than_its_state_allows() {
        const CASES: [(u8, u8, u8, u32); 14] = [
            (TCP, 0, 0, TCP_OPENING_IDLE_SECS),
            (TCP, PROVEN, 0, TCP_OPENING_IDLE_SECS),
            (TCP, PROVEN, PROVEN, TCP_ESTABLISHED_IDLE_SECS),
            (TCP, PROVEN | FIN, PROVEN, TCP_ESTABLISHED_IDLE_SECS),
            (TCP, PROVEN | FIN, PROVEN | FIN, TCP_CLOSED_IDLE_SECS),
            (TCP, PROVEN | RST, PROVEN, TCP_RESET_IDLE_SECS),
            (TCP, PROVEN, PROVEN | RST, TCP_RESET_IDLE_SECS),
            (TCP, PROVEN | RST, PROVEN | RST, TCP_CLOSED_IDLE_SECS),
            (TCP, PROVEN | RST, PROVEN | FIN, TCP_CLOSED_IDLE_SECS),
            (TCP, RST, 0, TCP_CLOSED_IDLE_SECS),
            (TCP, PROVEN, RST, TCP_CLOSED_IDLE_SECS),
            (crate::service::UDP, PROVEN, 0, UDP_OPENING_IDLE_SECS),
            (crate::service::UDP, 0, PROVEN, UDP_IDLE_SECS),
            (crate::service::UDP, PROVEN, PROVEN, UDP_IDLE_SECS),
        ];
        for (protocol, forward, reply, seconds) in CASES {
            assert_eq!(
                IdleTimeouts::of(protocol).secs(protocol, forward, reply),
                seconds,
                "{protocol} {forward:03b} {reply:03b}"
            );
        }
    }
    #[test]
    fn only_a_receiver_of_the_syn_ack_can_acknowledge_it() {
        for (acknowledged, expected, proves_it) in [
            (1_000, 1_000, true),
            (1_000 + 14_600, 1_000, true),
            (999, 1_000, false),
            (0, 1_000, false),
            (1_000 + PROVES_WITHIN, 1_000, false),
            (5, u32::MAX - 4, true),
        ] {
            assert_eq!(proves(acknowledged, expected), proves_it, "{acknowledged}");
        }
    }
}
