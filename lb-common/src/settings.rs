//! What the whole data plane is told, in one record.

use crate::plain_data;

/// At least one service has port 0, so a missed look-up is worth a second one.
pub const HAS_WILDCARD: u32 = 1 << 0;

/// The one entry of the settings map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// First source NAT port.
    pub snat_port_first: u16,
    /// Number of source NAT ports from there on.
    pub snat_port_count: u16,
    /// Source NAT addresses given for IPv4; 0: each backend's own `source`.
    pub snat_v4_count: u16,
    /// Source NAT addresses given for IPv6; 0: each backend's own `source`.
    pub snat_v6_count: u16,
    /// Bits: [`HAS_WILDCARD`].
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Settings>() == 16);

plain_data!(Settings);
