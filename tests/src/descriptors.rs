//! The limit of open files.

use std::io;

use anyhow::{Result, ensure};

/// Raises this process's limit as far as it may, for it and for what it starts.
///
/// # Errors
/// When the kernel refuses.
pub fn raise() -> Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the one structure, which lives for their length.
    let is_raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    ensure!(is_raised, "descriptors: {}", io::Error::last_os_error());
    Ok(())
}
