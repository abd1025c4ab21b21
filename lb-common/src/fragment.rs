//! Fragments: where the first one of a datagram went, for the others, which have no ports.

use crate::{
    addr::{NetV4, NetV6},
    backend::{BackendId, Generation},
    flow::LastHop,
    plain_data,
    service::ServiceId,
};

/// The fields that fragments of one datagram share (RFC 791 section 3.2, RFC 8200 section 4.5). `A` is [`NetV4`] or
/// [`NetV6`].
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Datagram<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification, as it stands in the header.
    pub id: u32,
    /// IP protocol; 0 in IPv6, where each fragment may name another.
    pub protocol: u32,
}

/// An IPv4 datagram, 16 bytes.
pub type DatagramV4 = Datagram<NetV4>;
/// An IPv6 datagram, 40 bytes.
pub type DatagramV6 = Datagram<NetV6>;

/// The datagram is for no service.
pub const NOT_OURS: u8 = 1;
/// Packets go to the backend as they are.
pub const AS_IS: u8 = 2;
/// From the client, translated.
pub const FORWARD: u8 = 3;
/// From the backend, translated.
pub const REPLY: u8 = 4;
/// From the backend, translated, without a flow: by the kernel's routes.
pub const ROUTED: u8 = 5;

/// Where a datagram's first fragment went.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Went<A> {
    /// Source address after translation.
    pub src: A,
    /// Destination address after translation.
    pub dst: A,
    /// Identification after translation, as it stands in the header. Clients behind one address may all have picked the
    /// same one, and the receiver would put their fragments together (RFC 6864 section 5.3).
    pub id: u32,
    /// Hash of the flow: outer headers carry it.
    pub hash: u32,
    /// The way back to the client, of a reply.
    pub last_hop: LastHop,
    /// CLOCK_MONOTONIC (coarse) in seconds when the first fragment came.
    pub seen: u32,
    /// The backend.
    pub backend: BackendId,
    /// The backend id's generation.
    pub generation: Generation,
    /// The service.
    pub service: ServiceId,
    /// [`NOT_OURS`], [`AS_IS`], [`FORWARD`], [`REPLY`] or [`ROUTED`].
    pub kind: u8,
    /// Zero.
    pub pad: u8,
    /// Zero. A multiple of 8 bytes without a hole.
    pub pad_end: [u32; 2],
}

/// An IPv4 datagram's way, 56 bytes.
pub type WentV4 = Went<NetV4>;
/// An IPv6 datagram's way, 80 bytes.
pub type WentV6 = Went<NetV6>;

const _: () = assert!(size_of::<DatagramV4>() == 16);
const _: () = assert!(size_of::<DatagramV6>() == 40);
const _: () = assert!(size_of::<WentV4>() == 56);
const _: () = assert!(size_of::<WentV6>() == 80);

plain_data!(DatagramV4, DatagramV6, WentV4, WentV6);
