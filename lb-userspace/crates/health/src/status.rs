//! The input and output types of the engine.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    breaker::BreakerState, error::CheckError, health_state::Health, memory::Memory, probe_route::CheckPath,
    settings::CheckSettings,
};

/// A check that should run.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckSpec<I> {
    /// The backend whose health state it decides.
    pub id: I,
    /// The backend's address; `settings.port` replaces its port.
    pub target: SocketAddr,
    /// The path that the check goes through, if it goes through one.
    pub path: Option<CheckPath>,
    /// How it is checked.
    pub settings: CheckSettings,
    /// The verdict to begin with where the engine has none of its own (a restart): it stays until `rise` or `fall`
    /// results contradict it. With [`Health::Unchecked`] the first result decides.
    pub initial: Health,
}

/// A health state changed, or differs from the `initial` of the latest spec; or only the memory to store changed.
#[derive(Clone, PartialEq, Debug)]
pub struct HealthEvent<I> {
    /// Its backend.
    pub id: I,
    /// The verdict from now on.
    pub health: Health,
    /// Why, in words a person can act on.
    pub detail: String,
    /// When.
    pub at: SystemTime,
    /// The memory to store.
    pub memory: Memory,
}

/// The status of a check.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckStatus<I> {
    /// The verdict.
    pub health: Health,
    /// Since when the health state holds; for an initial one, since it was passed in.
    pub since: SystemTime,
    /// The latest result, also a local error.
    pub last_check: Option<LastCheck>,
    /// Inputs to the health state other than results.
    pub judgement: Judgement,
    /// All backends that this check covers, if several: target and settings are equal.
    pub shared: Option<Arc<[I]>>,
}

/// Inputs to a health state other than results of checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Judgement {
    /// Whether it is held down for having fallen too often.
    pub damped: bool,
    /// Whether its flows failed since the latest success of a check: it is checked at the fast interval.
    pub suspect: bool,
    /// Where its circuit breaker stands.
    pub breaker: BreakerState,
}

/// The text of a success.
pub const OK: &str = "ok";

/// Until when the certificate of a target is valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Certificate {
    /// From when on the approaching expiry is reported.
    pub warn_from: SystemTime,
    /// The end.
    pub expires: SystemTime,
}

/// A result.
#[derive(Clone, PartialEq, Debug)]
pub struct LastCheck {
    /// Success, or what went wrong.
    pub outcome: Result<(), CheckError>,
    /// From the start of the check to its result.
    pub latency: Duration,
    /// When the result came.
    pub at: SystemTime,
    /// The result of each check, where there are several.
    pub parts: Arc<[PartResult]>,
    /// The certificate seen last; of several, the first to expire.
    pub certificate: Option<Certificate>,
    /// Whether the target answers on one connection at a time only, so that checks close theirs.
    pub serves_one: bool,
}

/// The result of one of several checks.
#[derive(Clone, PartialEq, Debug)]
pub struct PartResult {
    /// Which: its kind, and its port where that is its own.
    pub what: Arc<str>,
    /// Success, or what went wrong.
    pub outcome: Result<(), CheckError>,
    /// From its start to its result.
    pub latency: Duration,
}

impl PartResult {
    /// The result in words.
    pub fn detail(&self) -> Cow<'static, str> {
        match &self.outcome {
            Ok(()) => Cow::Borrowed(OK),
            Err(error) => Cow::Owned(error.to_string()),
        }
    }
}

impl LastCheck {
    /// Whether the check succeeded.
    pub fn ok(&self) -> bool {
        self.outcome.is_ok()
    }

    /// The result as text; of a composite check, the failures.
    pub fn detail(&self) -> Cow<'static, str> {
        match &self.outcome {
            Ok(()) => Cow::Borrowed(OK),
            Err(error) if self.parts.is_empty() => Cow::Owned(error.to_string()),
            Err(_) => {
                let failed = self.parts.iter().filter(|part| part.outcome.is_err());
                let words: Vec<String> = failed
                    .map(|part| format!("{}: {}", part.what, part.detail()))
                    .collect();
                Cow::Owned(words.join("; "))
            }
        }
    }
}
