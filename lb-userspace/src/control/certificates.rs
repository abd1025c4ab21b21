//! Certificates of backends whose end comes near, told once.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::ControlHandle;
use crate::{
    events::{EventKind, EventLog, NewEvent, rfc3339},
    health::{Certificate, CheckId, CheckStatuses, HealthHandle},
};

/// Time between two looks at what checks have seen.
pub const CERTIFICATE_POLL: Duration = Duration::from_secs(2);

/// Tells in events and log which certificates end soon, until `cancel`. Cancel-safe.
pub async fn watch(
    checks: HealthHandle,
    control: ControlHandle,
    events: Arc<EventLog>,
    cancel: CancellationToken,
) {
    let mut watchman = Watchman::default();
    let mut ticks = time::interval(CERTIFICATE_POLL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = SystemTime::now();
        for (CheckId(service, backend), news) in watchman.news(&checks.snapshot(), now) {
            let message = news.words(now);
            match news {
                News::Near(_) => tracing::warn!(%service, %backend, "{message}"),
                News::Renewed(_) => tracing::info!(%service, %backend, "{message}"),
            }
            let event = NewEvent {
                kind: EventKind::Certificate,
                service: Some(service.to_string()),
                backend: Some(backend.to_string()),
                revision: control.view().desired.revision.0,
                message,
            };
            events.push(event, now);
        }
    }
}

/// What is to be told about a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    /// It ends then, which is soon or was already.
    Near(SystemTime),
    /// Its end, which was near, is far again.
    Renewed(SystemTime),
}

impl News {
    fn words(self, now: SystemTime) -> String {
        match self {
            Self::Near(end) => match end.duration_since(now) {
                Ok(left) => format!("certificate expires in {}, at {}", text(left), rfc3339(end)),
                Err(_) => format!("certificate has expired at {}", rfc3339(end)),
            },
            Self::Renewed(end) => format!("certificate is renewed, expires at {}", rfc3339(end)),
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

/// The ends that were told, by whose they are.
#[derive(Debug, Default)]
struct Watchman {
    told: BTreeMap<CheckId, SystemTime>,
}

impl Watchman {
    /// What is new since the last look.
    fn news(&mut self, checks: &CheckStatuses, now: SystemTime) -> Vec<(CheckId, News)> {
        self.told.retain(|id, _| checks.contains_key(id));
        let mut news = Vec::new();
        for (id, status) in checks.iter() {
            let last = status.last_check.as_ref();
            let Some(Certificate { warn_from, expires }) = last.and_then(|last| last.certificate) else {
                continue;
            };
            let told = self.told.get(id).copied();
            if now >= warn_from && told != Some(expires) {
                self.told.insert(id.clone(), expires);
                news.push((id.clone(), News::Near(expires)));
            } else if now < warn_from && told.is_some() {
                self.told.remove(id);
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
            }),
            judgement: Judgement::default(),
            shared: None,
        }
    }

    /// One certificate over the days, with 14 days of warning: the day, the day on which it ends, and what is told.
    #[test]
    fn an_end_that_comes_near_is_told_once() {
        let day = |n: u32| SystemTime::UNIX_EPOCH + n * DAY;
        let mut watchman = Watchman::default();
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
            assert_eq!(watchman.news(&checks, day(now)), expected, "on day {now}");
        }
        assert_eq!(watchman.news(&CheckStatuses::default(), day(210)), []);
        assert_eq!(watchman.told.len(), 0, "who is gone is forgotten");
    }

    #[test]
    fn words_say_how_long() {
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
