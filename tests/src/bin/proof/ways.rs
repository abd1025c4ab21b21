//! The ways that traffic takes from a client to two web servers: plain forwarding, the modes of the balancer, and its peers.

use std::env;

use anyhow::Result;
use lb_tests::topology::Shape;

use crate::{context::Context, peers::PROXY_CONNECTIONS};

/// Names another program of ours, such as an older one, that takes turns with the one that is measured.
pub(crate) const OTHER: &str = "LB_OTHER";

/// A way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Way {
    /// The kernel in the balancer's place forwards both directions.
    Direct,
    /// The same for requests; answers go straight to the client.
    DirectReturn,
    /// Modes.
    Nat,
    Dnat,
    L2dsr,
    Ipip,
    Gue,
    /// A mode, by the program that [`OTHER`] names.
    Other(&'static str),
    /// The kernel's NAT, which spreads connections by a counter or by a hash.
    Numgen,
    Jhash,
    /// Proxies.
    Haproxy,
    NginxStream,
}

impl Way {
    /// In the order of tables. What goes through the balancer in both directions comes first.
    pub(crate) const ALL: [Self; 11] = [
        Self::Direct,
        Self::Nat,
        Self::Dnat,
        Self::Numgen,
        Self::Jhash,
        Self::Haproxy,
        Self::NginxStream,
        Self::DirectReturn,
        Self::L2dsr,
        Self::Ipip,
        Self::Gue,
    ];

    /// As tables name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectReturn => "direct, answers past it",
            Self::Nat => "lb `nat`",
            Self::Dnat => "lb `dnat`",
            Self::L2dsr => "lb `l2dsr`",
            Self::Ipip => "lb `ipip`",
            Self::Gue => "lb `gue`",
            Self::Other("nat") => "other lb `nat`",
            Self::Other("dnat") => "other lb `dnat`",
            Self::Other("l2dsr") => "other lb `l2dsr`",
            Self::Other("ipip") => "other lb `ipip`",
            Self::Other(_) => "other lb `gue`",
            Self::Numgen => "nftables numgen",
            Self::Jhash => "nftables jhash",
            Self::Haproxy => "HAProxy",
            Self::NginxStream => "nginx stream",
        }
    }

    /// The mode, of a way through the balancer that is measured.
    pub(crate) fn mode(self) -> Option<&'static str> {
        match self {
            Self::Nat => Some("nat"),
            Self::Dnat => Some("dnat"),
            Self::L2dsr => Some("l2dsr"),
            Self::Ipip => Some("ipip"),
            Self::Gue => Some("gue"),
            Self::Direct
            | Self::DirectReturn
            | Self::Other(_)
            | Self::Numgen
            | Self::Jhash
            | Self::Haproxy
            | Self::NginxStream => None,
        }
    }

    /// The mode of another balancer that it is compared with.
    pub(crate) fn other_mode(self) -> Option<&'static str> {
        if let Self::Other(mode) = self {
            Some(mode)
        } else {
            None
        }
    }

    /// Whether it is what users would take instead.
    pub(crate) fn is_peer(self) -> bool {
        self.peer().is_some()
    }

    /// Its name in lists and pictures.
    pub(crate) fn short(self) -> &'static str {
        match self.mode() {
            Some(mode) => mode,
            None => self.name(),
        }
    }

    /// The word for `--with`, of a peer.
    fn peer(self) -> Option<&'static str> {
        match self {
            Self::Numgen | Self::Jhash => Some("nftables"),
            Self::Haproxy => Some("haproxy"),
            Self::NginxStream => Some("nginx"),
            Self::Direct
            | Self::DirectReturn
            | Self::Nat
            | Self::Dnat
            | Self::L2dsr
            | Self::Ipip
            | Self::Gue
            | Self::Other(_) => None,
        }
    }

    /// Plain forwarding over the same machines.
    pub(crate) fn reference(self) -> Self {
        match self.shape() {
            Shape::OneArmed => Self::DirectReturn,
            Shape::TwoArmed | Shape::Routed => Self::Direct,
        }
    }

    /// Those that are asked for, with what they are compared with; of a quick run only some of them.
    ///
    /// # Errors
    /// When something is asked for that there is not.
    pub(crate) fn wanted(context: &Context, quick: &[Self]) -> Result<Vec<Self>> {
        let modes: Vec<&str> = Self::ALL.iter().filter_map(|way| way.mode()).collect();
        let mut peers: Vec<&str> = Self::ALL.iter().filter_map(|way| way.peer()).collect();
        peers.dedup();
        context.allow(&modes, &peers)?;
        let wants = |way: &Self| !context.is_quick() || way.other_mode().is_some() || quick.contains(way);
        let wants = |way: &Self| {
            wants(way)
                && match (way.mode().or(way.other_mode()), way.peer()) {
                    (Some(mode), _) => context.wants(mode),
                    (_, Some(peer)) => context.wants_peer(peer),
                    (None, None) => false,
                }
        };
        let mut all = Self::ALL.to_vec();
        if env::var_os(OTHER).is_some() {
            all.extend(modes.iter().copied().map(Self::Other));
        }
        let wanted: Vec<Self> = all.iter().copied().filter(wants).collect();
        let is_in = |way: &Self| wanted.contains(way) || wanted.iter().any(|other| other.reference() == *way);
        Ok(all.into_iter().filter(is_in).collect())
    }

    /// Connections that it can hold at a time on this machine; `None` if only memory bounds them.
    pub(crate) fn most_connections(self) -> Option<usize> {
        match self {
            Self::Haproxy => Some(PROXY_CONNECTIONS),
            Self::NginxStream
            | Self::Direct
            | Self::DirectReturn
            | Self::Nat
            | Self::Dnat
            | Self::L2dsr
            | Self::Ipip
            | Self::Gue
            | Self::Other(_)
            | Self::Numgen
            | Self::Jhash => None,
        }
    }

    /// How its machines are joined.
    pub(crate) fn shape(self) -> Shape {
        match self {
            Self::DirectReturn | Self::L2dsr | Self::Ipip | Self::Gue => Shape::OneArmed,
            Self::Other("l2dsr" | "ipip" | "gue") => Shape::OneArmed,
            Self::Direct
            | Self::Other(_)
            | Self::Nat
            | Self::Dnat
            | Self::Numgen
            | Self::Jhash
            | Self::Haproxy
            | Self::NginxStream => Shape::TwoArmed,
        }
    }
}
