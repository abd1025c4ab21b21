//! The environment of the engine's loop, which tests replace.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use super::{
    engine::NewCheck,
    probe::{Found, Probe, ProbeCache, Probes, PushChecker},
    probe_route::Paths,
    report::Reports,
    settings::CheckKind,
};
use crate::health_state::Health;

/// The work of a due check.
pub(super) trait Check: Send + Sync + 'static {
    /// Checks `target`, as [`super::probe::Checker::check`] does.
    fn check(&self, target: SocketAddr, timeout: Duration) -> impl Future<Output = Found> + Send;

    /// As [`super::probe::Checker::renew`].
    fn renew(&self) {}
}

impl Check for Probes {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Found {
        Self::check(self, target, timeout).await
    }

    fn renew(&self) {
        Self::renew(self);
    }
}

/// Makes checks, and reads the wall clock.
pub(super) trait Environment: Send + 'static {
    /// The check of a target.
    type Check: Check;

    /// The work of each of these checks, in their order.
    fn checks(&mut self, new: &[NewCheck], reports: &Reports) -> Vec<Self::Check>;

    /// The time on the wall.
    fn wall(&self) -> SystemTime;
}

/// The environment as it is.
#[derive(Debug, Default)]
pub(super) struct RealEnvironment {
    /// Leads checks into the forwarding path, once it is there.
    pub(super) paths: Arc<OnceLock<Arc<dyn Paths>>>,
}

impl Environment for RealEnvironment {
    type Check = Probes;

    fn checks(&mut self, new: &[NewCheck], reports: &Reports) -> Vec<Probes> {
        let mut cache = ProbeCache::default();
        let mut probes = |check: &NewCheck| {
            if let CheckKind::Push(push) = &check.settings.kind {
                let judged = check.verdict != Health::Unchecked;
                Probes::one(Probe::Push(PushChecker::new(push, reports.clone(), judged)))
            } else {
                let by = self.paths.get().zip(check.path);
                Probes::by(&check.settings, &mut cache, by)
            }
        };
        new.iter().map(&mut probes).collect()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
