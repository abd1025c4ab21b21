//! Walks under way, for which sweeps rest: both read the same tables, and somebody waits for a walk.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Counts walks under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walking(Arc<(Mutex<usize>, Condvar)>);

/// A walk under way. Dropping it ends it.
pub(crate) struct UnderWay<'a>(&'a Walking);

impl Walking {
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        *self.count() += 1;
        UnderWay(self)
    }

    /// Waits until no walk is under way, but not longer than `limit`; gives the time that it took.
    pub(crate) fn rest(&self, limit: Duration) -> Duration {
        let begin = Instant::now();
        let count = self.count();
        if *count == 0 {
            return Duration::ZERO;
        }
        drop(self.0.1.wait_timeout_while(count, limit, |count| *count > 0));
        begin.elapsed()
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        // Nothing panics while it is held.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.0.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    /// For what comes at once.
    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn sweep_rests_until_the_last_walk_ends() {
        let walking = Walking::default();
        assert_eq!(walking.rest(LIMIT), Duration::ZERO);
        let (first, second) = (walking.begin(), walking.begin());
        // A walk whose reader takes nothing does not hold sweeps up for ever.
        assert!(walking.rest(Duration::from_millis(1)) >= Duration::from_millis(1));
        let (rested, rests) = mpsc::channel();
        let sweep = walking.clone();
        let thread = thread::spawn(move || rested.send(sweep.rest(LIMIT)));
        drop(first);
        assert_eq!(rests.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(second);
        assert!(rests.recv().unwrap() < LIMIT);
        thread.join().unwrap().unwrap();
    }
}
