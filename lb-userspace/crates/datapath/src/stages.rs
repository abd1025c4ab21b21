//! The parts of the program that are loaded. A cold start loads the first program: the stages that packets of the services may
//! enter, and the tables that these need. A moment later the whole program takes its place.
//!
//! No packet meets a missing part: [`of_steps`] returns what the steps of a plan need, and [`Stages::ensure`] has the whole
//! program loaded before the first of these steps, if the first program lacks any of it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::{
    attach::keeper::handle::KeeperHandle,
    needs::{Needs, of_steps},
    plan::Step,
};

/// How far loading has come.
enum State {
    /// No program runs yet. What has been programmed meanwhile needs this.
    Begun(Needs),
    /// The first program runs, which has this.
    First(Needs),
    /// The whole program runs.
    Whole,
}

/// The parts of the program that runs, in the hands of several.
#[derive(Clone)]
pub(super) struct Stages(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Loads the whole program.
    keeper: OnceLock<KeeperHandle>,
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stages").finish_non_exhaustive()
    }
}

impl Default for Stages {
    fn default() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State::Begun(Needs::NONE)),
            keeper: OnceLock::new(),
        }))
    }
}

impl Stages {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets who loads the whole program in the place of the first one.
    pub(super) fn completed_by(&self, keeper: KeeperHandle) {
        // It is set once.
        let _ = self.0.keeper.set(keeper);
    }

    /// Takes note that the whole program is about to run.
    pub(super) fn are_whole(&self) {
        *self.lock() = State::Whole;
    }

    /// Takes note that the first program, which has `there`, is about to run.
    ///
    /// # Errors
    /// What has been programmed meanwhile needs this, which is more.
    pub(super) fn are_first(&self, there: Needs) -> Result<(), Needs> {
        let mut state = self.lock();
        match &*state {
            State::Begun(needs) | State::First(needs) if !there.cover(*needs) => Err(*needs),
            State::Begun(_) | State::First(_) => {
                *state = State::First(there);
                Ok(())
            }
            // Another variant of the program is loaded.
            State::Whole => Ok(()),
        }
    }

    /// Has what packets may need after these steps loaded before they are carried out.
    ///
    /// # Errors
    /// Why the whole program cannot be loaded.
    pub(super) fn ensure(&self, steps: &[Step]) -> Result<(), String> {
        match &mut *self.lock() {
            State::Begun(needs) => {
                *needs = needs.and(of_steps(steps));
                return Ok(());
            }
            State::First(there) if there.cover(of_steps(steps)) => return Ok(()),
            State::First(_) => {}
            State::Whole => return Ok(()),
        }
        self.complete()
    }

    /// Has the whole program loaded. Blocks until it runs.
    ///
    /// # Errors
    /// As [`Self::ensure`]; the first program runs on.
    pub(super) fn complete(&self) -> Result<(), String> {
        if matches!(&*self.lock(), State::Whole) {
            return Ok(());
        }
        let keeper = self.0.keeper.get().ok_or("nothing is attached yet")?;
        keeper.complete()?;
        self.are_whole();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
