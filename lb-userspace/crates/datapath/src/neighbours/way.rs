//! Derives a next hop from the kernel's route, link and neighbour.

use std::net::IpAddr;

use lb_common::vlan::Vlans;

use super::{
    super::netlink::{LinkState, Neighbour, Route},
    next_hop::{NextHop, NextHopState},
};

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
mod tests;
