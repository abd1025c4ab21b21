//! Looks after notices of the kernel, and periodically, since some changes have no notice.

use std::{
    io, mem,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task,
    time::{self, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::super::super::{
    faults::{DatapathPart, PartReporter},
    netlink::{Client, Notices, Watch},
};
use crate::{
    attach::keeper::{
        Keeper,
        handle::{Command, KeeperHandle},
    },
    interface::{InterfaceChange, Interfaces},
};

/// Time between looks without a notice: the kernel sends none for a link that was detached or got another program.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Time from a notice to looking, in which further notices of the same event arrive.
const SETTLE: Duration = Duration::from_millis(20);

/// Commands that may wait.
const QUEUE: usize = 2;

impl KeeperHandle {
    /// Starts keeping, as soon as all is attached. Changes go to `reports`.
    pub(in super::super::super) fn spawn(
        keeper: oneshot::Receiver<Keeper>,
        interfaces: Interfaces,
        reports: mpsc::Sender<InterfaceChange>,
        reporter: PartReporter,
        cancel: CancellationToken,
    ) -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let work = async move {
            // An error means that attaching failed, and nothing is there to be kept.
            if let Ok(keeper) = keeper.await {
                run(keeper, queue, reports, reporter).await;
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = work => {}
            }
        });
        Self { commands, interfaces }
    }
}

/// Cancel-safe: all state is in the kernel.
async fn run(
    mut keeper: Keeper,
    mut commands: mpsc::Receiver<Command>,
    reports: mpsc::Sender<InterfaceChange>,
    reporter: PartReporter,
) {
    let mut notices = Notices::new(Watch::of_links, DatapathPart::LinkNotices, reporter.clone());
    let mut failing = false;
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due: Option<time::Instant> = None;
    loop {
        tokio::select! {
            command = commands.recv() => {
                match command {
                    Some(Command::Complete(reply)) => {
                        let Some((same, result)) = blocking(keeper, Keeper::complete).await else {
                            return;
                        };
                        keeper = same;
                        // The caller may be gone.
                        let _ = reply.send(result);
                        continue;
                    }
                    Some(Command::Monitor(maps, reply)) => {
                        let begin = |keeper: &mut Keeper| keeper.monitor(maps);
                        let Some((same, result)) = blocking(keeper, begin).await else {
                            return;
                        };
                        keeper = same;
                        // The caller may be gone: its monitor has ended then.
                        let _ = reply.send(result);
                        continue;
                    }
                    Some(Command::EndMonitor) => {
                        let Some(same) = put_usual_back_if_due(keeper).await else {
                            return;
                        };
                        keeper = same;
                        continue;
                    }
                    Some(Command::Detach(reply)) => {
                        let result = task::spawn_blocking(|| keeper.detach()).await;
                        // The caller may be gone.
                        let _ = reply.send(result.unwrap_or(Ok(())));
                    }
                    Some(Command::Keep(reply)) => {
                        // Also where the monitor's maps are still held: nothing would end it once this daemon is gone.
                        if keeper.is_monitored() {
                            drop(blocking(keeper, Keeper::put_usual_back).await);
                        }
                        let _ = reply.send(());
                    }
                    None => {}
                }
                return;
            }
            _ = notices.next() => {
                due.get_or_insert_with(|| time::Instant::now() + SETTLE);
                continue;
            }
            () = sleep_until(due.unwrap_or_else(time::Instant::now)), if due.is_some() => {}
            _ = ticks.tick() => {}
        }
        due = None;
        let Some(same) = put_usual_back_if_due(keeper).await else {
            return;
        };
        keeper = same;
        let Some((same, looked)) = look(keeper).await else {
            return;
        };
        keeper = same;
        let part = DatapathPart::Links;
        let changes = match looked {
            Ok(changes) => {
                if mem::take(&mut failing) {
                    reporter.works(part, "interfaces are inspected again");
                }
                changes
            }
            Err(error) => {
                failing = true;
                let message = format!("cannot inspect the interfaces: {error}");
                let hint = "an interface that loses its program does not get it back; restart the daemon if it lasts";
                reporter.failed(part, message, hint);
                continue;
            }
        };
        for change in changes {
            tracing::info!("{}", change.message);
            // An error means that the receiver is gone.
            let _ = reports.send(change).await;
        }
    }
}

/// Does work that waits for the kernel on a thread of its own; nothing when the runtime ends.
async fn blocking<T: Send + 'static>(
    mut keeper: Keeper,
    work: impl FnOnce(&mut Keeper) -> T + Send + 'static,
) -> Option<(Keeper, T)> {
    let work = move || {
        let result = work(&mut keeper);
        (keeper, result)
    };
    task::spawn_blocking(work).await.ok()
}

/// Ends a monitor that nothing holds any more; nothing when the runtime ends.
async fn put_usual_back_if_due(keeper: Keeper) -> Option<Keeper> {
    if !keeper.must_put_usual_back(Instant::now()) {
        return Some(keeper);
    }
    let (keeper, ()) = blocking(keeper, Keeper::put_usual_back).await?;
    Some(keeper)
}

/// One look and what follows from it; nothing when the runtime ends.
async fn look(mut keeper: Keeper) -> Option<(Keeper, io::Result<Vec<InterfaceChange>>)> {
    let now = Instant::now();
    match keeper.look() {
        Ok(judgements) if keeper.is_work(&judgements, now) => {
            blocking(keeper, move |keeper| Ok(keeper.act(&judgements, now))).await
        }
        Ok(judgements) => {
            let changes = keeper.act(&judgements, now);
            Some((keeper, Ok(changes)))
        }
        Err(error) => {
            // The next look may do better with a socket of its own.
            if let Ok(client) = Client::new() {
                keeper.client = client;
            }
            Some((keeper, Err(error)))
        }
    }
}
