//! Reports findings of checks once each: certificates that expire soon, and servers that serve one connection at a
//! time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    control::handle::ControlHandle,
    events::{EventKind, EventLog, NewEvent, rfc3339},
    health::{Certificate, CheckId, CheckStatuses, HealthHandle},
};

/// Interval of reading the results of checks.
pub const CERTIFICATE_POLL: Duration = Duration::from_secs(2);

/// Reports new findings as events and in the log, until `cancel`. Cancel-safe.
pub async fn watch(
    checks: HealthHandle,
    control: ControlHandle,
    events: Arc<EventLog>,
    cancel: CancellationToken,
) {
    let mut reporter = Reporter::default();
    let mut ticks = time::interval(CERTIFICATE_POLL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = SystemTime::now();
        for (CheckId(service, backend), news) in reporter.news(&checks.snapshot(), now) {
            let message = news.words(now);
            match news {
                News::Near(_) | News::ServesOne => tracing::warn!(%service, %backend, "{message}"),
                News::Renewed(_) => tracing::info!(%service, %backend, "{message}"),
            }
            let event = NewEvent {
                kind: news.kind(),
                service: Some(service.to_string()),
                backend: Some(backend.to_string()),
                revision: control.view().desired.revision.0,
                message,
                by: None,
            };
            events.push(event, now);
        }
    }
}

/// A finding about a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    /// The certificate expires then: soon, or it has expired.
    Near(SystemTime),
    /// The certificate was renewed and expires then.
    Renewed(SystemTime),
    /// It answers on one connection at a time only.
    ServesOne,
}

impl News {
    fn kind(self) -> EventKind {
        match self {
            Self::Near(_) | Self::Renewed(_) => EventKind::Certificate,
            Self::ServesOne => EventKind::Health,
        }
    }

    fn words(self, now: SystemTime) -> String {
        match self {
            Self::Near(end) => match end.duration_since(now) {
                Ok(left) => format!("certificate expires in {}, at {}", text(left), rfc3339(end)),
                Err(_) => format!("certificate has expired at {}", rfc3339(end)),
            },
            Self::Renewed(end) => format!("certificate is renewed, expires at {}", rfc3339(end)),
            Self::ServesOne => {
                "serves one connection at a time: each check closes its own (set keep_alive = false)"
                    .to_owned()
            }
        }
    }
}

/// The two largest units of a time, in words.
fn text(left: Duration) -> String {
    let coarse = match left.as_secs() {
        seconds @ 0..3_600 => seconds,
        seconds @ 3_600..86_400 => seconds / 60 * 60,
        seconds => seconds / 3_600 * 3_600,
    };
    humantime::format_duration(Duration::from_secs(coarse)).to_string()
}

/// The findings reported so far, by check.
#[derive(Debug, Default)]
struct Reporter {
    reported: BTreeMap<CheckId, SystemTime>,
    serve_one: BTreeSet<CheckId>,
}

impl Reporter {
    /// The findings since the last call.
    fn news(&mut self, checks: &CheckStatuses, now: SystemTime) -> Vec<(CheckId, News)> {
        self.reported.retain(|id, _| checks.contains_key(id));
        self.serve_one.retain(|id| checks.contains_key(id));
        let mut news = Vec::new();
        for (id, status) in checks.iter() {
            let last = status.last_check.as_ref();
            if last.is_some_and(|last| last.serves_one) {
                if self.serve_one.insert(id.clone()) {
                    news.push((id.clone(), News::ServesOne));
                }
            } else {
                self.serve_one.remove(id);
            }
            let Some(Certificate { warn_from, expires }) = last.and_then(|last| last.certificate) else {
                continue;
            };
            let reported = self.reported.get(id).copied();
            if now >= warn_from && reported != Some(expires) {
                self.reported.insert(id.clone(), expires);
                news.push((id.clone(), News::Near(expires)));
            } else if now < warn_from && reported.is_some() {
                self.reported.remove(id);
                news.push((id.clone(), News::Renewed(expires)));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::{CheckStatus, Health, Judgement, LastCheck},
        state::testing::id,
    };

    const DAY: Duration = Duration::from_secs(86_400);

    fn seen(certificate: Option<Certificate>) -> CheckStatus {
        CheckStatus {
            health: Health::Up,
            since: SystemTime::UNIX_EPOCH,
            last_check: Some(LastCheck {
                outcome: Ok(()),
                latency: Duration::ZERO,
                at: SystemTime::UNIX_EPOCH,
                parts: Arc::default(),
                certificate,
                serves_one: false,
            }),
            judgement: Judgement::default(),
            shared: None,
        }
    }

    #[test]
    fn single_connection_server_is_reported_once_per_episode() {
        let mut reporter = Reporter::default();
        for (serves_one, reported) in [
            (false, false),
            (true, true),
            (true, false),
            (false, false),
            (true, true),
        ] {
            let mut status = seen(None);
            if let Some(last) = &mut status.last_check {
                last.serves_one = serves_one;
            }
            let checks = CheckStatuses::from(BTreeMap::from([(id("web", "a"), status)]));
            let news = reporter.news(&checks, SystemTime::UNIX_EPOCH);
            let expected = reported.then(|| (id("web", "a"), News::ServesOne));
            assert_eq!(news, Vec::from_iter(expected));
        }
    }

    /// One certificate over time, with 14 days of warning: the day, the day of expiry, and the expected report.
    #[test]
    fn approaching_expiry_is_reported_once() {
        let day = |n: u32| SystemTime::UNIX_EPOCH + n * DAY;
        let mut reporter = Reporter::default();
        for (now, end, expected) in [
            (100, None, None),
            (100, Some(130), None),
            (115, Some(130), None),
            (116, Some(130), Some(News::Near(day(130)))),
            (117, Some(130), None),
            // The server answers without TLS for a while, or fails: the same end is no news.
            (118, None, None),
            (119, Some(130), None),
            (131, Some(130), None),
            (132, Some(140), Some(News::Near(day(140)))),
            (133, Some(223), Some(News::Renewed(day(223)))),
            (134, Some(223), None),
            (209, Some(223), Some(News::Near(day(223)))),
        ] {
            let certificate = end.map(|end| Certificate {
                warn_from: day(end) - 14 * DAY,
                expires: day(end),
            });
            let checks = CheckStatuses::from(BTreeMap::from([(id("web", "a"), seen(certificate))]));
            let expected = Vec::from_iter(expected.map(|news| (id("web", "a"), news)));
            assert_eq!(reporter.news(&checks, day(now)), expected, "on day {now}");
        }
        assert_eq!(reporter.news(&CheckStatuses::default(), day(210)), []);
        assert_eq!(reporter.reported.len(), 0, "a removed check is forgotten");
    }

    #[test]
    fn certificate_report_shows_the_time_left() {
        let now = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        for (left, expected) in [
            (
                13 * DAY + DAY / 2 + Duration::from_secs(61),
                "in 13days 12h, at 2024-10-17T12:01:01",
            ),
            (Duration::from_secs(7_261), "in 2h 1m, at"),
            (Duration::from_secs(59), "in 59s, at"),
        ] {
            let words = News::Near(now + left).words(now);
            assert!(words.contains(expected), "{words}");
        }
        assert!(
            News::Near(now - DAY)
                .words(now)
                .starts_with("certificate has expired at 2024-10-03")
        );
    }
}
