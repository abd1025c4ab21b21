//! Decides about an interface by its state in the kernel.

use super::super::super::{
    netlink::{LinkState, XdpState},
    sys::XdpLinkInfo,
};

/// State of an interface that is to have the program.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The interface that has its name.
    pub(super) named: Option<LinkState>,
    /// The link that holds the program, where there is one.
    pub(super) held: Option<Held>,
}

/// A link that holds the program on an interface.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The program that was put there.
    pub(super) program_id: u32,
    /// The link's properties. The interface index counts in the network namespace of the interface, which need not be this
    /// one.
    pub(super) now: XdpLinkInfo,
    /// The interface of this namespace with that index.
    pub(super) device: Option<LinkState>,
}

/// The decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Judgement {
    /// The program runs on this interface; nothing.
    Keep(LinkState),
    /// The link holds another program on this interface: ours is put back.
    TakeBack {
        /// The interface.
        link: LinkState,
        /// The other program.
        program_id: u32,
    },
    /// The program is not on this interface: it is attached by a new link.
    Attach(LinkState),
    /// A program that is not ours is on this interface, by a link that is not ours.
    Foreign {
        /// The interface.
        link: LinkState,
        /// That program.
        program_id: u32,
    },
    /// The interface cannot be served, since its frames have no Ethernet header.
    NotEthernet(LinkState),
    /// There is no such interface.
    Missing,
}

impl Judgement {
    /// Whether the held link stays.
    pub(super) const fn keeps_link(&self) -> bool {
        match self {
            Self::Keep(_) | Self::TakeBack { .. } => true,
            Self::Attach(_) | Self::Foreign { .. } | Self::NotEthernet(_) | Self::Missing => false,
        }
    }
}

/// Judges what was seen. The interface that has the name counts; only where none has it, one that was served and got
/// another name is served further.
pub(super) fn judge(seen: &Seen) -> Judgement {
    // In another network namespace, another interface may have the index: the link belongs to the interface only if the
    // interface has its program.
    let holds = |held: &Held, link: &LinkState| {
        held.now.ifindex == link.ifindex
            && link.xdp.map(|XdpState { program_id, .. }| program_id) == Some(held.now.program_id)
    };
    let go_on = |held: &Held, link: &LinkState| {
        if held.now.program_id == held.program_id {
            Judgement::Keep(link.clone())
        } else {
            Judgement::TakeBack {
                link: link.clone(),
                program_id: held.now.program_id,
            }
        }
    };
    match (&seen.named, &seen.held) {
        (Some(link), Some(held)) if holds(held, link) => go_on(held, link),
        (Some(link), _) if !link.framed => Judgement::NotEthernet(link.clone()),
        (Some(link), _) => match link.xdp {
            None => Judgement::Attach(link.clone()),
            Some(XdpState { program_id, .. }) => Judgement::Foreign {
                link: link.clone(),
                program_id,
            },
        },
        (None, Some(held)) => match &held.device {
            Some(link) if holds(held, link) => go_on(held, link),
            Some(_) | None => Judgement::Missing,
        },
        (None, None) => Judgement::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{LinkOperation, Stacking};

    const OURS: u32 = 70;
    const OTHER: u32 = 99;

    fn link(name: &str, ifindex: u32, program: Option<u32>) -> LinkState {
        LinkState {
            ifindex,
            name: name.to_owned(),
            framed: true,
            mac: None,
            mtu: 1500,
            vlan: None,
            stacking: Stacking::default(),
            xdp: program.map(|program_id| XdpState {
                program_id,
                generic: false,
            }),
            alias: None,
            altnames: Vec::new(),
            operation: LinkOperation::Up,
        }
    }

    fn held(ifindex: u32, program_id: u32, device: Option<LinkState>) -> Held {
        Held {
            program_id: OURS,
            now: XdpLinkInfo {
                id: 1,
                program_id,
                ifindex,
            },
            device,
        }
    }

    #[test]
    fn the_program_is_where_the_name_is_and_no_foreign_one_is_touched() {
        let front = |ifindex, program| Some(link("front", ifindex, program));
        let renamed = |ifindex, program| Some(link("old", ifindex, program));
        let cases = [
            (
                "all is well",
                front(2, Some(OURS)),
                Some(held(2, OURS, front(2, Some(OURS)))),
                Judgement::Keep(link("front", 2, Some(OURS))),
            ),
            (
                "replaced through its link",
                front(2, Some(OTHER)),
                Some(held(2, OTHER, front(2, Some(OTHER)))),
                Judgement::TakeBack {
                    link: link("front", 2, Some(OTHER)),
                    program_id: OTHER,
                },
            ),
            (
                "detached",
                front(2, None),
                Some(held(0, OURS, None)),
                Judgement::Attach(link("front", 2, None)),
            ),
            (
                "detached, and another's attached",
                front(2, Some(OTHER)),
                Some(held(0, OURS, None)),
                Judgement::Foreign {
                    link: link("front", 2, Some(OTHER)),
                    program_id: OTHER,
                },
            ),
            ("deleted", None, Some(held(0, OURS, None)), Judgement::Missing),
            (
                "made anew under another index",
                front(3, None),
                Some(held(0, OURS, None)),
                Judgement::Attach(link("front", 3, None)),
            ),
            (
                "renamed",
                None,
                Some(held(2, OURS, renamed(2, Some(OURS)))),
                Judgement::Keep(link("old", 2, Some(OURS))),
            ),
            (
                "renamed and replaced",
                None,
                Some(held(2, OTHER, renamed(2, Some(OTHER)))),
                Judgement::TakeBack {
                    link: link("old", 2, Some(OTHER)),
                    program_id: OTHER,
                },
            ),
            (
                "renamed, and another one has the name now",
                front(3, None),
                Some(held(2, OURS, renamed(2, Some(OURS)))),
                Judgement::Attach(link("front", 3, None)),
            ),
            (
                "moved to another namespace, where its index is the same",
                None,
                Some(held(2, OURS, None)),
                Judgement::Missing,
            ),
            (
                "moved away, and another interface of ours has its index here",
                None,
                Some(held(2, OURS, Some(link("back", 2, None)))),
                Judgement::Missing,
            ),
            (
                "moved away, and made anew with the same index",
                front(2, None),
                Some(held(2, OURS, front(2, None))),
                Judgement::Attach(link("front", 2, None)),
            ),
            ("never there", None, None, Judgement::Missing),
            (
                "there for the first time",
                front(2, None),
                None,
                Judgement::Attach(link("front", 2, None)),
            ),
            (
                "there, with a foreign program",
                front(2, Some(OTHER)),
                None,
                Judgement::Foreign {
                    link: link("front", 2, Some(OTHER)),
                    program_id: OTHER,
                },
            ),
        ];
        for (name, named, held, judgement) in cases {
            assert_eq!(judge(&Seen { named, held }), judgement, "{name}");
        }
        let tunnel = LinkState {
            framed: false,
            ..link("front", 2, None)
        };
        let seen = Seen {
            named: Some(tunnel.clone()),
            held: None,
        };
        assert_eq!(judge(&seen), Judgement::NotEthernet(tunnel));
    }
}
