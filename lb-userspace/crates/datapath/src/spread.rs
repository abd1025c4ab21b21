//! Threads on CPUs of their own from their first moment.
//!
//! A new thread begins where the scheduler puts it, and some put it on the CPU of the thread that started it, to save power or the CPUs
//! of a virtual machine, and move it milliseconds later. A start takes a few dozen of them, so threads that share its work leave each
//! other's CPUs themselves.

use std::{
    mem,
    sync::{Mutex, PoisonError},
};

use libc::cpu_set_t;

/// CPUs that threads of one piece of work run on.
pub(super) struct Spread(Mutex<Vec<usize>>);

impl Spread {
    /// With the CPU of the calling thread.
    pub(super) fn from_here() -> Self {
        Self(Mutex::new(current().into_iter().collect()))
    }

    /// Moves the calling thread to a CPU that it may use and none of the others has, if it shares one and there is one. Later it may run
    /// on all that it might use before. A kernel that refuses leaves it where it is.
    pub(super) fn join(&self) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = current() else { return };
        if !taken.contains(&own) {
            taken.push(own);
            return;
        }
        let Some(allowed) = allowed() else { return };
        let free = |cpu: &usize| contains(&allowed, *cpu) && !taken.contains(cpu);
        let Some(free) = (0..CPUS).find(free) else { return };
        if allow(&only(free)) {
            allow(&allowed);
            taken.push(free);
        }
    }
}

/// CPUs that a set has room for. On a machine with more, the kernel refuses to fill it.
const CPUS: usize = libc::CPU_SETSIZE.cast_unsigned() as usize;

/// The CPU that the calling thread runs on.
fn current() -> Option<usize> {
    // SAFETY: the call has no arguments.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// The CPUs that the calling thread may run on.
fn allowed() -> Option<cpu_set_t> {
    let mut set = none();
    // SAFETY: the set is live and as long as given; number 0 is the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<cpu_set_t>(), &raw mut set) };
    (result == 0).then_some(set)
}

/// Has the calling thread run on these CPUs alone, and at once. Returns whether the kernel did it.
fn allow(set: &cpu_set_t) -> bool {
    // SAFETY: the set is live and as long as given; number 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of::<cpu_set_t>(), &raw const *set) == 0 }
}

fn none() -> cpu_set_t {
    // SAFETY: the set consists of integers.
    unsafe { mem::zeroed() }
}

fn only(cpu: usize) -> cpu_set_t {
    let mut set = none();
    // SAFETY: the number is below `CPUS`.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    set
}

fn contains(set: &cpu_set_t, cpu: usize) -> bool {
    // SAFETY: the number is below `CPUS`.
    unsafe { libc::CPU_ISSET(cpu, set) }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn cpus_of(set: &cpu_set_t) -> Vec<usize> {
        (0..CPUS).filter(|cpu| contains(set, *cpu)).collect()
    }

    /// Runs a thread that joins others on the CPUs `taken`. Returns these CPUs afterwards, and those that it may use then.
    fn join(taken: Vec<usize>) -> (Vec<usize>, Vec<usize>) {
        let work = move || {
            let spread = Spread(Mutex::new(taken));
            spread.join();
            let may_use = cpus_of(&allowed().unwrap());
            (spread.0.into_inner().unwrap(), may_use)
        };
        thread::spawn(work).join().unwrap()
    }

    #[test]
    fn threads_take_cpus_of_their_own_as_long_as_there_are_some() {
        let all = cpus_of(&allowed().unwrap());
        for free in &all {
            let others: Vec<usize> = all.iter().copied().filter(|cpu| cpu != free).collect();
            let (taken, may_use) = join(others.clone());
            assert_eq!(taken, [others.as_slice(), &[*free]].concat());
            assert_eq!(may_use, all, "later it may run anywhere");
        }
        assert_eq!(join(all.clone()), (all.clone(), all));
    }
}
