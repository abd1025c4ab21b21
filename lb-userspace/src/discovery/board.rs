//! Decides when to look names up, and how an answer changes the desired state. Reads no clock and touches no socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use crate::{
    control::change::Discovered,
    discovery::{
        limits::{
            ASK_AGAIN_MAX, ASK_AGAIN_MIN, FAILED_MAX, GATHER, MAX_ADDRESSES, MAX_LOOKUPS, RETRY, SPACING,
        },
        provider::{Answer, Families},
        status::{self, HostId, HostStatus, HostStatuses},
    },
    state::{
        desired::Desired,
        discovered::{self, LeftOut},
        hosts::HostName,
    },
};

/// A look-up to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Question {
    /// The host name's id.
    pub(super) id: HostId,
    /// The name to look up.
    pub(super) host: HostName,
    /// Addresses of which families.
    pub(super) families: Families,
}

/// A one-time report about a host name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct News {
    /// The host name's id.
    pub(super) id: HostId,
    /// Whether it is bad.
    pub(super) bad: bool,
    /// The message.
    pub(super) message: String,
}

#[derive(Debug)]
struct Known {
    host: HostName,
    families: Families,
    /// `None` while a look-up is in flight.
    due: Option<Instant>,
    failures: u32,
    answer: Option<BTreeSet<IpAddr>>,
    status: HostStatus,
}

/// All host names that are desired.
#[derive(Debug, Default)]
pub(super) struct Board {
    known: BTreeMap<HostId, Known>,
    desired: Arc<Desired>,
    /// When to apply answers that differ from the desired state.
    change_at: Option<Instant>,
    /// Before which no further change is made.
    not_before: Option<Instant>,
}

impl Board {
    /// Follows the desired state.
    pub(super) fn follow(&mut self, desired: &Arc<Desired>, now: Instant) {
        if Arc::ptr_eq(desired, &self.desired) {
            return;
        }
        self.desired = Arc::clone(desired);
        let mut known = BTreeMap::new();
        for service in desired.services.values() {
            for host in &service.hosts {
                let id = (service.name.clone(), host.name.clone());
                let families = Families::of(service, host);
                let there = self.known.remove(&id);
                let there = there.filter(|there| there.host == host.host && there.families == families);
                let there = there.unwrap_or_else(|| Known {
                    host: host.host.clone(),
                    families,
                    due: Some(now),
                    failures: 0,
                    answer: None,
                    status: HostStatus::default(),
                });
                known.insert(id, there);
            }
        }
        self.known = known;
        // An address that was left out may fit by now.
        let left_out = self.known.values().any(|known| !known.status.left_out.is_empty());
        self.schedule(now, left_out);
    }

    /// The look-ups that are due, as many as may be made at once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Question> {
        let mut room = self.room();
        let mut questions = Vec::new();
        for (id, known) in &mut self.known {
            if room > 0 && known.due.is_some_and(|due| due <= now) {
                known.due = None;
                room -= 1;
                questions.push(Question {
                    id: id.clone(),
                    host: known.host.clone(),
                    families: known.families,
                });
            }
        }
        questions
    }

    fn room(&self) -> usize {
        let asked = self.known.values().filter(|known| known.due.is_none()).count();
        MAX_LOOKUPS.saturating_sub(asked)
    }

    /// Takes an answer; returns the report about the host, if any.
    pub(super) fn answered(
        &mut self,
        question: &Question,
        answer: Result<Answer, String>,
        now: Instant,
        wall: SystemTime,
    ) -> Option<News> {
        let known = self.known.get_mut(&question.id)?;
        if known.host != question.host || known.families != question.families {
            return None;
        }
        let host = known.host.clone();
        let (bad, message) = match answer {
            Ok(Answer { addresses, lifetime }) => {
                known.due = Some(now + lifetime.clamp(ASK_AGAIN_MIN, ASK_AGAIN_MAX));
                known.failures = 0;
                let count = addresses.len();
                let first = !known.status.answered;
                let failed = known.status.failure.take().is_some();
                let cut = (count > MAX_ADDRESSES).then_some(count);
                let newly_cut = cut.is_some() && known.status.cut.is_none();
                known.status.cut = cut;
                known.status.answered = true;
                known.answer = Some(addresses.into_iter().take(MAX_ADDRESSES).collect());
                if newly_cut {
                    (
                        true,
                        format!("{host} has {count} addresses, of which the first {MAX_ADDRESSES} are used"),
                    )
                } else if failed || first {
                    (false, format!("{host} is resolved: {}", status::addresses(count)))
                } else {
                    self.schedule(now, false);
                    return None;
                }
            }
            Err(why) => {
                known.failures += 1;
                let wait = ASK_AGAIN_MIN.saturating_mul(1 << known.failures.min(8).saturating_sub(1));
                known.due = Some(now + wait.min(FAILED_MAX));
                let since = known.status.failure.as_ref().map(|(_, since)| *since);
                known.status.failure = Some((why.clone(), since.unwrap_or(wall)));
                if since.is_some() {
                    return None;
                }
                (
                    true,
                    format!("{host} cannot be looked up: {why}; its last answer stays in force"),
                )
            }
        };
        self.schedule(now, false);
        Some(News {
            id: question.id.clone(),
            bad,
            message,
        })
    }

    /// Schedules a change if an answer differs from the desired state, or `anyhow`.
    fn schedule(&mut self, now: Instant, anyhow: bool) {
        let differs = || self.known.iter().any(|(id, known)| self.differs(id, known));
        if self.change_at.is_none() && (anyhow || differs()) {
            let at = now + GATHER;
            self.change_at = Some(self.not_before.map_or(at, |not_before| at.max(not_before)));
        }
    }

    fn differs(&self, (service, name): &HostId, known: &Known) -> bool {
        let Some(answer) = &known.answer else { return false };
        let Some(service) = self.desired.services.get(service) else {
            return false;
        };
        let Ok(host) = service.host(name) else {
            return false;
        };
        let found: BTreeSet<IpAddr> = discovered::of(service, host)
            .iter()
            .map(|backend| backend.address.ip())
            .collect();
        let unused = |address: &IpAddr| known.status.left_out.iter().any(|left| left.address == *address);
        let usable = answer.iter().filter(|address| !unused(address)).copied();
        usable.collect::<BTreeSet<_>>() != found
    }

    /// The answers to apply now, and addresses that are left out for the first time. `is_own` recognises addresses of
    /// this machine, to which the program cannot send.
    pub(super) fn changes(
        &mut self,
        now: Instant,
        is_own: impl Fn(IpAddr) -> bool,
    ) -> (Vec<Discovered>, Vec<News>) {
        if self.change_at.is_none_or(|at| at > now) {
            return (Vec::new(), Vec::new());
        }
        self.change_at = None;
        let (mut changes, mut news) = (Vec::new(), Vec::new());
        let desired = Arc::clone(&self.desired);
        for (id, known) in &mut self.known {
            let Some(answer) = &known.answer else { continue };
            let (own, others): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) =
                answer.iter().partition(|address| is_own(**address));
            let own = own.into_iter().map(|address| LeftOut {
                address,
                why: format!("{address} is an address of this machine"),
            });
            let mut left_out: Vec<LeftOut> = own.collect();
            let mut changed = false;
            if !others.is_empty() {
                match discovered::answered(&desired, &id.0, &id.1, &others) {
                    Ok((next, more)) => {
                        left_out.extend(more);
                        changed = next.revision != desired.revision;
                        known.status.refused = None;
                    }
                    // The change itself is refused for the same reason, and reports it.
                    Err(_) => changed = true,
                }
            }
            if left_out != known.status.left_out {
                if let Some(first) = left_out.first() {
                    let count = status::addresses(left_out.len());
                    news.push(News {
                        id: id.clone(),
                        bad: true,
                        message: format!("{count} of {} not used: {}", known.host, first.why),
                    });
                }
                known.status.left_out = left_out;
            }
            if changed {
                changes.push(Discovered {
                    service: id.0.clone(),
                    host: id.1.clone(),
                    addresses: others,
                });
            }
        }
        if !changes.is_empty() {
            self.not_before = Some(now + SPACING);
        }
        (changes, news)
    }

    /// Records that a change was refused, and schedules a retry. Returns the reports.
    pub(super) fn refused(&mut self, changes: &[Discovered], why: &str, now: Instant) -> Vec<News> {
        self.not_before = Some(now + RETRY);
        self.change_at = Some(now + RETRY);
        let mut news = Vec::new();
        for Discovered { service, host, .. } in changes {
            let id = (service.clone(), host.clone());
            let Some(known) = self.known.get_mut(&id) else {
                continue;
            };
            if known.status.refused.as_deref() != Some(why) {
                known.status.refused = Some(why.to_owned());
                let message = format!("the addresses of {} cannot be put in force: {why}", known.host);
                news.push(News {
                    id,
                    bad: true,
                    message,
                });
            }
        }
        news
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.known.values().filter_map(|known| known.due).min();
        due.filter(|_| self.room() > 0)
            .into_iter()
            .chain(self.change_at)
            .min()
    }

    /// How each does.
    pub(super) fn statuses(&self) -> HostStatuses {
        let all = self.known.iter();
        all.map(|(id, known)| (id.clone(), known.status.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
