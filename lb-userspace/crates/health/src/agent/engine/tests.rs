//! Agents in a time that the tests make.

use std::time::SystemTime;

use super::*;
use crate::{
    agent::report::AgentAnswer,
    error::LocalError,
    testing::{self, AgentSpec, CheckId},
};

type AgentEngine = super::AgentEngine<CheckId>;

const MS: Duration = Duration::from_millis(1);

fn spec(backend: &str, target: &str) -> AgentSpec {
    AgentSpec {
        id: testing::id("web", backend),
        target: target.parse().unwrap(),
        settings: AgentSettings::default(),
        initial: AgentAnswer::default(),
    }
}

struct World {
    engine: AgentEngine,
    began: Instant,
    now: Instant,
}

impl World {
    fn new(specs: Vec<AgentSpec>) -> Self {
        let began = Instant::now();
        let mut engine = AgentEngine::new(7);
        assert_eq!(engine.update(specs, began).len(), 0);
        Self {
            engine,
            began,
            now: began,
        }
    }

    /// Advances to the next poll, and answers it at once.
    fn next(&mut self, answer: Result<&str, CheckError>) -> (Instant, Vec<CheckId>) {
        self.now = self.now.max(self.engine.next_deadline().unwrap());
        let (no, agent) = self.engine.start_due(self.now).unwrap();
        let ids = agent.ids.iter().cloned().collect();
        let now = Moment {
            instant: self.now,
            wall: SystemTime::UNIX_EPOCH + (self.now - self.began),
        };
        let found = answer.map(|line| line.as_bytes().to_vec());
        self.engine.finish(no, self.now, found, now).unwrap();
        (self.now, ids)
    }

    fn report(&self, backend: &str) -> AgentReport {
        self.engine.reports()[&testing::id("web", backend)].clone()
    }
}

fn refused() -> CheckError {
    CheckError::Refused("10.0.0.1:9".parse().unwrap())
}

#[test]
fn unreachable_agent_changes_nothing_and_is_lost_after_some_failures() {
    let mut world = World::new(vec![spec("a", "10.0.0.1:9")]);
    world.next(Ok("drain 50% down #disk full"));
    let standing = world.report("a");
    assert_eq!(standing.word.to_string(), "drain, down, 50%");
    assert_eq!(&*standing.reason, "disk full");
    for failures in 1..=LOST_AFTER + 1 {
        world.next(Err(CheckError::Local {
            target: "10.0.0.1:9".parse().unwrap(),
            error: LocalError::Memory,
        }));
        world.next(Err(refused()));
        let report = world.report("a");
        assert_eq!((report.word, &report.reason), (standing.word, &standing.reason));
        let lost = (failures >= LOST_AFTER).then_some("connection refused by 10.0.0.1:9");
        assert_eq!(report.lost.as_deref(), lost, "after {failures}");
    }
    world.next(Ok(""));
    assert_eq!(world.report("a"), standing, "found again, without news");
}

#[test]
fn latest_answer_is_shown() {
    let mut world = World::new(vec![spec("a", "10.0.0.1:9")]);
    let last = |world: &World| {
        let last = world.engine.statuses()[&testing::id("web", "a")]
            .last
            .clone()
            .unwrap();
        (last.answer, last.note)
    };
    world.next(Ok("up\tmaxconn:5"));
    let note = "maxconn does not apply to a balancer of packets";
    assert_eq!(last(&world), (Ok("up maxconn:5".into()), Some(note.into())));
    world.next(Err(refused()));
    assert_eq!(
        last(&world),
        (Err("connection refused by 10.0.0.1:9".into()), None)
    );
}

/// Thousands of agents must not be polled at once, at the start or later, nor one of them twice within half an
/// interval.
#[test]
fn agents_are_polled_at_their_interval_and_never_all_at_once() {
    let count = 500;
    let target = |n: u16| format!("10.0.{}.{}:9", n / 250, n % 250);
    let specs = (0..count).map(|n| spec(&format!("b{n}"), &target(n))).collect();
    let mut world = World::new(specs);
    let interval = AgentSettings::default().interval;
    let mut asked: BTreeMap<CheckId, Vec<Instant>> = BTreeMap::new();
    let mut all = Vec::new();
    let end = world.began + 20 * interval;
    while world.now < end {
        let (at, ids) = world.next(Ok("up"));
        all.push(at);
        asked.entry(ids[0].clone()).or_default().push(at);
    }
    assert_eq!(asked.len(), usize::from(count));
    for (id, times) in asked {
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // In phase from the second time on.
        assert!(
            gaps.iter().all(|gap| *gap >= interval * 4 / 10),
            "{id:?}: {gaps:?}"
        );
        assert!(
            gaps.iter().all(|gap| *gap <= interval * 13 / 10),
            "{id:?}: {gaps:?}"
        );
        assert!((17..=22).contains(&times.len()), "{id:?}: {}", times.len());
    }
    // In the order of time: how many follow each within 20 ms.
    let busiest = (0..all.len()).map(|first| {
        let window = all[first..].iter().take_while(|at| **at < all[first] + 20 * MS);
        window.count()
    });
    let busiest = busiest.max();
    // 500 in 2 s are 5 in 20 ms; at the start, one each millisecond.
    assert!(busiest <= Some(45), "{busiest:?} within 20 ms");
}

#[test]
fn backends_at_one_address_share_an_agent_and_others_are_undisturbed() {
    let shared = vec![
        spec("a", "10.0.0.1:9"),
        spec("b", "10.0.0.1:9"),
        spec("c", "10.0.0.2:9"),
    ];
    let mut world = World::new(shared);
    let (mut asked, mut times) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (at, ids) = world.next(Ok("drain"));
        asked.push(ids);
        times.push(at);
    }
    asked.sort();
    assert_eq!(
        asked,
        [
            vec![testing::id("web", "a"), testing::id("web", "b")],
            vec![testing::id("web", "c")]
        ]
    );
    let due = world.engine.next_deadline();
    let moved = AgentSpec {
        initial: AgentAnswer {
            percent: 7,
            ..AgentAnswer::default()
        },
        ..spec("c", "10.0.0.3:9")
    };
    let gone = world
        .engine
        .update(vec![spec("b", "10.0.0.1:9"), moved], world.now);
    assert_eq!(gone.len(), 1, "only c's agent: b still needs the shared one");
    assert!(world.engine.next_deadline() <= due);
    let words: BTreeMap<CheckId, String> = world
        .engine
        .reports()
        .into_iter()
        .map(|(id, report)| (id, report.word.to_string()))
        .collect();
    assert_eq!(
        words,
        BTreeMap::from([
            (testing::id("web", "b"), "drain".to_owned()),
            (testing::id("web", "c"), "7%".to_owned())
        ])
    );
}
