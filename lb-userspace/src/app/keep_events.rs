//! Keeps events on disk, behind the control path.

use std::sync::Arc;

use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::chain,
    events::{EventLog, journal::Journal},
    parts::{MissingPart, Part, PartBoard, RETRY},
};

/// Writes events that the journal does not have yet until `cancel`, and then the last ones. A disk that cannot be written is a missing
/// part; its events are written once it works, as far as the log still has them.
pub(super) async fn keep_events(
    journal: Journal,
    events: Arc<EventLog>,
    board: PartBoard,
    cancel: CancellationToken,
) {
    let old = journal.clone();
    match task::spawn_blocking(move || old.redact()).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::warn!(
            error = chain(&error),
            "cannot take credentials out of events of earlier versions"
        ),
    }
    let mut written = journal.last();
    let mut newest = events.subscribe();
    loop {
        newest.borrow_and_update();
        let ends = cancel.is_cancelled();
        let new = events.list(written, None);
        if let (Some(first), Some(last)) = (new.first(), new.last()) {
            let lost = first.seq - written - 1;
            let last = last.seq;
            let on = journal.clone();
            let appended = task::spawn_blocking(move || on.append(&new)).await;
            match appended.unwrap_or_else(|error| Err(error.into())) {
                Ok(()) => {
                    if lost > 0 {
                        tracing::warn!(
                            "{lost} events came while the disk could not be written, and are not kept"
                        );
                    }
                    written = last;
                    board.found(Part::EventJournal, "events are kept on disk again".to_owned());
                }
                Err(error) => {
                    let missing = MissingPart {
                        message: format!(
                            "events are not kept on disk in {}: {}",
                            journal.dir().display(),
                            chain(&error)
                        ),
                        hint: "see that the state directory can be written, and has space".to_owned(),
                    };
                    board.lost(Part::EventJournal, missing);
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = time::sleep(RETRY) => continue,
                    }
                }
            }
        }
        if ends {
            return;
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            _ = newest.changed() => {}
        }
    }
}
