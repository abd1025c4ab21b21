//! What is wrong with this machine, its interfaces and the services on it, each with a remedy that can be pasted.
//!
//! [`Facts::gather`] reads the kernel; the checks decide from facts alone, so tests give them any machine.

mod checks;
mod daemon;
mod daemon_user;
mod facts;
mod faults;
mod finding;
mod listeners;
mod path_probe;
mod pem;
mod probe;
mod setup;
#[cfg(test)]
mod testing;
mod watch;

pub use self::{
    daemon::{away, not_understood, of_daemon},
    daemon_user::DaemonUser,
    facts::Facts,
    finding::{Finding, Level},
    probe::probe,
    setup::Setup,
    watch::{Changes, Reports, watch},
};

/// All findings, in the order of a packet's way: machine, certificates, interfaces, addresses of services, ways to backends.
pub fn diagnose(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let mut findings = checks::kernel::all(setup, facts);
    findings.extend(checks::certificates::all(setup, facts));
    findings.extend(checks::interfaces::all(setup, facts));
    findings.extend(checks::addresses::all(setup, facts));
    findings.extend(checks::paths::all(setup, facts));
    findings
}
