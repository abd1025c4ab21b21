//! Decides which targets to check, and the effect of results on their health states. Pure, except for the status board
//! that it writes.

mod check;
mod judge;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

pub(super) use self::check::CheckNo;
use self::check::{Check, note_breaker};
use super::{
    board::{CheckStatuses, StatusBoard},
    breaker::Breaker,
    machine::{Machine, Policy},
    memory::{Known, Memory},
    metrics::{HealthMetrics, ServiceMetrics},
    phase::{Moment, Phases},
    probe_route::CheckPath,
    schedule::{Due, Scheduler},
    settings::CheckSettings,
    status::{CheckSpec, CheckStatus, HealthEvent},
    target::TargetId,
};
use crate::health_state::Health;

/// Time between the first checks of targets that have no verdict yet, so that thousands of them make no burst.
pub(super) const START_SPACING: Duration = Duration::from_millis(1);

/// A check that came into being.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct NewCheck {
    pub(super) no: CheckNo,
    pub(super) target: SocketAddr,
    pub(super) path: Option<CheckPath>,
    pub(super) settings: CheckSettings,
    /// The verdict it begins with.
    pub(super) verdict: Health,
}

/// The effect of an update.
#[derive(Debug)]
pub(super) struct Changes<I> {
    pub(super) started: Vec<NewCheck>,
    pub(super) stopped: Vec<CheckNo>,
    pub(super) events: Vec<HealthEvent<I>>,
    /// Health states that did not change but differ from the specs: the caller has not received them yet, or has
    /// removed and added the backend faster than the engine saw.
    pub(super) reminders: Vec<HealthEvent<I>>,
}

impl<I> Default for Changes<I> {
    fn default() -> Self {
        Self {
            started: Vec::new(),
            stopped: Vec::new(),
            events: Vec::new(),
            reminders: Vec::new(),
        }
    }
}

impl<I: TargetId> Changes<I> {
    /// Adds the health state of `spec` to the reminders if it differs from the one that the caller has (`known`).
    fn remind(
        &mut self,
        spec: &CheckSpec<I>,
        known: Option<Health>,
        health: Health,
        memory: Memory,
        at: SystemTime,
    ) {
        let changed = known.is_some_and(|known| known != health);
        if !changed && health == spec.initial {
            return;
        }
        let (to, detail) = match known {
            None => (&mut self.events, "another service checks the same target"),
            Some(_) if changed => (&mut self.events, "its check was changed"),
            Some(_) => (&mut self.reminders, "as before"),
        };
        to.push(HealthEvent {
            id: spec.id.clone(),
            health,
            detail: detail.to_owned(),
            at,
            memory,
        });
    }
}

/// All checks.
#[derive(Debug)]
pub(super) struct Engine<I: TargetId> {
    checks: BTreeMap<CheckNo, Check<I>>,
    /// Backend address of each id, by which an update distinguishes the same server from another one.
    targets: BTreeMap<I, SocketAddr>,
    /// The check of each id that is checked.
    numbers: BTreeMap<I, CheckNo>,
    /// When breakers advance by themselves.
    breakers: BTreeSet<(Instant, CheckNo)>,
    services: BTreeMap<I::Service, ServiceMetrics>,
    /// Memories of an earlier process about targets that are not checked yet.
    recalled: BTreeMap<I, (SocketAddr, Memory)>,
    /// Memories to store although no health state changed.
    memos: Vec<HealthEvent<I>>,
    next_no: CheckNo,
    scheduler: Scheduler<CheckNo>,
    phases: Phases,
    metrics: HealthMetrics,
    board: StatusBoard<I>,
}

impl<I: TargetId> Engine<I> {
    pub(super) fn new(
        max_in_flight: usize,
        seed: u64,
        metrics: HealthMetrics,
        board: StatusBoard<I>,
    ) -> Self {
        Self {
            checks: BTreeMap::new(),
            targets: BTreeMap::new(),
            numbers: BTreeMap::new(),
            breakers: BTreeSet::new(),
            services: BTreeMap::new(),
            recalled: BTreeMap::new(),
            memos: Vec::new(),
            next_no: 0,
            scheduler: Scheduler::new(max_in_flight, seed),
            phases: Phases::new(seed),
            metrics,
            board,
        }
    }

    /// Lets checks that begin with the next update continue from an earlier process's memories of these targets.
    pub(super) fn recall(&mut self, recalled: BTreeMap<I, (SocketAddr, Memory)>) {
        self.recalled = recalled;
    }

    /// Memories to store although no health state changed, since the last call.
    pub(super) fn memos(&mut self) -> Vec<HealthEvent<I>> {
        mem::take(&mut self.memos)
    }

    /// Makes the checks equal to `specs`. Checks that stay as they are are not disturbed; a backend that is checked
    /// in another way from now on keeps its verdict, one with another address begins with the verdict of its spec.
    pub(super) fn update(&mut self, specs: Vec<CheckSpec<I>>, now: Moment) -> Changes<I> {
        let mut changes = Changes::default();
        let old_statuses = self.board.snapshot();
        let old_targets = mem::take(&mut self.targets);
        self.numbers.clear();
        let mut by_target: BTreeMap<SocketAddr, Vec<CheckNo>> = BTreeMap::new();
        for (&no, check) in &mut self.checks {
            by_target.entry(check.target).or_default().push(no);
            check.ids.clear();
            check.services.clear();
        }

        let first_new = self.next_no;
        let mut statuses = BTreeMap::new();
        let wanted: BTreeMap<I, CheckSpec<I>> =
            specs.into_iter().map(|spec| (spec.id.clone(), spec)).collect();
        // Statuses stand in this order.
        for (place, (id, spec)) in wanted.into_iter().enumerate() {
            let known = old_statuses.get(&id);
            let same_server = known.filter(|_| old_targets.get(&id) == Some(&spec.target));
            let verdict = same_server
                .map(|status| status.health)
                .filter(|health| *health != Health::Unchecked)
                .unwrap_or(spec.initial);
            let checked = spec.settings.kind.is_check();
            let (health, judgement, memory) = if checked {
                let no = self.join(&id, place, &spec, verdict, (first_new, now), &mut by_target);
                self.checks.get(&no).map_or_else(Default::default, |check| {
                    (check.verdict(), check.judgement(), check.known().memory(now))
                })
            } else {
                Default::default()
            };
            changes.remind(&spec, known.map(|status| status.health), health, memory, now.wall);
            let same_verdict = same_server.filter(|status| status.health == health);
            let status = CheckStatus {
                health,
                since: same_verdict.map_or(now.wall, |status| status.since),
                last_check: same_server
                    .filter(|_| checked)
                    .and_then(|status| status.last_check.clone()),
                judgement,
                shared: None,
            };
            self.targets.insert(id.clone(), spec.target);
            statuses.insert(id, status);
        }
        drop(old_statuses);
        for check in self.checks.values().filter(|check| check.ids.len() > 1) {
            let shared: Arc<[I]> = check.ids.keys().cloned().collect();
            for id in check.ids.keys() {
                if let Some(status) = statuses.get_mut(id) {
                    status.shared = Some(Arc::clone(&shared));
                }
            }
        }
        self.board.write(|board| *board = CheckStatuses::from(statuses));

        let services: BTreeSet<&I::Service> = self.targets.keys().map(|id| id.service()).collect();
        for (gone, _) in self
            .services
            .extract_if(.., |service, _| !services.contains(service))
        {
            self.metrics.forget(gone.as_ref());
        }
        changes.stopped = self
            .checks
            .iter()
            .filter(|(_, check)| check.ids.is_empty())
            .map(|(no, _)| *no)
            .collect();
        for no in &changes.stopped {
            self.checks.remove(no);
            self.scheduler.remove(*no);
        }
        self.start(first_new, now, &mut changes);
        // An update names all checks, so other memories are never needed.
        if !self.checks.is_empty() {
            self.recalled.clear();
        }
        changes
    }

    /// Adds `id`, with its status at index `place`, to the check that it shares with others, or to a new one. Returns
    /// its number.
    fn join(
        &mut self,
        id: &I,
        place: usize,
        spec: &CheckSpec<I>,
        verdict: Health,
        (first_new, now): (CheckNo, Moment),
        by_target: &mut BTreeMap<SocketAddr, Vec<CheckNo>>,
    ) -> CheckNo {
        let mut target = spec.target;
        if let Some(port) = spec.settings.port {
            target.set_port(port);
        }
        let same = by_target.entry(target).or_default();
        let found = same
            .iter()
            .copied()
            .find(|no| self.checks.get(no).is_some_and(|check| check.is_of(spec)));
        let no = found.unwrap_or_else(|| {
            let no = self.next_no;
            self.next_no += 1;
            same.push(no);
            no
        });
        let check = self.checks.entry(no).or_insert_with(|| Check {
            target,
            path: spec.path,
            settings: spec.settings.clone(),
            machine: Machine::new(Policy::new(&spec.settings), verdict),
            suspect: None,
            breaker: Breaker::default(),
            started: None,
            reported: Known::default(),
            ids: BTreeMap::new(),
            services: BTreeMap::new(),
        });
        let recalled = self.recalled.remove(id);
        if let Some((_, memory)) = recalled.filter(|(target, _)| no >= first_new && *target == spec.target) {
            check.recall(&memory, now);
            note_breaker(&mut self.breakers, no, check);
        } else if no >= first_new && check.machine.health() == Health::Unchecked {
            check.machine = Machine::new(*check.machine.policy(), verdict);
        }
        check.ids.insert(id.clone(), place);
        self.numbers.insert(id.clone(), no);
        let metrics = &self.metrics;
        let service = self
            .services
            .entry(id.service().clone())
            .or_insert_with(|| metrics.service(id.service().as_ref()));
        check
            .services
            .entry(id.service().clone())
            .or_insert_with(|| service.clone());
        no
    }

    /// Schedules the checks from number `first_new` on: unchecked ones soon, since clients wait for them, the others in
    /// their phase.
    fn start(&mut self, first_new: CheckNo, now: Moment, changes: &mut Changes<I>) {
        let new: Vec<(&CheckNo, &Check<I>)> = self.checks.range(first_new..).collect();
        let hurry = START_SPACING.saturating_mul(u32::try_from(new.len()).unwrap_or(u32::MAX));
        let mut hurried = Vec::new();
        for (no, check) in &new {
            let interval = check.machine.policy().interval();
            match check.machine.health() {
                Health::Unchecked => hurried.push((**no, interval.min(hurry))),
                Health::Up | Health::Down => {
                    let latest = now.instant + interval;
                    let at = self.phases.align(check.target, interval, now, latest);
                    self.scheduler.begin(**no, at);
                }
            }
        }
        changes.started = new
            .into_iter()
            .map(|(&no, check)| NewCheck {
                no,
                target: check.target,
                path: check.path,
                settings: check.settings.clone(),
                verdict: check.machine.health(),
            })
            .collect();
        self.scheduler.spread(&hurried, now.instant);
    }

    /// When something can start or passes; `None`: not before a check ends or the next update.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let breaker = self.breakers.first().map(|(at, _)| *at);
        self.scheduler.next_deadline().into_iter().chain(breaker).min()
    }

    /// The next check that must start now.
    pub(super) fn start_due(&mut self, now: Instant) -> Option<CheckNo> {
        let Due { key, due } = self.scheduler.start_due(now)?;
        self.metrics
            .lag
            .observe(now.saturating_duration_since(due).as_secs_f64());
        self.count_in_flight();
        if let Some(check) = self.checks.get_mut(&key) {
            check.started = Some(now);
        }
        Some(key)
    }

    /// Whether it is up, without failures or signals since.
    pub(super) fn is_settled(&self, no: CheckNo) -> bool {
        let check = self.checks.get(&no);
        check.is_some_and(|check| check.machine.is_settled() && check.suspect.is_none())
    }

    /// Has checks that look at reports start now where there is one about their target.
    pub(super) fn hasten(&mut self, targets: &BTreeSet<SocketAddr>, now: Instant) {
        for (no, check) in &self.checks {
            if check.settings.kind.is_reported() && targets.contains(&check.target) {
                self.scheduler.hasten(*no, now);
            }
        }
    }

    /// Shows how many checks have no result yet.
    pub(super) fn count_in_flight(&self) {
        self.metrics
            .in_flight
            .set(i64::try_from(self.scheduler.in_flight()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests;
