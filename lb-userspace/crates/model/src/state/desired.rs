//! The whole desired state and its revision.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive, time::Duration};

use lb_common::tunnel::GUE_PORT;

use super::{
    guard::Prefix,
    names::ServiceName,
    quic::{Fingerprint, QuicKey},
    service::Service,
    shared::Shared,
};

/// Number of a desired state; each change makes the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Revision(pub u64);

/// Settings of the `[lb]` table that a running daemon can change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Source addresses of mode `nat`; empty: the address the kernel's route to the backend prefers.
    pub snat_addresses: Vec<IpAddr>,
    /// Source ports of mode `nat`.
    pub snat_ports: RangeInclusive<u16>,
    /// Prefixes, one of a family at most, from which each flow has its source address in outer headers of tunnels; none: the
    /// address that the kernel's route to the backend prefers.
    pub tunnel_sources: Vec<Prefix>,
    /// UDP destination port of mode `gue`.
    pub gue_port: u16,
    /// Balancers whose tunnels end at this machine.
    pub decap_from: Vec<Prefix>,
    /// How long a changed slot remembers its previous owner, and a removed backend keeps its flows.
    pub transition: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            snat_addresses: Vec::new(),
            snat_ports: 1024..=32767,
            tunnel_sources: Vec::new(),
            gue_port: GUE_PORT,
            decap_from: Vec::new(),
            transition: Duration::from_secs(600),
        }
    }
}

/// The operator's settings and services.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Desired {
    /// Revision of this content.
    pub revision: Revision,
    /// Daemon-wide settings.
    pub settings: Settings,
    /// Services by name.
    pub services: BTreeMap<ServiceName, Shared<Service>>,
}

impl Desired {
    /// The QUIC key with this fingerprint, if a service has it.
    pub fn quic_key(&self, fingerprint: Fingerprint) -> Option<QuicKey> {
        let configs = self.services.values().flat_map(|service| &service.quic);
        let mut keys = configs.filter_map(|config| config.key);
        keys.find(|key| key.fingerprint() == fingerprint)
    }
}
