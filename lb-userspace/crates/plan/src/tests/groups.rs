//! Groups of backends, and the rings of the clients that go to them.

use lb_common::ring_slot::{Known, Pick};

use super::{super::groups::TakenBy, *};

const NEAR: Group = Group(1);
const CANARY: Group = Group(2);

/// Backends with these groups and weights, in mode `ipip`.
fn grouped(backends: &[(u8, Group, u32)], clients: &[(&str, Group)]) -> TargetService {
    let backends = backends.iter().map(|(last, group, weight)| {
        let backend = TargetBackend {
            mode: Mode::Ipip,
            group: *group,
            ..backend(*weight)
        };
        (*last, backend)
    });
    TargetService {
        clients: clients
            .iter()
            .map(|(prefix, group)| (prefix.parse().unwrap(), *group))
            .collect(),
        ..service(251, backends)
    }
}

/// The slot of a client's flows with this index.
fn slot(programmed: &Programmed, key: &ServiceKey, client: &str, index: usize) -> RingSlot {
    let service = &programmed.services[key];
    let client: IpAddr = client.parse().unwrap();
    let clients = programmed.clients.get(&service.id).into_iter().flatten();
    let of_client = clients.filter(|(prefix, _)| prefix.contains(client));
    let ring = of_client
        .max_by_key(|(prefix, _)| prefix.length())
        .map_or(service.ring, |(_, clients)| clients.ring);
    programmed.rings[&ring][index]
}

/// Where a packet of a flow goes that is not recorded and does not begin.
fn goes_to(programmed: &Programmed, key: &ServiceKey, client: &str, index: usize) -> BackendId {
    let slot = slot(programmed, key, client, index);
    match slot.pick() {
        Pick::Owner(owner) => owner,
        Pick::LookUp => slot.decide(Known::Unknown, false).backend,
    }
}

/// The last bytes of the backends that own slots of a client's ring.
fn owners(programmed: &Programmed, key: &ServiceKey, client: &str) -> BTreeSet<u8> {
    let owner = |index| slot(programmed, key, client, index).current;
    let last = |id: BackendId| match programmed.backends[&id].address.ip() {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    (0..251).map(|index| last(owner(index))).collect()
}

/// Plans and applies until nothing is to be done, as a daemon does.
fn program(programmed: &mut Programmed, target: &Target) {
    for step in plan(target, programmed).unwrap() {
        programmed.apply(&step);
    }
    assert_eq!(plan(target, programmed).unwrap(), []);
}

/// Ends all phases of slots, as sweeps do when no flow is left that needs them.
fn settle(programmed: &mut Programmed) {
    for ring in programmed.rings.values_mut() {
        *ring = ring.iter().map(|slot| RingSlot::stable(slot.current)).collect();
    }
}

#[test]
fn clients_go_to_their_group_then_to_backends_of_no_such_group_then_to_all() {
    let clients = [("10.0.0.0/8", NEAR), ("10.1.0.0/16", CANARY)];
    let mut programmed = Programmed::default();
    // Weights of two near ones, of the canary and of the others; owners for clients of each.
    for (weights, near, canary, general) in [
        ([1, 1, 1, 1], &[1, 2][..], &[3][..], &[4][..]),
        ([1, 0, 1, 1], &[1], &[3], &[4]),
        ([0, 0, 1, 1], &[4], &[3], &[4]),
        ([0, 0, 0, 1], &[4], &[4], &[4]),
        ([1, 0, 0, 0], &[1], &[1], &[1]),
        ([1, 0, 1, 0], &[1], &[3], &[1, 3]),
        ([1, 1, 1, 1], &[1, 2], &[3], &[4]),
    ] {
        let backends: Vec<_> = (1..)
            .zip([NEAR, NEAR, CANARY, Group::GENERAL])
            .zip(weights)
            .collect();
        let backends: Vec<_> = backends
            .into_iter()
            .map(|((last, group), weight)| (last, group, weight))
            .collect();
        let of = key(1, 80);
        let wanted = target([(of, grouped(&backends, &clients))]);
        program(&mut programmed, &wanted);
        for (client, expected) in [("10.2.0.1", near), ("10.1.0.1", canary), ("192.0.2.9", general)] {
            let found: Vec<u8> = owners(&programmed, &of, client).into_iter().collect();
            assert_eq!(found, expected, "{client} with {weights:?}");
        }
        let taken_by = wanted.services[&of].taken_by(NEAR);
        assert_eq!(taken_by == TakenBy::Own, weights[0] + weights[1] > 0);
        assert_eq!(programmed.rings.len(), 3, "one for each group, and none is left");
        settle(&mut programmed);
    }
    let none = target([(key(1, 80), grouped(&[(1, NEAR, 0)], &clients))]);
    assert_eq!(none.services[&key(1, 80)].taken_by(NEAR), TakenBy::None);
    program(&mut programmed, &target([]));
    assert!(programmed.clients.is_empty() && programmed.rings.is_empty());
}

#[test]
fn prefixes_of_a_group_share_a_ring_once_their_flows_have_the_same_owners() {
    let backends = [(1, NEAR, 1), (2, Group::GENERAL, 1)];
    let of = key(1, 80);
    let mut programmed = Programmed::default();
    let wanted = |clients: &[(&str, Group)]| target([(of, grouped(&backends, clients))]);
    program(&mut programmed, &wanted(&[("10.0.0.0/8", NEAR)]));
    assert_eq!(programmed.rings.len(), 2);
    settle(&mut programmed);
    // Clients that came to the second had the service's ring before.
    let both = wanted(&[("10.0.0.0/8", NEAR), ("11.0.0.0/8", NEAR)]);
    program(&mut programmed, &both);
    assert_eq!(programmed.rings.len(), 3);
    settle(&mut programmed);
    program(&mut programmed, &both);
    assert_eq!(programmed.rings.len(), 2);
    // A prefix that goes keeps its ring until its flows have moved.
    let one = wanted(&[("10.0.0.0/8", NEAR)]);
    program(&mut programmed, &one);
    assert_eq!(programmed.clients.values().map(BTreeMap::len).sum::<usize>(), 2);
    settle(&mut programmed);
    program(&mut programmed, &one);
    assert_eq!(programmed.clients.values().map(BTreeMap::len).sum::<usize>(), 1);
    let none = wanted(&[]);
    program(&mut programmed, &none);
    settle(&mut programmed);
    program(&mut programmed, &none);
    assert!(programmed.clients.is_empty());
    assert_eq!(programmed.rings.len(), 1);
}

fn any_group() -> impl Strategy<Value = Group> {
    prop::sample::select(vec![Group::GENERAL, NEAR, CANARY])
}

fn any_grouped() -> impl Strategy<Value = TargetService> {
    let backends = proptest::collection::btree_map(1..6_u8, (any_group(), 0..3_u32), 1..5);
    let prefixes = vec!["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "0.0.0.0/0"];
    let named = prop::sample::select(vec![NEAR, CANARY]);
    let clients = proptest::collection::btree_map(prop::sample::select(prefixes), named, 0..4);
    (backends, clients).prop_map(|(backends, clients)| {
        let backends: Vec<_> = backends
            .into_iter()
            .map(|(last, (group, weight))| (last, group, weight))
            .collect();
        let clients: Vec<_> = clients.into_iter().collect();
        grouped(&backends, &clients)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever changes: backends, weights, groups, prefixes.
    #[test]
    fn a_flow_stays_with_its_backend_while_that_lives(
        targets in proptest::collection::vec(any_grouped(), 2..6),
    ) {
        let of = key(1, 80);
        let clients = ["10.1.1.1", "10.1.2.1", "10.2.0.1", "192.0.2.9"];
        let flows = || clients.iter().flat_map(|client| (0..251).step_by(7).map(move |index| (*client, index)));
        let mut programmed = Programmed::default();
        for service in targets {
            let has_ring = programmed.services.get(&of).is_some_and(|service| service.ring_size != 0);
            let before: Vec<_> = if has_ring {
                flows().map(|(client, index)| goes_to(&programmed, &of, client, index)).collect()
            } else {
                Vec::new()
            };
            let wanted = target([(of, service.clone())]);
            program(&mut programmed, &wanted);
            for ((client, index), owner) in flows().zip(before) {
                if programmed.backends.get(&owner).is_some_and(|backend| backend.alive) {
                    prop_assert_eq!(goes_to(&programmed, &of, client, index), owner, "{} {}", client, index);
                }
            }
            // Once all have moved, only the wanted prefixes are left.
            settle(&mut programmed);
            program(&mut programmed, &wanted);
            settle(&mut programmed);
            program(&mut programmed, &wanted);
            let id = programmed.services[&of].id;
            let left: BTreeSet<_> = programmed.clients.get(&id).into_iter().flat_map(BTreeMap::keys).collect();
            let expected: BTreeSet<_> = service.clients.keys().collect();
            // Without any backend that takes flows, all slots wait.
            if service.taken_by(Group::GENERAL) != TakenBy::None {
                prop_assert_eq!(left, expected);
            }
        }
    }
}
