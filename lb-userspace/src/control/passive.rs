//! What flows tell about their backends, carried from the data plane's counters to the checks.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use lb_common::{counters::Signals, service::Mode};
use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use super::ControlHandle;
use crate::{
    chain::chain,
    datapath::{BackendSignals, DatapathError, StatsReader},
    health::{CheckId, HealthHandle, NotTaken},
    state::{
        backend::Backend,
        desired::Desired,
        service::{Service, ServiceKey},
        shared::Shared,
    },
};

/// Time between two looks at the counters, which is how late a signal may be.
pub const SIGNAL_POLL: Duration = Duration::from_millis(250);

/// Reads what flows tell.
pub trait ReadSignals: Clone + Send + Sync + 'static {
    /// All that was told so far. Blocks for the time of some system calls.
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

/// Takes what flows tell.
pub trait TakeSignals: Send + Sync + 'static {
    /// Takes what was told since the last time.
    ///
    /// # Errors
    /// [`NotTaken`]: not now.
    fn take(&self, told: Vec<(CheckId, Signals)>) -> Result<(), NotTaken>;
}

impl TakeSignals for HealthHandle {
    fn take(&self, told: Vec<(CheckId, Signals)>) -> Result<(), NotTaken> {
        self.tell(told)
    }
}

/// Looks at the counters every [`SIGNAL_POLL`] while there is a backend whose flows are listened to, until `cancel`.
/// Cancel-safe: what was not told yet is told by the next daemon, if it still matters then.
pub async fn listen(
    reader: impl ReadSignals,
    checks: impl TakeSignals,
    control: ControlHandle,
    cancel: CancellationToken,
) {
    let mut ear = Ear::default();
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
        if listened_to(&view.desired).next().is_none() {
            ear.heard = None;
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
        let told = ear.news(&view.desired, &now);
        if told.is_empty() || checks.take(told).is_ok() {
            ear.heard = Some(now);
        }
    }
}

/// What was heard so far.
#[derive(Debug, Default)]
struct Ear {
    /// `None` before the first look: what an earlier daemon heard is no news.
    heard: Option<BackendSignals>,
}

impl Ear {
    /// What is new in `now`.
    fn news(&self, desired: &Desired, now: &BackendSignals) -> Vec<(CheckId, Signals)> {
        let Some(heard) = &self.heard else {
            return Vec::new();
        };
        let mut news = BTreeMap::new();
        for (place, told) in now {
            let before = heard.get(place).copied().unwrap_or_default();
            let new = since(before, *told);
            if new.total() > 0 {
                news.insert(*place, new);
            }
        }
        if news.is_empty() {
            return Vec::new();
        }
        listened_to(desired)
            .filter_map(|(id, place)| Some((id, *news.get(&place)?)))
            .collect()
    }
}

/// What was told after `before`; all of `now` where counting began anew in between.
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

/// Backends whose flows tell something that checks want to know.
fn listened_to(desired: &Desired) -> impl Iterator<Item = (CheckId, (ServiceKey, SocketAddr))> {
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
    fn only_news_of_checked_backends_in_mode_nat_is_told() {
        let desired = testing::desired([
            service("nat", 1, &[("a", 1), ("b", 1), ("c", 1)], |_| {}),
            service("deaf", 2, &[("a", 1)], |service| service.health.passive = false),
            service("unchecked", 3, &[("a", 1)], |service| {
                service.health.kind = CheckKind::None
            }),
            service("dsr", 4, &[("a", 1)], |service| service.mode = Mode::L2dsr),
        ]);
        let told = |counts: &[(&str, usize, u64)]| -> BackendSignals {
            let place = |name: &str, n: usize| {
                let service = &desired.services[&name.parse().unwrap()];
                (service.key, service.backends[n].address)
            };
            counts
                .iter()
                .map(|(name, n, count)| (place(name, *n), refused(*count)))
                .collect()
        };
        let mut ear = Ear::default();
        let first = told(&[("nat", 0, 100)]);
        assert_eq!(ear.news(&desired, &first), [], "what an earlier daemon heard");
        ear.heard = Some(first);
        let all = told(&[
            ("nat", 0, 100),
            ("nat", 1, 2),
            ("deaf", 0, 3),
            ("unchecked", 0, 4),
            ("dsr", 0, 5),
        ]);
        let news = [(testing::id("nat", "b"), refused(2))];
        assert_eq!(ear.news(&desired, &all), news);
        assert_eq!(ear.news(&desired, &all), news, "until it was taken");
        ear.heard = Some(all);
        // The id of a has gone to c in between.
        let anew = told(&[("nat", 0, 1), ("nat", 1, 2), ("nat", 2, 7)]);
        let news = [
            (testing::id("nat", "a"), refused(1)),
            (testing::id("nat", "c"), refused(7)),
        ];
        assert_eq!(ear.news(&desired, &anew), news);
    }
}
