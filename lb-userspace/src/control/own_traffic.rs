//! Detects that connections of this machine use ports of `snat_ports`: the program would take their answers for replies
//! of backends. Checks and SSH sessions are among them.

use std::{
    fs,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_common::service::Mode;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    control::handle::ControlHandle,
    events::{EventKind, EventLog, NewEvent},
    health::source_ports,
    state::{desired::Desired, service::Service},
};

/// Interval of reading the kernel's settings, which send no notice when they change.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where the kernel keeps the ports that connections of this machine leave from, of both families.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Why answers to connections of this machine may not arrive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The conflict.
    pub message: String,
    /// The remedy.
    pub hint: &'static str,
}

/// The conflict between the desired state and this machine's own connections, by the kernel's present settings.
pub fn conflict(desired: &Desired) -> Option<Conflict> {
    of_ports(desired, &fs::read_to_string(LOCAL_PORTS).ok()?)
}

/// Makes checks leave from ports outside `snat_ports`, if the kernel's range has any.
pub fn keep_checks_apart(desired: &Desired) {
    let conflicts = conflict(desired).is_some();
    let local = local_ports().filter(|_| conflicts);
    let apart = local.and_then(|local| without(&local, &desired.settings.snat_ports));
    source_ports::limit_to(apart.as_ref());
}

fn local_ports() -> Option<RangeInclusive<u16>> {
    range(&fs::read_to_string(LOCAL_PORTS).ok()?)
}

/// The larger part of a range that remains without another range.
fn without(local: &RangeInclusive<u16>, taken: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let below = taken
        .start()
        .checked_sub(1)
        .map(|last| *local.start()..=last.min(*local.end()));
    let above = taken
        .end()
        .checked_add(1)
        .map(|first| first.max(*local.start())..=*local.end());
    let parts = [below, above].into_iter().flatten();
    parts
        .filter(|part| !part.is_empty())
        .max_by_key(ExactSizeIterator::len)
}

/// Both ends of a range as the kernel shows it.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
}

/// As [`conflict`], with the kernel's range of ports as it shows it.
pub fn of_ports(desired: &Desired, local: &str) -> Option<Conflict> {
    let local = range(local)?;
    let snat = &desired.settings.snat_ports;
    let overlap = snat.start() <= local.end() && local.start() <= snat.end();
    let translates = |service: &Service| {
        let of_backend = |mode: Option<Mode>| mode.unwrap_or(service.mode) == Mode::Nat;
        service.backends.iter().any(|backend| of_backend(backend.mode))
    };
    let used = desired.services.values().any(|service| translates(service));
    (overlap && used).then(|| Conflict {
        message: format!(
            "snat_ports {}-{} overlap net.ipv4.ip_local_port_range {}-{}: answers to connections of this machine, its \
             checks among them, may go to clients",
            snat.start(),
            snat.end(),
            local.start(),
            local.end()
        ),
        hint: "set one of them so that they have no port in common; the kernel's default is 32768 60999",
    })
}

/// Reports the begin and end of a conflict as events and in the log, until `cancel`. Cancel-safe.
pub async fn watch(control: ControlHandle, events: Arc<EventLog>, cancel: CancellationToken) {
    let mut known: Option<Conflict> = None;
    let mut views = control.views();
    let mut ticks = time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
            Ok(()) = views.changed() => {}
        }
        let desired = Arc::clone(&views.borrow_and_update().desired);
        keep_checks_apart(&desired);
        let now = conflict(&desired);
        if now == known {
            continue;
        }
        let event = |message: String| {
            let event = NewEvent {
                kind: EventKind::OwnTraffic,
                service: None,
                backend: None,
                revision: desired.revision.0,
                message,
                by: None,
            };
            events.push(event, SystemTime::now());
        };
        if let Some(ended) = known {
            event(format!("no longer: {}", ended.message));
        }
        if let Some(Conflict { message, hint }) = &now {
            tracing::warn!(hint, "{message}");
            event(message.clone());
        }
        known = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    #[test]
    fn a_port_in_common_is_found_where_mode_nat_uses_it() {
        let mut service = testing::service("web", 1, &[("a", 1)]);
        let mut desired = testing::desired([service.clone()]);
        desired.settings.snat_ports = 1024..=32_767;
        for (local, found) in [
            ("32768\t60999\n", false),
            ("32767 60999", true),
            ("1024 65535", true),
            ("1 1023", false),
            ("500 1024", true),
            ("2000 2001", true),
        ] {
            let conflict = of_ports(&desired, local);
            assert_eq!(conflict.is_some(), found, "{local}");
            assert!(conflict.is_none_or(|conflict| conflict.message.contains("ip_local_port_range")));
        }
        assert_eq!(range("all of them"), None);
        service.mode = Mode::L2dsr;
        for (backend, found) in [(None, false), (Some(Mode::Nat), true)] {
            service.backends[0].mode = backend;
            let conflict = of_ports(&testing::desired([service.clone()]), "1 65535");
            assert_eq!(
                conflict.is_some(),
                found,
                "a port of the range is used: {backend:?}"
            );
        }
    }

    #[test]
    fn larger_remainder_of_a_range_is_used() {
        for (local, taken, left) in [
            (32_768..=60_999, 1_024..=32_767, Some(32_768..=60_999)),
            (1_024..=65_535, 1_024..=32_767, Some(32_768..=65_535)),
            (2_000..=2_099, 2_020..=2_029, Some(2_030..=2_099)),
            (2_000..=2_099, 2_050..=65_535, Some(2_000..=2_049)),
            (2_000..=2_099, 2_000..=2_099, None),
            (2_000..=2_099, 1..=65_535, None),
        ] {
            assert_eq!(without(&local, &taken), left, "{local:?} without {taken:?}");
        }
    }
}
