//! Derives a next hop from the kernel's route, link and neighbour.

use std::net::IpAddr;

use lb_common::vlan::Vlans;

use super::super::netlink::{LinkState, Neighbour, Route};

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

    /// The neighbour that frames are sent to.
    pub(super) const fn via(&self) -> Option<IpAddr> {
        match &self.state {
            NextHopState::Reached { via, .. } | NextHopState::Waiting { via, .. } => Some(*via),
            NextHopState::Local
            | NextHopState::Unreachable
            | NextHopState::NotEthernet { .. }
            | NextHopState::TooManyTags { .. } => None,
        }
    }

    /// The fallback while its neighbour does not answer.
    pub(super) const fn last(&self) -> Last {
        Last {
            via: self.via(),
            exit: Exit {
                ifindex: self.hop.ifindex,
                vlans: self.hop.vlans,
            },
            mac: self.hop.mac,
        }
    }

    /// Whether its neighbour should be asked again soon.
    pub(super) const fn is_silent(&self) -> bool {
        match self.state {
            NextHopState::Reached { answering, .. } => !answering,
            NextHopState::Waiting { .. } => true,
            NextHopState::Local
            | NextHopState::Unreachable
            | NextHopState::NotEthernet { .. }
            | NextHopState::TooManyTags { .. } => false,
        }
    }
}

/// The earlier state of a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Last {
    /// The next hop; `None` where that is not known any more, as after a restart.
    pub(super) via: Option<IpAddr>,
    /// Where packets left.
    pub(super) exit: Exit,
    /// MAC address of the next hop.
    pub(super) mac: Option<[u8; 6]>,
}

/// Where packets leave the machine: the interface that frames are sent by, and their VLANs. The kernel's routes name the
/// link of a VLAN, which a program cannot send by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Exit {
    /// Index of the interface.
    pub(super) ifindex: u32,
    /// VLANs of the frames.
    pub(super) vlans: Vlans,
}

impl Exit {
    /// By a link, found with what stands below it; `None` if that is more than two VLANs.
    pub(super) fn by<E>(
        link: &LinkState,
        mut find: impl FnMut(u32) -> Result<Option<LinkState>, E>,
    ) -> Result<Option<Self>, E> {
        let Some(inner) = link.vlan else {
            return Ok(Some(Self {
                ifindex: link.ifindex,
                vlans: Vlans::NONE,
            }));
        };
        let below = |link: Option<LinkState>| link.and_then(|link| link.vlan);
        let Some(outer) = below(find(inner.parent)?) else {
            return Ok(Vlans::new(Some(inner.vlan), None).map(|vlans| Self {
                ifindex: inner.parent,
                vlans,
            }));
        };
        if below(find(outer.parent)?).is_some() {
            return Ok(None);
        }
        Ok(Vlans::new(Some(outer.vlan), Some(inner.vlan)).map(|vlans| Self {
            ifindex: outer.parent,
            vlans,
        }))
    }
}

/// Decides the way to `address`. A neighbour that stops answering keeps its MAC address as long as the way leads over
/// it: sending there is never worse than dropping, and right where only its answers were lost.
pub(super) fn way(
    address: IpAddr,
    route: Route,
    link: Option<(&LinkState, Option<Exit>)>,
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
    let Some((link, exit)) = link else {
        return nowhere(NextHopState::Unreachable);
    };
    let interface = link.name.clone();
    let Some(source_mac) = link.mac else {
        return nowhere(NextHopState::NotEthernet { interface });
    };
    let Some(exit) = exit else {
        return nowhere(NextHopState::TooManyTags { interface });
    };
    let via = gateway.unwrap_or(address);
    let current = neighbour.and_then(|neighbour| neighbour.mac);
    let last = last
        .filter(|last| last.via.is_none_or(|last| last == via) && last.exit == exit)
        .and_then(|last| last.mac);
    let hop = NextHop {
        ifindex: exit.ifindex,
        mac: current.or(last),
        source_mac,
        vlans: exit.vlans,
        source,
        mtu: path_mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
    };
    let state = if hop.mac.is_some() {
        NextHopState::Reached {
            via,
            interface,
            answering: current.is_some(),
            source,
        }
    } else {
        NextHopState::Waiting {
            via,
            interface,
            source,
        }
    };
    Way { state, hop }
}

#[cfg(test)]
mod tests {
    use lb_common::vlan::Vlan;

    use super::*;
    use crate::{
        LinkOperation,
        netlink::{Stacking, VlanLink},
    };

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
            vlan: None,
            stacking: Stacking::default(),
            xdp: None,
            alias: None,
            altnames: Vec::new(),
            operation: LinkOperation::Up,
        }
    }

    fn vlan(ifindex: u32, parent: u32, id: u16, service: bool) -> LinkState {
        LinkState {
            vlan: Some(VlanLink {
                parent,
                vlan: Vlan { id, service },
            }),
            ..link(ifindex, Some([2; 6]))
        }
    }

    #[test]
    fn frames_leave_by_the_link_below_their_vlans() {
        let links = [
            link(1, Some([1; 6])),
            vlan(2, 1, 100, true),
            vlan(3, 2, 200, false),
            vlan(4, 3, 300, false),
            vlan(5, 9, 50, false),
        ];
        let (outer, inner) = (
            Vlan {
                id: 100,
                service: true,
            },
            Vlan {
                id: 200,
                service: false,
            },
        );
        let lost = Vlan {
            id: 50,
            service: false,
        };
        let exit = |ifindex, outer, inner| Vlans::new(outer, inner).map(|vlans| Exit { ifindex, vlans });
        let wanted = [
            exit(1, None, None),
            exit(1, Some(outer), None),
            exit(1, Some(outer), Some(inner)),
            None,
            exit(9, Some(lost), None),
        ];
        let find = |index| Ok::<_, ()>(links.iter().find(|link| link.ifindex == index).cloned());
        for (link, wanted) in links.iter().zip(wanted) {
            assert_eq!(Exit::by(link, find), Ok(wanted), "{}", link.name);
            let way = way(
                ip(BACKEND),
                unicast(link.ifindex, None),
                Some((link, wanted)),
                neighbour(Some(OLD)),
                None,
            );
            assert_eq!(way.hop().mac, wanted.map(|_| OLD));
            assert_eq!(way.hop().vlans, wanted.map_or(Vlans::NONE, |exit| exit.vlans));
            let error = "the route leads over if4, whose frames have more than two VLAN tags";
            assert_eq!(way.state().error(), wanted.is_none().then(|| error.to_owned()));
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

    fn plain(link: &LinkState) -> Option<(&LinkState, Option<Exit>)> {
        let exit = Exit {
            ifindex: link.ifindex,
            vlans: Vlans::NONE,
        };
        Some((link, Some(exit)))
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
            plain(&ethernet),
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
            let way = way(ip(BACKEND), route, link.and_then(plain), neighbour, before);
            assert_eq!(way.hop().mac, mac, "{name}");
            assert_eq!(way.state().error().as_deref(), error, "{name}");
        }
        assert_eq!(known.hop().mtu, 1400, "the smaller of path and link");
        assert_eq!(known.hop().source, Some(ip("10.0.0.1")));
    }
}
