//! The effect of check results, passive signals and time on a health state.

use std::time::{Instant, SystemTime};

use lb_common::counters::Signals;

use super::{
    Engine,
    check::{Check, CheckNo, note_breaker},
};
use crate::{
    board::CheckStatuses,
    health_state::Health,
    machine::{Decision, Outcome},
    phase::{Moment, Phases},
    settings::Damping,
    status::{HealthEvent, LastCheck},
    target::TargetId,
};

impl<I: TargetId> Engine<I> {
    /// A check ended. Returns the verdicts that changed by it.
    pub(crate) fn finish(
        &mut self,
        no: CheckNo,
        started: Instant,
        last: LastCheck,
        now: Moment,
    ) -> Vec<HealthEvent<I>> {
        let Some(check) = self.checks.get_mut(&no) else {
            return Vec::new();
        };
        let means = match &last.outcome {
            Ok(()) => Outcome::Success,
            Err(error) if error.is_local() => Outcome::Local,
            Err(_) => Outcome::Failure,
        };
        let before = check.verdict();
        let decision = check.machine.on_result(started, means);
        let closed = check.clear(started, means);
        let (next, window) = check.next(decision, started, now, self.phases);
        self.scheduler.finish(no, now.instant, next, window);
        for service in check.services.values() {
            service.count(means, last.latency);
        }
        let detail = if check.verdict() == before {
            String::new()
        } else {
            check.why(&last, closed)
        };
        let events = check.judged(before, detail, last.at, now);
        check.remember(&events, now, &mut self.memos);
        self.board
            .write(|board| check.show(before, last.at, Some(&last), board));
        note_breaker(&mut self.breakers, no, check);
        events
    }

    /// Takes passive signals of backends: each becomes suspect until a check succeeds, is checked as soon as the fast
    /// interval allows, and its breaker may open. Ignored for targets that are down. Returns changed health states.
    pub(crate) fn take_signals(&mut self, signals: Vec<(I, Signals)>, now: Moment) -> Vec<HealthEvent<I>> {
        let mut events = Vec::new();
        for (id, signals) in signals {
            let Some((&no, check)) = self
                .numbers
                .get(&id)
                .and_then(|no| Some((no, self.checks.get_mut(no)?)))
            else {
                continue;
            };
            if !check.settings.passive || signals.total() == 0 || check.machine.health() == Health::Down {
                continue;
            }
            let before = check.verdict();
            let settings = check.machine.policy().breaker();
            let opened = check.breaker.take_signals(signals, now.instant, &settings);
            if check.suspect.is_none() || opened.is_some() {
                check.suspect = Some(now.instant);
            }
            let soonest = check.started.map_or(now.instant, |started| {
                started + check.machine.policy().fast_interval()
            });
            self.scheduler.hasten(no, soonest.max(now.instant));
            if opened.is_some() {
                check.count_breaker();
            }
            let detail = opened.map(|why| format!("circuit breaker open: {why}"));
            let judged = check.judged(before, detail.unwrap_or_default(), now.wall, now);
            check.remember(&judged, now, &mut self.memos);
            events.extend(judged);
            self.board
                .write(|board| check.show(before, now.wall, None, board));
            note_breaker(&mut self.breakers, no, check);
        }
        events
    }

    /// Advances breakers whose time has come. Returns changed health states.
    pub(crate) fn pass(&mut self, now: Moment) -> Vec<HealthEvent<I>> {
        let mut events = Vec::new();
        while let Some((at, no)) = self
            .breakers
            .first()
            .copied()
            .filter(|(at, _)| *at <= now.instant)
        {
            self.breakers.remove(&(at, no));
            let Some(check) = self.checks.get_mut(&no) else {
                continue;
            };
            let before = check.verdict();
            let settings = check.machine.policy().breaker();
            if check.breaker.deadline() == Some(at) && check.breaker.pass(now.instant, &settings) {
                check.count_breaker();
                let detail = "circuit breaker half-open: takes flows on trial".to_owned();
                let judged = check.judged(before, detail, now.wall, now);
                check.remember(&judged, now, &mut self.memos);
                events.extend(judged);
                self.board
                    .write(|board| check.show(before, now.wall, None, board));
                note_breaker(&mut self.breakers, no, check);
            }
        }
        events
    }
}

impl<I: TargetId> Check<I> {
    /// Adds the memory to the memos, if it has changed and none of `events` carries it.
    fn remember(&mut self, events: &[HealthEvent<I>], now: Moment, memos: &mut Vec<HealthEvent<I>>) {
        let known = self.known();
        if known == self.reported {
            return;
        }
        if events.is_empty() {
            let health = self.verdict();
            let memory = known.memory(now);
            memos.extend(self.ids.keys().map(|id| HealthEvent {
                id: id.clone(),
                health,
                detail: String::new(),
                at: now.wall,
                memory: memory.clone(),
            }));
        }
        self.reported = known;
    }

    /// A check has found out how things stand: a success that began after the suspicion ends it, and a verdict of down
    /// needs none. Returns whether the breaker was closed by that.
    fn clear(&mut self, started: Instant, means: Outcome) -> bool {
        let succeeded = means == Outcome::Success && self.suspect.is_none_or(|since| since <= started);
        if !succeeded && self.machine.health() != Health::Down {
            return false;
        }
        self.suspect = None;
        let closed = self.breaker.close();
        if closed {
            self.count_breaker();
        }
        closed
    }

    /// When the next check is due, and by how much it may be moved.
    fn next(
        &self,
        decision: Decision,
        started: Instant,
        now: Moment,
        phases: Phases,
    ) -> (Instant, std::time::Duration) {
        let policy = self.machine.policy();
        if self.suspect.is_some() {
            let fast = started + policy.fast_interval();
            return (decision.next.min(fast), std::time::Duration::ZERO);
        }
        if !decision.settled {
            return (decision.next, decision.window);
        }
        let (interval, shift) = (policy.interval(), policy.shift());
        let at = phases.align(self.target, interval, now, started + interval + shift);
        (at.max(started + policy.fast_interval() + shift), shift)
    }

    /// Why the verdict changed by a result, in words.
    fn why(&self, last: &LastCheck, closed: bool) -> String {
        let mut why = last.detail().into_owned();
        if self.machine.is_damped() {
            let Damping { limit, window, hold } = self.settings.damping;
            why.push_str(&format!(
                "; fell {limit} times within {}: held down until it has succeeded for {}",
                humantime::format_duration(window),
                humantime::format_duration(hold)
            ));
        }
        if closed {
            why.push_str("; circuit breaker closed");
        }
        why
    }

    /// Counted events for all its backends, if the health state differs from `before`.
    fn judged(&self, before: Health, detail: String, at: SystemTime, now: Moment) -> Vec<HealthEvent<I>> {
        let health = self.verdict();
        if health == before {
            return Vec::new();
        }
        let memory = self.known().memory(now);
        let event = |id: &I| {
            if let Some(service) = self.services.get(id.service()) {
                service.count_transition(health);
            }
            HealthEvent {
                id: id.clone(),
                health,
                detail: detail.clone(),
                at,
                memory: memory.clone(),
            }
        };
        self.ids.keys().map(event).collect()
    }

    /// Shows how things stand, and the result that has just come, if any.
    fn show(&self, before: Health, at: SystemTime, last: Option<&LastCheck>, board: &mut CheckStatuses<I>) {
        for place in self.ids.values() {
            let Some(status) = board.at(*place) else {
                continue;
            };
            if let Some(last) = last {
                status.last_check = Some(last.clone());
            }
            status.judgement = self.judgement();
            if self.verdict() != before {
                status.health = self.verdict();
                status.since = at;
            }
        }
    }

    fn count_breaker(&self) {
        for service in self.services.values() {
            service.count_breaker(self.breaker.state());
        }
    }
}
