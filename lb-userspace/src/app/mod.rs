//! The daemon: start-up, signals, shutdown. Start-up first acquires everything that can be refused (file, socket, state
//! directory, metrics address) and touches the kernel last. Shutdown ends the tasks that serve clients, then control,
//! then the writer, which detaches or keeps the program.

mod agents;
mod banner;
mod datapath_parts;
mod error;
mod first;
mod foreground;
mod had;
mod interfaces;
mod keep_events;
mod leave;
mod loading;
mod memory;
mod node;
mod notify;
mod remote;
mod reports;
mod servers;
pub mod settings;
mod signals;
mod sockets;
mod start;
pub(crate) mod telemetry;
mod threads;
mod watchdog;
mod watches;

use std::{
    process,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use tokio::{runtime::Handle, task::JoinHandle, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{error::RunError, foreground::work_until_end};
use self::{
    leave::leave,
    notify::{Notice, notify},
    settings::Flags,
    signals::{SignalAction, Signals},
    threads::Threads,
};
use crate::{
    api::{self, Api, socket::Socket},
    config::{Config, DaemonSettings, daemon::OnExit},
    config_file::FileError,
    control::ControlHandle,
    datapath::{CheckPaths, EarlyStart, WriterHandle},
    events::{EventKind, EventLog, NewEvent},
    health::HealthHandle,
    parts::{Part, PartBoard},
};

/// Time that tasks have to end on shutdown.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);
/// Exit code after a second signal.
const EXIT_AT_ONCE: i32 = 1;

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// [`RunError`]
pub fn run(flags: &Flags) -> Result<(), RunError> {
    let (settings, file) = flags.resolve()?;
    if settings.interfaces.is_empty() && !settings.wait_for_interfaces {
        return Err(RunError::NoInterface);
    }
    memory::limit_arenas();
    telemetry::start(settings.log_format);
    let early = EarlyStart::begin(&settings.pin_dir, flags.reset).map_err(RunError::Threads)?;
    let threads = Threads::start().map_err(RunError::Threads)?;
    let serving = threads.serving.handle().clone();
    let result = threads
        .deciding
        .block_on(daemon(flags, settings, file, early, serving));
    // A blocking read of a map must not hold up the exit.
    threads.stop(SHUTDOWN_DEADLINE);
    result
}

async fn daemon(
    flags: &Flags,
    settings: DaemonSettings,
    file: Option<Result<Config, FileError>>,
    early: EarlyStart,
    serving: Handle,
) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let mut daemon = Daemon::start(settings, file, flags, early, serving).await?;
    daemon.notify_ready();
    let reason = daemon.serve(&mut signals).await;
    // A service manager that does not listen sees the process end.
    let _ = notify(Notice::Stopping);
    tokio::select! {
        result = daemon.stop(reason) => result,
        () = signals.end() => {
            tracing::warn!("second signal: exiting at once");
            process::exit(EXIT_AT_ONCE)
        }
    }
}

/// Why the daemon stops serving.
enum Reason {
    /// A signal asked for it.
    Signal,
    /// A task ended that should not have.
    Died(&'static str),
}

/// Everything that runs.
struct Daemon {
    settings: DaemonSettings,
    control: ControlHandle,
    control_task: JoinHandle<()>,
    writer: WriterHandle,
    health: HealthHandle,
    check_paths: Arc<CheckPaths>,
    events: Arc<EventLog>,
    api: Arc<Api>,
    /// Ends the tasks that serve others: API, metrics, checks.
    cancel: CancellationToken,
    /// Ends control, after the tasks that request changes.
    control_cancel: CancellationToken,
    /// Ends the helpers of the writer.
    writer_cancel: CancellationToken,
    tracker: TaskTracker,
    parts: PartBoard,
    /// Removes the sockets' files when the daemon ends.
    _sockets: Vec<Arc<OnceLock<Socket>>>,
}

impl Daemon {
    /// Notifies the service manager that the daemon forwards.
    fn notify_ready(&self) {
        let notified = notify(Notice::Ready);
        let late = had::Late::new(Part::ServiceManager, notified, &self.parts, &self.cancel);
        self.tracker.spawn(had::notify_ready(late));
        let rest = loading::load_rest(self.writer.clone(), self.cancel.clone());
        self.tracker.spawn(rest);
    }

    /// Serves until a signal or until a task dies. The configuration file is read again on SIGHUP.
    async fn serve(&mut self, signals: &mut Signals) -> Reason {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    SignalAction::End => return Reason::Signal,
                    SignalAction::Reload => {}
                },
                _ = &mut self.control_task => return Reason::Died("control"),
                () = self.health.stopped() => return Reason::Died("health check"),
                task = self.writer.stopped() => return Reason::Died(task),
            }
            api::reload::by_signal(&self.api).await;
        }
    }

    /// Ends everything in order.
    async fn stop(self, reason: Reason) -> Result<(), RunError> {
        self.event(EventKind::Stopping, "stopping".into());
        self.cancel.cancel();
        self.tracker.close();
        within_deadline("requests", self.tracker.wait()).await;
        self.control_cancel.cancel();
        within_deadline("checks through the path", self.check_paths.close()).await;
        let died = match reason {
            Reason::Signal => {
                if let Some(Err(_)) = within_deadline("decisions", self.control_task).await {
                    tracing::error!("the control task failed during shutdown");
                }
                None
            }
            Reason::Died(who) => Some(RunError::Died(who)),
        };
        // A daemon that fails must not take the forwarding with it.
        let on_exit = if died.is_some() {
            OnExit::Keep
        } else {
            self.settings.on_exit
        };
        let left = within_deadline("the data plane", leave(&self.writer, on_exit)).await;
        let left = left.unwrap_or(Err(RunError::Unfinished));
        self.writer_cancel.cancel();
        died.map_or(left, Err)
    }

    fn event(&self, kind: EventKind, message: String) {
        let event = NewEvent {
            kind,
            service: None,
            backend: None,
            revision: self.control.view().desired.revision.0,
            message,
            by: None,
        };
        self.events.push(event, SystemTime::now());
    }
}

/// Waits for a part of the daemon to end, but not for ever: what the kernel or a disk holds up must not hold up the other parts, and a
/// stop without end is a SIGKILL in the end.
async fn within_deadline<T>(part: &str, end: impl Future<Output = T>) -> Option<T> {
    let ended = time::timeout(SHUTDOWN_DEADLINE, end).await.ok();
    if ended.is_none() {
        let seconds = SHUTDOWN_DEADLINE.as_secs();
        tracing::warn!(
            part,
            "not ended {seconds} s after the stop began to wait for it; the stop goes on"
        );
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_no_part_without_end() {
        assert_eq!(within_deadline("a part that ends", async { 7 }).await, Some(7));
        assert_eq!(
            within_deadline("one that does not", std::future::pending::<()>()).await,
            None
        );
    }
}
