//! The thread that starts the programs of checks. It has no capabilities, so the programs have none either:
//! capabilities belong to a thread (capabilities(7)), and its children inherit them. Dropping them between fork and
//! exec would need a fork of the whole daemon for each check, on the thread that makes all checks.

use std::{
    io,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use tokio::{process::Command, runtime::Handle, sync::oneshot};

use crate::{priority, probe::exec::group::Group};

/// A program to start, on the runtime that waits for it.
struct Job {
    command: Command,
    runtime: Handle,
    started: oneshot::Sender<io::Result<Group>>,
}

/// The way to the thread, from the first program on.
static JOBS: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);

/// Starts `command` without capabilities and without the ways to get some.
///
/// # Errors
/// When the thread cannot be made or cannot give its privileges up, or the program cannot be started.
pub(super) async fn start(command: Command) -> io::Result<Group> {
    let (started, outcome) = oneshot::channel();
    let job = Job {
        command,
        runtime: Handle::current(),
        started,
    };
    if jobs()?.send(job).is_err() {
        // The next program gets a new one.
        *JOBS.lock().unwrap_or_else(PoisonError::into_inner) = None;
        return Err(gone());
    }
    outcome.await.map_err(|_| gone())?
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts programs has ended")
}

/// The channel to the thread, which is started if there is none.
fn jobs() -> io::Result<mpsc::Sender<Job>> {
    let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(jobs) = &*jobs {
        return Ok(jobs.clone());
    }
    let (sender, receiver) = mpsc::channel();
    let (ready, unprivileged) = mpsc::channel();
    thread::Builder::new().name("lb-exec".to_owned()).spawn(move || {
        priority::treat_this_thread_as_usual();
        let given_up = drop_privileges();
        let failed = given_up.is_err();
        if ready.send(given_up).is_err() || failed {
            return;
        }
        serve(&receiver);
    })?;
    unprivileged.recv().map_err(|_| gone())??;
    Ok(jobs.insert(sender).clone())
}

fn serve(jobs: &mpsc::Receiver<Job>) {
    for Job {
        mut command,
        runtime,
        started,
    } in jobs
    {
        // A check that was given up meanwhile needs no program.
        if started.is_closed() {
            continue;
        }
        let _inside = runtime.enter();
        // If the receiver is gone, the program is killed with its group.
        let _ = started.send(command.spawn().map(Group));
    }
}

/// Takes all capabilities from the calling thread and its children, for good: setuid programs and files with
/// capabilities get none either (`PR_SET_NO_NEW_PRIVS`).
fn drop_privileges() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
    const VERSION_3: u32 = 0x2008_0522;
    /// `struct __user_cap_header_struct`; thread 0 is the calling one.
    #[repr(C)]
    struct Header {
        version: u32,
        thread: libc::c_int,
    }
    /// The last capability that there may be: sets have 64 bits.
    const LAST: libc::c_ulong = 63;

    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
    )?;
    for capability in 0..=LAST {
        // Needs CAP_SETPCAP. Without it the line above and the one below are enough.
        let _ = prctl(libc::PR_CAPBSET_DROP, capability);
    }
    let header = Header {
        version: VERSION_3,
        thread: 0,
    };
    // Effective, permitted and inheritable, each of two words.
    let none = [0_u32; 6];
    // SAFETY: both outlive the call and have the layout of version 3.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    let unused: libc::c_ulong = 0;
    // SAFETY: the options above take numbers only and touch no memory.
    let result = unsafe { libc::prctl(option, value, unused, unused, unused) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
