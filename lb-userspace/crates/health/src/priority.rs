//! The place of health checks among all that wants the processor.

/// Priority (niceness) of the checking thread over the rest of the process (setpriority(2)): it needs little CPU time,
/// but on time, since a check that starts or is read late shows its target wrongly.
const PREFERENCE: libc::c_int = 10;

/// Has the scheduler prefer the calling thread. Without `CAP_SYS_NICE`, or a limit that allows for it (`RLIMIT_NICE`), all
/// stays as it is: checks are late only where others keep all processors busy.
pub(super) fn prefer_this_thread() {
    // SAFETY: touches no memory. 0 means the calling thread ("C library/kernel differences").
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, usual() - PREFERENCE) };
}

/// Removes the priority from the calling thread, which a checking thread has started, and from its children.
pub(super) fn treat_this_thread_as_usual() {
    // SAFETY: touches no memory. 0 means the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, usual()) };
}

/// Niceness of the process's first thread, from which all others have theirs.
fn usual() -> libc::c_int {
    // SAFETY: touches no memory; both calls always succeed.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, libc::getpid().unsigned_abs()) }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use super::*;

    /// A script that checks must not run before the rest of the machine.
    #[test]
    fn programs_that_checks_start_are_not_preferred() {
        let of_program = thread::spawn(|| {
            prefer_this_thread();
            let starter = thread::spawn(|| {
                treat_this_thread_as_usual();
                Command::new("nice").output().unwrap().stdout
            });
            starter.join().unwrap()
        });
        let of_program = String::from_utf8(of_program.join().unwrap()).unwrap();
        assert_eq!(of_program.trim(), usual().to_string());
    }
}
