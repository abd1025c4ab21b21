//! Guards: which prefixes a service has in the maps, and in which order they come and go.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use lb_common::{
    addr::NetAddr,
    guard::{ALLOW, DENY, PrefixKey},
    service::{GUARDS_CLIENTS, ServiceId},
};

use super::{Programmed, Step};
use crate::state::guard::{Guard, Prefix};

/// Prefixes of a service with what they say.
type Prefixes = BTreeMap<PrefixKey, u32>;

/// The guards of a plan in the making.
#[derive(Default)]
pub(super) struct Guards {
    wanted: BTreeMap<ServiceId, Prefixes>,
}

impl Guards {
    /// Takes up the guard of a service. Returns the flags of its record.
    pub(super) fn add(&mut self, id: ServiceId, guard: &Guard) -> u16 {
        let prefixes = prefixes(id, guard);
        if prefixes.is_empty() {
            return 0;
        }
        self.wanted.insert(id, prefixes);
        GUARDS_CLIENTS
    }

    /// Writes that come before the services'. The longest prefix first: an address sees what it saw before until the one
    /// that decides from now on is there.
    pub(super) fn writes(&self, programmed: &Programmed) -> Vec<Step> {
        let there = |key: &PrefixKey| programmed.prefixes.get(key);
        let all = self.wanted.values().flatten();
        let mut new: Vec<_> = all.filter(|(key, verdict)| there(key) != Some(verdict)).collect();
        new.sort_by_key(|(key, _)| Reverse(**key));
        let step = |(key, verdict): (&PrefixKey, &u32)| Step::WritePrefix {
            key: *key,
            verdict: *verdict,
        };
        new.into_iter().map(step).collect()
    }

    /// Removals of what no service wants any more, when none looks it up. The shortest prefix first, for the same reason.
    pub(super) fn removals(&self, programmed: &Programmed) -> Vec<Step> {
        let wanted: BTreeSet<&PrefixKey> = self.wanted.values().flat_map(BTreeMap::keys).collect();
        // Keys are in the order of their lengths.
        let there = programmed.prefixes.keys();
        there
            .filter(|key| !wanted.contains(key))
            .map(|key| Step::RemovePrefix { key: *key })
            .collect()
    }
}

/// Where only some clients may send, a prefix of no length denies all others.
fn prefixes(id: ServiceId, guard: &Guard) -> Prefixes {
    let Guard { allow, deny } = guard;
    let everyone = (!allow.is_empty()).then(|| (PrefixKey::new(id, NetAddr::default(), 0), DENY));
    let allowed = allow.iter().map(|prefix| (key(id, prefix), ALLOW));
    let denied = deny.iter().map(|prefix| (key(id, prefix), DENY));
    // A later one replaces an earlier one of the same key.
    everyone.into_iter().chain(allowed).chain(denied).collect()
}

fn key(id: ServiceId, prefix: &Prefix) -> PrefixKey {
    let address = prefix.address();
    let before = if address.is_ipv4() {
        PrefixKey::ADDRESS - u32::BITS
    } else {
        0
    };
    PrefixKey::new(id, address.into(), before + u32::from(prefix.length()))
}

#[cfg(test)]
mod tests;
