//! What is wrong with this machine, its interfaces and the services on it, each with a remedy that can be pasted.
//!
//! [`Facts::gather`] reads the kernel; the checks decide from facts alone, so tests give them any machine.

mod checks;
mod daemon;
mod facts;
mod faults;
mod finding;
mod listeners;
mod probe;
mod setup;
#[cfg(test)]
mod testing;
mod watch;

pub use self::{
    daemon::{nothing_to_look_at, of_daemon},
    facts::Facts,
    finding::{Finding, Level},
    probe::conflicts,
    setup::Setup,
    watch::{Changes, Reports, watch},
};

/// All findings, in the order of a packet's way: machine, interfaces, addresses of services, ways to backends.
pub fn diagnose(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let mut findings = checks::kernel::all(setup, facts);
    findings.extend(checks::interfaces::all(setup, facts));
    findings.extend(checks::addresses::all(setup, facts));
    findings.extend(checks::paths::all(setup, facts));
    findings
}
