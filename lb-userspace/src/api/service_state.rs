//! How a service does, in one word.

use super::types::{Backend, Health, Service};

/// How a service does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceState {
    /// All backends take new flows, and none is down.
    Ok,
    /// Some do, some are down, or flows of some fail.
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
        let present = self.backends.iter().filter(|backend| !backend.removed);
        let total = present.clone().count();
        let backups = present.clone().filter(|backend| backend.backup).count();
        // A backend that is down can take new flows: until the verdict is programmed, and while too many others are down.
        let is_down = |backend: &Backend| backend.health == Health::Down;
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
        } else if self.healthy_backends < total - backups
            || present.clone().any(is_down)
            || present
                .clone()
                .any(|backend| backend.lacks_replies(&self.protocol))
            || !self.faults.is_empty()
        {
            ServiceState::Degraded
        } else {
            ServiceState::Ok
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing;

    /// Who asks for the state while most backends are down, and flows go to them all the same, must not read `ok`.
    #[test]
    fn a_service_with_a_backend_that_is_down_is_never_ok() {
        let up = testing::backend("a");
        let mut down = testing::backend("b");
        down.health = Health::Down;
        let judged = |backends: &[&Backend]| {
            let backends = backends.iter().map(|&backend| backend.clone()).collect();
            testing::service("web", backends).judged()
        };
        assert_eq!(judged(&[&up, &up]), ServiceState::Ok);
        assert_eq!(judged(&[&up, &down]), ServiceState::Degraded);
        assert_eq!(judged(&[&down, &down]), ServiceState::Degraded);
        let mut unanswered = up.clone();
        (unanswered.new_flows, unanswered.reply_packets) = (10, 0);
        unanswered.mode = "dnat".to_owned();
        assert_eq!(judged(&[&up, &unanswered]), ServiceState::Degraded);
        unanswered.reply_packets = 1;
        assert_eq!(judged(&[&up, &unanswered]), ServiceState::Ok);
        (unanswered.reply_packets, unanswered.mode) = (0, "l2dsr".to_owned());
        assert_eq!(
            judged(&[&up, &unanswered]),
            ServiceState::Ok,
            "replies do not come by"
        );
        down.removed = true;
        assert_eq!(judged(&[&up, &down]), ServiceState::Ok);
        down.removed = false;
        down.effective_weight = 0;
        assert_eq!(judged(&[&down, &down]), ServiceState::Down);
    }
}
