//! Open files: how many this process may have, and how many checks that allows.
//!
//! Each check in flight holds a descriptor, and so do kept connections, the API's clients and the kernel objects. The
//! usual soft limit of 1,024 is a default for programs that use `select`; the hard limit is what the operator grants.

use std::io;

use crate::health::MAX_IN_FLIGHT;

/// Descriptors kept clear of checks: maps, links, API and metrics clients, the store, the log.
const RESERVED: usize = 512;
/// Checks in flight that are allowed however few descriptors there are.
const LEAST_IN_FLIGHT: usize = 16;

/// Open files that this process may have, as many as the operator grants.
pub(crate) fn raised_limit() -> u64 {
    match raise_limit() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files: fewer checks run at once");
            0
        }
    }
}

/// The limits of open files.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit to the place it is given, which lives until the call returns.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the soft limit of open files to the hard limit, which needs no privilege. Returns the limit in force.
///
/// # Errors
/// The kernel's refusal; the limit is then as it was.
fn raise_limit() -> io::Result<u64> {
    let mut limit = limit()?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel reads one rlimit from the place it is given.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Checks in flight that `descriptors` allow, at most [`MAX_IN_FLIGHT`]: half of the descriptors without the reserve,
/// since a target with a kept connection holds a descriptor between its checks too.
pub(crate) fn checks_allowed(descriptors: u64) -> usize {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    (descriptors.saturating_sub(RESERVED) / 2).clamp(LEAST_IN_FLIGHT, MAX_IN_FLIGHT)
}

/// Share of the descriptors that clients of one listener may take.
const SHARE_OF_CLIENTS: usize = 16;
/// Connections of clients that are allowed however few descriptors there are.
const LEAST_CONNECTIONS: usize = 8;

/// Connections of clients that `descriptors` allow to one listener: `most` where there is room.
pub(crate) fn connections_allowed(descriptors: u64, most: usize) -> usize {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    (descriptors / SHARE_OF_CLIENTS).max(LEAST_CONNECTIONS).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_limit_is_the_hard_one() {
        let raised = raise_limit().unwrap();
        let now = limit().unwrap();
        assert_eq!((raised, now.rlim_cur), (now.rlim_max, now.rlim_max));
    }

    #[test]
    fn checks_never_take_the_descriptors_of_others() {
        for (descriptors, expected) in [
            (0, LEAST_IN_FLIGHT),
            (RESERVED as u64, LEAST_IN_FLIGHT),
            (1_024, 256),
            (4_096, 1_792),
            (1_048_576, MAX_IN_FLIGHT),
            (u64::MAX, MAX_IN_FLIGHT),
        ] {
            assert_eq!(checks_allowed(descriptors), expected, "{descriptors}");
        }
    }

    #[test]
    fn clients_take_a_small_part_of_the_descriptors() {
        for (descriptors, expected) in [(0, 8), (1_024, 64), (4_096, 100), (u64::MAX, 100)] {
            assert_eq!(connections_allowed(descriptors, 100), expected, "{descriptors}");
        }
    }
}
