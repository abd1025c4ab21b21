//! Events of the balancer: a bounded ring that readers list and follow.

pub mod journal;
mod redact;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::author::Author;
pub use crate::config::values::rfc3339;

/// Events kept; the oldest goes when a new one comes.
pub const EVENTS_KEPT: usize = 4_096;

/// Defines [`EventKind`], each kind with its word. The word is a token, since the schema would not have it otherwise.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:tt,)+) => {
        /// Kind of an event.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $word)] $kind,)+
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// Its word, as in JSON and metrics.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)+
                }
            }
        }
    };
}

kinds! {
    /// The daemon forwards.
    Started = "started",
    /// The daemon is leaving.
    Stopping = "stopping",
    /// An interface has the program.
    Attached = "attached",
    /// An interface has the program no more.
    Detached = "detached",
    /// An interface went down or came up, got another name, or cannot be attached to.
    Interface = "interface",
    /// A new desired state is in force.
    Applied = "applied",
    /// A desired state was refused; the old one stays.
    Refused = "refused",
    /// A configuration file has undone a change made by command.
    Replaced = "replaced",
    /// A service came, went or changed.
    Service = "service",
    /// A backend came, went or changed.
    Backend = "backend",
    /// Checks changed their verdict about a backend.
    Health = "health",
    /// A backend cannot be reached, so it takes no flows; or it can be again.
    Reach = "reach",
    /// Flows of a service or backend fail whatever its checks say; or no longer.
    Fault = "fault",
    /// Connections of this machine may be taken for clients'; or that has ended.
    OwnTraffic = "own_traffic",
    /// An agent reported a change of its backend, ceased to answer, or answers again.
    Agent = "agent",
    /// A backend's certificate expires soon, or has been renewed.
    Certificate = "certificate",
    /// Backends that are down take flows all the same, since too many are; or that is over.
    Overruled = "overruled",
    /// A backup takes new flows, since too few other backends can; or takes none any more.
    Backup = "backup",
    /// A backend begins with a part of its weight, or has come to the whole of it.
    SlowStart = "slow_start",
    /// A part that the daemon can do without does not work.
    PartMissing = "part_missing",
    /// That part works again.
    PartRecovered = "part_recovered",
    /// Half-open flows of a service give way to new ones because source ports or flow table entries run out; or that
    /// has ended.
    FlowsGiveWay = "flows_give_way",
    /// A removed backend that kept its flows was dropped.
    Released = "released",
    /// The effective state could not be programmed; it is tried again.
    ProgramFailed = "program_failed",
    /// Programming works again.
    ProgramRecovered = "program_recovered",
    /// A host name cannot be looked up, or has addresses that cannot be used; or that is over.
    Discovery = "discovery",
    /// Flows were removed by command.
    FlowsFlushed = "flows_flushed",
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Number of the event, from 1; it goes on over restarts, as far as the journal on disk has the last one.
    pub seq: u64,
    /// When, in RFC 3339, UTC.
    pub at: String,
    /// What kind.
    pub kind: EventKind,
    /// The service it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The backend it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Revision of the desired state in force.
    pub revision: u64,
    /// One sentence.
    pub message: String,
    /// Who caused it, if a command did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Author>,
}

/// An event as its writer gives it; the log adds number and time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEvent {
    /// What kind.
    pub kind: EventKind,
    /// The service it is about.
    pub service: Option<String>,
    /// The backend it is about.
    pub backend: Option<String>,
    /// Revision of the desired state in force.
    pub revision: u64,
    /// One sentence.
    pub message: String,
    /// Who caused it, if a command did.
    pub by: Option<Author>,
}

/// The ring of events. Shared behind an `Arc`; the lock is held for copies of pointers only, never across an await.
#[derive(Debug)]
pub struct EventLog {
    kept: Mutex<Kept>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<(SystemTime, Arc<Event>)>,
    last: u64,
    /// Events so far by kind, without kinds that never happened.
    counts: BTreeMap<EventKind, u64>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            last: watch::Sender::new(0),
        }
    }
}

impl EventLog {
    /// A log without events, the last number before which was `last`.
    pub fn after(last: u64) -> Self {
        Self {
            kept: Mutex::new(Kept {
                last,
                ..Kept::default()
            }),
            last: watch::Sender::new(last),
        }
    }

    /// Number and time of the oldest event that is kept.
    pub fn oldest(&self) -> Option<(u64, SystemTime)> {
        let kept = self.lock();
        kept.events.front().map(|(at, event)| (event.seq, *at))
    }

    /// Adds an event that happens now, and wakes followers.
    pub fn push(&self, new: NewEvent, now: SystemTime) {
        let mut kept = self.lock();
        kept.last += 1;
        let event = Event {
            seq: kept.last,
            at: rfc3339(now),
            kind: new.kind,
            service: new.service,
            backend: new.backend,
            revision: new.revision,
            message: new.message,
            by: new.by,
        };
        *kept.counts.entry(event.kind).or_default() += 1;
        if kept.events.len() == EVENTS_KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back((now, Arc::new(event)));
        self.last.send_replace(kept.last);
    }

    /// Events with a number above `after` that happened at `since` or later, oldest first.
    pub fn list(&self, after: u64, since: Option<SystemTime>) -> Vec<Event> {
        let listed: Vec<Arc<Event>> = self
            .lock()
            .events
            .iter()
            .filter(|(at, event)| event.seq > after && since.is_none_or(|since| *at >= since))
            .map(|(_, event)| Arc::clone(event))
            .collect();
        // A writer waits for pointers alone.
        listed.iter().map(|event| Event::clone(event)).collect()
    }

    /// Events since the daemon started, for every kind.
    pub fn counts(&self) -> Vec<(EventKind, u64)> {
        let kept = self.lock();
        let count = |kind: &EventKind| (*kind, kept.counts.get(kind).copied().unwrap_or_default());
        EventKind::ALL.iter().map(count).collect()
    }

    /// The number of the newest event, to wait for the next one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// A reader that panicked leaves a whole ring behind: no change of it can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event(message: &str) -> NewEvent {
        NewEvent {
            kind: EventKind::Health,
            service: Some("web".into()),
            backend: None,
            revision: 7,
            message: message.into(),
            by: None,
        }
    }

    #[test]
    fn a_full_ring_forgets_the_oldest_and_keeps_numbering() {
        let log = EventLog::default();
        for i in 0..EVENTS_KEPT + 3 {
            log.push(event(&i.to_string()), SystemTime::UNIX_EPOCH);
        }
        let all = log.list(0, None);
        assert_eq!(all.len(), EVENTS_KEPT);
        assert_eq!(all[0].seq, 4);
        assert_eq!(log.list(all[EVENTS_KEPT - 2].seq, None).len(), 1);
        assert_eq!(*log.subscribe().borrow(), all[EVENTS_KEPT - 1].seq);
    }

    #[test]
    fn since_leaves_out_what_happened_before() {
        let log = EventLog::default();
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        log.push(event("old"), at(10));
        log.push(event("new"), at(20));
        let messages: Vec<_> = log.list(0, Some(at(20))).into_iter().map(|e| e.message).collect();
        assert_eq!(messages, ["new"]);
    }

    #[test]
    fn an_event_is_one_json_line_with_a_readable_time() {
        let log = EventLog::default();
        log.push(event("web-1 is down"), SystemTime::UNIX_EPOCH);
        let line = serde_json::to_string(&log.list(0, None)[0]).unwrap();
        assert_eq!(
            line,
            r#"{"seq":1,"at":"1970-01-01T00:00:00.000Z","kind":"health","service":"web","revision":7,"message":"web-1 is down"}"#
        );
    }
}
