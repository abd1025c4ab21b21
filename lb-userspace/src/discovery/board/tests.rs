use std::time::Duration;

use super::*;
use crate::{
    control::Change,
    discovery::RETRY,
    state::{stored::Stored, testing},
};

/// A board that follows a desired state, as the task does.
struct Rig {
    board: Board,
    desired: Arc<Desired>,
    now: Instant,
}

impl Rig {
    /// Service web with host name app, modified by `change`.
    fn new(change: impl FnOnce(&mut crate::state::service::Service)) -> Self {
        let mut service = testing::service("web", 1, &[]);
        service.hosts.push(testing::host("app", "app.example.org"));
        change(&mut service);
        let mut rig = Self {
            board: Board::default(),
            desired: Arc::new(testing::desired([service])),
            now: Instant::now(),
        };
        rig.board.follow(&rig.desired, rig.now);
        rig
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// Runs the due look-ups, each with the given answer.
    fn answer(&mut self, answer: &Result<&[&str], &str>) -> Vec<String> {
        let mut news = Vec::new();
        for question in self.board.due(self.now) {
            let answer = answer.map_err(str::to_owned).map(|list| Answer {
                addresses: list.iter().map(|address| address.parse().unwrap()).collect(),
                lifetime: Duration::ZERO,
            });
            let wall = SystemTime::UNIX_EPOCH;
            news.extend(self.board.answered(&question, answer, self.now, wall));
        }
        news.into_iter().map(|news| news.message).collect()
    }

    /// Applies due changes; returns how many host names changed.
    fn change(&mut self) -> usize {
        let (changes, _) = self.board.changes(self.now, |_| false);
        let count = changes.len();
        if count > 0 {
            let stored = Stored::by_command((*self.desired).clone());
            self.desired = Change::Discovered(changes).follow(&stored).unwrap().desired;
            self.board.follow(&self.desired, self.now);
        }
        count
    }

    fn addresses(&self) -> Vec<String> {
        let services = self.desired.services.values();
        let backends = services.flat_map(|service| &service.backends);
        backends.map(|backend| backend.address.ip().to_string()).collect()
    }
}

#[test]
fn changes_are_gathered_and_make_one_revision_in_two_seconds() {
    let mut rig = Rig::new(|service| service.hosts.push(testing::host("db", "db.example.org")));
    rig.answer(&Ok(&["10.0.0.1"]));
    assert_eq!(rig.change(), 0, "changes of a second are gathered");
    rig.pass(999);
    assert_eq!(rig.change(), 0);
    rig.pass(1);
    let revision = rig.desired.revision.0;
    // Both names have the one address, which is the first one's.
    assert!(rig.change() > 0);
    assert_eq!(
        (rig.desired.revision.0, rig.addresses()),
        (revision + 1, vec!["10.0.0.1".to_owned()])
    );
    // A name that changes with each answer.
    let mut times = Vec::new();
    for turn in 0..60 {
        rig.pass(200);
        let address = format!("10.0.1.{turn}");
        rig.answer(&Ok(&[&address]));
        if rig.change() > 0 {
            times.push(turn * 200);
        }
    }
    assert!(times.len() >= 5, "{times:?}");
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] >= 2_000),
        "{times:?}"
    );
}

#[test]
fn failed_look_ups_keep_the_last_answer_and_are_reported_once() {
    let mut rig = Rig::new(|_| {});
    assert_eq!(
        rig.answer(&Ok(&["10.0.0.1", "10.0.0.2"])),
        ["app.example.org is resolved: 2 addresses"]
    );
    rig.pass(1_000);
    rig.change();
    assert_eq!(rig.addresses(), ["10.0.0.1", "10.0.0.2"]);
    let (mut news, mut asked) = (Vec::new(), 0);
    for _ in 0..600 {
        rig.pass(1_000);
        asked += rig.board.due(rig.now).len();
        // The next round of look-ups answers the question.
        let question = Question {
            id: ("web".parse().unwrap(), "app".parse().unwrap()),
            host: "app.example.org".parse().unwrap(),
            families: Families { v4: true, v6: false },
        };
        if rig.board.room() < MAX_LOOKUPS {
            let failed = Err("no answer in time".to_owned());
            news.extend(
                rig.board
                    .answered(&question, failed, rig.now, SystemTime::UNIX_EPOCH),
            );
        }
        assert_eq!(rig.change(), 0);
    }
    assert_eq!(rig.addresses(), ["10.0.0.1", "10.0.0.2"]);
    assert!((20..=30).contains(&asked), "{asked} look-ups in ten minutes");
    assert_eq!(news.len(), 1, "{news:?}");
    assert!(news[0].bad && news[0].message.contains("its last answer stays in force"));
    let status = rig.board.statuses().into_values().next().unwrap();
    assert!(!status.is_resolved() && status.failure.is_some());
    rig.pass(30_000);
    assert_eq!(
        rig.answer(&Ok(&["10.0.0.2"])),
        ["app.example.org is resolved: 1 address"]
    );
    rig.pass(1_000);
    rig.change();
    assert_eq!(rig.addresses(), ["10.0.0.2"]);
}

#[test]
fn names_are_looked_up_again_after_their_ttl_within_bounds() {
    for (lifetime, after) in [(0, 1), (1, 1), (60, 60), (86_400, 300)] {
        let mut rig = Rig::new(|_| {});
        let question = rig.board.due(rig.now).remove(0);
        assert_eq!(rig.board.due(rig.now), [], "one look-up at a time");
        let answer = Answer {
            addresses: BTreeSet::from(["10.0.0.1".parse().unwrap()]),
            lifetime: Duration::from_secs(lifetime),
        };
        rig.board
            .answered(&question, Ok(answer), rig.now, SystemTime::UNIX_EPOCH);
        rig.pass(1_000 * after - 1);
        assert_eq!(rig.board.due(rig.now), [], "{lifetime} s");
        rig.pass(1);
        assert_eq!(rig.board.due(rig.now).len(), 1, "{lifetime} s");
    }
}

#[test]
fn a_thousand_names_wait_for_each_other_and_a_thousand_addresses_are_enough() {
    let mut rig = Rig::new(|service| {
        service.hosts = (0..200)
            .map(|n| testing::host(&format!("app-{n}"), &format!("app-{n}.example.org")))
            .collect();
    });
    assert_eq!(rig.board.due(rig.now).len(), MAX_LOOKUPS);
    assert_eq!((rig.board.due(rig.now).len(), rig.board.next()), (0, None));

    let mut rig = Rig::new(|_| {});
    let all: Vec<String> = (0..1_200)
        .map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1))
        .collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let news = rig.answer(&Ok(&all));
    assert_eq!(
        news,
        ["app.example.org has 1200 addresses, of which the first 1000 are used"]
    );
    rig.pass(1_000);
    rig.change();
    assert_eq!(rig.addresses().len(), MAX_ADDRESSES);
}

#[test]
fn changed_host_or_family_is_looked_up_again_and_old_answers_are_ignored() {
    let mut rig = Rig::new(|_| {});
    let question = rig.board.due(rig.now).remove(0);
    let mut next = (*rig.desired).clone();
    for service in next.services.values_mut() {
        service.hosts[0].host = "other.example.org".parse().unwrap();
    }
    rig.desired = Arc::new(next);
    rig.board.follow(&rig.desired, rig.now);
    let late = Answer {
        addresses: BTreeSet::from(["10.0.0.1".parse().unwrap()]),
        lifetime: Duration::ZERO,
    };
    rig.board
        .answered(&question, Ok(late), rig.now, SystemTime::UNIX_EPOCH);
    rig.pass(1_000);
    assert_eq!(
        (rig.change(), rig.board.due(rig.now)[0].host.as_str()),
        (0, "other.example.org")
    );
}

#[test]
fn own_addresses_are_left_out_and_a_refused_change_is_tried_again() {
    let mut rig = Rig::new(|_| {});
    rig.answer(&Ok(&["10.0.0.1", "10.0.0.2"]));
    rig.pass(1_000);
    let own: IpAddr = "10.0.0.1".parse().unwrap();
    let (changes, news) = rig.board.changes(rig.now, |address| address == own);
    assert_eq!(
        changes[0].addresses,
        BTreeSet::from(["10.0.0.2".parse().unwrap()])
    );
    assert!(
        news[0].message.contains("10.0.0.1 is an address of this machine"),
        "{news:?}"
    );
    let news = rig.board.refused(&changes, "no room", rig.now);
    assert!(news.len() == 1 && news[0].message.contains("cannot be put in force: no room"));
    assert_eq!(rig.board.refused(&changes, "no room", rig.now), []);
    rig.now += RETRY;
    let (again, _) = rig.board.changes(rig.now, |address| address == own);
    assert_eq!(again, changes);
}
