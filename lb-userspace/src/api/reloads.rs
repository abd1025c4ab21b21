//! Reloads of the configuration file, and how they are counted.

use tokio::sync::Mutex;

use crate::control::ReloadMetrics;

/// Reloads, one at a time: a file that is read first must not take effect last.
#[derive(Debug)]
pub struct Reloads {
    pub(super) turn: Mutex<()>,
    pub(super) metrics: ReloadMetrics,
}

impl Reloads {
    /// Reloads that `metrics` counts.
    pub fn new(metrics: ReloadMetrics) -> Self {
        Self {
            turn: Mutex::new(()),
            metrics,
        }
    }
}
