//! Guards: which prefixes a service has in the maps, and in which order they come and go.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use lb_common::{
    addr::{NetAddr, NetV6},
    budget::Budget,
    guard::{ALLOW, DENY, FlowGuard, PrefixKey},
    service::{GUARDS_CLIENTS, GUARDS_FLOWS, ServiceId},
};

use crate::{
    programmed::Programmed,
    state::guard::{Guard, Prefix, Rate},
    step::Step,
};

/// Prefixes of a service with their verdicts.
type Prefixes = BTreeMap<PrefixKey, u32>;

/// ACLs and rate limits of a plan under construction.
#[derive(Default)]
pub(super) struct Guards {
    wanted: BTreeMap<ServiceId, Prefixes>,
    flows: BTreeMap<ServiceId, FlowGuard>,
}

impl Guards {
    /// Adds ACLs and rate limits of the service at `vip`. Returns the flags of its record.
    pub(super) fn add(&mut self, id: ServiceId, vip: IpAddr, guard: &Guard) -> u16 {
        let (prefixes, flows) = (prefixes(id, guard), flow_guard(vip, guard));
        let mut flags = 0;
        if !prefixes.is_empty() {
            self.wanted.insert(id, prefixes);
            flags |= GUARDS_CLIENTS;
        }
        if flows.all != Budget::NONE || flows.of_source != Budget::NONE {
            self.flows.insert(id, flows);
            flags |= GUARDS_FLOWS;
        }
        flags
    }

    /// Writes before the services'. The longest prefix first: an address keeps its old verdict until its new prefix is
    /// written.
    pub(super) fn writes(&self, programmed: &Programmed) -> Vec<Step> {
        let there = |key: &PrefixKey| programmed.prefixes.get(key);
        let all = self.wanted.values().flatten();
        let mut new: Vec<_> = all.filter(|(key, verdict)| there(key) != Some(verdict)).collect();
        new.sort_by_key(|(key, _)| Reverse(**key));
        let step = |(key, verdict): (&PrefixKey, &u32)| Step::WritePrefix {
            key: *key,
            verdict: *verdict,
        };
        let prefixes = new.into_iter().map(step);
        // Budgets of services without limits stay, unused.
        let flows = self
            .flows
            .iter()
            .filter(|(id, guard)| programmed.flow_guards.get(id) != Some(guard))
            .map(|(id, guard)| Step::WriteFlowGuard {
                service: *id,
                guard: *guard,
            });
        prefixes.chain(flows).collect()
    }

    /// Removals of unused prefixes, after the services' writes. The shortest prefix first, for the same reason.
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
    let Guard { allow, deny, .. } = guard;
    let everyone = (!allow.is_empty()).then(|| (PrefixKey::new(id, NetAddr::default(), 0), DENY));
    let allowed = allow.iter().map(|prefix| (key(id, prefix), ALLOW));
    let denied = deny.iter().map(|prefix| (key(id, prefix), DENY));
    // A later one replaces an earlier one of the same key.
    everyone.into_iter().chain(allowed).chain(denied).collect()
}

fn flow_guard(vip: IpAddr, guard: &Guard) -> FlowGuard {
    let Guard {
        allow: _,
        deny: _,
        new_flows,
        source_new_flows,
        source_bits: _,
    } = guard;
    let budget = |Rate { per_second, burst }: &Rate| {
        Budget::new(*per_second, if *burst == 0 { *per_second } else { *burst })
    };
    let bits = guard.source_bits(vip);
    let ones = |most: u8| {
        u128::MAX
            .checked_shl(u32::from(most.saturating_sub(bits)))
            .unwrap_or(0)
    };
    let mask = match vip {
        // All bits before the address are the same for every IPv4 client.
        IpAddr::V4(_) => ones(32),
        IpAddr::V6(_) => ones(128),
    };
    FlowGuard {
        all: budget(new_flows),
        of_source: budget(source_new_flows),
        source_mask: NetAddr(NetV6::from(Ipv6Addr::from_bits(mask)).0),
        pad: [0; 2],
    }
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
