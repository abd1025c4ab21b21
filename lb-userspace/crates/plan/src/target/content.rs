//! The content of a target: the effective state, reduced to the parts that the data plane needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use lb_common::{
    backend::TENTHS,
    decap::EndKey,
    flow::IdleTimeouts,
    quic::{Config, ServerKey},
    service::Mode,
};
use lb_model::state::{
    guard::{Guard, Prefix},
    service::{Affinity, Algorithm, OnEmpty, ServiceKey, Tracking},
    shared::Shared,
};

use crate::{
    groups::{Group, TakenBy, longest},
    ring::Share,
};

/// The state to program: the effective state, reduced to the parts that the data plane needs.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// Source NAT addresses; empty: each backend's route decides.
    pub snat_addresses: Vec<IpAddr>,
    /// Source NAT ports.
    pub snat_ports: RangeInclusive<u16>,
    /// UDP port of GUE packets.
    pub gue_port: u16,
    /// The tunnels that end at this machine: prefixes that they come from, and addresses at which they end.
    pub tunnel_ends: BTreeSet<EndKey>,
    /// How long a changed slot remembers its owner before.
    pub transition: Duration,
    /// Services by address, port and protocol.
    pub services: BTreeMap<ServiceKey, Shared<TargetService>>,
}

impl Target {
    /// Shares services that are equal in another target, so that comparing pointers suffices to see that they need no
    /// work.
    pub fn share_with(&mut self, other: &Self) {
        for (key, service) in &mut self.services {
            if let Some(there) = other.services.get(key).filter(|there| *there == service) {
                *service = there.clone();
            }
        }
    }
}

/// A service that should be programmed.
#[derive(Clone, PartialEq, Debug)]
pub struct TargetService {
    /// Its further ports.
    pub more_ports: Vec<u16>,
    /// Mode of backends without their own.
    pub mode: Mode,
    /// `All` is already resolved into the backends' weights.
    pub on_empty: OnEmpty,
    /// How new flows choose.
    pub algorithm: Algorithm,
    /// The part of a tuple that selects the backend.
    pub affinity: Affinity,
    /// Which flows are recorded.
    pub tracking: Tracking,
    /// When idle flows are forgotten.
    pub idle: IdleTimeouts,
    /// Its ACLs and rate limits.
    pub guard: Guard,
    /// Slots of the ring.
    pub ring_size: u32,
    /// Whether it has every port of an address of this machine, so that packets for the machine's own sockets pass.
    pub shares_address: bool,
    /// How connection ids of QUIC name its backends, if they do.
    pub quic: Option<TargetQuic>,
    /// Clients of its family that go to groups of its backends.
    pub clients: BTreeMap<Prefix, Group>,
    /// Backends by address.
    pub backends: BTreeMap<SocketAddr, TargetBackend>,
}

impl TargetService {
    /// Whether its slots must remember previous owners: some backend gets packets without a record in mode `nat`'s
    /// table. Slots taken in turn need not, since they say nothing about a flow.
    pub fn remembers(&self) -> bool {
        self.algorithm == Algorithm::Maglev && self.records()
    }

    /// Whether flows are recorded for it, other than mode `nat`'s.
    pub fn records(&self) -> bool {
        self.backends.values().any(|backend| backend.mode != Mode::Nat)
    }

    /// Shares of slots of its backends, in their order. Not their weights in force, of which small ones have no tenths.
    pub fn shares(&self) -> impl Iterator<Item = u32> {
        let rising = self.backends.values().any(|backend| backend.held_back > 0);
        self.backends.values().map(move |backend| match rising {
            true => backend.weight * u32::from(backend.tenths()),
            false => backend.weight,
        })
    }

    /// Whether all of them are recorded, not only flows in changing slots.
    pub fn records_all(&self) -> bool {
        self.records() && self.tracking == Tracking::Full
    }
}

/// A backend that should be programmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TargetBackend {
    /// How packets reach it.
    pub mode: Mode,
    /// Effective weight; 0: no new flows.
    pub weight: u32,
    /// Whether its recorded flows still go to it. A backend that takes new flows is always alive.
    pub alive: bool,
    /// Tenths of the weight that a slow start holds back; fewer than [`TENTHS`].
    pub held_back: u8,
    /// Where its tunnel's outer sources lie, if each flow has its own.
    pub tunnel_source: Option<Prefix>,
    /// The group that it is of.
    pub group: Group,
}

impl TargetBackend {
    /// The weight in force, slow start included: 0 only where the weight is.
    pub fn weight_in_force(&self) -> u32 {
        (self.weight * u32::from(self.tenths())).div_ceil(u32::from(TENTHS))
    }

    /// Tenths of its weight that it has.
    pub const fn tenths(&self) -> u8 {
        TENTHS.saturating_sub(self.held_back)
    }
}

/// Connection ids that should name backends of a service.
#[derive(Clone, PartialEq, Debug)]
pub struct TargetQuic {
    /// How they are read, in the order of the configuration ids.
    pub configs: Vec<Config>,
    /// The server ids of a backend, by its address; for service 0, since the planner assigns the numbers. A backend
    /// that is not here keeps its connections and its ids.
    pub servers: BTreeMap<SocketAddr, Vec<ServerKey>>,
}

impl TargetService {
    /// The backends that take the new flows of a group's clients.
    pub fn taken_by(&self, group: Group) -> TakenBy {
        let backends = self.backends.values();
        TakenBy::of(group, backends.map(|backend| (backend.group, backend.weight > 0)))
    }

    /// The shares of all backends, `shares`, in the ring of a group's clients.
    pub(crate) fn shares_of(&self, group: Group, shares: &[Share]) -> Vec<Share> {
        let taken_by = self.taken_by(group);
        let with_groups = shares.iter().zip(self.backends.values());
        let share = |(share, backend): (&Share, &TargetBackend)| Share {
            identity: share.identity,
            weight: if taken_by.includes(group, backend.group) {
                share.weight
            } else {
                0
            },
        };
        with_groups.map(share).collect()
    }

    /// The group of the clients of a prefix: that of the longest prefix around it.
    pub(crate) fn group_of(&self, prefix: &Prefix) -> Group {
        longest(&self.clients, prefix).copied().unwrap_or_default()
    }
}
