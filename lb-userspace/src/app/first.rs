//! The state that a start begins with: the stored one, or the configuration file if it has changed since.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use tokio::task::{self, JoinHandle};

use crate::{
    app::error::RunError,
    chain::chain,
    config::{Config, diff::Diff},
    config_file::{FileError, with_details},
    control::{Change, ControlError, RefusedFile, report_replaced},
    events::{EventKind, EventLog, NewEvent},
    state::{
        desired::Revision,
        removals::MayRemove,
        store::{LenientStore, Store, StoreError},
        stored::{FileOrder, Stored},
    },
};

/// The state that a start begins with, and messages about it.
#[derive(Debug, Default)]
pub(super) struct First {
    pub(super) stored: Stored,
    /// Changes made by command that the file undoes.
    pub(super) replaced: Diff,
    /// Why the file is not in force.
    pub(super) refused: Option<RefusedFile>,
    /// Why the stored state was not used, and where it is now.
    pub(super) set_aside: Option<String>,
    /// It differs from the stored one.
    pub(super) is_new: bool,
}

impl First {
    /// Reports as events and in the log which parts of file and stored state are not in force, and which changes the
    /// file undoes. Returns the messages for the start's own output.
    pub(super) fn report(&self, events: &EventLog) -> Vec<String> {
        let revision = self.stored.desired.revision;
        let refused = self.refused.as_ref().map(|refused| refused.why.clone());
        let mut notes: Vec<String> = self.set_aside.iter().cloned().chain(refused).collect();
        for problem in &notes {
            report_problem(events, revision, problem);
        }
        report_replaced(events, revision, &self.replaced, None);
        let undone = self.replaced.to_string();
        let undone = undone.lines();
        notes.extend(undone.map(|line| format!("replaces a change made by command: {line}")));
        notes
    }

    /// Saves the state if it is new. A disk may take longer to write it than the rest of a start takes, so a thread does it.
    pub(super) fn save(&self, store: Arc<LenientStore>) -> Saving {
        let stored = self.is_new.then(|| self.stored.clone());
        let revision = self.stored.desired.revision;
        let work = move || {
            if let Some(stored) = stored {
                store.save_first(&stored);
            }
            store.unsaved().map(|unsaved| unsaved.message)
        };
        Saving {
            revision,
            unsaved: task::spawn_blocking(work),
        }
    }
}

/// A first state that is being saved.
pub(super) struct Saving {
    revision: Revision,
    /// Why it is not.
    unsaved: JoinHandle<Option<String>>,
}

impl Saving {
    /// Waits until it is saved. Reports as event and in the log that it cannot be, and returns the message for the start's own output.
    ///
    /// # Errors
    /// The thread died.
    pub(super) async fn done(self, events: &EventLog) -> Result<Option<String>, RunError> {
        let unsaved = self
            .unsaved
            .await
            .map_err(|_| RunError::Died("saving the state"))?;
        if let Some(problem) = &unsaved {
            report_problem(events, self.revision, problem);
        }
        Ok(unsaved)
    }
}

fn report_problem(events: &EventLog, revision: Revision, problem: &str) {
    tracing::error!("{problem}");
    let event = NewEvent {
        kind: EventKind::Refused,
        service: None,
        backend: None,
        revision: revision.0,
        message: problem.to_owned(),
        by: None,
    };
    events.push(event, SystemTime::now());
}

/// Finds the state to begin with. `file` is the configuration file, if the start has one. `strict`: a file that cannot be used ends the
/// start.
///
/// # Errors
/// The stored state cannot be used and there is no file; or the file cannot follow it.
pub(super) fn first_state(
    store: &dyn Store,
    file: Option<Result<Config, FileError>>,
    strict: bool,
) -> Result<First, RunError> {
    let mut first = First::default();
    let stored = match (store.load(), &file) {
        (Ok(stored), _) => stored,
        (Err(error), Some(Ok(_))) => {
            first.set_aside = Some(set_aside(store, &error));
            None
        }
        (Err(error), Some(Err(_)) | None) => return Err(error.into()),
    };
    first.stored = stored.unwrap_or_default();
    let refused = |why: String| {
        Some(RefusedFile {
            why: format!(
                "{why}; keeping the last good state, revision {}",
                first.stored.desired.revision.0
            ),
            at: SystemTime::now(),
        })
    };
    match file {
        None => {}
        Some(Err(error)) => first.refused = refused(format!("start: {}", with_details(&error))),
        Some(Ok(config)) => match Change::File(Arc::new(config), FileOrder::Reload, MayRemove::NOT_ALL)
            .follow(&first.stored)
        {
            Ok(next) => {
                first.replaced = first.stored.replaced_by(&next.desired);
                first.is_new = next != first.stored;
                first.stored = next;
            }
            Err(error @ ControlError::NoServices { .. }) if !strict => {
                first.refused = refused(format!("start: the configuration file is refused: {error}"));
            }
            Err(error) => return Err(RunError::Desired(error)),
        },
    }
    Ok(first)
}

fn set_aside(store: &dyn Store, error: &StoreError) -> String {
    let moved: Result<PathBuf, StoreError> = store.set_aside();
    match moved {
        Ok(aside) => format!(
            "{}: set aside as {}, the configuration file is in force",
            chain(error),
            aside.display()
        ),
        Err(failed) => format!(
            "{}: the configuration file is in force; {}",
            chain(error),
            chain(&failed)
        ),
    }
}
