//! Services whose half-open flows give way to new ones because source ports or flow table entries run out: one event at
//! the begin, one at the end.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::chain,
    clock::now,
    control::handle::ControlHandle,
    datapath::{DatapathError, StatsReader},
    events::{EventKind, EventLog, NewEvent},
    state::service::ServiceKey,
};

/// Interval of reading the counters.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time without a flow that gives way after which an episode is over.
const OVER_AFTER: Duration = Duration::from_secs(30);

/// Flows that gave way so far, by service.
pub type GaveWayTotals = BTreeMap<ServiceKey, u64>;

/// Reads how many flows gave way.
pub trait ReadGaveWay: Clone + Send + Sync + 'static {
    /// All counts as they stand. Blocks for the time of some system calls.
    ///
    /// # Errors
    /// The kernel refuses.
    fn gave_way(&self) -> Result<GaveWayTotals, DatapathError>;
}

impl ReadGaveWay for StatsReader {
    fn gave_way(&self) -> Result<GaveWayTotals, DatapathError> {
        Self::gave_way(self)
    }
}

/// Begin or end of an episode of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    /// Its flows begin to give way.
    Began,
    /// No flow has given way for [`OVER_AFTER`]; the number of flows that had.
    Ended(u64),
}

/// The count of one service.
#[derive(Clone, Copy, Debug)]
struct Count {
    total: u64,
    /// During an episode: the total before it, and when the last flow gave way.
    episode: Option<(u64, Instant)>,
}

/// The counts of all services.
#[derive(Debug, Default)]
struct Episodes {
    /// `None` before the first reading: an earlier daemon has reported these.
    counts: Option<BTreeMap<ServiceKey, Count>>,
}

impl Episodes {
    /// Takes the totals at `now`; returns the services whose episode began or ended.
    fn update(&mut self, totals: &GaveWayTotals, now: Instant) -> Vec<(ServiceKey, News)> {
        let known = self.counts.take();
        let mut news = Vec::new();
        let counts = totals.iter().map(|(key, total)| {
            let before = known
                .as_ref()
                .map(|known| known.get(key).map_or(0, |count| count.total));
            let before = before.unwrap_or(*total);
            let mut episode = known.as_ref().and_then(|known| known.get(key)?.episode);
            if *total > before {
                if episode.is_none() {
                    news.push((*key, News::Began));
                }
                episode = Some((episode.map_or(before, |(start, _)| start), now));
            }
            let over = |(_, last): &(u64, Instant)| now.saturating_duration_since(*last) >= OVER_AFTER;
            if let Some((start, _)) = episode.take_if(|episode| over(episode)) {
                news.push((*key, News::Ended(total.saturating_sub(start))));
            }
            (
                *key,
                Count {
                    total: *total,
                    episode,
                },
            )
        });
        self.counts = Some(counts.collect());
        news
    }
}

/// Reports as events and in the log when flows of a service begin and cease to give way, until `cancel`. Cancel-safe.
pub async fn watch(
    reader: impl ReadGaveWay,
    control: ControlHandle,
    events: Arc<EventLog>,
    cancel: CancellationToken,
) {
    let mut episodes = Episodes::default();
    let mut ticks = time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let reader = reader.clone();
        let totals = match task::spawn_blocking(move || reader.gave_way()).await {
            Ok(Ok(totals)) => totals,
            Ok(Err(error)) => {
                tracing::debug!(error = chain(&error), "cannot read how many flows gave way");
                continue;
            }
            Err(_) => return,
        };
        let view = control.view();
        for (key, news) in episodes.update(&totals, now()) {
            let message = match news {
                News::Began => {
                    "half-open flows begin to give way to new ones: source ports or the flow table run out"
                        .to_owned()
                }
                News::Ended(flows) => format!("half-open flows give way no longer; {flows} did"),
            };
            let mut services = view.desired.services.values();
            let service = services.find(|service| service.key == key);
            let service = service.map(|service| service.name.to_string());
            let name = service.as_deref().unwrap_or_default();
            match news {
                News::Began => tracing::warn!(service = name, "{message}"),
                News::Ended(_) => tracing::info!(service = name, "{message}"),
            }
            let event = NewEvent {
                kind: EventKind::FlowsGiveWay,
                service,
                backend: None,
                revision: view.desired.revision.0,
                message,
                by: None,
            };
            events.push(event, SystemTime::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    #[test]
    fn an_episode_begins_and_ends_once_however_flows_come_and_go_within_it() {
        let key = testing::service("web", 1, &[]).key;
        let start = now();
        let mut episodes = Episodes::default();
        let mut at = |secs, total| {
            let news = episodes.update(
                &GaveWayTotals::from([(key, total)]),
                start + Duration::from_secs(secs),
            );
            news.into_iter().map(|(_, news)| news).collect::<Vec<_>>()
        };
        assert_eq!(at(0, 7), [], "flows that an earlier daemon reported");
        assert_eq!(at(1, 7), []);
        assert_eq!(at(2, 9), [News::Began]);
        for (secs, total) in [(3, 10), (20, 10), (25, 11), (50, 11), (54, 12), (83, 12)] {
            assert_eq!(at(secs, total), [], "after {secs} s");
        }
        assert_eq!(at(84, 12), [News::Ended(5)]);
        assert_eq!(at(85, 12), []);
        assert_eq!(at(86, 13), [News::Began]);
        // The service is removed, and another one takes its place.
        assert_eq!(at(87, 0), []);
    }

    #[test]
    fn later_service_is_reported() {
        let key = testing::service("web", 1, &[]).key;
        let mut episodes = Episodes::default();
        assert_eq!(episodes.update(&GaveWayTotals::new(), now()), []);
        let totals = GaveWayTotals::from([(key, 1)]);
        assert_eq!(episodes.update(&totals, now()), [(key, News::Began)]);
    }
}
