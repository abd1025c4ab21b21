//! Problems of a desired state, and their places.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use crate::{duration::text, state::guard::Prefix};

/// Position of a problem. `service` is an index into the list that was checked, `backend` one into the service's list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A key of the `[lb]` table.
    Settings(&'static str),
    /// A key of a service.
    Service(usize, &'static str),
    /// A key of a service's health table.
    Health(usize, &'static str),
    /// A key of a service's agent table.
    Agent(usize, &'static str),
    /// A key of a service's guard table.
    Guard(usize, &'static str),
    /// A key of one of a service's tables of clients.
    Clients(usize, usize, &'static str),
    /// A key of one of a service's QUIC tables.
    Quic(usize, usize, &'static str),
    /// A key of a backend.
    Backend(usize, usize, &'static str),
    /// A key of a host name that stands for backends.
    Host(usize, usize, &'static str),
}

/// Whether a problem is in a value itself or between two things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProblemKind {
    /// Another thing has the value already.
    Conflict,
    /// The value cannot work.
    Invalid,
}

/// A part of a desired state that cannot work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Its position.
    pub place: Place,
    /// Its kind.
    pub kind: ProblemKind,
    /// The problem and its reason.
    pub what: String,
    /// The remedy.
    pub hint: Option<String>,
}

/// Longest duration in settings other than checks.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Why packets cannot be sent to, or received for, an address; `None` if they can.
pub fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("is the unspecified address"),
        _ if address.is_multicast() => Some("is a multicast address"),
        _ if address.is_loopback() => Some("is a loopback address, which no packet on a network carries"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("is an IPv4 address written as IPv6"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// As [`unusable`], of any address of a prefix.
pub(super) fn unusable_prefix(prefix: Prefix) -> Option<&'static str> {
    if prefix.free_bits() == 0 {
        return unusable(prefix.address());
    }
    let special = [
        (IpAddr::from([0, 0, 0, 0]), 8, "has addresses of \"this network\""),
        (IpAddr::from([127, 0, 0, 0]), 8, "has loopback addresses"),
        (IpAddr::from([224, 0, 0, 0]), 4, "has multicast addresses"),
        (IpAddr::from([255; 4]), 32, "has the broadcast address"),
        (IpAddr::from([0_u16; 8]), 127, "has the unspecified address"),
        (
            IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]),
            8,
            "has multicast addresses",
        ),
        (
            IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0, 0]),
            96,
            "has IPv4 addresses written as IPv6",
        ),
    ];
    let found = special
        .into_iter()
        .find(|(address, length, _)| prefix.overlaps(Prefix::around(*address, *length)));
    found.map(|(_, _, why)| why)
}

#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
}

impl Findings {
    pub(super) fn invalid(&mut self, place: Place, what: impl Into<String>, hint: impl Into<String>) {
        self.push(ProblemKind::Invalid, place, what, hint);
    }

    pub(super) fn conflict(&mut self, place: Place, what: impl Into<String>, hint: impl Into<String>) {
        self.push(ProblemKind::Conflict, place, what, hint);
    }

    /// An empty text means no hint.
    pub(super) fn push(
        &mut self,
        kind: ProblemKind,
        place: Place,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self.problems.push(Problem {
            place,
            kind,
            what: what.into(),
            hint,
        });
    }

    pub(super) fn duration(
        &mut self,
        place: Place,
        key: &str,
        value: Duration,
        range: RangeInclusive<Duration>,
    ) {
        if !range.contains(&value) {
            let what = format!(
                "{key} {} is not between {} and {}",
                text(value),
                text(*range.start()),
                text(*range.end())
            );
            self.invalid(place, what, "");
        }
    }
}
