//! Reports of backends, or of scripts beside them, for checks of kind push.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// A report, which holds for a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Up, or the reason for down.
    pub says: Result<(), Arc<str>>,
    /// When it came.
    pub at: Instant,
    /// How long it holds.
    pub ttl: Duration,
}

/// The latest report about each target, shared by the API that writes and the checks that read them.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Known {
    reports: BTreeMap<SocketAddr, Report>,
    /// Targets with unread reports.
    fresh: BTreeSet<SocketAddr>,
}

impl Reports {
    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere cannot leave it half written: each write is one or two map operations.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report in the place of the one before.
    pub(super) fn put(&self, target: SocketAddr, report: Report) {
        let mut known = self.known();
        known.reports.insert(target, report);
        known.fresh.insert(target);
        drop(known);
        self.0.news.notify_one();
    }

    /// The latest report about `target`.
    pub(super) fn latest(&self, target: SocketAddr) -> Option<Report> {
        self.known().reports.get(&target).cloned()
    }

    /// Forgets reports about targets that are not among `targets`.
    pub(super) fn retain(&self, targets: &BTreeSet<SocketAddr>) {
        self.known().reports.retain(|target, _| targets.contains(target));
    }

    /// Waits for reports and gives their targets. Cancel-safe.
    pub(super) async fn news(&self) -> BTreeSet<SocketAddr> {
        loop {
            let fresh = mem::take(&mut self.known().fresh);
            if !fresh.is_empty() {
                return fresh;
            }
            self.0.news.notified().await;
        }
    }
}
