//! The network of a namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    thread,
    time::Duration,
};

use super::{
    conflict,
    ethtool::{Ethtool, Offloads},
    xdp_features::{NetdevFamily, XdpFeatures},
};
use crate::{
    interface::XdpMode,
    neighbours::{self, next_hop::NextHopState},
    netlink::{Client, HostAddress, LinkOperation, Route, TiedTo},
};

/// Attempts to find neighbours that do not answer, and the time between them: longer than the kernel's three questions at intervals
/// of a second take (`mcast_solicit`, `retrans_time_ms`).
const NEIGHBOUR_LOOKS: u32 = 32;
const NEIGHBOUR_INTERVAL: Duration = Duration::from_millis(100);

/// A link of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostLink {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its alternative names.
    pub altnames: Vec<String>,
    /// Whether its frames begin with an Ethernet header.
    pub framed: bool,
    /// Its MAC address; `None` where it is not Ethernet.
    pub mac: Option<[u8; 6]>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it can carry packets.
    pub operation: LinkOperation,
    /// The XDP program on it, by its id, and the mode it runs in.
    pub xdp: Option<(u32, XdpMode)>,
    /// For the link of a VLAN: index of the link that carries its frames.
    pub vlan_parent: Option<u32>,
    /// The link that it is tied to; of a veth, its peer.
    pub tied_to: Option<TiedTo>,
}

/// How packets reach an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostWay {
    /// The next hop.
    pub state: NextHopState,
    /// Index of the interface that frames leave by.
    pub ifindex: u32,
    /// Largest IP packet on the way, in bytes; 0 without a route.
    pub mtu: u32,
    /// Link-layer address of the next hop, where it is known.
    pub mac: Option<[u8; 6]>,
}

/// The network of this thread's namespace.
pub struct HostNetwork {
    pub(super) client: Client,
    ethtool: Ethtool,
    features: Option<NetdevFamily>,
}

impl HostNetwork {
    /// Opens the sockets for questions.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            client: Client::new()?,
            ethtool: Ethtool::new()?,
            features: NetdevFamily::new(),
        })
    }

    /// All links.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn links(&mut self) -> io::Result<Vec<HostLink>> {
        let tied = self.client.tied_links()?;
        let links = self.client.links()?.into_iter();
        Ok(links
            .map(|link| HostLink {
                tied_to: tied.get(&link.ifindex).copied(),
                ifindex: link.ifindex,
                framed: link.framed,
                mac: link.mac,
                mtu: link.mtu,
                operation: link.operation,
                xdp: link.xdp.map(|xdp| {
                    let mode = if xdp.generic {
                        XdpMode::Generic
                    } else {
                        XdpMode::Native
                    };
                    (xdp.program_id, mode)
                }),
                vlan_parent: link.vlan.map(|vlan| vlan.parent),
                altnames: link.altnames,
                name: link.name,
            })
            .collect())
    }

    /// Name of the driver of an interface.
    pub fn driver(&self, interface: &str) -> Option<String> {
        self.ethtool.driver(interface)
    }

    /// Settings of the driver of an interface.
    pub fn offloads(&self, interface: &str) -> Offloads {
        self.ethtool.offloads(interface)
    }

    /// Receive queues of an interface.
    pub fn receive_queues(&self, interface: &str) -> Option<u32> {
        self.ethtool.receive_queues(interface)
    }

    /// The receive queues among which an interface spreads packets by their hash (RSS); `None` if it does not say.
    pub fn spread_over(&self, interface: &str) -> Option<BTreeSet<u32>> {
        self.ethtool.spread_over(interface)
    }

    /// What the driver of an interface can do with XDP; `None` if the kernel does not say, as before Linux 6.3.
    pub fn xdp_features(&self, ifindex: u32) -> Option<XdpFeatures> {
        self.features.as_ref()?.features(ifindex)
    }

    /// The MAC address of another machine with `address` on the network of an interface; asks for a second.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or when the interface is down.
    pub fn holder(&self, link: &HostLink, address: IpAddr) -> io::Result<Option<[u8; 6]>> {
        match link.mac {
            Some(mac) => conflict::holder(link.ifindex, mac, address),
            None => Ok(None),
        }
    }

    /// All addresses of this machine.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn addresses(&mut self) -> io::Result<Vec<HostAddress>> {
        self.client.host_addresses()
    }

    /// Whether packets to an address end on this machine, by an address of it or by a local route.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn is_local(&mut self, address: IpAddr) -> io::Result<bool> {
        Ok(self.client.route(address)? == Route::Local)
    }

    /// Index of the link by which packets to an address leave; `None` if they end on this machine, or without a route.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn link_to(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        match self.client.route(address)? {
            Route::Unicast { ifindex, .. } => Ok(Some(ifindex)),
            Route::Local | Route::Unreachable => Ok(None),
        }
    }

    /// Whether the route to an address is known to lead to others, too: then its gateway is a router. False if the kernel does not say.
    pub fn shares_route(&mut self, address: IpAddr) -> bool {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length = self.client.route_length(address);
        length.is_ok_and(|length| length.is_some_and(|length| length < whole))
    }

    /// The way to each of `addresses`. Waits up to three seconds for neighbours to answer.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn ways(&mut self, addresses: &BTreeSet<IpAddr>) -> io::Result<BTreeMap<IpAddr, HostWay>> {
        let is_silent = |state: &NextHopState| matches!(state, NextHopState::Waiting { .. });
        let mut look = || neighbours::look_up(&mut self.client, addresses.iter().copied());
        let mut ways = look()?;
        for _ in 0..NEIGHBOUR_LOOKS {
            if !ways.values().any(|(state, _)| is_silent(state)) {
                break;
            }
            thread::sleep(NEIGHBOUR_INTERVAL);
            ways = look()?;
        }
        Ok(ways
            .into_iter()
            .map(|(address, (state, hop))| {
                let way = HostWay {
                    state,
                    ifindex: hop.ifindex,
                    mtu: hop.mtu,
                    mac: hop.mac,
                };
                (address, way)
            })
            .collect())
    }
}
