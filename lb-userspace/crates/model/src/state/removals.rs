//! Changes that remove much at once: they are often accidents, so they have to be confirmed. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    backend::Backend,
    desired::Desired,
    names::ServiceName,
    service::{Service, ServiceKey},
};

/// Services that a message names; more are counted.
const NAMED: usize = 5;

/// What a change may remove.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MayRemove {
    /// Every service, with none in their place.
    pub all: bool,
    /// Every service with others in their place, or more than half of the backends.
    pub most: bool,
}

impl MayRemove {
    /// Anything.
    pub const ANY: Self = Self {
        all: true,
        most: true,
    };
    /// Anything but every service: for a file that takes effect without a command.
    pub const NOT_ALL: Self = Self {
        all: false,
        most: true,
    };
}

/// A removal that has to be confirmed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removals {
    /// Services before.
    services: usize,
    /// Whether all of them go.
    all: bool,
    /// Whether no service comes in their place.
    none_left: bool,
    /// Backends of all services.
    backends: Share,
    /// Services that stay, and lose most of their backends.
    of: Vec<(ServiceName, Share)>,
}

/// How many go of how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Share {
    gone: usize,
    of: usize,
}

impl Share {
    fn is_most(self) -> bool {
        2 * self.gone > self.of
    }
}

impl Removals {
    /// What a change from `old` to `new` removes, if that has to be confirmed: every service; more than half of all backends; more
    /// than half, and at least two, of the backends of a service that stays, or all of them without others in their place. A
    /// service that keeps its name or its address and port stays, and so does a backend that keeps its name or its address.
    pub fn to_confirm(old: &Desired, new: &Desired) -> Option<Self> {
        let by_key: BTreeMap<ServiceKey, &Service> = new
            .services
            .values()
            .map(|service| (service.key, &**service))
            .collect();
        let mut removals = Self {
            services: old.services.len(),
            all: !old.services.is_empty(),
            none_left: new.services.is_empty(),
            backends: Share::default(),
            of: Vec::new(),
        };
        for (name, service) in &old.services {
            let had = service.backends.len();
            removals.backends.of += had;
            let same = new.services.get(name);
            if same.is_some_and(|same| same.is_same(service)) {
                removals.all = false;
                continue;
            }
            let Some(after) = same
                .map(|same| &**same)
                .or_else(|| by_key.get(&service.key).copied())
            else {
                removals.backends.gone += had;
                continue;
            };
            removals.all = false;
            let share = Share {
                gone: gone(&service.backends, &after.backends),
                of: had,
            };
            removals.backends.gone += share.gone;
            let emptied = after.backends.is_empty() && after.hosts.is_empty() && had > 0;
            if emptied || (share.is_most() && share.gone > 1) {
                removals.of.push((name.clone(), share));
            }
        }
        // One backend of one may be exchanged for another.
        let most = removals.backends.is_most() && removals.backends.gone > 1;
        (removals.all || most || !removals.of.is_empty()).then_some(removals)
    }

    /// Whether `may` allows it.
    pub fn allowed(&self, may: MayRemove) -> bool {
        if self.all && self.none_left {
            may.all
        } else {
            may.most
        }
    }
}

/// How many of `old` are not in `new`, neither by name nor by address.
fn gone(old: &[Backend], new: &[Backend]) -> usize {
    let names: BTreeSet<_> = new.iter().map(|backend| &backend.name).collect();
    let addresses: BTreeSet<_> = new.iter().map(|backend| backend.address).collect();
    let stays = |backend: &&Backend| names.contains(&backend.name) || addresses.contains(&backend.address);
    old.len() - old.iter().filter(stays).count()
}

/// What goes, as the rest of a sentence: `3 of 4 backends of web`.
impl fmt::Display for Removals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Share { gone, of } = self.backends;
        if self.all {
            return match self.services {
                1 => write!(f, "the only service, with {}", Counted(gone, "backend")),
                services => write!(f, "all {services} services, with {}", Counted(gone, "backend")),
            };
        }
        // With one service, both are the same.
        let most = self.backends.is_most() && gone > 1 && (self.services > 1 || self.of.is_empty());
        if most {
            write!(f, "{gone} of {of} backends")?;
            if !self.of.is_empty() {
                f.write_str(", among them ")?;
            }
        }
        for (index, (service, Share { gone, of })) in self.of.iter().take(NAMED).enumerate() {
            let before = if index > 0 { ", " } else { "" };
            let backends = if index == 0 && !most { " backends" } else { "" };
            write!(f, "{before}{gone} of {of}{backends} of service {service}")?;
        }
        match self.of.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, ", and those of {more} more services"),
        }
    }
}

struct Counted(usize, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        write!(f, "{count} {what}{}", if *count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::{desired, service};

    fn state(services: &[(&str, u8, &[&str])]) -> Desired {
        desired(services.iter().map(|(name, host, backends)| {
            let backends: Vec<_> = backends.iter().map(|name| (*name, 1)).collect();
            service(name, *host, &backends)
        }))
    }

    /// An accident must be caught, and everyday work must not need a confirmation.
    #[test]
    fn large_removals_have_to_be_confirmed_and_small_ones_not() {
        const FOUR: &[&str] = &["a", "b", "c", "d"];
        let text =
            |old: &Desired, new: &Desired| Removals::to_confirm(old, new).map(|large| large.to_string());
        let web = |backends: &[&str]| state(&[("web", 1, backends)]);
        let two = |web: &[&str], api: &[&str]| state(&[("web", 1, web), ("api", 2, api)]);
        for (old, new, expected) in [
            (web(FOUR), web(FOUR), None),
            (Desired::default(), web(FOUR), None),
            (Desired::default(), Desired::default(), None),
            (
                web(FOUR),
                Desired::default(),
                Some("the only service, with 4 backends"),
            ),
            (
                web(&["a"]),
                Desired::default(),
                Some("the only service, with 1 backend"),
            ),
            (
                two(&["a"], &["b"]),
                Desired::default(),
                Some("all 2 services, with 2 backends"),
            ),
            (
                two(&["a"], &["b"]),
                state(&[("other", 3, &["a"])]),
                Some("all 2 services, with 2 backends"),
            ),
            // Half is not more than half, and half of the services is no more.
            (web(FOUR), web(&["a", "b"]), None),
            (two(&["a"], &["b"]), web(&["a"]), None),
            (web(FOUR), web(&["a"]), Some("3 of 4 backends of service web")),
            (
                two(FOUR, &["x"]),
                two(&["a"], &["x"]),
                Some("3 of 5 backends, among them 3 of 4 of service web"),
            ),
            (
                two(FOUR, FOUR),
                two(&["a"], FOUR),
                Some("3 of 4 backends of service web"),
            ),
            (
                two(FOUR, &["a", "b"]),
                state(&[("api", 2, &["a", "b"])]),
                Some("4 of 6 backends"),
            ),
            // A new name is not a new service.
            (web(FOUR), state(&[("www", 1, FOUR)]), None),
            (web(FOUR), state(&[("web", 9, FOUR)]), None),
            (
                two(FOUR, &["a"]),
                two(FOUR, &[]),
                Some("1 of 1 backends of service api"),
            ),
        ] {
            assert_eq!(text(&old, &new).as_deref(), expected, "{old:?}\n{new:?}");
        }
    }

    #[test]
    fn the_only_backend_may_be_exchanged_and_a_renamed_one_stays() {
        let old = state(&[("web", 1, &["a"])]);
        let mut new = old.clone();
        for service in new.services.values_mut() {
            service.backends[0].name = "z".parse().unwrap();
        }
        assert_eq!(Removals::to_confirm(&old, &new), None);
        for service in new.services.values_mut() {
            service.backends[0].address = "192.0.2.77:80".parse().unwrap();
        }
        assert_eq!(Removals::to_confirm(&old, &new), None);
    }

    #[test]
    fn what_may_go_depends_on_what_is_left() {
        let old = state(&[("web", 1, &["a", "b"])]);
        let empty = Removals::to_confirm(&old, &Desired::default()).unwrap();
        let other = Removals::to_confirm(&old, &state(&[("other", 2, &["a"])])).unwrap();
        let allow_empty = MayRemove {
            all: true,
            most: false,
        };
        for (may, all, most) in [
            (MayRemove::default(), false, false),
            (MayRemove::ANY, true, true),
            (MayRemove::NOT_ALL, false, true),
            (allow_empty, true, false),
        ] {
            assert_eq!((empty.allowed(may), other.allowed(may)), (all, most), "{may:?}");
        }
    }
}
