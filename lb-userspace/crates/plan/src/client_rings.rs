//! The rings of the clients that go to groups of backends ([`crate::groups`]).
//!
//! Each prefix of such clients has a ring, which it keeps: a change of the group's backends, and a group without any, are changes of
//! that ring's slots, so flows are followed as in any ring ([`crate::transition`]). A prefix that goes to another group continues the
//! ring that its clients had before: so there are as many rings as there are pairs of a ring before and a group. Rings of one group
//! that have become equal are one again at the next plan.

use std::{cmp::Reverse, collections::BTreeMap};

use lb_common::{clients::ClientRing, service::ServiceId};

use crate::{programmed::Programmed, state::guard::Prefix, step::Step};

/// The rings of clients in a plan under construction.
#[derive(Default)]
pub(super) struct ClientRings {
    wanted: BTreeMap<ServiceId, BTreeMap<Prefix, ClientRing>>,
}

impl ClientRings {
    /// Sets the rings of a service's clients.
    pub(super) fn set(&mut self, service: ServiceId, rings: BTreeMap<Prefix, ClientRing>) {
        if !rings.is_empty() {
            self.wanted.insert(service, rings);
        }
    }

    /// Writes before the services'. The longest prefix first: a client keeps its ring until its new prefix is written.
    pub(super) fn writes(&self, programmed: &Programmed) -> Vec<Step> {
        let mut steps = Vec::new();
        for (service, rings) in &self.wanted {
            let there = programmed.clients.get(service);
            let mut new: Vec<_> = rings
                .iter()
                .filter(|(prefix, ring)| there.and_then(|there| there.get(prefix)) != Some(ring))
                .collect();
            new.sort_by_key(|(prefix, _)| Reverse(prefix.length()));
            steps.extend(new.into_iter().map(|(prefix, ring)| Step::WriteClients {
                service: *service,
                prefix: *prefix,
                ring: *ring,
            }));
        }
        steps
    }

    /// Removals, after the services' writes, and before backends die that are in their rings. The shortest prefix first, for the
    /// same reason.
    pub(super) fn removals(&self, programmed: &Programmed) -> Vec<Step> {
        let mut steps = Vec::new();
        for (service, there) in &programmed.clients {
            let wanted = self.wanted.get(service);
            let mut gone: Vec<&Prefix> = there
                .keys()
                .filter(|prefix| !wanted.is_some_and(|wanted| wanted.contains_key(prefix)))
                .collect();
            gone.sort_by_key(|prefix| prefix.length());
            steps.extend(gone.into_iter().map(|prefix| Step::RemoveClients {
                service: *service,
                prefix: *prefix,
            }));
        }
        steps
    }
}
