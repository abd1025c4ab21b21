//! Decides which interface gets which link, before anything changes.

use std::collections::BTreeSet;

use lb_common::limits::MAX_INTERFACES;

use super::super::{netlink::XdpState, sys};
use crate::{attach::mode, interface::XdpMode, state::xdp_mode::XdpModeChoice};

/// The decision for one interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// The link in this slot is taken over.
    TakeOver { slot: u32 },
    /// The link in this slot runs in a mode that may not be used: it goes, and a new one comes.
    Replace { slot: u32, old: XdpMode },
    /// A new link in this slot.
    Attach { slot: u32 },
    /// A program that is not ours is there.
    Foreign { program_id: u32 },
    /// The interface is not there; this slot is kept for it.
    Missing { slot: u32 },
}

/// The decisions for interfaces, and the slots of unused links.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Decision {
    /// In the order of the interfaces.
    pub(super) actions: Vec<Action>,
    /// Slots of links to detach.
    pub(super) stale: Vec<u32>,
}

/// Decides for each wanted interface, by its index and the program on it where it is there, given the pinned links by
/// slot.
pub(super) fn decide(
    wanted: &[Option<(u32, Option<XdpState>)>],
    pinned: &[(u32, sys::XdpLinkInfo)],
    choice: XdpModeChoice,
) -> Decision {
    // A link belongs to an interface only if the interface has its program: in another network namespace, another interface may
    // have the same index.
    let own = |(ifindex, xdp): &(u32, Option<XdpState>)| {
        let state = (*xdp)?;
        let (slot, _) = pinned
            .iter()
            .find(|(_, link)| link.ifindex == *ifindex && link.program_id == state.program_id)?;
        Some((*slot, state))
    };
    let present = wanted.iter().flatten();
    let kept: BTreeSet<u32> = present.filter_map(own).map(|(slot, _)| slot).collect();
    let mut free = (0..MAX_INTERFACES).filter(|slot| !kept.contains(slot));
    let actions = wanted
        .iter()
        .filter_map(|interface| {
            let Some(interface) = interface else {
                return Some(Action::Missing { slot: free.next()? });
            };
            Some(match (own(interface), interface.1) {
                (Some((slot, state)), _) => match (choice, mode(state)) {
                    (XdpModeChoice::Native, old @ XdpMode::Generic)
                    | (XdpModeChoice::Generic, old @ XdpMode::Native) => Action::Replace { slot, old },
                    _ => Action::TakeOver { slot },
                },
                (None, Some(XdpState { program_id, .. })) => Action::Foreign { program_id },
                (None, None) => Action::Attach { slot: free.next()? },
            })
        })
        .collect();
    let stale = pinned
        .iter()
        .map(|(slot, _)| *slot)
        .filter(|slot| !kept.contains(slot))
        .collect();
    Decision { actions, stale }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn link(ifindex: u32, program_id: u32) -> sys::XdpLinkInfo {
        sys::XdpLinkInfo {
            id: 1000 + program_id,
            program_id,
            ifindex,
        }
    }

    const fn xdp(program_id: u32, generic: bool) -> Option<XdpState> {
        Some(XdpState { program_id, generic })
    }

    #[test]
    fn a_restart_keeps_its_links_and_touches_no_foreign_program() {
        use Action::{Attach, Foreign, Missing, Replace, TakeOver};
        use XdpModeChoice::{Auto, Generic, Native};
        #[expect(clippy::type_complexity, reason = "a table of cases")]
        let cases: [(
            &str,
            &[Option<(u32, Option<XdpState>)>],
            &[(u32, sys::XdpLinkInfo)],
            XdpModeChoice,
            &[Action],
            &[u32],
        ); 11] = [
            (
                "first start",
                &[Some((2, None)), Some((3, None))],
                &[],
                Auto,
                &[Attach { slot: 0 }, Attach { slot: 1 }],
                &[],
            ),
            (
                "restart",
                &[Some((2, xdp(70, false)))],
                &[(0, link(2, 70))],
                Auto,
                &[TakeOver { slot: 0 }],
                &[],
            ),
            (
                "restart keeps each slot",
                &[Some((3, xdp(71, false))), Some((2, xdp(70, false)))],
                &[(0, link(2, 70)), (1, link(3, 71))],
                Auto,
                &[TakeOver { slot: 1 }, TakeOver { slot: 0 }],
                &[],
            ),
            (
                "an interface more",
                &[Some((2, None)), Some((3, xdp(71, true)))],
                &[(0, link(3, 71))],
                Auto,
                &[Attach { slot: 1 }, TakeOver { slot: 0 }],
                &[],
            ),
            (
                "an interface less",
                &[Some((2, xdp(70, false)))],
                &[(0, link(2, 70)), (1, link(3, 71))],
                Auto,
                &[TakeOver { slot: 0 }],
                &[1],
            ),
            (
                "a foreign program",
                &[Some((2, xdp(99, false)))],
                &[],
                Auto,
                &[Foreign { program_id: 99 }],
                &[],
            ),
            (
                "the interface was made anew",
                &[Some((2, None))],
                &[(0, link(0, 70))],
                Auto,
                &[Attach { slot: 0 }],
                &[0],
            ),
            (
                "the same index in another namespace",
                &[Some((2, xdp(99, false)))],
                &[(0, link(2, 70))],
                Auto,
                &[Foreign { program_id: 99 }],
                &[0],
            ),
            (
                "a missing interface gets a free slot",
                &[None, Some((2, xdp(70, false))), Some((3, None))],
                &[(0, link(2, 70))],
                Auto,
                &[Missing { slot: 1 }, TakeOver { slot: 0 }, Attach { slot: 2 }],
                &[],
            ),
            (
                "native is asked for now",
                &[Some((2, xdp(70, true)))],
                &[(4, link(2, 70))],
                Native,
                &[Replace {
                    slot: 4,
                    old: XdpMode::Generic,
                }],
                &[],
            ),
            (
                "generic stays where it is asked for",
                &[Some((2, xdp(70, true)))],
                &[(4, link(2, 70))],
                Generic,
                &[TakeOver { slot: 4 }],
                &[],
            ),
        ];
        for (name, wanted, pinned, choice, actions, stale) in cases {
            let decision = decide(wanted, pinned, choice);
            assert_eq!(decision.actions, actions, "{name}");
            assert_eq!(decision.stale, stale, "{name}");
        }
    }
}
