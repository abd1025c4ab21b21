//! The state of the daemon once a second for all pages that are open, and not at all while none is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task,
    time::{self, Instant},
};

use super::tick::{Builder, Tick};
use crate::api::{Api, snapshot::StatusSnapshot};

/// Time between two looks at the daemon.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// A look that takes long makes the next ones rarer: the pause is at least this many times as long.
const PAUSES: u32 = 9;

/// Looks at the daemon for all streams.
pub struct Feed {
    pub(super) api: Arc<Api>,
    ticks: watch::Sender<Option<Arc<Tick>>>,
    /// Services whose backends are shown, and by how many streams.
    opened: Mutex<BTreeMap<String, usize>>,
    streams: Arc<Semaphore>,
    wanted: Notify,
}

/// A place among the streams. Dropped at the end of the stream.
pub(super) struct Subscription {
    feed: Arc<Feed>,
    pub(super) ticks: watch::Receiver<Option<Arc<Tick>>>,
    pub(super) opened: BTreeSet<String>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut opened = self.feed.opened();
        for name in &self.opened {
            if let Some(count) = opened.get_mut(name) {
                *count -= 1;
            }
        }
        opened.retain(|_, count| *count > 0);
    }
}

impl Feed {
    /// A feed of this API's state for this many streams at once: fewer than there may be connections, which metrics need, too.
    pub fn new(api: Arc<Api>, streams: usize) -> Self {
        Self {
            api,
            ticks: watch::Sender::new(None),
            opened: Mutex::default(),
            streams: Arc::new(Semaphore::new(streams)),
            wanted: Notify::new(),
        }
    }

    /// Takes a place for a stream that shows the backends of these services; `None` if all places are taken.
    pub(super) fn subscribe(self: &Arc<Self>, opened: BTreeSet<String>) -> Option<Subscription> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        let mut counts = self.opened();
        for name in &opened {
            *counts.entry(name.clone()).or_default() += 1;
        }
        drop(counts);
        let subscription = Subscription {
            feed: Arc::clone(self),
            ticks: self.ticks.subscribe(),
            opened,
            _permit: permit,
        };
        self.wanted.notify_one();
        Some(subscription)
    }

    /// Looks at the daemon until it ends. Cancel-safe.
    pub async fn run(self: Arc<Self>) {
        let cancel = self.api.cancel.clone();
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.tick_while_wanted() => {}
        }
    }

    async fn tick_while_wanted(&self) {
        loop {
            self.ticks.send_replace(None);
            while self.ticks.receiver_count() == 0 {
                self.wanted.notified().await;
            }
            let mut builder = Builder::default();
            while self.ticks.receiver_count() > 0 {
                let began = Instant::now();
                match self.tick(builder).await {
                    Ok((next, tick)) => {
                        builder = next;
                        self.ticks.send_replace(Some(Arc::new(tick)));
                    }
                    Err(error) => {
                        tracing::warn!(error, "the web page has no state, retrying");
                        builder = Builder::default();
                    }
                }
                time::sleep_until(began + INTERVAL.max(began.elapsed() * (PAUSES + 1))).await;
            }
        }
    }

    async fn tick(&self, builder: Builder) -> Result<(Builder, Tick), String> {
        let snapshot = StatusSnapshot::take(&self.api).await;
        let snapshot = snapshot.map_err(|error| error.into_body().error.message)?;
        let opened: BTreeSet<String> = self.opened().keys().cloned().collect();
        let api = Arc::clone(&self.api);
        // There may be thousands of services.
        let built = task::spawn_blocking(move || builder.tick(&api, &snapshot, &opened));
        built.await.map_err(|error| error.to_string())
    }

    /// No change of the counts can panic half-way.
    fn opened(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
