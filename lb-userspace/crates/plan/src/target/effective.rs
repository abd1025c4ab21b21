//! From desired state and health to the target.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    backend::MAX_SOURCE_BITS,
    decap::{EndKey, MAX_ENTRIES, V4, V6},
    quic::Config,
    service::{Mode, ServiceId},
};

use super::{
    backend::{Admin, Backend},
    content::{Target, TargetBackend, TargetQuic, TargetService},
    desired::{Desired, Settings},
    guard::Prefix,
    names::GroupName,
    quic::QuicSettings,
    service::{OnDown, OnEmpty, RingSize, Service, ServiceKey},
    shared::Shared,
};
use crate::{
    groups::Group,
    health::{CheckId, Health},
    ring,
};

/// The verdicts of checks. A backend that is not in it is unchecked.
pub type HealthView = BTreeMap<CheckId, Health>;

/// Backends that were removed and still finish their flows, with their mode, by the service they belonged to.
pub type RemovedBackends = BTreeMap<(ServiceKey, SocketAddr), Mode>;

/// Addresses of backends to which the program cannot send anything.
pub type Blocked = BTreeSet<IpAddr>;

/// As [`target_without`], where every backend can be reached.
pub fn target(desired: &Desired, health: &HealthView, lingering: &RemovedBackends) -> Target {
    target_without(desired, health, lingering, &Blocked::new())
}

/// The target. A backend takes new flows with its weight if it is enabled and not down; an unchecked one counts as not
/// down. Its recorded flows stay with it unless it is disabled, or down in a service whose `on_down` is `move`. If no
/// backend of a service takes new flows, `on_empty = "all"` lets all enabled backends take them with any health state.
/// A `blocked` backend never takes new flows; its recorded flows stay, and continue once it can be reached again. A
/// removed backend (`lingering`) keeps its flows, unless the service has a backend at its address again.
pub fn target_without(
    desired: &Desired,
    health: &HealthView,
    lingering: &RemovedBackends,
    blocked: &Blocked,
) -> Target {
    let mut services: BTreeMap<ServiceKey, Shared<TargetService>> = desired
        .services
        .values()
        .map(|service| {
            (
                service.key,
                target_service(&desired.settings, service, health, blocked).into(),
            )
        })
        .collect();
    for ((key, address), mode) in lingering {
        if let Some(service) = services.get_mut(key) {
            let finishing = TargetBackend {
                mode: *mode,
                weight: 0,
                alive: true,
                held_back: 0,
                tunnel_source: tunnel_source(&desired.settings, *mode, *address),
                group: Group::GENERAL,
            };
            service.backends.entry(*address).or_insert(finishing);
        }
    }
    Target {
        snat_addresses: desired.settings.snat_addresses.clone(),
        snat_ports: desired.settings.snat_ports.clone(),
        gue_port: desired.settings.gue_port,
        tunnel_ends: BTreeSet::new(),
        transition: desired.settings.transition,
        services,
    }
}

/// Takes new flows from backends; their established flows stay with them.
pub fn hold(target: &mut Target, held: &[(ServiceKey, SocketAddr)]) {
    for (key, address) in held {
        let service = target.services.get_mut(key);
        if let Some(there) = service.and_then(|service| service.backends.get_mut(address)) {
            there.weight = 0;
        }
    }
}

/// Flags services on every port of an address of this machine (`is_own`, of a prefix), so that packets for its own sockets pass.
pub fn share_addresses(target: &mut Target, is_own: impl Fn(&Prefix) -> bool) {
    for (key, service) in &mut target.services {
        if key.port == 0 && is_own(&key.prefix()) {
            service.shares_address = true;
        }
    }
}

/// Has tunnels from these balancers end at this machine's `own` addresses.
pub fn end_tunnels(target: &mut Target, from: &[Prefix], own: &BTreeSet<IpAddr>) {
    if from.is_empty() {
        return;
    }
    let key = |kind, prefix: Prefix| {
        let most = Prefix::most(prefix.address());
        let before = EndKey::ADDRESS - u32::from(most);
        EndKey::new(kind, prefix.address().into(), before + u32::from(prefix.length()))
    };
    let sources = from.iter().map(|prefix| {
        let kind = if prefix.address().is_ipv4() { V4 } else { V6 };
        key(kind, *prefix)
    });
    let ends = own.iter().take(MAX_ENTRIES as usize).map(|address| {
        let whole = Prefix::around(*address, Prefix::most(*address));
        key(EndKey::END, whole)
    });
    target.tunnel_ends = sources.chain(ends).collect();
}

/// The verdict about a backend.
pub fn health_of(service: &Service, backend: &Backend, health: &HealthView) -> Health {
    if health.is_empty() {
        return Health::Unchecked;
    }
    let id = CheckId(service.name.clone(), backend.name.clone());
    health.get(&id).copied().unwrap_or(Health::Unchecked)
}

/// How connection ids name the backends of a service, if they do.
fn quic(service: &Service) -> Option<TargetQuic> {
    let configs: Vec<_> = service.quic.iter().filter_map(QuicSettings::config).collect();
    let keys = |backend: &Backend| {
        let of_config = |config: &Config| {
            let ids = backend.server_ids.iter();
            let keys = ids.filter_map(|id| config.key_of(ServiceId::default(), id.as_bytes()));
            keys.collect::<Vec<_>>()
        };
        (backend.address, configs.iter().flat_map(of_config).collect())
    };
    let servers = service.backends.iter().map(keys).collect();
    (!configs.is_empty()).then_some(TargetQuic { configs, servers })
}

/// The prefix of outer sources of a backend that is reached by a tunnel. Only bits that a flow's hash fills are free.
fn tunnel_source(settings: &Settings, mode: Mode, backend: SocketAddr) -> Option<Prefix> {
    if !matches!(mode, Mode::Ipip | Mode::Gue) {
        return None;
    }
    let mut sources = settings.tunnel_sources.iter();
    let prefix = sources.find(|prefix| prefix.address().is_ipv4() == backend.is_ipv4())?;
    let least = Prefix::most(prefix.address()).saturating_sub(MAX_SOURCE_BITS);
    Some(Prefix::around(prefix.address(), prefix.length().max(least)))
}

/// The number of a group among those that tables of clients name, in their order.
pub fn group(service: &Service, name: Option<&GroupName>) -> Group {
    let place = service
        .clients
        .iter()
        .position(|clients| Some(&clients.group) == name);
    let number = place.and_then(|place| u16::try_from(place + 1).ok());
    number.map_or(Group::GENERAL, Group)
}

fn target_service(
    settings: &Settings,
    service: &Service,
    health: &HealthView,
    blocked: &Blocked,
) -> TargetService {
    let judged: Vec<(&Backend, Health)> = service
        .backends
        .iter()
        .map(|backend| (backend, health_of(service, backend, health)))
        .collect();
    let takes_flows = |backend: &Backend, health| match (backend.admin, health) {
        (Admin::Enabled, Health::Up | Health::Unchecked) => {
            backend.weight > 0 && !blocked.contains(&backend.address.ip())
        }
        (Admin::Enabled, Health::Down) | (Admin::Draining | Admin::Disabled, _) => false,
    };
    let empty = !judged
        .iter()
        .any(|(backend, health)| takes_flows(backend, *health));
    let ignore_health = empty && service.on_empty == OnEmpty::All;
    let backends = judged.into_iter().map(|(backend, health)| {
        let health = if ignore_health { Health::Unchecked } else { health };
        let alive = match (backend.admin, health) {
            (Admin::Disabled, _) => false,
            (Admin::Enabled | Admin::Draining, Health::Down) => service.on_down == OnDown::Keep,
            (Admin::Enabled | Admin::Draining, Health::Up | Health::Unchecked) => true,
        };
        let weight = if takes_flows(backend, health) {
            u32::from(backend.weight)
        } else {
            0
        };
        let mode = backend.mode.unwrap_or(service.mode);
        let there = TargetBackend {
            mode,
            weight,
            alive,
            held_back: 0,
            tunnel_source: tunnel_source(settings, mode, backend.address),
            group: group(service, backend.group.as_ref()),
        };
        (backend.address, there)
    });
    let quic = quic(service);
    let clients = service.clients.iter().flat_map(|clients| {
        let group = group(service, Some(&clients.group));
        clients.from.iter().map(move |prefix| (*prefix, group))
    });
    // A service has clients of its own family alone.
    let clients = clients.filter(|(prefix, _)| prefix.address().is_ipv4() == service.key.address.is_ipv4());
    TargetService {
        clients: clients.collect(),
        more_ports: service.more_ports().collect(),
        shares_address: false,
        quic,
        mode: service.mode,
        on_empty: service.on_empty,
        algorithm: service.algorithm,
        affinity: service.affinity,
        tracking: service.tracking,
        idle: service.idle.in_force(service.key.protocol),
        guard: service.guard.clone(),
        ring_size: match service.ring_size {
            RingSize::Auto => ring::auto_size(service.backends.len(), None),
            RingSize::Slots(size) => size,
        },
        backends: backends.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    /// Admin, health, weight and policies of one backend beside a healthy one: effective weight and alive.
    #[test]
    fn admin_and_health_decide_together() {
        use Admin::{Disabled, Draining, Enabled};
        use Health::{Down, Unchecked, Up};
        for (admin, health, weight, on_down, expected) in [
            (Enabled, Up, 7, OnDown::Move, (7, true)),
            (Enabled, Unchecked, 7, OnDown::Move, (7, true)),
            (Enabled, Down, 7, OnDown::Move, (0, false)),
            (Enabled, Down, 7, OnDown::Keep, (0, true)),
            (Enabled, Up, 0, OnDown::Move, (0, true)),
            (Draining, Up, 7, OnDown::Move, (0, true)),
            (Draining, Down, 7, OnDown::Move, (0, false)),
            (Draining, Down, 7, OnDown::Keep, (0, true)),
            (Disabled, Up, 7, OnDown::Keep, (0, false)),
        ] {
            let mut service = testing::service("web", 1, &[("a", 1), ("b", 1)]);
            service.on_down = on_down;
            service.backends[0].admin = admin;
            service.backends[0].weight = weight;
            let view = HealthView::from([(testing::id("web", "a"), health), (testing::id("web", "b"), Up)]);
            let target = target_service(&Settings::default(), &service, &view, &Blocked::new());
            let got = target.backends[&service.backends[0].address];
            assert_eq!(
                (got.weight, got.alive),
                expected,
                "{admin:?} {health:?} {weight} {on_down:?}"
            );
            assert!(target.backends[&service.backends[1].address].alive);
        }
    }

    /// The kernel compares the kind and as many bits of the address, of which IPv4 has 96 more in front.
    #[test]
    fn tunnels_end_at_own_addresses_and_come_from_prefixes_of_their_family() {
        let desired = testing::desired([]);
        let mut target = target_without(
            &desired,
            &HealthView::new(),
            &RemovedBackends::new(),
            &Blocked::new(),
        );
        let own = ["10.0.0.9", "2001:db8::9"].map(|address| address.parse().unwrap());
        end_tunnels(&mut target, &[], &BTreeSet::from(own));
        assert!(target.tunnel_ends.is_empty(), "no tunnel is expected");
        let from = ["10.0.0.0/30", "2001:db8::/64"].map(|prefix| prefix.parse().unwrap());
        end_tunnels(&mut target, &from, &BTreeSet::from(own));
        let ends = target
            .tunnel_ends
            .into_iter()
            .map(|key| (key.kind, key.bits, key.address));
        let address = |text: &str| text.parse::<IpAddr>().unwrap().into();
        assert_eq!(
            ends.collect::<BTreeSet<_>>(),
            BTreeSet::from([
                (4, 32 + 96 + 30, address("10.0.0.0")),
                (6, 32 + 64, address("2001:db8::")),
                (1, 32 + 128, address("10.0.0.9")),
                (1, 32 + 128, address("2001:db8::9")),
            ])
        );
    }

    #[test]
    fn on_empty_all_uses_enabled_backends_of_any_health() {
        let mut service = testing::service("web", 1, &[("a", 3), ("b", 4), ("c", 5)]);
        service.backends[2].admin = Admin::Disabled;
        let down = |names: &[&str]| -> HealthView {
            names
                .iter()
                .map(|name| (testing::id("web", name), Health::Down))
                .collect()
        };
        let weights = |service: &Service, view: &HealthView| -> Vec<u32> {
            let target = target_service(&Settings::default(), service, view, &Blocked::new());
            service
                .backends
                .iter()
                .map(|backend| target.backends[&backend.address].weight)
                .collect()
        };
        for (policy, view, expected) in [
            (OnEmpty::Drop, down(&["a", "b"]), [0, 0, 0]),
            (OnEmpty::All, down(&["a", "b"]), [3, 4, 0]),
            (OnEmpty::All, down(&["a"]), [0, 4, 0]),
        ] {
            service.on_empty = policy;
            assert_eq!(weights(&service, &view), expected, "{policy:?}");
        }
    }

    #[test]
    fn a_backend_that_cannot_be_reached_takes_no_flows_and_keeps_those_it_has() {
        let mut service = testing::service("web", 1, &[("a", 3), ("b", 4)]);
        let [a, b] = [0, 1].map(|index| service.backends[index].address);
        let view = |b| {
            HealthView::from([
                (testing::id("web", "a"), Health::Up),
                (testing::id("web", "b"), b),
            ])
        };
        for (policy, health, blocked, expected) in [
            (OnEmpty::Drop, Health::Up, &[a][..], [(0, true), (4, true)]),
            (OnEmpty::Drop, Health::Up, &[a, b], [(0, true), (0, true)]),
            // No other backend can take them, so the one that is down is better than none.
            (OnEmpty::All, Health::Down, &[a], [(0, true), (4, true)]),
            (OnEmpty::All, Health::Down, &[a, b], [(0, true), (0, true)]),
        ] {
            service.on_empty = policy;
            let blocked = blocked.iter().map(SocketAddr::ip).collect();
            let target = target_service(&Settings::default(), &service, &view(health), &blocked);
            let got = [a, b].map(|address| &target.backends[&address]);
            assert_eq!(
                got.map(|there| (there.weight, there.alive)),
                expected,
                "{policy:?} {health}"
            );
        }
    }

    #[test]
    fn a_removed_backend_keeps_its_flows_until_its_address_is_back() {
        let desired = testing::desired([testing::service("web", 1, &[("a", 1)])]);
        let key = testing::service("web", 1, &[]).key;
        let (there, gone) = (
            desired.services.values().next().unwrap().backends[0].address,
            "10.9.9.9:80".parse().unwrap(),
        );
        let lingering = RemovedBackends::from([((key, there), Mode::Nat), ((key, gone), Mode::Nat)]);
        let backends = &target(&desired, &HealthView::new(), &lingering).services[&key].backends;
        assert_eq!(
            backends[&gone],
            TargetBackend {
                mode: Mode::Nat,
                weight: 0,
                alive: true,
                held_back: 0,
                tunnel_source: None,
                group: Group::GENERAL,
            }
        );
        assert_eq!(backends[&there].weight, 1);
        let no_service = testing::desired([]);
        assert!(
            target(&no_service, &HealthView::new(), &lingering)
                .services
                .is_empty()
        );
    }

    #[test]
    fn the_ring_keeps_its_size_while_backends_fail_drain_or_change_weight() {
        let mut service = testing::service("web", 1, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
        let before = target_service(
            &Settings::default(),
            &service,
            &HealthView::new(),
            &Blocked::new(),
        )
        .ring_size;
        service.backends[0].admin = Admin::Draining;
        service.backends[1].weight = 0;
        service.backends[3].weight = 1_000;
        let view = HealthView::from([(testing::id("web", "c"), Health::Down)]);
        assert_eq!(
            target_service(&Settings::default(), &service, &view, &Blocked::new()).ring_size,
            before
        );
    }
}
