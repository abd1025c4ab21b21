//! The time of day where the user is.

use std::{
    mem::MaybeUninit,
    time::{Duration, SystemTime},
};

/// Hours, minutes, seconds and milliseconds in the local time zone.
pub(super) fn local(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or(libc::time_t::MAX);
    let mut time = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are of live values of their types.
    let found = unsafe { libc::localtime_r(&raw const seconds, time.as_mut_ptr()) };
    if found.is_null() {
        return humantime::format_rfc3339_millis(at).to_string();
    }
    // SAFETY: zeros are a valid value, and the call has filled it.
    let time = unsafe { time.assume_init() };
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        time.tm_hour,
        time.tm_min,
        time.tm_sec,
        since.subsec_millis()
    )
}
