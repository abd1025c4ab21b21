//! Threads of the daemon: started at the start or not at all, so that a limit reached later stops nothing.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, RwLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

/// Threads that run tasks which decide and program: the packet path needs none of them.
const WORKERS: usize = 2;
/// Threads that run tasks which serve clients.
const SERVING: usize = 2;
/// Threads for work that blocks, at most, of each kind: the writer and files; reading maps and parsing for clients.
const BLOCKING_THREADS: usize = 8;
/// Of these, threads that start with the daemon and stay: for the writer, the sweeper, the store and its journal.
const KEPT: usize = 4;
/// The same for commands and metrics.
const KEPT_SERVING: usize = 2;
/// Threads besides the runtimes': one for health checks.
const OTHERS: usize = 1;
/// Stack of each thread, in bytes.
const STACK: usize = 1 << 20;
/// Time for which an idle thread stays: for ever, since a new one may be impossible to start later.
const KEEP_ALIVE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// Longest wait for a thread that was started to run.
const START_LIMIT: Duration = Duration::from_secs(5);
/// The daemon's runtimes. Clients have threads of their own, those for blocking work included: as many requests as may come keep
/// neither a verdict nor a map write waiting. They are not nicer than the others: that would keep probes of `/healthz` waiting on a busy
/// machine, and what decides runs rarely, so the scheduler wakes it soon.
pub(super) struct Threads {
    /// Runs what decides and programs.
    pub(super) deciding: Runtime,
    /// Runs what serves clients.
    pub(super) serving: Runtime,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// As many threads as are needed cannot be started.
    pub(super) fn start() -> io::Result<Self> {
        // A runtime would panic where it gets none.
        can_start(WORKERS + SERVING + KEPT + KEPT_SERVING + OTHERS)?;
        let threads = Self {
            deciding: runtime("lb", WORKERS)?,
            serving: runtime("lb-serve", SERVING)?,
        };
        start_kept(&threads.deciding, KEPT);
        start_kept(&threads.serving, KEPT_SERVING);
        Ok(threads)
    }

    /// Ends them, after `limit` also where work that blocks is under way.
    pub(super) fn stop(self, limit: Duration) {
        let end = Instant::now() + limit;
        self.serving.shutdown_timeout(limit);
        self.deciding
            .shutdown_timeout(end.saturating_duration_since(Instant::now()));
    }
}

fn runtime(name: &str, workers: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP_ALIVE)
        .thread_stack_size(STACK)
        .thread_name(name)
        .enable_all()
        .build()
}

/// Whether this many threads can run at the same time.
fn can_start(threads: usize) -> io::Result<()> {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let wait = || {
        let gate = Arc::clone(&gate);
        move || drop(gate.lock())
    };
    let started: io::Result<Vec<_>> = (0..threads)
        .map(|_| thread::Builder::new().stack_size(STACK).spawn(wait()))
        .collect();
    drop(closed);
    for thread in started? {
        // A thread that only waits does not fail.
        let _ = thread.join();
    }
    Ok(())
}

/// Has the runtime start `count` threads for work that blocks: it keeps them.
fn start_kept(runtime: &Runtime, count: usize) {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let (runs, running) = mpsc::channel();
    for _ in 0..count {
        let (gate, runs) = (Arc::clone(&gate), runs.clone());
        drop(runtime.spawn_blocking(move || {
            // An error means that the receiver is gone.
            let _ = runs.send(());
            drop(gate.read());
        }));
    }
    let missing = (0..count).find(|_| running.recv_timeout(START_LIMIT).is_err());
    drop(closed);
    if missing.is_some() {
        tracing::warn!("not all threads could be started: commands and metrics may have to wait");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requested_number_of_threads_runs_concurrently() {
        can_start(16).unwrap();
        let _threads = Threads::start().unwrap();
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm"));
        let names: Vec<String> = threads.filter_map(|thread| name(thread.ok()?).ok()).collect();
        let count = |of: &str| names.iter().filter(|name| name.trim() == of).count();
        assert!(count("lb") >= WORKERS + KEPT, "{names:?}");
        assert!(count("lb-serve") >= SERVING + KEPT_SERVING, "{names:?}");
    }

    /// Requests that hold every thread of theirs would otherwise delay each verdict.
    #[test]
    fn work_for_clients_that_never_ends_keeps_no_decision_waiting() {
        let threads = Threads::start().unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..SERVING + BLOCKING_THREADS + 100 {
            let (of_worker, of_blocking) = (Arc::clone(&held), Arc::clone(&held));
            threads.serving.spawn(async move {
                let _ = of_worker.lock().unwrap().recv();
            });
            threads
                .serving
                .spawn_blocking(move || of_blocking.lock().unwrap().recv());
        }
        let decided = threads.deciding.block_on(async {
            tokio::spawn(async { tokio::task::spawn_blocking(|| 7).await.unwrap() })
                .await
                .unwrap()
        });
        assert_eq!(decided, 7);
        drop(hold);
        let served = threads.deciding.block_on(threads.serving.spawn(async { 8 }));
        assert_eq!(served.unwrap(), 8);
    }
}
