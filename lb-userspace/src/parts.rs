//! Parts of the daemon that do not work: it forwards without them, reports them, and retries.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::events::{EventKind, EventLog, NewEvent};

/// Time between attempts to have a part that is missing.
pub const RETRY: Duration = Duration::from_secs(1);

/// The remedy where no interface is configured.
pub const NAME_AN_INTERFACE: &str =
    "name one with `interfaces` in [lb] of the file, then restart the daemon; `ip link` lists them";

/// A part that the daemon can do without.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The admin socket, and with it all commands.
    AdminSocket,
    /// The address of metrics, `/healthz` and `/readyz`.
    Metrics,
    /// The socket for reading alone.
    ReadSocket,
    /// The service manager, which waits for the daemon's readiness.
    ServiceManager,
    /// The kernel's notices about interfaces that have the program.
    LinkNotices,
    /// Inspection of those interfaces.
    Links,
    /// The kernel's notices about routes and neighbours.
    RouteNotices,
    /// Look-ups of the next hops of backends.
    NextHops,
    /// The IP and link-layer addresses of this machine.
    OwnAddresses,
    /// The pins, by which the next daemon finds maps, links and flows.
    Pins,
    /// The whole program, which takes the place of the first one of a cold start.
    Program,
    /// The diagnosis of services.
    Diagnosis,
    /// The events on disk.
    EventJournal,
    /// The admin API over TLS.
    ApiListener,
    /// Its changed files: the former ones are in force.
    ApiFiles,
    /// A list of its revoked certificates that is not out of date.
    ApiRevocations,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::AdminSocket,
        Self::Metrics,
        Self::ReadSocket,
        Self::ServiceManager,
        Self::LinkNotices,
        Self::Links,
        Self::RouteNotices,
        Self::NextHops,
        Self::OwnAddresses,
        Self::Pins,
        Self::Program,
        Self::Diagnosis,
        Self::EventJournal,
        Self::ApiListener,
        Self::ApiFiles,
        Self::ApiRevocations,
    ];

    /// Its label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdminSocket => "admin_socket",
            Self::Metrics => "metrics",
            Self::ReadSocket => "read_socket",
            Self::ServiceManager => "service_manager",
            Self::LinkNotices => "link_notices",
            Self::Links => "links",
            Self::RouteNotices => "route_notices",
            Self::NextHops => "next_hops",
            Self::OwnAddresses => "own_addresses",
            Self::Pins => "pins",
            Self::Program => "program",
            Self::Diagnosis => "diagnosis",
            Self::EventJournal => "event_journal",
            Self::ApiListener => "api_listener",
            Self::ApiFiles => "api_files",
            Self::ApiRevocations => "api_revocation_list",
        }
    }
}

/// Why a part is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissingPart {
    /// Why, in words.
    pub message: String,
    /// The remedy.
    pub hint: String,
}

/// Which parts are missing. Clones are the same.
#[derive(Clone, Debug)]
pub struct PartBoard {
    missing: Arc<Mutex<BTreeMap<Part, MissingPart>>>,
    events: Arc<EventLog>,
}

impl PartBoard {
    /// A board without missing parts. Changes become events.
    pub fn new(events: Arc<EventLog>) -> Self {
        Self {
            missing: Arc::default(),
            events,
        }
    }

    /// Records that a part is missing. Reports it once, even if retries fail for the same reason.
    pub fn lost(&self, part: Part, missing: MissingPart) {
        let before = self.lock().insert(part, missing.clone());
        if before.as_ref() != Some(&missing) {
            tracing::error!(hint = missing.hint, "{}; retrying", missing.message);
            self.event(EventKind::PartMissing, missing.message);
        }
    }

    /// Records that a part works; `how` describes it. Reports it only if the part was missing.
    pub fn found(&self, part: Part, how: String) {
        if self.lock().remove(&part).is_some() {
            tracing::info!("{how}");
            self.event(EventKind::PartRecovered, how);
        }
    }

    /// The missing parts, with their reasons.
    pub fn missing(&self) -> BTreeMap<Part, MissingPart> {
        self.lock().clone()
    }

    fn event(&self, kind: EventKind, message: String) {
        let event = NewEvent {
            kind,
            service: None,
            backend: None,
            // It has to do with no state.
            revision: 0,
            message,
            by: None,
        };
        self.events.push(event, SystemTime::now());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Part, MissingPart>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_part_and_its_return_are_reported_once() {
        let events = Arc::new(EventLog::default());
        let parts = PartBoard::new(Arc::clone(&events));
        let missing = |message: &str| MissingPart {
            message: message.to_owned(),
            hint: "do".to_owned(),
        };
        parts.found(Part::Metrics, "metrics are served".to_owned());
        for _ in 0..3 {
            parts.lost(Part::Metrics, missing("taken"));
        }
        parts.lost(Part::Metrics, missing("forbidden"));
        assert_eq!(
            parts.missing(),
            BTreeMap::from([(Part::Metrics, missing("forbidden"))])
        );
        parts.found(Part::Metrics, "metrics are served".to_owned());
        assert!(parts.missing().is_empty());
        let events = events.list(0, None);
        let events: Vec<(EventKind, &str)> = events
            .iter()
            .map(|event| (event.kind, event.message.as_str()))
            .collect();
        assert_eq!(
            events,
            [
                (EventKind::PartMissing, "taken"),
                (EventKind::PartMissing, "forbidden"),
                (EventKind::PartRecovered, "metrics are served"),
            ]
        );
    }
}
