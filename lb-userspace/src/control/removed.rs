//! Removed backends that finish their flows, and drains that end at a deadline.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use lb_common::service::Mode;

use crate::{
    health::{self, CheckId},
    plan::Target,
    state::{
        desired::Desired,
        endpoints,
        names::{BackendName, ServiceName},
        service::{OnDown, Service, ServiceKey},
        shared::Shared,
        store::Record,
        words::Word,
    },
};

/// Interval of counting the flows of removed backends.
pub const FLOW_POLL: Duration = Duration::from_secs(1);

/// A backend that the operator removed. It takes no new flows, and is dropped after its last flow, or at a deadline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemovedBackend {
    /// Its service.
    pub service: ServiceName,
    /// Address, port and protocol of the service.
    pub key: ServiceKey,
    /// The name it had.
    pub name: BackendName,
    /// Where its flows go.
    pub address: SocketAddr,
    /// How they get there.
    pub mode: Mode,
    /// When it is dropped even with flows.
    pub until: Instant,
    /// When it stopped taking new flows.
    since: Instant,
    /// Since when it is down.
    pub down_since: Option<Instant>,
}

/// The backends that begin to drain when `new` replaces `old`: `programmed` keeps their flows, and `new` lacks them but
/// has their service. `at_once` is a backend that the operator removes without waiting.
pub fn removed(
    old: &Desired,
    new: &Desired,
    programmed: &Target,
    at_once: Option<(&ServiceName, &BackendName)>,
    now: Instant,
) -> Vec<RemovedBackend> {
    let mut gone = Vec::new();
    let by_key: BTreeMap<ServiceKey, _> = new.services.values().map(|new| (new.key, new)).collect();
    for (service, old) in &old.services {
        let Some(kept) = by_key.get(&old.key).filter(|kept| !kept.is_same(old)) else {
            continue;
        };
        let kept: BTreeSet<SocketAddr> = kept.backends.iter().map(|backend| backend.address).collect();
        let Some(programmed) = programmed.services.get(&old.key) else {
            continue;
        };
        for backend in &old.backends {
            let there = programmed
                .backends
                .get(&backend.address)
                .filter(|there| there.alive);
            let Some(there) = there else { continue };
            if !kept.contains(&backend.address) && at_once != Some((service, &backend.name)) {
                gone.push(RemovedBackend {
                    service: service.clone(),
                    key: old.key,
                    name: backend.name.clone(),
                    address: backend.address,
                    mode: there.mode,
                    until: now + new.settings.transition,
                    since: now,
                    down_since: None,
                });
            }
        }
    }
    gone
}

impl RemovedBackend {
    /// A removed backend found in the maps of an earlier daemon, without its name: the address replaces it, and its
    /// time starts over.
    pub fn found(
        service: ServiceName,
        key: ServiceKey,
        address: SocketAddr,
        mode: Mode,
        transition: Duration,
        now: Instant,
    ) -> Option<Self> {
        Some(Self {
            service,
            key,
            name: stand_in(address)?,
            address,
            mode,
            until: now + transition,
            since: now,
            down_since: None,
        })
    }

    /// The service that it was removed from, as it is desired now.
    pub fn service_in<'a>(&self, desired: &'a Desired) -> Option<&'a Service> {
        let mut services = desired.services.values();
        services
            .find(|service| service.key == self.key)
            .map(|service| &**service)
    }

    /// The id of its checks, made from its address, since another backend may have its name by now.
    pub fn check_id(&self) -> Option<CheckId> {
        Some(CheckId(self.service.clone(), stand_in(self.address)?))
    }

    /// The same with the name and time that an earlier daemon stored; `None` if its time is over by `wall`.
    #[must_use]
    pub fn recalled(self, record: &Record, now: Instant, wall: SystemTime) -> Option<Self> {
        let Record::Removed { backend, until, .. } = record else {
            return Some(self);
        };
        let left = health::wall(*until)
            .duration_since(wall)
            .ok()
            .filter(|left| !left.is_zero())?;
        Some(Self {
            name: backend.parse().unwrap_or(self.name),
            until: self.until.min(now + left),
            ..self
        })
    }

    /// The record for the next daemon.
    pub fn record(&self, now: Instant, wall: SystemTime) -> Record {
        let left = self.until.saturating_duration_since(now);
        removed_record(self.key, &self.name, self.address, wall + left)
    }

    /// Whether `desired` has a backend at the address again, or lacks the service. In mode `dnat` also whether another
    /// service has the address now, since its replies belong to that service.
    pub fn overtaken(&self, desired: &Desired) -> bool {
        if self.mode == Mode::Dnat && endpoints::is_of_another(desired, self.key, self.address) {
            return true;
        }
        let is_there = |service: &&Shared<Service>| service.key == self.key;
        let service = desired.services.get(&self.service).filter(is_there);
        let service = service.or_else(|| desired.services.values().find(is_there));
        service.is_none_or(|service| {
            service
                .backends
                .iter()
                .any(|backend| backend.address == self.address)
        })
    }

    /// Whether it is down for so long that its service moves the flows of such a backend.
    pub fn is_dead(&self, desired: &Desired, now: Instant) -> bool {
        let service = self.service_in(desired);
        let patience = service.filter(|service| service.on_down == OnDown::Move);
        let patience = patience.map(|service| service.on_down_after);
        let down_for = self.down_since.map(|since| now.saturating_duration_since(since));
        down_for
            .zip(patience)
            .is_some_and(|(down, patience)| down >= patience)
    }

    /// Whether it can be dropped: its time is over, or a count that began after its last new flow found none. Modes
    /// without translation record only some flows, so there a count of zero proves nothing.
    pub fn finished(&self, active_flows: u64, counted_at: Option<Instant>, now: Instant) -> bool {
        let counted = self.mode == Mode::Nat && counted_at.is_some_and(|at| at > self.since);
        now >= self.until || (active_flows == 0 && counted)
    }
}

/// A name made of an address.
fn stand_in(address: SocketAddr) -> Option<BackendName> {
    let name = address.to_string().replace(['[', ']'], "").replace(':', "-");
    name.parse().ok()
}

/// A record about a removed backend that is dropped at `until`.
pub fn removed_record(key: ServiceKey, name: &BackendName, target: SocketAddr, until: SystemTime) -> Record {
    Record::Removed {
        service: key.endpoint(),
        protocol: key.protocol.word().to_owned(),
        backend: name.to_string(),
        target,
        until: health::millis(until),
    }
}

/// Whether a record is about the backend at `address` of the service at `key`.
pub fn is_about(record: &Record, key: ServiceKey, address: SocketAddr) -> bool {
    match record {
        Record::Removed {
            service,
            protocol,
            backend: _,
            target,
            until: _,
        } => *service == key.endpoint() && protocol == key.protocol.word() && *target == address,
        Record::Check { .. } | Record::Report { .. } | Record::Agent { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    #[test]
    fn only_a_count_after_the_removal_releases_a_backend() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let key = ServiceKey::new(
            "192.0.2.1".parse().unwrap(),
            80,
            crate::state::service::Protocol::Tcp,
        );
        let new = |mode| {
            RemovedBackend::found(
                "web".parse().unwrap(),
                key,
                "[2001:db8::1]:80".parse().unwrap(),
                mode,
                Duration::from_secs(600),
                at(10),
            )
            .unwrap()
        };
        assert_eq!(new(Mode::Nat).name.as_str(), "2001-db8--1-80");
        // (mode, flows, count began at, now, finished)
        for (mode, flows, counted, now, finished) in [
            (Mode::Nat, 0, None, 11, false),
            (Mode::Nat, 0, Some(9), 11, false),
            (Mode::Nat, 1, Some(16), 17, false),
            (Mode::Nat, 0, Some(21), 22, true),
            (Mode::Nat, 7, Some(600), 610, true),
            (Mode::Ipip, 0, Some(21), 609, false),
            (Mode::Ipip, 0, Some(21), 610, true),
        ] {
            assert_eq!(
                new(mode).finished(flows, counted.map(at), at(now)),
                finished,
                "at {now}"
            );
        }
    }

    /// Mode of the removed backend, the other service's mode, and the port of its backend at the same address.
    #[test]
    fn replies_of_a_removed_backend_are_not_another_services() {
        for (mode, others, port, gone) in [
            (Mode::Dnat, Mode::Dnat, 80, true),
            (Mode::Dnat, Mode::Dnat, 0, true),
            (Mode::Dnat, Mode::Dnat, 81, false),
            (Mode::Dnat, Mode::Nat, 80, false),
            (Mode::Nat, Mode::Dnat, 80, false),
        ] {
            let own = testing::service("web", 1, &[("a", 1)]);
            let mut other = testing::service("api", 2, &[("b", 1)]);
            other.mode = others;
            other.backends[0].address = ([10, 9, 9, 9], port).into();
            let lingering = RemovedBackend::found(
                own.name.clone(),
                own.key,
                ([10, 9, 9, 9], 80).into(),
                mode,
                Duration::from_secs(600),
                Instant::now(),
            );
            let overtaken = lingering.unwrap().overtaken(&testing::desired([own, other]));
            assert_eq!(overtaken, gone, "{mode:?}, {others:?} at port {port}");
        }
    }
}
