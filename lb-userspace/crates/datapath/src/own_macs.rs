//! The link-layer addresses of this machine, so that frames for another one pass untouched
//! ([`lb_common::own_mac`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use lb_common::{
    limits::{MAX_INTERFACES, MAX_OWN_MACS},
    own_mac::{Mac, OwnMac},
};

use super::{maps::Maps, netlink::LinkState};
use crate::interface::Interface;

/// Interfaces whose frames are forwarded, by index, each with its slot.
pub(super) type Served = BTreeMap<u32, u32>;

/// Those of the configured interfaces that the program runs on.
pub(super) fn served(interfaces: &[Interface]) -> Served {
    let attached = interfaces.iter().filter_map(|interface| {
        let ifindex = interface.attached.as_ref()?.ifindex;
        Some((ifindex, interface.slot))
    });
    attached.collect()
}

/// Addresses whose frames are for this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OwnMacs {
    /// The address of the interface in each slot; [`Mac::ANY`] where every unicast frame is taken.
    first: [Mac; MAX_INTERFACES as usize],
    /// All addresses, by interface.
    all: BTreeSet<OwnMac>,
}

impl OwnMacs {
    /// The addresses of the served interfaces and of the devices above them. An interface without an address, or with too many,
    /// takes every unicast frame.
    pub(super) fn of(served: &Served, links: &[LinkState]) -> Self {
        let mut macs = Self {
            first: [Mac::ANY; MAX_INTERFACES as usize],
            all: BTreeSet::new(),
        };
        let links = Links::of(links);
        for (ifindex, slot) in served {
            let Some(link) = links.by_index.get(ifindex) else {
                continue;
            };
            let (Some(mac), Some(first)) = (link.mac, macs.first.get_mut(*slot as usize)) else {
                continue;
            };
            let addresses = links.above(*ifindex);
            let members = links.members.get(ifindex).filter(|_| link.stacking.is_bond);
            let arrivals = members.into_iter().flatten().copied().chain([*ifindex]);
            let found: Vec<OwnMac> = arrivals
                .flat_map(|ifindex| addresses.iter().map(move |mac| OwnMac::new(*mac, ifindex)))
                .collect();
            if macs.all.len() + found.len() > MAX_OWN_MACS as usize {
                tracing::warn!(
                    interface = link.name,
                    "too many devices above the interface to tell apart: it accepts frames for other machines, too"
                );
                continue;
            }
            *first = Mac::new(mac);
            macs.all.extend(found);
        }
        macs
    }

    /// Makes the maps hold these addresses and no others. New ones are there before an old one goes.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub(super) fn write(&self, maps: &Maps) -> io::Result<()> {
        let mut old = BTreeSet::new();
        maps.own_macs.for_each(|mac, _| _ = old.insert(mac))?;
        for mac in self.all.difference(&old) {
            maps.own_macs.set(mac, 1)?;
        }
        for (slot, mac) in (0..).zip(&self.first) {
            maps.interface_macs.set(&slot, *mac)?;
        }
        for mac in old.difference(&self.all) {
            maps.own_macs.delete(mac)?;
        }
        Ok(())
    }
}

/// Links, and which stand above each other.
struct Links<'a> {
    by_index: BTreeMap<u32, &'a LinkState>,
    /// Links whose frames come in on another one.
    stacked: BTreeMap<u32, Vec<u32>>,
    /// Ports of bridges, members of bonds and teams.
    members: BTreeMap<u32, Vec<u32>>,
}

impl<'a> Links<'a> {
    fn of(links: &'a [LinkState]) -> Self {
        let by_index = links.iter().map(|link| (link.ifindex, link)).collect();
        let (mut stacked, mut members) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for link in links {
            if let Some(below) = link.stacking.below {
                stacked.entry(below).or_default().push(link.ifindex);
            }
            if let Some(controller) = link.stacking.controller {
                members.entry(controller).or_default().push(link.ifindex);
            }
        }
        Self {
            by_index,
            stacked,
            members,
        }
    }

    /// The addresses of a link and of all that is above it.
    fn above(&self, ifindex: u32) -> BTreeSet<Mac> {
        let mut reached = BTreeSet::new();
        let mut waiting = vec![ifindex];
        while let Some(ifindex) = waiting.pop() {
            if reached.insert(ifindex) {
                waiting.extend(self.stacked.get(&ifindex).into_iter().flatten());
                waiting.extend(
                    self.by_index
                        .get(&ifindex)
                        .and_then(|link| link.stacking.controller),
                );
            }
        }
        let macs = reached
            .iter()
            .filter_map(|ifindex| self.by_index.get(ifindex)?.mac);
        macs.map(Mac::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{LinkOperation, Stacking};

    fn link(ifindex: u32, below: Option<u32>, controller: Option<u32>) -> LinkState {
        LinkState {
            ifindex,
            name: format!("if{ifindex}"),
            framed: true,
            mac: Some([2, 0, 0, 0, 0, u8::try_from(ifindex).unwrap()]),
            mtu: 1500,
            vlan: None,
            stacking: Stacking {
                below,
                controller,
                is_bond: false,
            },
            xdp: None,
            alias: None,
            altnames: Vec::new(),
            operation: LinkOperation::Up,
        }
    }

    fn on(macs: &OwnMacs, ifindex: u32) -> Vec<u64> {
        let on = macs.all.iter().filter(|mac| mac.ifindex == ifindex);
        on.map(|mac| mac.mac.0 >> 40).collect()
    }

    #[test]
    fn frames_to_an_interface_and_to_what_stands_above_it_are_ours() {
        let mut bond = link(3, None, Some(5));
        bond.stacking.is_bond = true;
        let links = [
            link(1, None, Some(3)),
            link(2, None, Some(3)),
            bond,
            link(4, Some(3), None),
            link(5, None, None),
            link(6, Some(5), None),
            link(7, Some(6), None),
            link(8, None, Some(5)),
            link(9, None, None),
        ];
        let macs = OwnMacs::of(&Served::from([(3, 0), (8, 4), (9, 2)]), &links);
        // Not the addresses of another port of the same bridge.
        let above_the_bond = [3, 4, 5, 6, 7];
        for ifindex in [1, 2, 3] {
            assert_eq!(
                on(&macs, ifindex),
                above_the_bond,
                "frames of a bond come in on its members"
            );
        }
        assert_eq!(on(&macs, 8), [5, 6, 7, 8]);
        assert_eq!(on(&macs, 9), [9]);
        let first = macs.first.map(|mac| mac.0 >> 40);
        assert_eq!(first[..5], [3, 0, 9, 0, 8]);
        let bridge = OwnMacs::of(&Served::from([(5, 0)]), &links);
        assert_eq!((bridge.all.len(), on(&bridge, 5)), (3, vec![5, 6, 7]));
    }

    #[test]
    fn an_interface_takes_all_frames_if_its_addresses_are_unknown_or_do_not_fit() {
        let many = (100_u32..).take(MAX_OWN_MACS as usize).map(|ifindex| {
            let [_, _, c, d] = ifindex.to_be_bytes();
            LinkState {
                ifindex,
                mac: Some([2, 1, 0, 0, c, d]),
                ..link(0, Some(1), None)
            }
        });
        let nameless = LinkState {
            mac: None,
            ..link(3, None, None)
        };
        let links: Vec<LinkState> = many
            .chain([link(1, None, None), link(2, None, None), nameless])
            .collect();
        let macs = OwnMacs::of(&Served::from([(1, 0), (2, 1), (3, 2), (4, 3)]), &links);
        assert_eq!(
            macs.first[..4],
            [
                Mac::ANY,
                Mac::new(link(2, None, None).mac.unwrap()),
                Mac::ANY,
                Mac::ANY
            ]
        );
        assert_eq!((macs.all.len(), on(&macs, 2)), (1, vec![2]));
    }
}
