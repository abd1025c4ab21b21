//! From what the kernel says about route, link and neighbour to the way that packets take.

use std::net::IpAddr;

use super::super::netlink::{LinkState, Neighbour, Route};

/// What a backend record holds of the way to it. All empty where there is no way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NextHop {
    /// Index of the interface packets leave by.
    pub ifindex: u32,
    /// MAC address of the next hop; `None` while unknown.
    pub mac: Option<[u8; 6]>,
    /// MAC address of the interface.
    pub source_mac: [u8; 6],
    /// Address that the host's own packets would leave with.
    pub source: Option<IpAddr>,
    /// Largest IP packet on the way, in bytes.
    pub mtu: u32,
}

/// How a backend address is reached, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NextHopState {
    /// Over a next hop whose MAC address is known.
    Reached {
        /// The next hop: the backend itself or a router.
        via: IpAddr,
        /// Name of the interface.
        interface: String,
        /// The next hop answers. If not, packets still go to where it was last.
        answering: bool,
    },
    /// Over a next hop that has never answered.
    Waiting {
        /// The next hop.
        via: IpAddr,
        /// Name of the interface.
        interface: String,
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
}

impl NextHopState {
    /// What is wrong, if anything is.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Reached { answering: true, .. } => None,
            Self::Reached {
                via,
                interface,
                answering: false,
            }
            | Self::Waiting { via, interface } => {
                Some(format!("next hop {via} on {interface} does not answer"))
            }
            Self::Local => {
                Some("the address is one of this host; a backend must be another machine".to_owned())
            }
            Self::Unreachable => Some("no route to it".to_owned()),
            Self::NotEthernet { interface } => {
                Some(format!("the route leads over {interface}, which is not Ethernet"))
            }
        }
    }

    /// Whether nothing more is to be expected from waiting.
    pub(super) const fn is_settled(&self) -> bool {
        match self {
            Self::Waiting { .. } => false,
            Self::Reached { .. } | Self::Local | Self::Unreachable | Self::NotEthernet { .. } => true,
        }
    }
}

/// The way to an address: for people and for the backend record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Way {
    state: NextHopState,
    hop: NextHop,
}

impl Way {
    pub(super) const fn state(&self) -> &NextHopState {
        &self.state
    }

    pub(super) const fn hop(&self) -> &NextHop {
        &self.hop
    }

    /// The neighbour whose entry decides.
    pub(super) const fn via(&self) -> Option<IpAddr> {
        match &self.state {
            NextHopState::Reached { via, .. } | NextHopState::Waiting { via, .. } => Some(*via),
            NextHopState::Local | NextHopState::Unreachable | NextHopState::NotEthernet { .. } => None,
        }
    }

    /// What to fall back on when its neighbour stops answering.
    pub(super) const fn last(&self) -> Last {
        Last {
            via: self.via(),
            ifindex: self.hop.ifindex,
            mac: self.hop.mac,
        }
    }

    /// Whether its neighbour should be asked again soon.
    pub(super) const fn is_silent(&self) -> bool {
        match self.state {
            NextHopState::Reached { answering, .. } => !answering,
            NextHopState::Waiting { .. } => true,
            NextHopState::Local | NextHopState::Unreachable | NextHopState::NotEthernet { .. } => false,
        }
    }
}

/// What was known of a way before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Last {
    /// The next hop; `None` where that is not known any more, as after a restart.
    pub(super) via: Option<IpAddr>,
    /// Index of the interface.
    pub(super) ifindex: u32,
    /// MAC address of the next hop.
    pub(super) mac: Option<[u8; 6]>,
}

/// Decides the way to `address`. A neighbour that stops answering keeps its MAC address as long as the way leads over
/// it: sending there is never worse than dropping, and right where only its answers were lost.
pub(super) fn way(
    address: IpAddr,
    route: Route,
    link: Option<&LinkState>,
    neighbour: Option<Neighbour>,
    last: Option<Last>,
) -> Way {
    let nowhere = |state| Way {
        state,
        hop: NextHop::default(),
    };
    let (gateway, source, path_mtu) = match route {
        Route::Local => return nowhere(NextHopState::Local),
        Route::Unreachable => return nowhere(NextHopState::Unreachable),
        Route::Unicast {
            gateway, source, mtu, ..
        } => (gateway, source, mtu),
    };
    let Some(link) = link else {
        return nowhere(NextHopState::Unreachable);
    };
    let interface = link.name.clone();
    let Some(source_mac) = link.mac else {
        return nowhere(NextHopState::NotEthernet { interface });
    };
    let via = gateway.unwrap_or(address);
    let current = neighbour.and_then(|neighbour| neighbour.mac);
    let last = last
        .filter(|last| last.via.is_none_or(|last| last == via) && last.ifindex == link.ifindex)
        .and_then(|last| last.mac);
    let hop = NextHop {
        ifindex: link.ifindex,
        mac: current.or(last),
        source_mac,
        source,
        mtu: path_mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
    };
    let state = if hop.mac.is_some() {
        NextHopState::Reached {
            via,
            interface,
            answering: current.is_some(),
        }
    } else {
        NextHopState::Waiting { via, interface }
    };
    Way { state, hop }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: &str = "10.0.0.11";
    const ROUTER: &str = "10.0.0.254";
    const OLD: [u8; 6] = [8; 6];
    const NEW: [u8; 6] = [9; 6];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn link(ifindex: u32, mac: Option<[u8; 6]>) -> LinkState {
        LinkState {
            ifindex,
            name: format!("if{ifindex}"),
            framed: true,
            mac,
            mtu: 9000,
            xdp: None,
        }
    }

    fn unicast(ifindex: u32, gateway: Option<&str>) -> Route {
        Route::Unicast {
            ifindex,
            gateway: gateway.map(ip),
            source: Some(ip("10.0.0.1")),
            mtu: Some(1400),
        }
    }

    const fn neighbour(mac: Option<[u8; 6]>) -> Option<Neighbour> {
        Some(Neighbour { mac, confirmed: true })
    }

    #[test]
    fn packets_go_where_the_kernel_would_send_them() {
        let ethernet = link(4, Some([2; 6]));
        let other = link(5, Some([3; 6]));
        let tunnel = link(6, None);
        let known = way(
            ip(BACKEND),
            unicast(4, None),
            Some(&ethernet),
            neighbour(Some(OLD)),
            None,
        );
        #[expect(clippy::type_complexity, reason = "a table of cases")]
        let cases: [(
            &str,
            Route,
            Option<&LinkState>,
            Option<Neighbour>,
            Option<Last>,
            Option<[u8; 6]>,
            Option<&str>,
        ); 11] = [
            (
                "on the same link",
                unicast(4, None),
                Some(&ethernet),
                neighbour(Some(OLD)),
                None,
                Some(OLD),
                None,
            ),
            (
                "behind a router",
                unicast(4, Some(ROUTER)),
                Some(&ethernet),
                neighbour(Some(OLD)),
                None,
                Some(OLD),
                None,
            ),
            (
                "no neighbour yet",
                unicast(4, None),
                Some(&ethernet),
                None,
                None,
                None,
                Some("next hop 10.0.0.11 on if4 does not answer"),
            ),
            (
                "a router that never answered",
                unicast(4, Some(ROUTER)),
                Some(&ethernet),
                neighbour(None),
                None,
                None,
                Some("next hop 10.0.0.254 on if4 does not answer"),
            ),
            (
                "another MAC address",
                unicast(4, None),
                Some(&ethernet),
                neighbour(Some(NEW)),
                Some(known.last()),
                Some(NEW),
                None,
            ),
            (
                "stopped answering",
                unicast(4, None),
                Some(&ethernet),
                neighbour(None),
                Some(known.last()),
                Some(OLD),
                Some("next hop 10.0.0.11 on if4 does not answer"),
            ),
            (
                "moved to another link",
                unicast(5, None),
                Some(&other),
                None,
                Some(known.last()),
                None,
                Some("next hop 10.0.0.11 on if5 does not answer"),
            ),
            (
                "this host",
                Route::Local,
                None,
                None,
                Some(known.last()),
                None,
                Some("the address is one of this host; a backend must be another machine"),
            ),
            (
                "no route",
                Route::Unreachable,
                None,
                None,
                Some(known.last()),
                None,
                Some("no route to it"),
            ),
            (
                "the link is gone",
                unicast(4, None),
                None,
                None,
                Some(known.last()),
                None,
                Some("no route to it"),
            ),
            (
                "a link without MAC addresses",
                unicast(6, None),
                Some(&tunnel),
                None,
                None,
                None,
                Some("the route leads over if6, which is not Ethernet"),
            ),
        ];
        for (name, route, link, neighbour, before, mac, error) in cases {
            let way = way(ip(BACKEND), route, link, neighbour, before);
            assert_eq!(way.hop().mac, mac, "{name}");
            assert_eq!(way.state().error().as_deref(), error, "{name}");
        }
        assert_eq!(known.hop().mtu, 1400, "the smaller of path and link");
        assert_eq!(known.hop().source, Some(ip("10.0.0.1")));
    }
}
