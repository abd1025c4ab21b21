//! `lb_health.h`: health checks for programs that call C. Monitors are numbers, so that a call with a freed one is an
//! error and no crash. One thread of the process checks all of them; the first start creates it. `cargo xtask docs`
//! writes the header from this file.

mod code;
mod monitor;
mod status;
mod text;

use std::{
    collections::BTreeMap,
    ffi::{c_char, c_int},
    sync::{Arc, PoisonError, RwLock},
};

use lb_health_core::MAX_IN_FLIGHT;

pub use code::LbCode;
use code::{code, number};
use monitor::Monitor;
pub use status::{LbHealth, LbStatus};

/// Version of this interface. It changes when programs compiled with an older header would not work.
pub const LB_HEALTH_VERSION: u32 = 1;

/// Maximum checks in flight, of all monitors of a process. Further due checks wait for their turn.
pub const LB_HEALTH_MAX_IN_FLIGHT: usize = 4096;
const _: () = assert!(LB_HEALTH_MAX_IN_FLIGHT == MAX_IN_FLIGHT);

/// A set of targets with the same settings. A number and no pointer: 0 is none, and no number is used twice.
pub type LbMonitor = u64;

static MONITORS: RwLock<Monitors> = RwLock::new(Monitors {
    next: 1,
    all: BTreeMap::new(),
});

struct Monitors {
    next: LbMonitor,
    all: BTreeMap<LbMonitor, Arc<Monitor>>,
}

fn find(monitor: LbMonitor) -> Result<Arc<Monitor>, LbCode> {
    let monitors = MONITORS.read().unwrap_or_else(PoisonError::into_inner);
    monitors.all.get(&monitor).cloned().ok_or(LbCode::NoMonitor)
}

/// LB_HEALTH_VERSION of the library itself.
#[unsafe(no_mangle)]
pub extern "C" fn lb_health_version() -> u32 {
    LB_HEALTH_VERSION
}

/// The meaning of a code, as text; any number is allowed. The text lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn lb_code_text(code: c_int) -> *const c_char {
    code::text(code).as_ptr()
}

/// Creates a stopped monitor without targets, and writes its number to `monitor`.
///
/// `settings` are the keys of a [service.health] table of lb's configuration file, one a line:
///
///     kind = "http"
///     path = "/health"
///     interval = "2s"
///
/// If they are invalid, all their errors are written to `error`, a text of at most `error_size` bytes including its
/// end; `error` may be null.
///
/// # Safety
/// `settings` is null or a text with its end; `monitor` is null or can be written; `error` is null or has room for
/// `error_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lb_monitor_new(
    settings: *const c_char,
    monitor: *mut LbMonitor,
    error: *mut c_char,
    error_size: usize,
) -> LbCode {
    code(|| {
        // SAFETY: the caller's promise.
        let settings = unsafe { text::read(settings) }?;
        if monitor.is_null() {
            return Err(LbCode::NullPointer);
        }
        let new = Monitor::new(settings).map_err(|why| {
            // SAFETY: the caller's promise.
            unsafe { text::write(&why, error, error_size) };
            LbCode::BadSettings
        })?;
        let mut monitors = MONITORS.write().unwrap_or_else(PoisonError::into_inner);
        let id = monitors.next;
        monitors.next += 1;
        monitors.all.insert(id, Arc::new(new));
        // SAFETY: it is not null, and the caller's promise. C need not have aligned it.
        unsafe { monitor.write_unaligned(id) };
        Ok(())
    })
}

/// Stops all checks of a monitor and frees it. Calls with it in other threads end as if it still existed.
#[unsafe(no_mangle)]
pub extern "C" fn lb_monitor_free(monitor: LbMonitor) -> LbCode {
    code(|| {
        let mut monitors = MONITORS.write().unwrap_or_else(PoisonError::into_inner);
        let removed = monitors.all.remove(&monitor);
        // Ending its checks takes a while: not under the lock that every call takes.
        drop(monitors);
        removed.map(drop).ok_or(LbCode::NoMonitor)
    })
}

/// Adds a target, of the form `10.0.0.11:8080` or `[2001:db8::1]:8080`, and writes its number to `target`, unless that
/// is null. An existing target keeps its number. A running monitor checks the target at once.
///
/// # Safety
/// `address` is null or a text with its end; `target` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lb_monitor_add(
    monitor: LbMonitor,
    address: *const c_char,
    target: *mut u32,
) -> LbCode {
    code(|| {
        // SAFETY: the caller's promise.
        let address = unsafe { text::read(address) }?;
        let added = find(monitor)?.add(address)?;
        if !target.is_null() {
            // SAFETY: it is not null, and the caller's promise.
            unsafe { target.write_unaligned(added) };
        }
        Ok(())
    })
}

/// Removes a target, and cancels its check in flight. Its number is not used again.
#[unsafe(no_mangle)]
pub extern "C" fn lb_monitor_remove(monitor: LbMonitor, target: u32) -> LbCode {
    code(|| find(monitor)?.remove(target))
}

/// Checks all targets from now on, including later ones. Does nothing if the monitor runs already. One thread makes the
/// checks of all monitors of the process; it does not exist in a forked child.
#[unsafe(no_mangle)]
pub extern "C" fn lb_monitor_start(monitor: LbMonitor) -> LbCode {
    code(|| find(monitor)?.start())
}

/// Stops all checks. Health states are dropped, counts stay.
#[unsafe(no_mangle)]
pub extern "C" fn lb_monitor_stop(monitor: LbMonitor) -> LbCode {
    code(|| {
        find(monitor)?.stop();
        Ok(())
    })
}

/// 1 if the target is up; 0 if it is down or unchecked, or if the monitor does not run; a negative lb_code on failure.
#[unsafe(no_mangle)]
pub extern "C" fn lb_monitor_is_healthy(monitor: LbMonitor, target: u32) -> i64 {
    number(|| find(monitor)?.is_healthy(target).map(i64::from))
}

/// Writes the status of one target.
///
/// # Safety
/// `status` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lb_monitor_stats(monitor: LbMonitor, target: u32, status: *mut LbStatus) -> LbCode {
    code(|| {
        if status.is_null() {
            return Err(LbCode::NullPointer);
        }
        let known = find(monitor)?.stats(target)?;
        // SAFETY: it is not null, and the caller's promise.
        unsafe { status.write_unaligned(known) };
        Ok(())
    })
}

/// Writes the status of every target, in order of their numbers, into an array of `capacity` elements. Returns the
/// number of targets, which may be more than were written; a negative lb_code on failure. With `capacity` 0 it only
/// counts, and `statuses` may be null.
///
/// # Safety
/// `statuses` is null or has room for `capacity` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lb_monitor_status(
    monitor: LbMonitor,
    statuses: *mut LbStatus,
    capacity: usize,
) -> i64 {
    number(|| {
        if statuses.is_null() && capacity > 0 {
            return Err(LbCode::NullPointer);
        }
        let mut place = 0;
        let count = find(monitor)?.status(|status| {
            if place < capacity {
                // SAFETY: not null, as `capacity` is more than 0, and within the caller's array.
                unsafe { statuses.add(place).write_unaligned(status) };
                place += 1;
            }
        });
        i64::try_from(count).map_err(|_| LbCode::Defect)
    })
}

/// Writes the latest error of a target as text, such as "connection refused by 10.0.0.11:8080", also after a success,
/// and also an error that does not count against it; an empty text if there was none. Writes at most `size` bytes
/// including the end, truncated if necessary; `text` may be null if `size` is 0. Returns the length of the whole text
/// without its end; a negative lb_code on failure.
///
/// # Safety
/// `text` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lb_monitor_last_error(
    monitor: LbMonitor,
    target: u32,
    text: *mut c_char,
    size: usize,
) -> i64 {
    number(|| {
        if text.is_null() && size > 0 {
            return Err(LbCode::NullPointer);
        }
        let error = find(monitor)?.last_error(target)?;
        let words = error.map(|error| error.to_string()).unwrap_or_default();
        // SAFETY: the caller's promise.
        unsafe { text::write(&words, text, size) };
        i64::try_from(words.len()).map_err(|_| LbCode::Defect)
    })
}

#[cfg(test)]
mod tests;
