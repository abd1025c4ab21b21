//! Passive checks: carries failures of clients' flows from the data plane's counters to the health checks.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use lb_common::{counters::Signals, service::Mode};
use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::chain,
    control::handle::ControlHandle,
    datapath::{BackendSignals, DatapathError, StatsReader},
    health::{CheckId, HealthHandle, NotTaken},
    state::{
        backend::Backend,
        desired::Desired,
        service::{Service, ServiceKey},
        shared::Shared,
    },
};

/// Interval of reading the counters: a signal is at most this late.
pub const SIGNAL_POLL: Duration = Duration::from_millis(250);

/// Reads passive signals.
pub trait ReadSignals: Clone + Send + Sync + 'static {
    /// All signals so far. Blocks for the time of some system calls.
    ///
    /// # Errors
    /// The kernel refuses.
    fn signals(&self) -> Result<BackendSignals, DatapathError>;
}

impl ReadSignals for StatsReader {
    fn signals(&self) -> Result<BackendSignals, DatapathError> {
        Self::signals(self)
    }
}

/// Takes passive signals.
pub trait TakeSignals: Send + Sync + 'static {
    /// Takes the signals since the last call.
    ///
    /// # Errors
    /// [`NotTaken`]: not now.
    fn take(&self, signals: Vec<(CheckId, Signals)>) -> Result<(), NotTaken>;
}

impl TakeSignals for HealthHandle {
    fn take(&self, signals: Vec<(CheckId, Signals)>) -> Result<(), NotTaken> {
        self.take_signals(signals)
    }
}

/// Reads the counters every [`SIGNAL_POLL`] while a backend has passive checks, until `cancel`. Cancel-safe: the next
/// daemon detects failures that continue.
pub async fn listen(
    reader: impl ReadSignals,
    checks: impl TakeSignals,
    control: ControlHandle,
    cancel: CancellationToken,
) {
    let mut reported = Reported::default();
    let mut failed = false;
    let mut ticks = time::interval(SIGNAL_POLL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let view = control.view();
        if with_passive_checks(&view.desired).next().is_none() {
            reported.last = None;
            continue;
        }
        let reader = reader.clone();
        let now = match task::spawn_blocking(move || reader.signals()).await {
            Ok(Ok(now)) => now,
            Ok(Err(error)) => {
                if !failed {
                    tracing::warn!(
                        error = chain(&error),
                        "cannot read passive health counters, retrying"
                    );
                }
                failed = true;
                continue;
            }
            Err(_) => return,
        };
        failed = false;
        let signals = reported.news(&view.desired, &now);
        if signals.is_empty() || checks.take(signals).is_ok() {
            reported.last = Some(now);
        }
    }
}

/// The signals reported so far.
#[derive(Debug, Default)]
struct Reported {
    /// `None` before the first reading: an earlier daemon has reported these.
    last: Option<BackendSignals>,
}

impl Reported {
    /// The signals in `now` that were not reported yet.
    fn news(&self, desired: &Desired, now: &BackendSignals) -> Vec<(CheckId, Signals)> {
        let Some(last) = &self.last else {
            return Vec::new();
        };
        let mut news = BTreeMap::new();
        for (place, signals) in now {
            let before = last.get(place).copied().unwrap_or_default();
            let new = since(before, *signals);
            if new.total() > 0 {
                news.insert(*place, new);
            }
        }
        if news.is_empty() {
            return Vec::new();
        }
        with_passive_checks(desired)
            .filter_map(|(id, place)| Some((id, *news.get(&place)?)))
            .collect()
    }
}

/// The signals after `before`; all of `now` if the counters were reset in between.
fn since(before: Signals, now: Signals) -> Signals {
    let Signals {
        unanswered,
        refused,
        unreachable,
    } = before;
    let less = || {
        Some(Signals {
            unanswered: now.unanswered.checked_sub(unanswered)?,
            refused: now.refused.checked_sub(refused)?,
            unreachable: now.unreachable.checked_sub(unreachable)?,
        })
    };
    less().unwrap_or(now)
}

/// Backends with passive checks.
fn with_passive_checks(desired: &Desired) -> impl Iterator<Item = (CheckId, (ServiceKey, SocketAddr))> {
    let listens = |service: &&Shared<Service>| service.health.passive && service.health.kind.is_check();
    desired.services.values().filter(listens).flat_map(|service| {
        let translates = |backend: &&Backend| backend.mode.unwrap_or(service.mode) == Mode::Nat;
        let place = |backend: &Backend| {
            let id = CheckId(service.name.clone(), backend.name.clone());
            (id, (service.key, backend.address))
        };
        service.backends.iter().filter(translates).map(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{health::settings::CheckKind, state::testing};

    fn refused(refused: u64) -> Signals {
        Signals {
            refused,
            ..Signals::default()
        }
    }

    fn service(name: &str, number: u8, backends: &[(&str, u16)], change: impl Fn(&mut Service)) -> Service {
        let mut service = testing::service(name, number, backends);
        service.health.kind = CheckKind::Tcp;
        change(&mut service);
        service
    }

    #[test]
    fn only_new_signals_of_checked_nat_backends_are_reported() {
        let desired = testing::desired([
            service("nat", 1, &[("a", 1), ("b", 1), ("c", 1)], |_| {}),
            service("deaf", 2, &[("a", 1)], |service| service.health.passive = false),
            service("unchecked", 3, &[("a", 1)], |service| {
                service.health.kind = CheckKind::None
            }),
            service("dsr", 4, &[("a", 1)], |service| service.mode = Mode::L2dsr),
        ]);
        let signals = |counts: &[(&str, usize, u64)]| -> BackendSignals {
            let place = |name: &str, n: usize| {
                let service = &desired.services[&name.parse().unwrap()];
                (service.key, service.backends[n].address)
            };
            counts
                .iter()
                .map(|(name, n, count)| (place(name, *n), refused(*count)))
                .collect()
        };
        let mut reported = Reported::default();
        let first = signals(&[("nat", 0, 100)]);
        assert_eq!(
            reported.news(&desired, &first),
            [],
            "signals that an earlier daemon reported"
        );
        reported.last = Some(first);
        let all = signals(&[
            ("nat", 0, 100),
            ("nat", 1, 2),
            ("deaf", 0, 3),
            ("unchecked", 0, 4),
            ("dsr", 0, 5),
        ]);
        let news = [(testing::id("nat", "b"), refused(2))];
        assert_eq!(reported.news(&desired, &all), news);
        assert_eq!(reported.news(&desired, &all), news, "until it was taken");
        reported.last = Some(all);
        // Backend c has got the id of a in between.
        let reset = signals(&[("nat", 0, 1), ("nat", 1, 2), ("nat", 2, 7)]);
        let news = [
            (testing::id("nat", "a"), refused(1)),
            (testing::id("nat", "c"), refused(7)),
        ];
        assert_eq!(reported.news(&desired, &reset), news);
    }
}
