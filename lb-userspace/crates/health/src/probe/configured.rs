//! Checkers of any kind, made from settings: for programs that learn the kind from a configuration.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    error::{CheckError, Latency},
    probe::{
        checker::Checker,
        kind::{Probe, ProbeCache},
    },
    settings::CheckSettings,
};

/// The checker for settings of any kind.
#[derive(Debug)]
pub struct ConfiguredChecker(Probe);

impl Checker for ConfiguredChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        self.0.check(target, timeout).await
    }

    fn renew(&self) {
        self.0.renew();
    }
}

/// Makes the checkers of many targets with the same settings. Each target needs its own, since a checker may keep a
/// connection; prepared parts, such as compiled expressions, are shared.
#[derive(Debug)]
pub struct Checkers {
    settings: CheckSettings,
    cache: ProbeCache,
}

/// Settings that make no check.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoCheck(Arc<str>);

impl Checkers {
    /// Prepares checkers of `settings`.
    ///
    /// # Errors
    /// When the settings are no check, or one that only the balancer can make; with the reason.
    pub fn new(settings: CheckSettings) -> Result<Self, NoCheck> {
        if !settings.also.is_empty() {
            return Err(NoCheck(
                "only the balancer makes several checks of a target in one".into(),
            ));
        }
        let mut cache = ProbeCache::default();
        if let Probe::Impossible(why) = cache.probe(&settings) {
            return Err(NoCheck(why));
        }
        Ok(Self { settings, cache })
    }

    /// The settings of the checkers.
    pub fn settings(&self) -> &CheckSettings {
        &self.settings
    }

    /// A checker for one more target.
    pub fn checker(&mut self) -> ConfiguredChecker {
        ConfiguredChecker(self.cache.probe(&self.settings))
    }
}
