//! The state of a target.

/// The health state of a target.
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

/// The status of a target. Counts are since it was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct LbStatus {
    /// Its number, from lb_monitor_add.
    pub target: u32,
    /// The health state.
    pub health: LbHealth,
    /// Finished checks: successes, failures, and checks that this machine could not make.
    pub attempts: u64,
    /// Checks that succeeded.
    pub successes: u64,
    /// Checks that failed.
    pub failures: u64,
    /// Consecutive successes up to now.
    pub consecutive_successes: u32,
    /// Consecutive failures up to now.
    pub consecutive_failures: u32,
    /// Duration of the latest success in nanoseconds; 0 before the first.
    pub latency_ns: u64,
}
