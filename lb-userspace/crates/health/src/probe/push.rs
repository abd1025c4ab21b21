//! Checks that the latest report about the target is `up` and not expired.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::problem::ProbeError;
use crate::{
    error::{CheckError, Latency, LocalError},
    machine::{MAX_INTERVAL, MIN_INTERVAL},
    probe::checker::Checker,
    report::{Report, Reports},
    settings::PushCheck,
};

/// Everything that makes `settings` no check.
pub(super) fn problems(settings: &PushCheck) -> Vec<ProbeError> {
    let PushCheck { ttl } = settings;
    if (MIN_INTERVAL..=MAX_INTERVAL).contains(ttl) {
        Vec::new()
    } else {
        vec![ProbeError::TimeToLive]
    }
}

/// Reads the latest report, without I/O.
#[derive(Clone, Debug)]
pub(crate) struct PushChecker {
    reports: Reports,
    /// When the first report is overdue, where there is a verdict from earlier reports that are lost by now.
    overdue: Option<(Instant, Duration)>,
}

impl PushChecker {
    /// A checker that reads `reports`. With `judged`, a verdict was made of reports that are not among them: it expires
    /// too.
    pub(crate) fn new(settings: &PushCheck, reports: Reports, judged: bool) -> Self {
        Self {
            reports,
            overdue: judged.then(|| (Instant::now() + settings.ttl.min(MAX_INTERVAL), settings.ttl)),
        }
    }
}

impl Checker for PushChecker {
    async fn check(&self, target: SocketAddr, _timeout: Duration) -> Result<Latency, CheckError> {
        let now = Instant::now();
        let expired = |ttl| Err(CheckError::Expired { target, ttl });
        match (self.reports.latest(target), self.overdue) {
            (Some(Report { at, ttl, .. }), _) if now.saturating_duration_since(at) >= ttl => expired(ttl),
            (Some(Report { says: Ok(()), .. }), _) => Ok(Latency::default()),
            (
                Some(Report {
                    says: Err(reason), ..
                }),
                _,
            ) => Err(CheckError::Reported { target, reason }),
            (None, Some((overdue, ttl))) if now >= overdue => expired(ttl),
            (None, _) => Err(CheckError::Local {
                target,
                error: LocalError::NoReport,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn says(says: Result<(), &str>) -> Report {
        Report {
            says: says.map_err(Into::into),
            at: Instant::now(),
            ttl: TTL,
        }
    }

    /// A backend that stops reporting must not stay up, and one that never reported is not down.
    #[tokio::test(start_paused = true)]
    async fn reports_hold_until_they_expire_and_none_is_no_verdict() {
        let reports = Reports::default();
        let target: SocketAddr = "10.0.0.11:8080".parse().unwrap();
        let settings = PushCheck { ttl: TTL };
        let new = PushChecker::new(&settings, reports.clone(), false);
        let judged = PushChecker::new(&settings, reports.clone(), true);
        let check = async |checker: &PushChecker| checker.check(target, TTL).await.map(drop);
        let none = Err(CheckError::Local {
            target,
            error: LocalError::NoReport,
        });
        let late = CheckError::Expired { target, ttl: TTL };
        let expired = Err(late.clone());
        assert_eq!(
            (check(&new).await, check(&judged).await),
            (none.clone(), none.clone())
        );
        tokio::time::advance(TTL).await;
        assert_eq!((check(&new).await, check(&judged).await), (none, expired.clone()));

        reports.put(target, says(Ok(())));
        assert_eq!((check(&new).await, check(&judged).await), (Ok(()), Ok(())));
        tokio::time::advance(TTL - Duration::from_millis(1)).await;
        assert_eq!(check(&new).await, Ok(()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(check(&new).await, expired);

        reports.put(target, says(Err("disk full")));
        let error = check(&new).await.unwrap_err();
        assert_eq!(error.to_string(), "reported down: disk full, by 10.0.0.11:8080");
        tokio::time::advance(TTL).await;
        assert_eq!(check(&new).await, expired);
        assert_eq!(late.to_string(), "no report within 30s by 10.0.0.11:8080");
    }
}
