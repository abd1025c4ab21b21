//! Desired states for tests.

#![allow(
    clippy::unwrap_used,
    reason = "a text that is no name fails the test that wrote it"
)]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use lb_common::service::Mode;
use proptest::prelude::*;

use super::{
    backend::{Admin, Backend},
    clients::Clients,
    desired::{Desired, Revision, Settings},
    guard::{Guard, Prefix, Rate},
    hosts::HostBackend,
    quic::{QuicKey, QuicSettings},
    service::{
        Affinity, Algorithm, IdleSettings, OnDown, OnEmpty, Protocol, RingSize, Service, ServiceKey, Tracking,
    },
};
use crate::health::{CheckId, agent::AgentSettings};

mod checks;

use self::checks::millis;

/// The id of a backend.
pub fn id(service: &str, backend: &str) -> CheckId {
    CheckId(service.parse().unwrap(), backend.parse().unwrap())
}

/// A backend at 10.0.`service`.`number`:8080.
pub fn backend(service: u8, number: u8, name: &str, weight: u16) -> Backend {
    Backend {
        name: name.parse().unwrap(),
        address: (IpAddr::from([10, 0, service, number]), 8080).into(),
        weight,
        mode: None,
        server_ids: Vec::new(),
        agent_port: None,
        backup: false,
        group: None,
        admin: Admin::Enabled,
        drain_until: None,
        discovered_by: None,
    }
}

/// A host name on port 8080 with everything else at its default.
pub fn host(name: &str, host: &str) -> HostBackend {
    HostBackend {
        name: name.parse().unwrap(),
        host: host.parse().unwrap(),
        port: 8080,
        weight: 100,
        mode: None,
        agent_port: None,
        backup: false,
        group: None,
        admin: Admin::Enabled,
        drain_until: None,
    }
}

/// A service on TCP port 80 of 192.0.2.`number` with everything else at its default.
pub fn service(name: &str, number: u8, backends: &[(&str, u16)]) -> Service {
    let backends = (1..)
        .zip(backends)
        .map(|(n, (name, weight))| backend(number, n, name, *weight))
        .collect();
    let key = ServiceKey::new(IpAddr::from([192, 0, 2, number]), 80, Protocol::Tcp);
    Service {
        backends,
        ..Service::new(name.parse().unwrap(), key)
    }
}

/// A desired state of these services.
pub fn desired(services: impl IntoIterator<Item = Service>) -> Desired {
    Desired {
        services: services
            .into_iter()
            .map(|service| (service.name.clone(), service.into()))
            .collect(),
        ..Desired::default()
    }
}

fn guard() -> impl Strategy<Value = Guard> {
    let prefixes = || {
        proptest::collection::btree_set(1..200_u8, 0..3).prop_map(|numbers| {
            let texts = numbers.into_iter().map(|n| format!("{n}.0.0.0/{}", 8 + n % 25));
            texts.map(|text| text.parse().unwrap()).collect::<Vec<Prefix>>()
        })
    };
    let rate = || {
        let numbers = (1..=10_000_000_u32, 0..=10_000_000_u32);
        prop_oneof![
            Just(Rate::default()),
            numbers.prop_map(|(per_second, burst)| Rate { per_second, burst })
        ]
    };
    (prefixes(), prefixes(), rate(), rate(), 0..=32_u8).prop_map(
        |(allow, deny, new_flows, source_new_flows, bits)| Guard {
            allow,
            deny,
            new_flows,
            source_new_flows,
            source_bits: if source_new_flows.per_second == 0 { 0 } else { bits },
        },
    )
}

fn backends(number: u8) -> impl Strategy<Value = Vec<Backend>> {
    let admin = prop::sample::select(vec![Admin::Enabled, Admin::Draining, Admin::Disabled]);
    let weight = prop_oneof![Just(0), Just(1), Just(100), any::<u16>()];
    let one = (weight, prop::option::of(Just(Mode::Nat)), admin);
    proptest::collection::btree_map(1..20_u8, one, 0..5).prop_map(move |backends| {
        let build = |(n, (weight, mode, admin)): (u8, _)| Backend {
            mode,
            admin,
            backup: n % 3 == 0,
            group: (n % 4 == 1).then(|| "near".parse().unwrap()),
            drain_until: (admin == Admin::Draining && n % 2 == 0)
                .then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_000_000_000 + u64::from(n))),
            ..backend(number, n, &format!("b{n}"), weight)
        };
        backends.into_iter().map(build).collect()
    })
}

/// Clients of the groups of backends.
fn clients(number: u8, backends: &[Backend]) -> Vec<Clients> {
    let group = backends.iter().find_map(|backend| backend.group.clone());
    let prefix = Prefix::around([10, number, 0, 0].into(), 16);
    let table = group.map(|group| Clients {
        group,
        from: vec![prefix],
    });
    table.into_iter().collect()
}

/// QUIC tables with keys of different fingerprints.
fn quic() -> impl Strategy<Value = Vec<QuicSettings>> {
    let one = (1..=15_u8, prop::option::of(any::<[u8; 16]>()));
    proptest::collection::btree_map(0..=6_u8, one, 0..3).prop_map(|tables| {
        let build = |(config_id, (server_id_length, key)): (u8, (u8, Option<[u8; 16]>))| QuicSettings {
            config_id,
            server_id_length,
            nonce_length: 4,
            key: key.map(QuicKey),
        };
        tables.into_iter().map(build).collect()
    })
}

/// Gives a service of UDP these tables, and its backends ids of their lengths.
fn with_quic(mut service: Service, quic: Vec<QuicSettings>) -> Service {
    if service.key.protocol != Protocol::Udp {
        return service;
    }
    let lengths: BTreeSet<u8> = quic.iter().map(|table| table.server_id_length).collect();
    for (backend, number) in service.backends.iter_mut().zip(0_u8..) {
        let id = |length: &u8| format!("{number:02x}").repeat((*length).into());
        backend.server_ids = lengths.iter().map(|length| id(length).parse().unwrap()).collect();
    }
    Service { quic, ..service }
}

fn agent() -> impl Strategy<Value = Option<AgentSettings>> {
    let one = (any::<bool>(), 1..=u16::MAX, "[ -~\n]{0,9}", millis(1..90_000));
    let settings = one.prop_map(|(enabled, port, send, interval)| AgentSettings {
        enabled,
        port: Some(port),
        send,
        interval,
        timeout: interval,
    });
    prop::option::of(settings)
}

/// Gives a service agents, and some of its backends ports for theirs.
fn with_agent(mut service: Service, agent: Option<AgentSettings>) -> Service {
    if let Some(settings) = &agent {
        for (backend, number) in service.backends.iter_mut().zip(0_u16..) {
            backend.agent_port = settings.port.filter(|_| number % 2 == 1).map(|port| port - 1);
        }
    }
    Service { agent, ..service }
}

/// Valid services, where each key may differ from its default.
fn any_service(number: u8) -> impl Strategy<Value = Service> {
    let policies = (
        prop::sample::select(vec![Tracking::JustEnough, Tracking::Full]),
        prop::sample::select(vec![RingSize::Auto, RingSize::Slots(1_021)]),
        prop::sample::select(vec![OnEmpty::Drop, OnEmpty::Reject, OnEmpty::All]),
        (
            prop::sample::select(vec![OnDown::Move, OnDown::Keep]),
            millis(0..10_000),
        ),
        0..=100_u8,
        1..4_u32,
        prop_oneof![Just(Duration::ZERO), millis(1..600_000)],
        prop::option::of((1..86_400_u64).prop_map(Duration::from_secs)),
        guard(),
    );
    let key = (
        prop::sample::select(vec![0, 80, 65_535]),
        prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]),
    );
    (key, policies, checks::health(), backends(number), quic(), agent()).prop_map(
        move |((port, protocol), policies, health, backends, quic, agent)| {
            let (
                tracking,
                ring_size,
                on_empty,
                (on_down, on_down_after),
                max_removed_percent,
                backup_below,
                slow_start,
                idle,
                guard,
            ) = policies;
            let service = service(&format!("s-{number}"), number, &[]);
            let service = Service {
                key: ServiceKey {
                    port,
                    protocol,
                    ..service.key
                },
                mode: Mode::Nat,
                algorithm: Algorithm::Maglev,
                affinity: Affinity::None,
                slow_start,
                tracking,
                ring_size,
                on_empty,
                on_down,
                on_down_after,
                max_removed_percent,
                backup_below,
                idle: IdleSettings {
                    established: idle,
                    half_open: idle.filter(|idle| idle.as_secs() % 2 == 0),
                    closed: idle.filter(|idle| idle.as_secs() % 3 == 0 && protocol == Protocol::Tcp),
                },
                guard,
                health,
                clients: clients(number, &backends),
                backends,
                ..service
            };
            with_agent(with_quic(service, quic), agent)
        },
    )
}

/// Valid desired states.
pub fn any_desired() -> impl Strategy<Value = Desired> {
    let services = proptest::collection::btree_set(1..10_u8, 0..4)
        .prop_flat_map(|numbers| numbers.into_iter().map(any_service).collect::<Vec<_>>());
    let snat = proptest::collection::btree_set(1..250_u8, 0..3);
    (
        services,
        snat,
        1..30_000_u16,
        0..30_000_u16,
        millis(1_000..86_400_000),
        any::<u32>(),
    )
        .prop_map(|(services, snat, first, more, transition, revision)| Desired {
            revision: Revision(u64::from(revision)),
            settings: Settings {
                snat_addresses: snat
                    .into_iter()
                    .map(|n| IpAddr::from([198, 51, 100, n]))
                    .collect(),
                snat_ports: first..=first + more,
                tunnel_sources: vec![Prefix::around([198, 51, 101, 0].into(), 24)],
                gue_port: first,
                decap_from: vec![Prefix::around([198, 51, 102, 0].into(), 24)],
                transition,
            },
            ..desired(services)
        })
}
