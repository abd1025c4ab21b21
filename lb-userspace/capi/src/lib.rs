//! `lb_health.h`: health checks for programs that call C. Monitors are numbers, so that a call with one that was freed is
//! an error and no crash; all of them are checked on one thread of the process, which the first start makes. The header is
//! written from this file by `cargo xtask docs`.

mod code;
mod monitor;
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

/// Version of this interface: another number where a program that was compiled with an older header would not work.
pub const LB_HEALTH_VERSION: u32 = 1;

/// Checks in flight at most, of all monitors of a process. One that is due beyond that waits for its turn.
pub const LB_HEALTH_MAX_IN_FLIGHT: usize = 4096;
const _: () = assert!(LB_HEALTH_MAX_IN_FLIGHT == MAX_IN_FLIGHT);

/// A set of targets that are checked alike. A number and no pointer: 0 is none, none is used twice.
pub type LbMonitor = u64;

/// The verdict about a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum LbHealth {
    /// No check has given a result yet, or the monitor does not run.
    Unchecked = 0,
    /// Checks succeed.
    Up = 1,
    /// Checks fail.
    Down = 2,
}

/// What is known about a target. Counts are since it was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct LbStatus {
    /// Its number, as lb_monitor_add gave it.
    pub target: u32,
    /// The verdict.
    pub health: LbHealth,
    /// Checks that ended: successes, failures, and those that could not be made for reasons of this machine.
    pub attempts: u64,
    /// Checks that succeeded.
    pub successes: u64,
    /// Checks that failed.
    pub failures: u64,
    /// Latest results in a row that were successes.
    pub consecutive_successes: u32,
    /// Latest results in a row that were failures.
    pub consecutive_failures: u32,
    /// Nanoseconds that the latest success took; 0 before the first.
    pub latency_ns: u64,
}

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

/// What a code means, in words; any number is allowed. The text lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn lb_code_text(code: c_int) -> *const c_char {
    code::text(code).as_ptr()
}

/// Makes a monitor without targets, at rest, and writes its number to `monitor`.
///
/// `settings` are the keys of a [service.health] table of lb's configuration file, one a line:
///
///     kind = "http"
///     path = "/health"
///     interval = "2s"
///
/// Where they are no good, everything that is wrong with them is written to `error`, a text of at most `error_size` bytes
/// with its end; `error` may be null.
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

/// Stops all checks of a monitor and forgets it. Calls with it that other threads are in end as if it were there.
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

/// Adds a target, of the form `10.0.0.11:8080` or `[2001:db8::1]:8080`, and writes its number to `target`, unless that is
/// null. One that the monitor has already keeps its number. It is checked at once where the monitor runs.
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

/// Removes a target: a check in flight is given up. Its number is not used again.
#[unsafe(no_mangle)]
pub extern "C" fn lb_monitor_remove(monitor: LbMonitor, target: u32) -> LbCode {
    code(|| find(monitor)?.remove(target))
}

/// Checks all targets from now on, also those that are added later. Does nothing where it runs already. Checks are made on
/// one thread for all monitors of the process, which is not there any more in a child that was forked.
#[unsafe(no_mangle)]
pub extern "C" fn lb_monitor_start(monitor: LbMonitor) -> LbCode {
    code(|| find(monitor)?.start())
}

/// Stops all checks. Verdicts are forgotten, counts stay.
#[unsafe(no_mangle)]
pub extern "C" fn lb_monitor_stop(monitor: LbMonitor) -> LbCode {
    code(|| {
        find(monitor)?.stop();
        Ok(())
    })
}

/// 1 where the target is up, 0 where it is down, unchecked, or the monitor does not run; a negative lb_code where the call
/// fails.
#[unsafe(no_mangle)]
pub extern "C" fn lb_monitor_is_healthy(monitor: LbMonitor, target: u32) -> i64 {
    number(|| find(monitor)?.is_healthy(target).map(i64::from))
}

/// Writes what is known about one target.
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

/// Writes what is known about every target, in order of their numbers, into an array of `capacity` elements. Returns how
/// many targets there are, which may be more than were written; a negative lb_code where the call fails. With
/// `capacity` 0 it only counts, and `statuses` may be null.
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

/// Writes the latest error of a target in words, such as "connection refused by 10.0.0.11:8080", also after a success
/// and also one that does not count against it; an empty text where there was none. At most `size` bytes with the end are
/// written, cut where it does not fit; `text` may be null where `size` is 0. Returns the length of the whole text, its end
/// not counted; a negative lb_code where the call fails.
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
