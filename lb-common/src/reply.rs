//! Replies of mode `dnat`: their source selects the service. No flow is recorded for that. A reply's source is a
//! backend's endpoint (address, port, protocol; the key has the layout of [`crate::service::ServiceKeyV4`] or
//! [`crate::service::ServiceKeyV6`]), which belongs to one service alone. An endpoint on port 0 stands for every port
//! of its address that no other endpoint has.

use crate::{
    addr::{NetPort, NetV4, NetV6},
    backend::BackendId,
    plain_data,
    service::ServiceId,
};

/// The translated source of packets from an endpoint. `A` is [`NetV4`] or [`NetV6`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplyAs<A> {
    /// The service's address, which becomes their source.
    pub address: A,
    /// The service's port; 0 keeps the packet's own.
    pub port: NetPort,
    /// The service.
    pub service: ServiceId,
    /// The backend.
    pub backend: BackendId,
    /// Zero.
    pub pad: u16,
}

/// Of an IPv4 endpoint, 12 bytes.
pub type ReplyAsV4 = ReplyAs<NetV4>;
/// Of an IPv6 endpoint, 24 bytes.
pub type ReplyAsV6 = ReplyAs<NetV6>;

const _: () = assert!(size_of::<ReplyAsV4>() == 12);
const _: () = assert!(size_of::<ReplyAsV6>() == 24);

plain_data!(ReplyAsV4, ReplyAsV6);
