use proptest::prelude::*;

use super::*;
use crate::{
    plan,
    programmed::Programmed,
    state::{
        backend::Admin,
        service::OnEmpty,
        testing::{self, id},
    },
    step::Step,
    target::effective::{self, RemovedBackends},
};

/// One step of a rise.
const STEP: Duration = Duration::from_secs(10);
const OVER: Duration = Duration::from_secs(10 * STEPS as u64);

/// A service with slow start, its health states, and its withheld weights, over time.
struct Scene {
    desired: Desired,
    health: HealthView,
    slow: SlowStart,
    start: Instant,
    target: Option<Target>,
}

impl Scene {
    fn new(backends: &[(&str, u16)]) -> Self {
        let service = Service {
            slow_start: OVER,
            ..testing::service("web", 1, backends)
        };
        Self {
            desired: testing::desired([service]),
            health: HealthView::new(),
            slow: SlowStart::default(),
            start: Instant::now(),
            target: None,
        }
    }

    fn service(&mut self) -> &mut Service {
        self.desired.services.values_mut().next().unwrap()
    }

    fn down(&mut self, names: &[&str]) {
        self.health = names.iter().map(|name| (id("web", name), Health::Down)).collect();
    }

    /// Tenths of each backend's weight at `seconds` from the start; 0 for backends without new flows.
    fn at(&mut self, seconds: u64) -> Vec<u8> {
        let target = effective::target(&self.desired, &self.health, &RemovedBackends::new());
        let now = self.start + Duration::from_secs(seconds);
        let target = self.slow.hold_back(target, &self.desired, &self.health, now);
        let service = self.desired.services.values().next().unwrap();
        let there = &target.services[&service.key].backends;
        let tenths = service.backends.iter().map(|backend| {
            let there = there[&backend.address];
            if there.weight > 0 { there.tenths() } else { 0 }
        });
        let tenths = tenths.collect();
        self.target = Some(target);
        tenths
    }

    fn next(&self) -> Option<u64> {
        self.slow.next().map(|at| (at - self.start).as_secs())
    }

    fn whole_at(&mut self, backend: usize, now: u64) -> Option<u64> {
        let service = self.service();
        let (key, address) = (service.key, service.backends[backend].address);
        let whole = self
            .slow
            .whole_at(key, address, self.start + Duration::from_secs(now));
        whole.map(|at| (at - self.start).as_secs())
    }
}

#[test]
fn a_backend_that_recovers_rises_by_a_tenth_at_each_step() {
    let mut scene = Scene::new(&[("a", 100), ("b", 100)]);
    scene.down(&["b"]);
    assert_eq!(scene.at(0), [10, 0]);
    scene.at(1_000);
    scene.health.clear();
    for (now, tenths, next) in [
        (1_000, 1, Some(1_010)),
        (1_009, 1, Some(1_010)),
        (1_010, 2, Some(1_020)),
        (1_045, 5, Some(1_050)),
        (1_089, 9, Some(1_090)),
        (1_090, 10, None),
        (9_999, 10, None),
    ] {
        assert_eq!(
            (scene.at(now), scene.next()),
            (vec![10, tenths], next),
            "at {now}"
        );
        assert_eq!(scene.whole_at(1, now), (tenths < 10).then_some(1_090));
        assert_eq!(scene.whole_at(0, now), None);
    }
}

#[test]
fn all_new_backends_are_not_slowed() {
    let mut scene = Scene::new(&[("a", 1), ("b", 50), ("c", 100)]);
    for now in [0, 1, 15, 89, 90, 91] {
        assert_eq!(scene.at(now), [10; 3], "at {now}");
    }
    // After an outage of all, they come one after the other, and none has to carry the others.
    scene.down(&["a", "b", "c"]);
    assert_eq!(scene.at(200), [0; 3]);
    for (now, down, expected) in [
        (300, &["b", "c"][..], [10, 0, 0]),
        (303, &["c"], [10, 10, 0]),
        (309, &[], [10, 10, 10]),
        (310, &[], [10, 10, 10]),
    ] {
        scene.down(down);
        assert_eq!(scene.at(now), expected, "at {now}");
    }
}

#[test]
fn backends_in_slow_start_step_together_and_never_fall() {
    let mut scene = Scene::new(&[("a", 100), ("b", 100), ("c", 100), ("d", 100)]);
    scene.down(&["c", "d"]);
    scene.at(0);
    scene.down(&["d"]);
    assert_eq!(scene.at(100), [10, 10, 1, 0]);
    assert_eq!(scene.at(125), [10, 10, 3, 0]);
    scene.health.clear();
    assert_eq!(scene.at(127), [10, 10, 3, 1]);
    assert_eq!(scene.next(), Some(130));
    assert_eq!(scene.at(130), [10, 10, 4, 2]);
    assert_eq!(scene.at(190), [10, 10, 10, 8]);
    assert_eq!(scene.at(210), [10; 4]);
}

#[test]
fn no_backend_carries_more_than_twice_its_share() {
    let mut scene = Scene::new(&[("a", 100), ("b", 100), ("c", 100), ("d", 100), ("e", 100)]);
    scene.down(&["b", "c", "d", "e"]);
    scene.at(0);
    scene.health.clear();
    // 10 of 10 + 4 n: at least 2.5 of 5 shares are there with n = 4.
    assert_eq!(scene.at(100), [10, 4, 4, 4, 4]);
    assert_eq!(scene.whole_at(1, 100), Some(160));
    assert_eq!(scene.at(110), [10, 5, 5, 5, 5]);
    assert_eq!(scene.at(160), [10; 5]);
}

#[test]
fn backend_that_helps_while_down_has_its_whole_weight() {
    let mut scene = Scene::new(&[("a", 100), ("b", 100)]);
    scene.down(&["b"]);
    scene.at(0);
    scene.service().on_empty = OnEmpty::All;
    scene.down(&["a", "b"]);
    assert_eq!(scene.at(100), [10, 10]);
    scene.health.clear();
    assert_eq!(scene.at(101), [10, 10], "it has been taking flows");
}

#[test]
fn only_a_drain_restarts_slow_start() {
    let mut scene = Scene::new(&[("a", 100), ("b", 100), ("c", 100)]);
    scene.at(0);
    scene.service().backends[2].admin = Admin::Draining;
    assert_eq!(scene.at(100), [10, 10, 0]);
    scene.service().backends[2].admin = Admin::Enabled;
    assert_eq!(scene.at(200), [10, 10, 1]);
    scene.service().backends[2].weight = 300;
    assert_eq!(scene.at(215), [10, 10, 2], "another weight, the same way to it");
    scene.service().slow_start = 2 * OVER;
    assert_eq!(scene.at(220), [10, 10, 3], "half as fast from here");
    assert_eq!(scene.at(240), [10, 10, 4]);
    scene.service().slow_start = Duration::ZERO;
    assert_eq!(scene.at(241), [10, 10, 10]);
    assert_eq!(scene.next(), None);
    scene.service().slow_start = OVER;
    assert_eq!(
        scene.at(242),
        [10, 10, 10],
        "a backend with its whole weight is not slowed"
    );
    scene.service().backends.push(testing::backend(1, 9, "new", 100));
    assert_eq!(scene.at(400), [10, 10, 10, 1]);
}

#[test]
fn restart_continues_from_the_present_step() {
    let mut scene = Scene::new(&[("a", 100), ("b", 100), ("new", 100)]);
    let service = scene.service().clone();
    let mut slow = SlowStart::default();
    for (backend, held_back) in service.backends.iter().zip([0, 6]) {
        slow.inherit(&service, backend.address, held_back, scene.start);
    }
    scene.slow = slow;
    assert_eq!(scene.at(0), [10, 4, 1]);
    assert_eq!(scene.at(60), [10, 10, 7]);
}

/// The point of few steps: each moves about its share of slots, and a whole rise few more than one step to the whole.
#[test]
fn each_step_moves_few_slots() {
    let mut scene = Scene::new(&[("a", 100), ("b", 100), ("c", 100), ("d", 100), ("e", 100)]);
    scene.down(&["e"]);
    scene.at(0);
    let ring = |programmed: &Programmed| programmed.rings.values().next().cloned().unwrap();
    let mut programmed = Programmed::default();
    let mut moved = Vec::new();
    for now in (90..=200).step_by(10) {
        scene.at(now);
        scene.health.clear();
        let steps = plan(scene.target.as_ref().unwrap(), &programmed).unwrap();
        let before = programmed.rings.values().next().cloned();
        let rewrites = steps.iter().any(|step| matches!(step, Step::WriteRing { .. }));
        for step in &steps {
            programmed.apply(step);
        }
        if let Some(before) = before {
            let after = ring(&programmed);
            let other = before
                .iter()
                .zip(after.iter())
                .filter(|(old, new)| old.current != new.current);
            let share = other.count() as f64 / after.len() as f64;
            assert!(share < 0.05, "{share:.3} of all slots at {now}");
            assert_eq!(rewrites, share > 0.0, "at {now}");
            moved.push(share);
        }
    }
    let total: f64 = moved.iter().sum();
    assert!((0.2..0.3).contains(&total), "{moved:?}");
}

proptest! {
    /// In all histories, some backend has its whole weight, none is overloaded, and no weight falls while its backend
    /// takes flows and the others stay.
    #[test]
    fn heights_are_fair_and_only_rise(
        weights in prop::collection::vec(1..=u16::MAX, 1..8),
        events in prop::collection::vec((0..8_usize, any::<bool>(), 0..60_u64), 1..40),
    ) {
        let names: Vec<String> = (0..weights.len()).map(|n| format!("b{n}")).collect();
        let list: Vec<(&str, u16)> = names.iter().zip(&weights).map(|(name, weight)| (name.as_str(), *weight)).collect();
        let mut scene = Scene::new(&list);
        let mut now = 0;
        scene.at(now);
        for (backend, down, wait) in events {
            let name = names[backend % names.len()].as_str();
            let verdict = if down { Health::Down } else { Health::Up };
            scene.health.insert(id("web", name), verdict);
            let before = scene.at(now);
            check(&before, &weights)?;
            now += wait;
            let after = scene.at(now);
            check(&after, &weights)?;
            for (old, new) in before.iter().zip(&after) {
                prop_assert!(new >= old, "{:?} {:?}", before, after);
            }
            prop_assert!(scene.next().is_none_or(|next| next > now && next <= now + STEP.as_secs()));
        }
    }
}

fn check(tenths: &[u8], weights: &[u16]) -> Result<(), TestCaseError> {
    let in_use = || tenths.iter().zip(weights).filter(|(tenths, _)| **tenths > 0);
    let fair: u64 = in_use().map(|(_, weight)| 10 * u64::from(*weight)).sum();
    let carried: u64 = in_use()
        .map(|(tenths, weight)| u64::from(*tenths) * u64::from(*weight))
        .sum();
    prop_assert!(2 * carried >= fair, "{:?}", tenths);
    prop_assert!(fair == 0 || tenths.contains(&10), "{:?}", tenths);
    Ok(())
}
