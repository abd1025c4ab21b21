//! Health checks and agents, for programs with or without a balancer; needs neither BPF nor root.
//!
//! Results travel `probe` (sockets) -> `machine` (pure: results to a verdict and the time of the next check) ->
//! [`HealthEvent`]. `schedule` (pure) decides which check starts when; `engine` (pure) joins the two and keeps health
//! states when settings change; `task` drives everything on a thread of its own. `monitor` is the same machine for one
//! target.
//!
//! One check, and a monitor that checks repeatedly:
//!
//! ```
//! use std::{net::TcpListener, time::Duration};
//!
//! use lb_health_core::{
//!     Checker, HealthCheckMonitor, MonitorConfig, TcpChecker, settings::CheckSettings,
//! };
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let server = TcpListener::bind("127.0.0.1:0")?;
//! let target = server.local_addr()?;
//! TcpChecker.check(target, Duration::from_secs(1)).await?;
//!
//! let settings = CheckSettings { interval: Duration::from_secs(5), ..CheckSettings::default() };
//! let monitor = HealthCheckMonitor::new(TcpChecker, MonitorConfig::new(target, &settings));
//! assert!(!monitor.is_healthy(), "it has not checked yet");
//! monitor.start()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a target is called is the caller's matter ([`TargetId`]). This crate must not know services, backends or the
//! desired state, and links neither BPF, HTTP servers nor a command line.

#![allow(
    clippy::disallowed_methods,
    reason = "only modules that decide read no clock; they forbid it again"
)]

pub mod agent;
mod board;
mod breaker;
pub mod clock;
mod damping;
mod engine;
mod environment;
mod error;
mod health_state;
mod machine;
mod memory;
mod metrics;
mod monitor;
pub mod number;
mod phase;
mod priority;
mod probe;
mod probe_route;
mod random;
mod report;
mod schedule;
pub mod settings;
pub mod source_ports;
mod status;
mod target;
mod task;
#[cfg(test)]
mod testing;
pub mod word;

pub use board::CheckStatuses;
pub use breaker::{Breaker, BreakerState, MAX_BREAKER_FAILURES};
pub use damping::MAX_FLAP_LIMIT;
pub use error::{CertificateProblem, CheckError, GrpcProblem, Http2Problem, Latency, LocalError, Stage};
pub use health_state::Health;
pub use machine::{Decision, MAX_INTERVAL, MIN_INTERVAL, Machine, Outcome, Policy};
pub use memory::{Memory, millis, wall};
pub use metrics::HealthMetrics;
pub use monitor::{HealthCheckMonitor, MonitorConfig, MonitorStats, StartError};
pub use probe::{
    CertificateFacts, CertificateIdentity, Checker, Checkers, ConfiguredChecker, DialogueChecker, DnsChecker,
    ExecChecker, FRESH_EVERY, GrpcChecker, Http2Checker, HttpChecker, IcmpChecker, MAX_BODY_LIMIT, NoCheck,
    ProbeError, Route, TcpChecker, TcpProbe, TlsChecker, UdpChecker, certificate_facts, certificate_identity,
    certificate_names, check_all, has_system_cas, next_update, problems,
};
pub use probe_route::{CheckPath, Paths, ProbeRoute, RouteFuture};
pub use random::stable_hash;
pub use report::Report;
pub use schedule::{Due, Scheduler};
pub use status::{Certificate, CheckSpec, CheckStatus, HealthEvent, Judgement, LastCheck, OK, PartResult};
pub use target::TargetId;
pub use task::{
    EVENT_DEPTH, HealthConfig, HealthHandle, HealthTask, MAX_IN_FLIGHT, NotTaken, Recalled, SIGNAL_DEPTH,
    SpawnError,
};
