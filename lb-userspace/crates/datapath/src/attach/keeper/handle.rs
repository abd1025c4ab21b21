//! The handle of a running keeper.

use std::fmt;

use tokio::sync::{mpsc, oneshot};

use crate::{
    error::{DatapathError, chain},
    interface::Interfaces,
    monitor::{error::MonitorError, maps::MonitorMaps},
};

/// What the keeper shall do: have the whole program run, or that of a monitor, or the usual one after a monitor; or end.
pub(super) enum Command {
    Complete(oneshot::Sender<Result<(), DatapathError>>),
    Monitor(MonitorMaps, oneshot::Sender<Result<(), DatapathError>>),
    EndMonitor,
    Detach(oneshot::Sender<Result<(), DatapathError>>),
    Keep(oneshot::Sender<()>),
}

/// Handle of a running keeper, which ends when all handles are dropped and leaves everything forwarding.
#[derive(Clone)]
pub(in super::super::super) struct KeeperHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) interfaces: Interfaces,
}

impl fmt::Debug for KeeperHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeeperHandle").finish_non_exhaustive()
    }
}

impl KeeperHandle {
    /// Returns when the keeper has ended, whether it was asked to or not.
    pub(in super::super::super) async fn stopped(&self) {
        self.commands.closed().await;
    }

    /// The interfaces, kept current.
    pub(in super::super::super) fn interfaces(&self) -> Interfaces {
        self.interfaces.clone()
    }

    /// Has the whole program run on all interfaces, once the first one does. Blocks until then.
    ///
    /// # Errors
    /// Why the first program runs on.
    pub(in super::super::super) fn complete(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let ended = || "the interfaces are not kept any more".to_owned();
        self.commands
            .blocking_send(Command::Complete(reply))
            .map_err(|_| ended())?;
        let result = answer.blocking_recv().map_err(|_| ended())?;
        result.map_err(|error| chain(&error))
    }

    /// Has the program of a monitor run on all interfaces, until the maps are dropped.
    ///
    /// # Errors
    /// Why the usual program runs on.
    pub(in super::super::super) async fn monitor(&self, maps: MonitorMaps) -> Result<(), MonitorError> {
        let (reply, answer) = oneshot::channel();
        let ended = || MonitorError::Refused("the interfaces are not kept any more".to_owned());
        self.commands
            .send(Command::Monitor(maps, reply))
            .await
            .map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?.map_err(MonitorError::Program)
    }

    /// Has the usual program run again at once, once the monitor's maps are dropped.
    pub(in super::super::super) fn end_monitor(&self) {
        // If the queue is full, the next look at the interfaces finds out.
        let _ = self.commands.try_send(Command::EndMonitor);
    }

    /// Takes programs, links and maps out of the kernel and ends the keeper.
    pub(in super::super::super) async fn detach(&self) -> Result<(), DatapathError> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Detach(reply)).await.is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }

    /// Ends the keeper and leaves everything as it is.
    pub(in super::super::super) async fn keep(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Keep(reply)).await.is_ok() {
            // An error means that the keeper has ended already.
            let _ = answer.await;
        }
    }
}
