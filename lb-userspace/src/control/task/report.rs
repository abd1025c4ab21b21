//! Telling others: events and the published view.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{ControlTask, reported::SlowStarts};
use crate::{
    author::Author,
    clock::now,
    config::diff::{self, Subject},
    control::{
        ports::ProgramTarget,
        verdicts,
        view::{ControlView, RefusedFile},
    },
    events::{EventKind, EventLog, NewEvent, rfc3339},
    health::CheckId,
    state::{
        agents, backups,
        desired::Revision,
        names::{BackendName, ServiceName},
        removal,
    },
};

/// Maximum events of one change, besides the event with its revision.
const EVENTS_PER_CHANGE: usize = 100;

impl<P: ProgramTarget> ControlTask<P> {
    pub(super) fn report(&self, diff: &diff::Diff, by: Option<&Author>) {
        let revision = self.desired.revision.0;
        tracing::info!(
            revision,
            changes = diff.items.len(),
            by = by.map(tracing::field::display),
            "applied"
        );
        let in_force = format!("revision {revision} in force");
        self.event_by(EventKind::Applied, None, in_force, by);
        for item in diff.items.iter().take(EVENTS_PER_CHANGE) {
            let (kind, subject) = subject(&item.what);
            self.event_by(kind, subject, sentence(item), by);
        }
        if let Some(more) = diff
            .items
            .len()
            .checked_sub(EVENTS_PER_CHANGE)
            .filter(|more| *more > 0)
        {
            self.event_by(EventKind::Applied, None, format!("and {more} more changes"), by);
        }
    }

    /// Reports the changes made by command that a configuration file has undone.
    pub(super) fn report_replaced(&self, replaced: &diff::Diff, by: Option<&Author>) {
        report_replaced(&self.events, self.desired.revision, replaced, by);
    }

    /// Records that a configuration file was refused.
    pub(super) fn refuse(&mut self, why: String, by: Option<&Author>) {
        tracing::error!("{why}");
        // No caller waits for the result, so an alert must be able to see it.
        self.metrics.last_apply(false);
        self.event_by(EventKind::Refused, None, why.clone(), by);
        self.refused = Some(RefusedFile {
            why,
            at: SystemTime::now(),
        });
        self.publish();
    }

    pub(super) fn event(
        &self,
        kind: EventKind,
        subject: Option<(ServiceName, Option<BackendName>)>,
        message: String,
    ) {
        self.event_by(kind, subject, message, None);
    }

    /// An event caused by a command, if it has an author.
    pub(super) fn event_by(
        &self,
        kind: EventKind,
        subject: Option<(ServiceName, Option<BackendName>)>,
        message: String,
        by: Option<&Author>,
    ) {
        let (service, backend) = subject.map_or((None, None), |(service, backend)| (Some(service), backend));
        let event = NewEvent {
            kind,
            service: service.map(|name| name.to_string()),
            backend: backend.map(|name| name.to_string()),
            revision: self.desired.revision.0,
            message,
            by: by.cloned(),
        };
        self.events.push(event, SystemTime::now());
    }

    /// Reports changes of the services that use backends which are down (panic mode).
    fn report_panic_mode(&mut self) {
        let now = removal::panic_mode(
            &self.desired,
            &agents::judged(&self.health, &self.agents),
            &self.wanted,
        );
        let (news, ended) = self.reported.panic_mode(now);
        for (name, backends) in news {
            let backends: Vec<&str> = backends.iter().map(BackendName::as_str).collect();
            let message = format!(
                "too many backends are down: flows still go to {}",
                backends.join(", ")
            );
            tracing::warn!(service = %name, "{message}");
            self.event(EventKind::Overruled, Some((name, None)), message);
        }
        for name in ended {
            tracing::info!(service = %name, "panic mode ended: no backend that is down takes flows");
            let message = "panic mode ended: no backend that is down takes flows".to_owned();
            self.event(EventKind::Overruled, Some((name, None)), message);
        }
    }

    /// Reports which backups begin and cease to take new flows.
    fn report_backups(&mut self) {
        let serving = backups::serving(&self.desired, &self.wanted);
        let serving = serving.map(|(service, backend)| (service.clone(), backend.clone()));
        let changed = self.reported.backups(serving.collect());
        if changed.is_empty() {
            return;
        }
        let judged = agents::judged(&self.health, &self.agents);
        let desired = agents::in_force(&self.desired, &self.agents);
        let blocked = self.reach.blocked(now());
        for ((service, backend), serves) in changed {
            let others = desired
                .service(&service)
                .map(|there| (there, backups::others(there, &judged, &blocked)));
            let why = others.map_or_else(
                |_| "its service is gone".to_owned(),
                |(there, (can, all))| {
                    format!(
                        "{can} of {all} other backends can, and backup_below is {}",
                        there.backup_below
                    )
                },
            );
            let message = if serves {
                format!("backup takes new flows: {why}")
            } else {
                format!("backup takes no more new flows: {why}")
            };
            if serves {
                tracing::warn!(%service, %backend, "{message}");
            } else {
                tracing::info!(%service, %backend, "{message}");
            }
            self.event(EventKind::Backup, Some((service, Some(backend))), message);
        }
    }

    /// Reports which backends begin slow start, and which reach their whole weight.
    fn report_slow_start(&mut self) {
        let (instant, wall) = (now(), SystemTime::now());
        let (mut rising_until, mut whole) = (BTreeMap::new(), Vec::new());
        // Most balancers have none.
        let risen = self.reported.any_starts_slowly();
        let backends = verdicts::backends(&self.desired);
        for (CheckId(service, backend), of, there) in
            backends.filter(|(_, of, _)| risen || !of.slow_start.is_zero())
        {
            let target = self.wanted.services.get(&of.key);
            let target = target.and_then(|target| target.backends.get(&there.address));
            let rising = target.is_some_and(|target| target.held_back > 0);
            let ends = self.pace.slow_start.whole_at(of.key, there.address, instant);
            let id = (service, backend);
            if let Some(at) = ends.filter(|_| rising) {
                rising_until.insert(id, wall + at.saturating_duration_since(instant));
            } else if target.is_some_and(|target| target.weight > 0) {
                whole.push(id);
            }
        }
        let SlowStarts { begun, whole } = self.reported.slow_start(rising_until, whole);
        for (service, backend) in whole {
            let subject = Some((service, Some(backend)));
            self.event(EventKind::SlowStart, subject, "has its whole weight".into());
        }
        for ((service, backend), at) in begun {
            let message = format!("starts slowly, full weight at {}", rfc3339(at));
            self.event(EventKind::SlowStart, Some((service, Some(backend))), message);
        }
    }

    pub(super) fn publish(&mut self) {
        self.report_panic_mode();
        self.report_backups();
        self.report_slow_start();
        self.metrics.revision(self.desired.revision);
        self.publisher.send_replace(Arc::new(ControlView {
            desired: Arc::clone(&self.desired),
            wanted: Arc::clone(&self.wanted),
            programmed: self.programmed.clone(),
            failure: self.failure.clone(),
            lingering: self.lingering.clone(),
            drain_deadlines: self.drains.walls(),
            whole_at: self.reported.whole_at().clone(),
            last_apply_ok: self.last_apply_ok,
            applied: self.applied.clone(),
            refused: self.refused.clone(),
        }));
    }
}

/// Reports the changes made by command that a configuration file has undone.
pub fn report_replaced(events: &EventLog, revision: Revision, replaced: &diff::Diff, by: Option<&Author>) {
    let report = |subject: Option<(ServiceName, Option<BackendName>)>, message: String| {
        let (service, backend) = subject.map_or((None, None), |(service, backend)| (Some(service), backend));
        let event = NewEvent {
            kind: EventKind::Replaced,
            service: service.map(|name| name.to_string()),
            backend: backend.map(|name| name.to_string()),
            revision: revision.0,
            message,
            by: by.cloned(),
        };
        events.push(event, SystemTime::now());
    };
    for item in &replaced.items {
        let change = sentence(item);
        tracing::warn!(
            what = %item.what,
            change,
            by = by.map(tracing::field::display),
            "the configuration file replaces a change made by command"
        );
    }
    for item in replaced.items.iter().take(EVENTS_PER_CHANGE) {
        let message = format!(
            "the configuration file replaces a change made by command: {}",
            sentence(item)
        );
        report(subject(&item.what).1, message);
    }
    if let Some(more) = replaced
        .items
        .len()
        .checked_sub(EVENTS_PER_CHANGE)
        .filter(|more| *more > 0)
    {
        report(None, format!("and {more} more changes made by command"));
    }
}

/// An item of a diff without its subject: `added: weight 10`, `changed: weight 10 -> 30, health.headers`, `removed`. Everybody who may
/// read the log reads it, so credentials are left out.
fn sentence(item: &diff::Item) -> String {
    let what = match item.change {
        diff::Change::Added => "added",
        diff::Change::Removed => "removed",
        diff::Change::Changed => "changed",
    };
    let field = |field: &diff::FieldChange| match field.is_secret {
        true => field.key.clone(),
        false => field.to_string(),
    };
    let fields: Vec<String> = item.fields.iter().map(field).collect();
    if fields.is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {}", fields.join(", "))
    }
}

/// Kind and subject of the event about a difference.
fn subject(what: &Subject) -> (EventKind, Option<(ServiceName, Option<BackendName>)>) {
    match what {
        Subject::Settings => (EventKind::Applied, None),
        Subject::Service(service) | Subject::Clients(service, _) | Subject::Quic(service, _) => {
            (EventKind::Service, Some((service.clone(), None)))
        }
        Subject::Backend(service, backend) => {
            (EventKind::Backend, Some((service.clone(), Some(backend.clone()))))
        }
    }
}
