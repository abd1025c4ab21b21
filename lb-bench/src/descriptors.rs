//! Open files: one for each connection, and a few for the tool itself.

use std::io;

/// Descriptors for everything but connections: standard streams, event queues, timers, the log.
const RESERVED: u64 = 64;
/// Descriptors of a thread: event queue, its wake-up, timer.
const PER_THREAD: u64 = 8;

/// Why connections cannot all be open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescriptorError {
    /// The operator's limit is too low.
    #[error(
        "{connections} connections need {needed} open files, but this process may have {limit}: raise the hard limit (`ulimit -Hn \
         {needed}` as root, LimitNOFILE= in a unit), or lower -c"
    )]
    TooFew {
        /// Connections asked for.
        connections: usize,
        /// Files for them.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The kernel refused.
    #[error(
        "cannot raise the limit of open files (RLIMIT_NOFILE): {0}; raise it with `ulimit -n`, or lower -c"
    )]
    Refused(#[from] io::Error),
}

/// Raises the soft limit of open files to the hard limit if these connections need it.
///
/// # Errors
/// When the hard limit is too low.
pub(crate) fn provide(connections: usize, threads: usize) -> Result<(), DescriptorError> {
    let needed = RESERVED + PER_THREAD * threads as u64 + connections as u64;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit to the place it is given, which lives until the call returns.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    if limit.rlim_cur >= needed {
        return Ok(());
    }
    if limit.rlim_max < needed {
        return Err(DescriptorError::TooFew {
            connections,
            needed,
            limit: limit.rlim_max,
        });
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit from the place it is given.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}
