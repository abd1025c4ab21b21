//! Invariants of a plan, checked after every single step.

#[path = "tests/groups.rs"]
mod groups;
#[path = "tests/ports.rs"]
mod ports;
#[path = "tests/quic.rs"]
mod quic;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    backend::{BackendId, Generation},
    flow::IdleTimeouts,
    ring_slot::RingSlot,
    service::{Mode, Service as ServiceRecord, ServiceId, TCP},
};
use proptest::prelude::*;

use super::*;
use crate::{
    groups::Group,
    ring::RingError,
    state::{
        guard::{Guard, Prefix},
        service::{Affinity, Algorithm, OnEmpty, Protocol, ServiceKey, Tracking},
    },
};

fn key(last: u8, port: u16) -> ServiceKey {
    ServiceKey::new(IpAddr::from([192, 0, 2, last]), port, Protocol::Tcp)
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 8080))
}

fn backend(weight: u32) -> TargetBackend {
    TargetBackend {
        mode: Mode::Nat,
        weight,
        alive: true,
        held_back: 0,
        tunnel_source: None,
        group: Group::GENERAL,
    }
}

fn service(ring_size: u32, backends: impl IntoIterator<Item = (u8, TargetBackend)>) -> TargetService {
    TargetService {
        more_ports: Vec::new(),
        shares_address: false,
        quic: None,
        clients: BTreeMap::new(),
        mode: Mode::Nat,
        on_empty: OnEmpty::Drop,
        algorithm: Algorithm::Maglev,
        affinity: Affinity::None,
        tracking: Tracking::JustEnough,
        idle: IdleTimeouts::of(TCP),
        guard: Guard::default(),
        ring_size,
        backends: backends
            .into_iter()
            .map(|(last, backend)| (address(last), backend))
            .collect(),
    }
}

fn target(services: impl IntoIterator<Item = (ServiceKey, TargetService)>) -> Target {
    Target {
        snat_addresses: Vec::new(),
        snat_ports: 1024..=32767,
        gue_port: 6080,
        tunnel_ends: BTreeSet::new(),
        transition: Duration::from_secs(600),
        services: services
            .into_iter()
            .map(|(key, service)| (key, service.into()))
            .collect(),
    }
}

fn converge(target: &Target, programmed: &mut Programmed) -> Vec<Step> {
    let steps = plan(target, programmed).unwrap();
    steps.iter().for_each(|step| programmed.apply(step));
    steps
}

fn names(steps: &[Step]) -> Vec<&'static str> {
    steps
        .iter()
        .map(|step| match step {
            Step::WriteSettings { .. } => "settings",
            Step::WriteTunnelEnd { .. } => "tunnel end",
            Step::RemoveTunnelEnd { .. } => "-tunnel end",
            Step::WriteBackend { .. } => "backend",
            Step::WriteReply { .. } => "reply",
            Step::WriteRing { .. } => "ring",
            Step::WritePrefix { .. } => "prefix",
            Step::WriteFlowGuard { .. } => "flow guard",
            Step::WriteService { .. } => "service",
            Step::RemoveService { .. } => "-service",
            Step::Quic(QuicStep::WriteConfig { .. }) => "quic",
            Step::Quic(QuicStep::WriteServer { .. }) => "server",
            Step::Quic(QuicStep::RemoveServer { .. }) => "-server",
            Step::Quic(QuicStep::RemoveConfig { .. }) => "-quic",
            Step::Barrier => "barrier",
            Step::RemovePrefix { .. } => "-prefix",
            Step::RemoveRing { .. } => "-ring",
            Step::RemoveReply { .. } => "-reply",
            Step::FreeBackend { .. } => "-backend",
            Step::WriteClients { .. } => "clients",
            Step::RemoveClients { .. } => "-clients",
        })
        .collect()
}

/// The inconsistency that a packet would meet now, if any.
fn inconsistency(programmed: &Programmed) -> Option<String> {
    let mut ids = BTreeSet::new();
    let ring_of = |service: &ServiceRecord| {
        let ring = programmed.rings.get(&service.ring);
        ring.filter(|_| service.ring_size != 0)
    };
    for (key, service) in &programmed.services {
        if !ids.insert(service.id) {
            return Some(format!("{key:?} shares its id"));
        }
        let flag = if key.is_prefix() {
            programmed.prefix_services
        } else {
            key.port != 0 || programmed.wildcard
        };
        if !flag {
            return Some(format!("{key:?} is never looked up"));
        }
        let sent_to = programmed
            .backends
            .values()
            .filter(|backend| backend.service == service.id && backend.mode == Mode::Dnat);
        for backend in sent_to {
            let endpoint = Endpoint::new(backend.address.ip(), backend.address.port(), key.protocol);
            let lost = !programmed.dnat || !programmed.replies.contains_key(&endpoint);
            if lost
                && ring_of(service).is_some_and(|ring| {
                    ring.iter()
                        .any(|slot| programmed.backends.get(&slot.current) == Some(backend))
                })
            {
                return Some(format!("{key:?} never sees replies of {backend:?}"));
            }
        }
        let of_clients = programmed.clients.get(&service.id).into_iter().flatten();
        let of_clients = of_clients.map(|(_, clients)| (clients.ring_size, clients.ring));
        for (size, ring) in of_clients.chain([(service.ring_size, service.ring)]) {
            if size == 0 {
                continue;
            }
            let Some(ring) = programmed.rings.get(&ring) else {
                return Some(format!("{key:?} names a missing ring"));
            };
            if ring.len() != size as usize {
                return Some(format!("{key:?} counts {size} slots of {}", ring.len()));
            }
            for id in ring.iter().flat_map(|slot| [slot.current, slot.previous]) {
                match programmed.backends.get(&id) {
                    _ if id == BackendId::NONE => {}
                    Some(backend) if backend.service == service.id && backend.alive => {}
                    Some(backend) => return Some(format!("{key:?} sends to {backend:?}")),
                    None => return Some(format!("{key:?} sends to the free {id:?}")),
                }
            }
        }
    }
    None
}

/// Applies step by step, and checks the invariants after each.
fn apply_watching(
    steps: &[Step],
    programmed: &mut Programmed,
    waited: &mut BTreeSet<BackendId>,
) -> Result<(), TestCaseError> {
    let mut since_barrier: Vec<&Step> = Vec::new();
    for step in steps {
        match step {
            Step::Barrier => since_barrier.clear(),
            Step::FreeBackend { id } => {
                let changed = since_barrier.iter().any(|step| {
                    matches!(
                        step,
                        Step::WriteRing { .. }
                            | Step::WriteService { .. }
                            | Step::RemoveService { .. }
                            | Step::WriteClients { .. }
                            | Step::RemoveClients { .. }
                    )
                });
                prop_assert!(!changed, "{:?} is freed while packets may still hold it", id);
                waited.insert(*id);
            }
            Step::WriteBackend { id, backend } => match programmed.backends.get(id) {
                Some(old) => prop_assert_eq!(
                    ProgrammedBackend {
                        alive: backend.alive,
                        held_back: backend.held_back,
                        tunnel_source: backend.tunnel_source,
                        generation: if !old.alive && backend.alive && old.mode != Mode::Nat {
                            old.generation.next()
                        } else {
                            old.generation
                        },
                        ..*old
                    },
                    *backend,
                    "identity changed"
                ),
                None => {
                    let last = programmed.generations.get(id);
                    prop_assert!(last.is_none() || waited.contains(id), "{:?} was never freed", id);
                    prop_assert_ne!(
                        last,
                        Some(&backend.generation),
                        "{:?} came back as its old self",
                        id
                    );
                }
            },
            Step::WriteSettings { .. }
            | Step::WriteReply { .. }
            | Step::RemoveReply { .. }
            | Step::Quic(_)
            | Step::WriteRing { .. }
            | Step::WriteService { .. }
            | Step::RemoveService { .. }
            | Step::WritePrefix { .. }
            | Step::WriteFlowGuard { .. }
            | Step::WriteTunnelEnd { .. }
            | Step::RemoveTunnelEnd { .. }
            | Step::RemovePrefix { .. }
            | Step::WriteClients { .. }
            | Step::RemoveClients { .. }
            | Step::RemoveRing { .. } => {}
        }
        since_barrier.push(step);
        let before = programmed.clone();
        programmed.apply(step);
        prop_assert_ne!(
            &before == programmed,
            *step != Step::Barrier,
            "a step without effect: {:?}",
            step
        );
        prop_assert_eq!(inconsistency(programmed), None, "after {:?}", step);
    }
    Ok(())
}

fn any_backend() -> impl Strategy<Value = TargetBackend> {
    (
        prop::sample::select(vec![Mode::Nat, Mode::Dnat]),
        prop_oneof![Just(0), 1..4_u32],
        any::<bool>(),
        prop_oneof![Just(0), 0..10_u8],
    )
        .prop_map(|(mode, weight, alive, held_back)| TargetBackend {
            mode,
            weight,
            alive,
            held_back,
            tunnel_source: (held_back % 2 == 1).then(|| Prefix::around([10, 200, 0, 0].into(), 24)),
            group: Group(u16::from(held_back) % 3),
        })
}

fn any_target() -> impl Strategy<Value = Target> {
    let service = (
        prop::sample::select(vec![251, 257]),
        proptest::collection::btree_map(1..6_u8, any_backend(), 0..5),
        proptest::collection::btree_map((0..3_u8, 0..3_u8), 1..3_u16, 0..4),
    )
        .prop_map(|(size, backends, clients)| TargetService {
            clients: clients
                .into_iter()
                .map(|((net, bits), group)| {
                    let around = Prefix::around([10, net, 0, 0].into(), 8 * (bits + 1));
                    (around, Group(group))
                })
                .collect(),
            ..service(size, backends)
        });
    let protocols = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]);
    let keys = (1..4_u8, prop::sample::select(vec![0, 80]), protocols).prop_map(|(last, port, protocol)| {
        ServiceKey {
            protocol,
            ..key(last, port)
        }
    });
    (proptest::collection::btree_map(keys, service, 0..5), 1..3_u16).prop_map(|(services, snat)| Target {
        snat_ports: snat * 1_000..=9_999,
        ..target(services)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_prefix_of_a_plan_leaves_a_packet_stranded(targets in proptest::collection::vec(any_target(), 1..6)) {
        let (mut programmed, mut waited) = (Programmed::default(), BTreeSet::new());
        let mut planner = Planner::default();
        for target in targets {
            let steps = plan(&target, &programmed).unwrap();
            prop_assert_eq!(&planner.plan(&target, &programmed).unwrap(), &steps);
            apply_watching(&steps, &mut programmed, &mut waited)?;
            prop_assert_eq!(plan(&target, &programmed), Ok(Vec::new()), "a second plan has no steps");
            let keys: Vec<_> = programmed.services.keys().collect();
            prop_assert_eq!(keys, target.services.keys().collect::<Vec<_>>());
        }
    }

    /// A daemon killed between two steps starts again, perhaps with another file.
    #[test]
    fn an_interrupted_plan_is_taken_up_from_any_point(
        first in any_target(), second in any_target(), third in any_target(), cut in any::<prop::sample::Index>(),
    ) {
        let (mut programmed, mut waited) = (Programmed::default(), BTreeSet::new());
        converge(&first, &mut programmed);
        let steps = plan(&second, &programmed).unwrap();
        apply_watching(&steps[..cut.index(steps.len() + 1)], &mut programmed, &mut waited)?;
        let steps = plan(&third, &programmed).unwrap();
        apply_watching(&steps, &mut programmed, &mut waited)?;
        prop_assert_eq!(plan(&third, &programmed), Ok(Vec::new()));
        let used: usize = third.services.values().map(|service| service.backends.len()).sum();
        prop_assert_eq!(programmed.backends.len(), used, "no id leaks");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Services that stay are shared by the targets, as the control task does it, and not every plan is carried out.
    #[test]
    fn a_planner_that_remembers_gives_the_same_plans(
        targets in proptest::collection::vec((any_target(), any::<u8>(), any::<prop::sample::Index>(), any::<bool>()), 1..8),
    ) {
        let (mut programmed, mut last) = (Programmed::default(), target([]));
        let mut planner = Planner::default();
        for (mut target, stay, cut, whole) in targets {
            for (place, (key, service)) in last.services.iter().enumerate() {
                if stay >> (place % 8) & 1 == 0 {
                    target.services.insert(*key, service.clone());
                }
            }
            let Ok(steps) = plan(&target, &programmed) else { continue };
            prop_assert_eq!(&planner.plan(&target, &programmed).unwrap(), &steps);
            let end = if whole { steps.len() } else { cut.index(steps.len() + 1) };
            steps[..end].iter().for_each(|step| programmed.apply(step));
            last = target;
        }
    }
}

/// A plan that was not carried out leaves a backend's state behind that no ring or service record shows.
#[test]
fn unfinished_plan_is_planned_again() {
    let with = |alive| {
        let stops = TargetBackend { alive, ..backend(0) };
        target([(key(1, 80), service(251, [(1, backend(1)), (2, stops)]))])
    };
    let (mut planner, mut programmed) = (Planner::default(), Programmed::default());
    let steps = planner.plan(&with(true), &programmed).unwrap();
    steps.iter().for_each(|step| programmed.apply(step));
    let stopped = with(false);
    let steps = planner.plan(&stopped, &programmed).unwrap();
    assert!(
        matches!(steps.as_slice(), [Step::WriteBackend { .. }]),
        "{steps:?}"
    );
    assert_eq!(planner.plan(&stopped, &programmed).unwrap(), steps);
}

/// Work for one change must not grow with the number of services.
#[test]
fn one_change_among_many_services_looks_at_one_service() {
    let many = |weight| {
        target((0..300).map(|port| {
            let weight = if port == 7 { weight } else { 1 };
            (
                key(1, 1 + port),
                service(251, [(1, backend(weight)), (2, backend(1))]),
            )
        }))
    };
    let (mut planner, mut programmed) = (Planner::default(), Programmed::default());
    let mut last = target([]);
    for (weight, expected) in [(1, 300), (2, 1), (2, 0), (3, 1)] {
        let mut target = many(weight);
        target.share_with(&last);
        let steps = planner.plan(&target, &programmed).unwrap();
        assert_eq!(planner.looked_at(), expected, "weight {weight}");
        steps.iter().for_each(|step| programmed.apply(step));
        last = target;
    }
    // A ring that was swapped otherwise is looked at again.
    let (ring, slots) = programmed.rings.pop_first().unwrap();
    programmed.rings.insert(ring, slots.iter().copied().collect());
    planner.rings_changed(&programmed);
    planner.plan(&last, &programmed).unwrap();
    assert_eq!(planner.looked_at(), 1);
}

#[test]
fn changes_take_no_more_steps_than_they_need() {
    let web = || service(251, [(1, backend(1)), (2, backend(1))]);
    let down = TargetBackend {
        weight: 0,
        alive: false,
        ..backend(0)
    };
    let reject = TargetService {
        on_empty: OnEmpty::Reject,
        ..web()
    };
    let cases: [(&str, TargetService, &[&str]); 8] = [
        ("the same", web(), &[]),
        (
            "weight",
            service(251, [(1, backend(1)), (2, backend(2))]),
            &["ring"],
        ),
        (
            "drain",
            service(251, [(1, backend(1)), (2, backend(0))]),
            &["ring"],
        ),
        (
            "down",
            service(251, [(1, backend(1)), (2, down)]),
            &["ring", "backend"],
        ),
        (
            "one more",
            service(251, [(1, backend(1)), (2, backend(1)), (3, backend(1))]),
            &["backend", "ring"],
        ),
        (
            "one less",
            service(251, [(1, backend(1))]),
            &["ring", "barrier", "-backend"],
        ),
        (
            "ring size",
            service(257, [(1, backend(1)), (2, backend(1))]),
            &["ring", "service", "barrier", "-ring"],
        ),
        ("policy", reject, &["service"]),
    ];
    for (what, after, expected) in cases {
        let mut programmed = Programmed::default();
        assert_eq!(
            names(&converge(&target([(key(1, 80), web())]), &mut programmed)),
            ["settings", "backend", "backend", "ring", "service"]
        );
        assert_eq!(
            names(&converge(&target([(key(1, 80), after)]), &mut programmed)),
            expected,
            "{what}"
        );
    }
}

/// Which phases a service's slots are in.
fn phases(programmed: &Programmed, key: &ServiceKey) -> BTreeSet<String> {
    let ring = &programmed.rings[&programmed.services[key].ring];
    ring.iter().map(|slot| format!("{:?}", slot.phase())).collect()
}

#[test]
fn slots_remember_only_where_the_balancer_keeps_no_flow() {
    let key = key(1, 80);
    for (mode, algorithm, after) in [
        (Mode::Nat, Algorithm::Maglev, &["Stable"][..]),
        (Mode::Ipip, Algorithm::Maglev, &["Stable", "Transition"]),
        (Mode::Ipip, Algorithm::RoundRobin, &["Stable"]),
    ] {
        let service = |second| {
            let backends = [(1, backend(1)), (2, backend(second))];
            let backends = backends.map(|(last, backend)| (last, TargetBackend { mode, ..backend }));
            TargetService {
                algorithm,
                ..service(251, backends)
            }
        };
        let mut programmed = Programmed::default();
        converge(&target([(key, service(1))]), &mut programmed);
        assert_eq!(phases(&programmed, &key), BTreeSet::from(["Stable".to_owned()]));
        converge(&target([(key, service(2))]), &mut programmed);
        let after: BTreeSet<_> = after.iter().map(|phase| (*phase).to_owned()).collect();
        assert_eq!(phases(&programmed, &key), after, "{mode:?} {algorithm:?}");
    }
}

/// A backend of mode `ipip` with this weight, alive or not.
fn tunnelled(weight: u32, alive: bool) -> TargetBackend {
    TargetBackend {
        mode: Mode::Ipip,
        weight,
        alive,
        held_back: 0,
        tunnel_source: None,
        group: Group::GENERAL,
    }
}

#[test]
fn flows_of_a_wholly_draining_service_continue() {
    let key = key(1, 80);
    let with = |backends: [TargetBackend; 2]| target([(key, service(251, (1..).zip(backends)))]);
    let mut programmed = Programmed::default();
    converge(&with([tunnelled(1, true); 2]), &mut programmed);
    let before = programmed.rings[&programmed.services[&key].ring].clone();

    converge(&with([tunnelled(0, true); 2]), &mut programmed);
    let ring = programmed.rings[&programmed.services[&key].ring].clone();
    for (old, new) in before.iter().zip(ring.iter()) {
        assert_eq!((new.current, new.previous), (BackendId::NONE, old.current));
    }
    // One dies, and so do its flows; the other's continue.
    converge(&with([tunnelled(0, false), tunnelled(0, true)]), &mut programmed);
    let ring = &programmed.rings[&programmed.services[&key].ring];
    let previous: BTreeSet<_> = ring.iter().map(|slot| slot.previous).collect();
    assert_eq!(previous, [BackendId::NONE, BackendId(2)].into());
    // No backend is left, so none has flows.
    converge(&with([tunnelled(0, false); 2]), &mut programmed);
    assert_eq!(programmed.services[&key].ring_size, 0);
    assert!(programmed.rings.is_empty());
}

#[test]
fn a_backend_that_comes_back_calls_no_flow_back() {
    let key = key(1, 80);
    for (mode, generation) in [(Mode::Ipip, Generation(2)), (Mode::Nat, Generation(1))] {
        let with = |alive| {
            let backends = [(true, 1), (alive, u32::from(alive))];
            let backends = backends.map(|(alive, weight)| TargetBackend {
                mode,
                ..tunnelled(weight, alive)
            });
            target([(key, service(251, (1..).zip(backends)))])
        };
        let mut programmed = Programmed::default();
        converge(&with(true), &mut programmed);
        let steps = converge(&with(false), &mut programmed);
        assert_eq!(names(&steps), ["ring", "backend"], "no packet meets a dead owner");
        assert_eq!(programmed.backends[&BackendId(2)].generation, Generation(1));
        converge(&with(true), &mut programmed);
        assert_eq!(programmed.backends[&BackendId(1)].generation, Generation(1));
        assert_eq!(
            programmed.backends[&BackendId(2)].generation,
            generation,
            "{mode:?}"
        );
    }
}

#[test]
fn a_ring_of_another_size_keeps_most_flows() {
    let key = key(1, 80);
    let with = |size| target([(key, service(size, (1..5).map(|last| (last, tunnelled(1, true)))))]);
    let mut programmed = Programmed::default();
    converge(&with(1_021), &mut programmed);
    let before = programmed.rings[&programmed.services[&key].ring].clone();
    converge(&with(4_093), &mut programmed);
    let after = programmed.rings[&programmed.services[&key].ring].clone();
    let hashes = (0..=u16::MAX).map(|n| u32::from(n) << 16);
    let kept = hashes.filter(|hash| {
        let at = |ring: &[RingSlot]| {
            let size = u32::try_from(ring.len()).unwrap();
            ring[lb_common::ring_slot::index(*hash, size) as usize]
        };
        at(&after).previous == at(&before).current
    });
    let kept = kept.count();
    assert!(kept > 60_000, "{kept} of 65,536 hashes still lead to their owner");
}

#[test]
fn an_emptied_service_keeps_its_id_and_loses_its_ring() {
    let mut programmed = Programmed::default();
    converge(
        &target([(key(1, 80), service(251, [(1, backend(1))]))]),
        &mut programmed,
    );
    let id = programmed.services[&key(1, 80)].id;
    let steps = converge(&target([(key(1, 80), service(251, []))]), &mut programmed);
    assert_eq!(names(&steps), ["service", "barrier", "-ring", "-backend"]);
    assert_eq!(programmed.services[&key(1, 80)].id, id);
    assert_eq!(programmed.services[&key(1, 80)].ring_size, 0);
}

#[test]
fn the_wildcard_flag_outlives_the_last_wildcard_service() {
    let mut programmed = Programmed::default();
    converge(&target([(key(1, 0), service(251, []))]), &mut programmed);
    assert_eq!(
        names(&converge(&target([]), &mut programmed)),
        ["-service", "settings"]
    );
    assert!(!programmed.wildcard);
}

/// Packets are looked up among prefixes for as long as a service has one, and a prefix on every port makes no address do so.
#[test]
fn the_flag_of_prefixes_outlives_the_last_service_that_has_one() {
    let prefix = ServiceKey::of_prefix("192.0.2.0/28".parse().unwrap(), 0, Protocol::Tcp);
    let mut programmed = Programmed::default();
    let steps = converge(&target([(prefix, service(251, []))]), &mut programmed);
    assert_eq!(names(&steps), ["settings", "service"]);
    assert!(programmed.prefix_services && !programmed.wildcard);
    assert_eq!(programmed.services[&prefix].prefix_bits, 28);
    let beside = [(prefix, service(251, [])), (key(0, 0), service(251, []))];
    converge(&target(beside), &mut programmed);
    assert_eq!(programmed.services[&key(0, 0)].prefix_bits, 0);
    assert_eq!(
        names(&converge(&target([]), &mut programmed)),
        ["-service", "-service", "settings"]
    );
    assert!(!programmed.prefix_services && !programmed.wildcard);
}

/// Packets are looked up among tunnels for as long as one ends here.
#[test]
fn the_flag_of_tunnels_outlives_the_last_of_them() {
    let ending = |at: &[&str]| {
        let at = at.iter().map(|address| address.parse().unwrap()).collect();
        let mut target = target([]);
        target::effective::end_tunnels(&mut target, &["10.0.0.0/30".parse().unwrap()], &at);
        target
    };
    let mut programmed = Programmed::default();
    let steps = converge(&ending(&["192.0.2.1"]), &mut programmed);
    assert_eq!(names(&steps), ["settings", "tunnel end", "tunnel end"]);
    assert!(programmed.ends_tunnels);
    // The machine has another address.
    let steps = converge(&ending(&["2001:db8::1"]), &mut programmed);
    assert_eq!(names(&steps), ["tunnel end", "barrier", "-tunnel end"]);
    assert_eq!(programmed.tunnel_ends.len(), 2);
    let steps = converge(&target([]), &mut programmed);
    assert_eq!(
        names(&steps),
        ["barrier", "-tunnel end", "-tunnel end", "settings"]
    );
    assert!(!programmed.ends_tunnels && programmed.tunnel_ends.is_empty());
}

/// Replies find their way before the first packet is sent to a backend, and as long as one may be under way.
#[test]
fn endpoints_of_mode_dnat_outlive_the_packets_to_them() {
    let dnat = |weight| TargetBackend {
        mode: Mode::Dnat,
        ..backend(weight)
    };
    let with = |backends: &[u8]| {
        let backends = backends.iter().map(|last| (*last, dnat(1)));
        target([(key(1, 80), service(251, backends))])
    };
    let endpoint = |last| Endpoint::new(address(last).ip(), 8080, Protocol::Tcp);
    let mut programmed = Programmed::default();
    assert_eq!(
        names(&converge(&with(&[1]), &mut programmed)),
        ["settings", "backend", "reply", "ring", "service"]
    );
    let service = programmed.services[&key(1, 80)].id;
    let (id, _) = programmed.backends.first_key_value().unwrap();
    let reply = ReplyTarget {
        address: key(1, 80).address,
        port: 80,
        service,
        backend: *id,
    };
    assert_eq!(programmed.replies, BTreeMap::from([(endpoint(1), reply)]));
    assert!(programmed.dnat);
    assert_eq!(
        names(&converge(&with(&[1, 2]), &mut programmed)),
        ["backend", "reply", "ring"]
    );
    assert_eq!(
        names(&converge(&with(&[2]), &mut programmed)),
        ["ring", "barrier", "-reply", "-backend"]
    );
    assert_eq!(programmed.replies.keys().collect::<Vec<_>>(), [&endpoint(2)]);
    assert_eq!(
        names(&converge(&target([]), &mut programmed)),
        ["-service", "barrier", "-ring", "-reply", "-backend", "settings"]
    );
    assert!(!programmed.dnat && programmed.replies.is_empty());
}

#[test]
fn ids_that_were_used_least_are_given_out_first() {
    let mut programmed = Programmed::default();
    let one = |last| target([(key(1, 80), service(251, [(last, backend(1))]))]);
    for last in 1..=3 {
        converge(&one(last), &mut programmed);
        assert_eq!(
            programmed.backends.keys().collect::<Vec<_>>(),
            [&BackendId(u16::from(last))]
        );
    }
    assert!(
        programmed
            .generations
            .values()
            .all(|generation| *generation == Generation(1))
    );
}

/// With every id in use, a wholly new target still fits: removals free ids first.
#[test]
fn a_full_table_can_be_replaced_as_a_whole() {
    let full = |net: u8| {
        let backends = (0..65_535_u32).map(|n| {
            (
                SocketAddr::from((std::net::Ipv4Addr::from_bits((u32::from(net) << 24) + n), 80)),
                backend(0),
            )
        });
        let service = TargetService {
            backends: backends.collect(),
            ..service(251, [])
        };
        target([(key(net, 80), service)])
    };
    let mut programmed = Programmed::default();
    converge(&full(10), &mut programmed);
    let after = full(11);
    converge(&after, &mut programmed);
    assert_eq!(plan(&after, &programmed), Ok(Vec::new()));
    assert_eq!(programmed.backends.len(), 65_535);
    assert!(
        programmed
            .backends
            .values()
            .all(|backend| backend.generation == Generation(2)),
        "flows of the old ones never reach the new"
    );
}

#[test]
fn target_beyond_the_limits_is_refused_as_a_whole() {
    let many = (0..=65_535_u32)
        .map(|n| {
            (
                SocketAddr::from((std::net::Ipv4Addr::from_bits(n), 80)),
                backend(1),
            )
        })
        .collect();
    let backends = target([(
        key(1, 80),
        TargetService {
            backends: many,
            ..service(251, [])
        },
    )]);
    let services = target((0..4_097).map(|port| (key(1, port), service(251, []))));
    let several_ports = TargetService {
        more_ports: (1..=4_096).collect(),
        ..service(251, [])
    };
    let ports = target([(key(1, 0), several_ports)]);
    let snat = Target {
        snat_addresses: (0..17).map(|n| IpAddr::from([10, 0, 0, n])).collect(),
        ..target([])
    };
    let size = target([(key(1, 80), service(252, []))]);
    for (target, error) in [
        (backends, PlanError::TooManyBackends(65_536)),
        (services, PlanError::TooManyServices(4_097)),
        (ports, PlanError::TooManyServices(4_097)),
        (snat, PlanError::TooManySnatAddresses(17)),
        (
            size,
            PlanError::Ring {
                key: key(1, 80),
                source: RingError::NotPrime(252),
            },
        ),
    ] {
        assert_eq!(plan(&target, &Programmed::default()), Err(error));
    }
}

#[test]
fn a_planner_remembers_no_ring_of_another_size_or_weight() {
    let mut planner = Planner::default();
    for (size, first, second) in [
        (251, 1, 1),
        (251, 1, 2),
        (257, 1, 2),
        (257, 1, 2),
        (257, 0, 2),
        (251, 1, 1),
    ] {
        let target = target([(
            key(1, 80),
            service(size, [(1, backend(first)), (2, backend(second))]),
        )]);
        let fresh = plan(&target, &Programmed::default());
        assert_eq!(
            planner.plan(&target, &Programmed::default()),
            fresh,
            "{size} {first} {second}"
        );
    }
}
