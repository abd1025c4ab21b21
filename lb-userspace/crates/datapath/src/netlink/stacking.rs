//! Which links stand above which.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "as in the module above: messages and attributes are open sets"
)]

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};

/// Kinds of links whose frames come in on another link. Others name one too: a veth its peer.
const STACKED: [InfoKind; 5] = [
    InfoKind::Vlan,
    InfoKind::MacVlan,
    InfoKind::MacVtap,
    InfoKind::IpVlan,
    InfoKind::IpVtap,
];

/// Which links a link stands above or below of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in super::super) struct Stacking {
    /// For a VLAN, macvlan or ipvlan: the link that its frames come in on.
    pub(in super::super) below: Option<u32>,
    /// The bridge, bond or team that it is part of.
    pub(in super::super) controller: Option<u32>,
    /// Whether it is a bond, on whose members a driver's XDP program runs.
    pub(in super::super) is_bond: bool,
}

impl Stacking {
    /// Reads the attributes of a link.
    pub(super) fn of(attributes: &[LinkAttribute]) -> Self {
        let (mut stacking, mut parent, mut kind, mut is_elsewhere) = (Self::default(), None, None, false);
        for attribute in attributes {
            match attribute {
                LinkAttribute::Link(index) => parent = Some(*index),
                LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
                LinkAttribute::Controller(index) => stacking.controller = Some(*index),
                LinkAttribute::LinkInfo(infos) => {
                    kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        let is_stacked = kind.is_some_and(|kind| STACKED.contains(kind)) && !is_elsewhere;
        stacking.below = parent.filter(|_| is_stacked);
        stacking.is_bond = kind == Some(&InfoKind::Bond);
        stacking
    }
}
