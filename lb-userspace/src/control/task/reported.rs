//! What events have reported last, so that each difference is reported once.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::SystemTime,
};

use crate::{
    health::{
        CheckId,
        agent::{AgentAnswer, AgentReport, AgentView},
    },
    state::names::{BackendName, ServiceName},
};

/// Change of an agent's weight, in percentage points, that is reported: load varies all the time.
const REPORTED_FROM: u16 = 10;

/// A backend by its names.
type Id = (ServiceName, BackendName);

/// The last reported state of what is reported when it changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Reported {
    /// Weights by agents, in percent.
    percent: BTreeMap<CheckId, u16>,
    /// Backends that take flows although they are down.
    panic_mode: BTreeMap<ServiceName, Vec<BackendName>>,
    /// Backups that take new flows.
    backups: BTreeSet<Id>,
    /// When backends in slow start have their whole weight.
    whole_at: BTreeMap<Id, SystemTime>,
}

/// Changes of backends in slow start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct SlowStarts {
    /// Those that begin, and when they have their whole weight.
    pub(super) begun: Vec<(Id, SystemTime)>,
    /// Those that have it.
    pub(super) whole: Vec<Id>,
}

impl Reported {
    /// With the weights of these agents as reported.
    pub(super) fn weights_of(agents: &AgentView) -> Self {
        let percent = |(id, update): (&CheckId, &AgentReport)| (id.clone(), update.word.percent);
        Self {
            percent: agents.iter().map(percent).collect(),
            ..Self::default()
        }
    }

    /// Forgets weights of agents that are no more.
    pub(super) fn keep_weights_of(&mut self, agents: &AgentView) {
        self.percent.retain(|id, _| agents.contains_key(id));
    }

    /// Takes an agent's weight; returns whether it is to be reported: it differs much from the last one, or only one of the two is known
    /// or the whole weight. `before` is the weight of an agent of which nothing was reported.
    pub(super) fn weight(&mut self, id: &CheckId, before: u16, percent: u16) -> bool {
        let known = self.percent.entry(id.clone()).or_insert(before);
        let special = |percent: u16| percent == 0 || percent == AgentAnswer::default().percent;
        let is_reported = percent != *known
            && (percent.abs_diff(*known) >= REPORTED_FROM || special(percent) || special(*known));
        if is_reported {
            *known = percent;
        }
        is_reported
    }

    /// Takes the services in panic mode, each with its backends that are down and take flows. Returns those that are new or
    /// have others, and those whose panic mode has ended.
    pub(super) fn panic_mode(
        &mut self,
        now: BTreeMap<ServiceName, Vec<BackendName>>,
    ) -> (Vec<(ServiceName, Vec<BackendName>)>, Vec<ServiceName>) {
        let before = mem::replace(&mut self.panic_mode, now);
        let news = self.panic_mode.iter();
        let news = news.filter(|(name, backends)| before.get(*name) != Some(backends));
        let news = news
            .map(|(name, backends)| (name.clone(), backends.clone()))
            .collect();
        let ended = before
            .into_keys()
            .filter(|name| !self.panic_mode.contains_key(name));
        (news, ended.collect())
    }

    /// Takes the backups that take new flows. Returns those that begin (`true`) or cease to.
    pub(super) fn backups(&mut self, serving: BTreeSet<Id>) -> Vec<(Id, bool)> {
        let before = mem::replace(&mut self.backups, serving);
        let changed = before.symmetric_difference(&self.backups);
        changed
            .map(|id| (id.clone(), self.backups.contains(id)))
            .collect()
    }

    /// Whether any backend was reported to be in slow start.
    pub(super) fn any_starts_slowly(&self) -> bool {
        !self.whole_at.is_empty()
    }

    /// When backends in slow start have their whole weight.
    pub(super) const fn whole_at(&self) -> &BTreeMap<Id, SystemTime> {
        &self.whole_at
    }

    /// Takes the backends in slow start, and those that take flows with their whole weight.
    pub(super) fn slow_start(&mut self, rising: BTreeMap<Id, SystemTime>, whole: Vec<Id>) -> SlowStarts {
        let before = mem::replace(&mut self.whole_at, rising);
        let begun = self.whole_at.iter().filter(|(id, _)| !before.contains_key(*id));
        SlowStarts {
            begun: begun.map(|(id, at)| (id.clone(), *at)).collect(),
            whole: whole.into_iter().filter(|id| before.contains_key(id)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::id;

    fn names(service: &str, backend: &str) -> Id {
        (service.parse().unwrap(), backend.parse().unwrap())
    }

    #[test]
    fn small_changes_of_an_agents_weight_add_up_before_they_are_reported() {
        let (mut reported, a) = (Reported::default(), id("web", "a"));
        let percents = [95, 92, 91, 88, 84, 78, 3, 0, 1, 100, 100];
        let seen: Vec<u16> = percents
            .into_iter()
            .filter(|percent| reported.weight(&a, 100, *percent))
            .collect();
        assert_eq!(seen, [95, 84, 3, 0, 1, 100]);
    }

    #[test]
    fn panic_mode_is_reported_when_it_begins_changes_and_ends() {
        let mut reported = Reported::default();
        let now = |backends: &[&str]| {
            let backends: Vec<BackendName> = backends.iter().map(|name| name.parse().unwrap()).collect();
            let web: ServiceName = "web".parse().unwrap();
            BTreeMap::from_iter((!backends.is_empty()).then_some((web, backends)))
        };
        for (backends, news, ended) in [
            (&["a"][..], 1, 0),
            (&["a"], 0, 0),
            (&["a", "b"], 1, 0),
            (&[], 0, 1),
            (&[], 0, 0),
        ] {
            let (found, over) = reported.panic_mode(now(backends));
            assert_eq!((found.len(), over.len()), (news, ended), "{backends:?}");
        }
    }

    #[test]
    fn a_backup_is_reported_when_it_begins_and_ceases() {
        let mut reported = Reported::default();
        let (a, b) = (names("web", "a"), names("web", "b"));
        assert_eq!(reported.backups([a.clone()].into()), [(a.clone(), true)]);
        assert_eq!(reported.backups([a.clone()].into()), []);
        assert_eq!(reported.backups([b.clone()].into()), [(a, false), (b, true)]);
    }

    #[test]
    fn only_a_backend_that_has_risen_is_reported_whole() {
        let mut reported = Reported::default();
        let (a, b) = (names("web", "a"), names("web", "b"));
        let at = SystemTime::UNIX_EPOCH;
        let first = reported.slow_start([(a.clone(), at)].into(), vec![b.clone()]);
        assert_eq!(first.begun, [(a.clone(), at)]);
        assert!(first.whole.is_empty(), "it was whole before");
        let second = reported.slow_start(BTreeMap::new(), vec![a.clone(), b]);
        assert_eq!((second.begun, second.whole), (Vec::new(), vec![a]));
    }
}
