//! Threads of the daemon: started at the start or not at all, so that a limit reached later stops nothing.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, RwLock, mpsc},
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};

/// Threads that run the daemon's tasks: the packet path needs none of them.
const WORKERS: usize = 2;
/// Threads for work that blocks, at most: the writer, reading maps, writing files.
const BLOCKING_THREADS: usize = 8;
/// Of these, threads that start with the daemon and stay: for the writer, commands and metrics.
const KEPT_THREADS: usize = 4;
/// Threads besides the runtime's: one for health checks.
const OTHERS: usize = 1;
/// Stack of each thread, in bytes.
const STACK: usize = 1 << 20;
/// Time for which an idle thread stays: for ever, since a new one may be impossible to start later.
const KEEP_ALIVE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// Longest wait for a thread that was started to run.
const START_LIMIT: Duration = Duration::from_secs(5);

/// The runtime of the daemon with its threads.
///
/// # Errors
/// As many threads as are needed cannot be started.
pub(super) fn runtime() -> io::Result<Runtime> {
    // The runtime would panic where it gets none.
    can_start(WORKERS + KEPT_THREADS + OTHERS)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP_ALIVE)
        .thread_stack_size(STACK)
        .thread_name("lb")
        .enable_all()
        .build()?;
    start_kept(&runtime);
    Ok(runtime)
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

/// Has the runtime start the threads for work that blocks: it keeps them.
fn start_kept(runtime: &Runtime) {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let (runs, running) = mpsc::channel();
    for _ in 0..KEPT_THREADS {
        let (gate, runs) = (Arc::clone(&gate), runs.clone());
        drop(runtime.spawn_blocking(move || {
            // An error means that the receiver is gone.
            let _ = runs.send(());
            drop(gate.read());
        }));
    }
    let missing = (0..KEPT_THREADS).find(|_| running.recv_timeout(START_LIMIT).is_err());
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
        let _runtime = runtime().unwrap();
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm"));
        let names = threads.filter_map(|thread| name(thread.ok()?).ok());
        assert!(names.filter(|name| name.trim() == "lb").count() >= WORKERS + KEPT_THREADS);
    }
}
