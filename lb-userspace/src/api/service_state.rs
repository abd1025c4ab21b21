//! How a service does, in one word.

use super::types::{Health, Service};

/// How a service does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceState {
    /// All backends take new flows.
    Ok,
    /// Some do, or flows of some fail.
    Degraded,
    /// Backups do, since too few others can.
    OnBackup,
    /// None does.
    Down,
    /// There are none.
    NoBackends,
    /// No packet can arrive, even if checks succeed.
    Broken,
    /// The data plane does something else.
    NotProgrammed,
}

impl ServiceState {
    /// Name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::OnBackup => "on backup",
            Self::Down => "down",
            Self::NoBackends => "no backends",
            Self::Broken => "broken",
            Self::NotProgrammed => "not programmed",
        }
    }
}

impl Service {
    /// How it does, by its other fields.
    pub fn judged(&self) -> ServiceState {
        let backups = self
            .backends
            .iter()
            .filter(|backend| backend.backup && !backend.removed);
        let total = self.backends.iter().filter(|backend| !backend.removed).count();
        if !self.programmed {
            ServiceState::NotProgrammed
        } else if total == 0 {
            ServiceState::NoBackends
        } else if self.broken.is_some() {
            ServiceState::Broken
        } else if self.healthy_backends == 0 {
            ServiceState::Down
        } else if self.serving_backups > 0 {
            ServiceState::OnBackup
        } else if self.healthy_backends < total - backups.clone().count()
            || backups.clone().any(|backend| backend.health == Health::Down)
            || !self.faults.is_empty()
        {
            ServiceState::Degraded
        } else {
            ServiceState::Ok
        }
    }
}
