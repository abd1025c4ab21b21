//! Keys and values of the maps of connection ids.

use crate::{backend::BackendId, plain_data, service::ServiceId};

/// The largest configuration id; 7 means that the id names no server (draft-ietf-quic-load-balancers-21, section 3.1).
pub const MAX_CONFIG_ID: u8 = 6;
/// Bits of a connection id's first octet that name the configuration.
const CONFIG_BITS: u32 = 3;

/// Half of server id and nonce, its bytes at the front.
pub type Half = [u32; 3];

/// Key of a configuration: its service, and its id. A service has one for each generation of keys in use.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ConfigKey(pub u32);

impl ConfigKey {
    /// The configuration `id` of a service.
    #[inline(always)]
    pub const fn new(service: ServiceId, id: u8) -> Self {
        Self((service.0 as u32) << CONFIG_BITS | id as u32)
    }

    /// The configuration that wrote a connection id with this first octet; `None` if none did.
    #[inline(always)]
    pub const fn of(service: ServiceId, first: u8) -> Option<Self> {
        let id = first >> (u8::BITS - CONFIG_BITS);
        if id > MAX_CONFIG_ID {
            return None;
        }
        Some(Self::new(service, id))
    }

    /// The service.
    pub const fn service(self) -> ServiceId {
        let [low, high, ..] = (self.0 >> CONFIG_BITS).to_le_bytes();
        ServiceId(u16::from_le_bytes([low, high]))
    }
}

/// Key of a server: the bits of its id in both halves, and its service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ServerKey {
    /// Of this service.
    pub service: ServiceId,
    /// Read by the configuration with this id: others cut ids into other halves.
    pub config: u8,
    /// Zero.
    pub pad: u8,
    /// Bits in the left half.
    pub left: Half,
    /// Bits in the right half.
    pub right: Half,
}

/// Value of a server: the backend that has the id.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Server {
    /// Its number.
    pub backend: BackendId,
    /// Zero.
    pub pad: u16,
}

const _: () = assert!(size_of::<ServerKey>() == 28);
const _: () = assert!(size_of::<Server>() == 4);

plain_data!(ConfigKey, ServerKey, Server);
