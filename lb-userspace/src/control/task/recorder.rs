//! Stores records in their order, one write at a time: a disk that hangs holds one thread, however many health states change.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task, time::timeout};

use crate::state::store::{Record, Store, Subject};

/// Longest time that a health state waits for the disk before it takes effect.
const PATIENCE: Duration = Duration::from_millis(20);

/// Writes records to the store.
#[derive(Clone)]
pub(super) struct Recorder {
    disk: Arc<dyn Store + Send + Sync>,
    waiting: Arc<Mutex<Waiting>>,
    /// The number of the last records that are written.
    written: watch::Sender<u64>,
}

/// Records that are not written yet.
#[derive(Default)]
struct Waiting {
    /// The latest of each subject, so that there are no more of them than subjects.
    records: BTreeMap<Subject, Record>,
    /// The number of the records that came last.
    last: u64,
    is_writing: bool,
}

impl Recorder {
    pub(super) fn new(disk: Arc<dyn Store + Send + Sync>) -> Self {
        Self {
            disk,
            waiting: Arc::default(),
            written: watch::Sender::new(0),
        }
    }

    /// Stores records before their subject takes effect. A hanging disk delays the effect only briefly, and gets them when it works
    /// again.
    pub(super) async fn remember(&self, records: Vec<Record>) {
        if timeout(PATIENCE, self.store(records)).await.is_err() {
            tracing::warn!("the disk is slow: health states take effect before they are stored");
        }
    }

    /// Stores records, however long that takes. Within a tokio runtime. Cancel-safe: they are stored then, too.
    pub(super) async fn store(&self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let mut written = self.written.subscribe();
        let (number, is_writing) = {
            let mut waiting = self.waiting();
            let subjects = records.into_iter().map(|record| (record.subject(), record));
            waiting.records.extend(subjects);
            waiting.last += 1;
            (waiting.last, mem::replace(&mut waiting.is_writing, true))
        };
        if !is_writing {
            let recorder = self.clone();
            task::spawn_blocking(move || recorder.write());
        }
        // The sender is this recorder's own.
        let _ = written.wait_for(|written| *written >= number).await;
    }

    /// Writes until no record waits.
    fn write(&self) {
        loop {
            let (records, number) = {
                let mut waiting = self.waiting();
                waiting.is_writing = !waiting.records.is_empty();
                if !waiting.is_writing {
                    return;
                }
                (mem::take(&mut waiting.records), waiting.last)
            };
            let records: Vec<Record> = records.into_values().collect();
            self.disk.remember(&records);
            self.written.send_replace(number);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
