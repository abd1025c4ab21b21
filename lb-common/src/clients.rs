//! Clients whose new flows go to a group of a service's backends. The flag [`BY_CLIENTS`] in the service's record turns it on; without
//! it nothing here is read.
//!
//! Each prefix of such clients has a ring, and always the same one: where the group has no backend left, slots of that ring change
//! hands, as they do in any ring. So a flow is followed in one ring for all of its life, and no change of the group's backends moves it
//! to another.

use crate::{
    plain_data,
    service::{BY_CLIENTS, RingId, Service},
};

/// The ring of the clients of a prefix: value to a [`crate::guard::PrefixKey`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientRing {
    /// As [`Service::ring_size`].
    pub ring_size: u32,
    /// As [`Service::ring`].
    pub ring: RingId,
    /// Zero.
    pub pad: u16,
}

const _: () = assert!(size_of::<ClientRing>() == 8);

plain_data!(ClientRing);

/// Has a service's record lead to the ring of a packet's client; to the service's own, if no prefix has that client.
#[inline(always)]
pub const fn select(service: &mut Service, ring: Option<ClientRing>) {
    if let Some(ClientRing { ring_size, ring, .. }) = ring {
        service.ring_size = ring_size;
        service.ring = ring;
    }
    service.flags &= !BY_CLIENTS;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::FORWARDS;

    #[test]
    fn a_client_of_no_prefix_keeps_the_ring_of_the_service() {
        let service = Service {
            ring_size: 251,
            ring: RingId(3),
            flags: FORWARDS | BY_CLIENTS,
            ..Service::default()
        };
        let near = ClientRing {
            ring_size: 509,
            ring: RingId(4),
            pad: 0,
        };
        for (ring, expected) in [(None, (251, RingId(3))), (Some(near), (509, RingId(4)))] {
            let mut of_client = service;
            select(&mut of_client, ring);
            assert_eq!((of_client.ring_size, of_client.ring), expected);
            assert_eq!(of_client.flags, FORWARDS, "looked up once");
        }
    }
}
