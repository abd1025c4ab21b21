//! The result of a load.

use std::time::Duration;

use crate::stats::Stats;

/// What a load measured.
pub(crate) struct Measured {
    /// Counts and latencies of the measured time.
    pub(crate) stats: Stats,
    /// How long was measured: less than planned if it was interrupted.
    pub(crate) measured: Duration,
    /// Connections opened, warm-up included.
    pub(crate) opened: u64,
    /// CPU time of the threads that send, warm-up included.
    pub(crate) cpu: Duration,
    /// How long these threads ran.
    pub(crate) ran: Duration,
    /// Exchanges, warm-up included.
    pub(crate) exchanges: u64,
}

impl Measured {
    /// Whole answers a second.
    #[allow(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub(crate) fn rate(&self) -> f64 {
        self.per_second(self.stats.answers as f64)
    }

    /// A count of the measured time, for each second of it.
    pub(crate) fn per_second(&self, count: f64) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 { count / seconds } else { 0.0 }
    }

    /// CPU time of the threads that send, for one exchange.
    pub(crate) fn cpu_per_exchange(&self) -> Duration {
        let exchanges = u32::try_from(self.exchanges).unwrap_or(u32::MAX);
        self.cpu.checked_div(exchanges).unwrap_or_default()
    }

    /// The share of the threads' time in which they ran, from 0 to 1.
    pub(crate) fn utilisation(&self, threads: usize) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "few threads")]
        let time = self.ran.as_secs_f64() * threads as f64;
        if time > 0.0 {
            self.cpu.as_secs_f64() / time
        } else {
            0.0
        }
    }
}

/// A time in three to four digits.
pub(crate) fn latency(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}
