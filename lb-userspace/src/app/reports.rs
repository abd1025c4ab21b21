//! Reports of kind push from an earlier daemon, which stay valid over a restart until their expiry.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::{
    health::{HealthHandle, Report, wall},
    state::store::Record,
};

/// Restores the reports of an earlier daemon.
pub(super) fn recall(health: &HealthHandle, known: &[Record]) {
    let (instant, now) = (Instant::now(), SystemTime::now());
    for record in known {
        if let Record::Report {
            target,
            down,
            at,
            ttl,
        } = record
        {
            health.report(*target, report(down.as_deref(), *at, *ttl, instant, now));
        }
    }
}

/// A report of an earlier daemon, as if this daemon had received it. A report from before the start of the monotonic
/// clock has expired; a clock that was set back extends no report beyond its `ttl`.
fn report(down: Option<&str>, at: u64, ttl: u64, instant: Instant, now: SystemTime) -> Report {
    let ago = now.duration_since(wall(at)).unwrap_or_default();
    let (at, ttl) = match instant.checked_sub(ago) {
        Some(at) => (at, Duration::from_millis(ttl)),
        None => (instant, Duration::from_millis(ttl).saturating_sub(ago)),
    };
    Report {
        says: down.map_or(Ok(()), |why| Err(why.into())),
        at,
        ttl,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::millis;

    #[test]
    fn a_report_holds_for_as_long_as_it_would_have() {
        let (instant, now) = (Instant::now() + Duration::from_secs(10_000), SystemTime::now());
        let left = |ago: u64, ttl: u64| {
            let at = millis(now).saturating_sub(1_000 * ago);
            let report = report(None, at, 1_000 * ttl, instant, now);
            (report.at + report.ttl)
                .saturating_duration_since(instant)
                .as_secs_f64()
                .round()
        };
        assert_eq!(left(10, 600), 590.0);
        assert_eq!(left(700, 600), 0.0, "over");
        let forever_ago = millis(now) / 1_000;
        assert_eq!(left(forever_ago, 600), 0.0, "longer ago than the machine runs");
        let future = report(Some("disk full"), millis(now) + 5_000, 600_000, instant, now);
        assert!(
            future.at <= instant && future.says.is_err(),
            "a clock that was set back"
        );
    }
}
