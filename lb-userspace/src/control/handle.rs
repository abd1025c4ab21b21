//! The handle of the control task.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::{change::Change, error::ControlError, view::ControlView};
use crate::{
    author::Author,
    state::{desired::Revision, names::ServiceName},
};

/// Changes that may wait for the one in progress; further callers wait for room.
pub const REQUEST_DEPTH: usize = 64;
/// Askers that may wait for the task to answer that it works; further ones wait for room.
pub(super) const PING_DEPTH: usize = 4;

/// The effect of a change, made or simulated.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// Revision in force now.
    pub revision: Revision,
    /// Whether anything is different from before.
    pub changed: bool,
    /// The differences, one line each.
    pub diff: Vec<String>,
    /// Services that are added or changed.
    pub services: Vec<ServiceName>,
    /// The effect on the flows of services that were there before; empty without an effect.
    pub moved: Vec<Moved>,
    /// The lines of `diff` that undo changes made by command since a configuration file was applied.
    pub replaced: Vec<String>,
    /// What a simulated change removes that would have to be confirmed.
    pub unconfirmed: Option<String>,
}

/// The effect of a change on the flows of a service.
#[derive(Clone, PartialEq, Debug)]
pub struct Moved {
    /// The service.
    pub service: ServiceName,
    /// Whether it is removed: then its flows end.
    pub removed: bool,
    /// Share of new flows that go elsewhere, or nowhere, 0 to 1.
    pub share: f64,
    /// Flows under way that are moved, or end, when last counted.
    pub flows: u64,
    /// Whether there may be more of them, which are not recorded.
    pub uncounted: bool,
}

/// Something on its way to the task.
#[derive(Debug)]
pub(super) enum Request {
    Change {
        change: Change,
        expected: Option<Revision>,
        dry_run: bool,
        by: Option<Box<Author>>,
        reply: oneshot::Sender<Result<Outcome, ControlError>>,
    },
    /// A configuration file was refused before it became a change.
    Refused { why: String, by: Option<Box<Author>> },
}

/// Handle to request changes and to read the state.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) pings: mpsc::Sender<oneshot::Sender<()>>,
    pub(super) view: watch::Receiver<Arc<ControlView>>,
    /// Who changes through it, if a command does.
    pub(super) by: Option<Author>,
}

impl ControlHandle {
    /// The same, for changes by an author.
    #[must_use]
    pub fn by(&self, author: Option<Author>) -> Self {
        Self {
            by: author,
            ..self.clone()
        }
    }

    /// Makes a change, or with `dry_run` only computes its effect. With `expected`, only if that is still the revision.
    /// Returns when the change is saved and programmed.
    ///
    /// # Errors
    /// [`ControlError`]; the state is then as before.
    pub async fn change(
        &self,
        change: Change,
        expected: Option<Revision>,
        dry_run: bool,
    ) -> Result<Outcome, ControlError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Change {
            change,
            expected,
            dry_run,
            by: self.by.clone().map(Box::new),
            reply,
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| ControlError::Closed)?;
        answer.await.map_err(|_| ControlError::Closed)?
    }

    /// Publishes that a configuration file was refused, until one is accepted.
    pub async fn refused(&self, why: String) {
        let by = self.by.clone().map(Box::new);
        // No receiver while the daemon exits.
        let _ = self.requests.send(Request::Refused { why, by }).await;
    }

    /// Returns when the task answers, also while a change waits for the disk; `false` if it has ended. A frozen task does not answer.
    pub async fn answers(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.pings.send(answer).await.is_ok() && answered.await.is_ok()
    }

    /// The state now, and notice when it changes.
    pub fn views(&self) -> watch::Receiver<Arc<ControlView>> {
        self.view.clone()
    }

    /// The present state.
    pub fn view(&self) -> Arc<ControlView> {
        Arc::clone(&self.view.borrow())
    }
}
