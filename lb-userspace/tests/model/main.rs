//! The promise of just-enough tracking, on random histories: no flow whose backend lives changes
//! its backend if it sent a packet within the window.

#[allow(dead_code, reason = "the benchmark uses more of it")]
mod simulation;

use std::time::Duration;

use lb_common::ring_slot::{Phase, RingSlot};
use lb_userspace::state::service::Protocol;
use proptest::prelude::*;

use simulation::{
    Balancer, Memory,
    just_enough::JustEnough,
    katran::Katran,
    run::{Flood, Outcome, Scenario, run},
    world::{Change, World},
};

const RING: u32 = 251;
const WINDOW: Duration = Duration::from_secs(30);
const ROOMY: Memory = Memory {
    tracked: 10_000,
    opening: 1_000,
    seen: 1_000,
};

fn change() -> impl Strategy<Value = Change> {
    let weight = prop_oneof![Just(100_u32), 1..=300_u32];
    prop_oneof![
        3 => weight.clone().prop_map(|weight| Change::Add { weight }),
        2 => any::<u16>().prop_map(|pick| Change::Remove { pick }),
        1 => any::<u16>().prop_map(|pick| Change::RemoveNow { pick }),
        2 => any::<u16>().prop_map(|pick| Change::Die { pick }),
        3 => any::<u16>().prop_map(|pick| Change::Recover { pick }),
        3 => (any::<u16>(), weight).prop_map(|(pick, weight)| Change::Reweight { pick, weight }),
        3 => any::<u16>().prop_map(|pick| Change::Drain { pick }),
        3 => any::<u16>().prop_map(|pick| Change::Undrain { pick }),
        1 => Just(Change::Restart),
    ]
}

/// Changes with pauses between them, often several within one window.
fn changes() -> impl Strategy<Value = Vec<(Duration, Change)>> {
    let pause_ms = prop_oneof![3 => 0..5_000_u64, 2 => 0..50_000_u64, 1 => 0..150_000_u64];
    prop::collection::vec((pause_ms, change()), 1..30).prop_map(|steps| {
        let mut at = 40_000;
        let timed = steps.into_iter().map(|(pause, change)| {
            at += pause;
            (Duration::from_millis(at), change)
        });
        timed.collect()
    })
}

fn scenario(protocol: Protocol, changes: Vec<(Duration, Change)>, seed: u64) -> Scenario {
    let last = changes.last().map_or(0, |(at, _)| at.as_secs());
    Scenario {
        protocol,
        window: WINDOW,
        clients: 300,
        changes,
        flood: None,
        seconds: last + 3 * WINDOW.as_secs(),
        seed,
    }
}

fn just_enough(scenario: &Scenario, memory: Memory) -> (Outcome, World, JustEnough) {
    let mut world = World::new(5);
    let mut balancer = JustEnough::new(&world, RING, WINDOW, memory);
    let outcome = run(scenario, &mut world, &mut balancer);
    (outcome, world, balancer)
}

/// Seconds of sweeping after which the last record must be removed, since all clients have left.
const SETTLED: u64 = 5 * WINDOW.as_secs();

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_flow_leaves_a_living_backend_within_the_window(
        changes in changes(),
        protocol in prop_oneof![2 => Just(Protocol::Tcp), 1 => Just(Protocol::Udp)],
        seed: u64,
    ) {
        let scenario = scenario(protocol, changes, seed);
        let (outcome, mut world, mut balancer) = just_enough(&scenario, ROOMY);
        prop_assert!(outcome.packets > 1_000);
        prop_assert_eq!((outcome.broken, outcome.broken_opening, outcome.to_dead), (0, 0, 0), "{:?}", outcome);

        for second in scenario.seconds..scenario.seconds + SETTLED {
            let now = Duration::from_secs(second);
            if world.bury(now) {
                balancer.changed(&world, now);
            }
            balancer.upkeep(&world, now);
        }
        let owners = world.owners(RING).into_iter().map(RingSlot::stable);
        prop_assert!(owners.eq(balancer.slots().iter().copied()), "a slot never became stable");
        prop_assert_eq!(balancer.records(), 0, "a record was never deleted");
    }
}

/// Memory for fewer flows than a flood brings in a second.
const TIGHT: Memory = Memory {
    tracked: 1_000,
    opening: 200,
    seen: 400,
};

/// 200,000 SYNs while backends are drained and come back, some windows ending meanwhile.
fn flood(seed: u64) -> Scenario {
    let drains = [45, 50, 55].map(|second| (second, Change::Drain { pick: 1 }));
    let undrains = [95, 115, 135].map(|second| (second, Change::Undrain { pick: 0 }));
    let changes = drains.into_iter().chain(undrains);
    let changes = changes.map(|(second, change)| (Duration::from_secs(second), change));
    let mut scenario = scenario(Protocol::Tcp, changes.collect(), seed);
    scenario.flood = Some(Flood {
        from: 40,
        until: 140,
        per_second: 2_000,
    });
    scenario
}

#[test]
fn a_flood_of_syns_costs_no_proven_flow_its_backend() {
    for seed in 0..2 {
        let scenario = flood(seed);
        let (outcome, ..) = just_enough(&scenario, TIGHT);
        assert_eq!(
            (outcome.broken, outcome.flood_packets),
            (0, 200_000),
            "{outcome:?}"
        );

        let mut world = World::new(5);
        let mut katran = Katran::new(&world, RING, TIGHT.total(), false);
        let outcome = run(&scenario, &mut world, &mut katran);
        assert!(
            outcome.broken > 0,
            "the flood is too weak to show anything: {outcome:?}"
        );
    }
}

#[test]
fn a_flood_of_syns_leaves_no_trace_in_stable_slots() {
    let mut scenario = flood(1);
    scenario.changes.clear();
    let (_, _, balancer) = just_enough(&scenario, TIGHT);
    assert_eq!((balancer.costs().look_ups, balancer.costs().records), (0, 0));
}

/// The same backends under other ids.
fn on_another_node(world: &World) -> (World, JustEnough) {
    let world = world.renumbered();
    let balancer = JustEnough::new(&world, RING, WINDOW, ROOMY);
    (world, balancer)
}

#[test]
fn nodes_agree_without_a_word() {
    let mut here = World::new(5);
    let mut a = JustEnough::new(&here, RING, WINDOW, ROOMY);
    let (mut there, mut b) = on_another_node(&here);
    let identity = |world: &World, id| {
        world
            .servers()
            .iter()
            .find(|server| server.id == id)
            .map(|s| s.identity)
    };
    let flows: Vec<u64> = (0..2_000)
        .map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let (mut stable, mut moving) = (0, 0);
    for (second, change) in (10..).step_by(20).zip([
        Change::Add { weight: 50 },
        Change::Drain { pick: 2 },
        Change::Die { pick: 0 },
        Change::Reweight { pick: 1, weight: 300 },
        Change::Recover { pick: 0 },
        Change::Undrain { pick: 0 },
    ]) {
        // The other node learns of it two seconds later.
        for (world, node, delay) in [(&mut here, &mut a, 0), (&mut there, &mut b, 2)] {
            let now = Duration::from_secs(second + delay);
            assert!(world.change(change, now, WINDOW));
            node.changed(world, now);
            node.upkeep(world, now);
        }
        let slots = a.slots().iter().zip(b.slots());
        for (x, y) in slots.filter(|(x, y)| x.phase() == Phase::Stable && y.phase() == Phase::Stable) {
            assert_eq!(identity(&here, x.current), identity(&there, y.current));
            stable += 1;
        }
        moving += a
            .slots()
            .iter()
            .filter(|slot| slot.phase() == Phase::Transition)
            .count();
        // A flow that was there before the first change, and that routers now send to either node.
        let now = Duration::from_secs(second + 3);
        for flow in &flows {
            assert_eq!(
                identity(&here, a.packet(*flow, false, now)),
                identity(&there, b.packet(*flow, false, now))
            );
        }
    }
    assert!(
        stable > 100 && moving > 100,
        "{stable} stable, {moving} moving: no slot was compared"
    );
}
