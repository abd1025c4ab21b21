//! The next hop of a backend, and how it is reached.

use std::net::IpAddr;

use lb_common::vlan::Vlans;

use crate::neighbours::BTreeMap;

/// The next hop of a backend record. All empty without a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NextHop {
    /// Index of the interface packets leave by.
    pub ifindex: u32,
    /// MAC address of the next hop; `None` while unknown.
    pub mac: Option<[u8; 6]>,
    /// MAC address of the interface, or of its VLAN's interface.
    pub source_mac: [u8; 6],
    /// VLANs that packets leave in.
    pub vlans: Vlans,
    /// Address that the host's own packets would leave with.
    pub source: Option<IpAddr>,
    /// Largest IP packet on the way, in bytes.
    pub mtu: u32,
}

/// How a backend address is reached, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NextHopState {
    /// Over a next hop with a known MAC address.
    Reached {
        /// The next hop: the backend itself or a router.
        via: IpAddr,
        /// Name of the interface.
        interface: String,
        /// The next hop answers. If not, packets still go to where it was last.
        answering: bool,
        /// Address that the host's own packets would leave with.
        source: Option<IpAddr>,
    },
    /// Over a next hop that has never answered.
    Waiting {
        /// The next hop.
        via: IpAddr,
        /// Name of the interface.
        interface: String,
        /// Address that the host's own packets would leave with.
        source: Option<IpAddr>,
    },
    /// The address is one of this host, which a program on its interfaces cannot reach.
    Local,
    /// There is no route.
    Unreachable,
    /// The route leads over an interface without MAC addresses.
    NotEthernet {
        /// Name of the interface.
        interface: String,
    },
    /// The route leads over the interface of a VLAN within two others.
    TooManyTags {
        /// Name of the interface.
        interface: String,
    },
}

impl NextHopState {
    /// The problem, if there is one.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Reached { answering: true, .. } => None,
            Self::Reached {
                via,
                interface,
                answering: false,
                ..
            }
            | Self::Waiting { via, interface, .. } => {
                Some(format!("next hop {via} on {interface} does not answer"))
            }
            Self::Local => {
                Some("the address is one of this host; a backend must be another machine".to_owned())
            }
            Self::Unreachable => Some("no route to it".to_owned()),
            Self::NotEthernet { interface } => {
                Some(format!("the route leads over {interface}, which is not Ethernet"))
            }
            Self::TooManyTags { interface } => Some(format!(
                "the route leads over {interface}, whose frames have more than two VLAN tags"
            )),
        }
    }

    /// Whether the program cannot send anything to the address. A next hop that does not answer is no such case: it may
    /// have lost its answers alone.
    pub const fn is_blocked(&self) -> bool {
        match self {
            Self::Reached { .. } | Self::Waiting { .. } => false,
            Self::Local | Self::Unreachable | Self::NotEthernet { .. } | Self::TooManyTags { .. } => true,
        }
    }

    /// Name of the interface that the route leads over; `None` where the program sends nothing.
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::Reached { interface, .. } | Self::Waiting { interface, .. } => Some(interface),
            Self::Local | Self::Unreachable | Self::NotEthernet { .. } | Self::TooManyTags { .. } => None,
        }
    }

    /// Whether nothing more is to be expected from waiting.
    pub(super) const fn is_settled(&self) -> bool {
        match self {
            Self::Waiting { .. } => false,
            Self::Reached { .. }
            | Self::Local
            | Self::Unreachable
            | Self::NotEthernet { .. }
            | Self::TooManyTags { .. } => true,
        }
    }
}

/// How each backend address is reached.
pub type NextHops = BTreeMap<IpAddr, NextHopState>;
