//! Connections of this machine that the program takes for those of clients: its checks are among them, and whatever an
//! operator works by.

use std::{
    fs,
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_common::service::Mode;
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::ControlHandle;
use crate::{
    datapath::{NextHopState, NextHops},
    events::{EventKind, EventLog, NewEvent},
    state::{
        desired::Desired,
        names::ServiceName,
        service::{Protocol, Service},
    },
};

/// Time between two looks at the kernel's settings, of whose changes nothing tells.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where the kernel keeps the ports that connections of this machine leave from, of both families.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Why answers to connections of this machine may not arrive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The service that takes them, where it is one.
    pub service: Option<ServiceName>,
    /// What is so.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

/// All conflicts between what is desired and this machine's own connections, as the kernel is set now.
pub fn conflicts(desired: &Desired, ways: &NextHops) -> Vec<Conflict> {
    let ports = fs::read_to_string(LOCAL_PORTS).ok();
    let local = ports.as_deref().and_then(range);
    let ports = local.and_then(|local| of_ports(desired, &local));
    ports.into_iter().chain(of_addresses(desired, ways)).collect()
}

/// Both ends of a range as the kernel shows it.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
}

fn of_ports(desired: &Desired, local: &RangeInclusive<u16>) -> Option<Conflict> {
    let snat = &desired.settings.snat_ports;
    let overlap = snat.start() <= local.end() && local.start() <= snat.end();
    let translates = |service: &Service| {
        let of_backend = |mode: Option<Mode>| mode.unwrap_or(service.mode) == Mode::Nat;
        service.backends.iter().any(|backend| of_backend(backend.mode))
    };
    let used = desired.services.values().any(|service| translates(service));
    (overlap && used).then(|| Conflict {
        service: None,
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

/// Services on every port of an address that this machine's own connections leave from.
fn of_addresses(desired: &Desired, ways: &NextHops) -> Vec<Conflict> {
    let sources: Vec<IpAddr> = ways.values().filter_map(source).collect();
    let given = &desired.settings.snat_addresses;
    let takes_all = |service: &Service| {
        let address = service.key.address;
        service.key.port == 0 && (sources.contains(&address) || given.contains(&address))
    };
    let services = desired.services.values().filter(|service| takes_all(service));
    let conflict = |service: &Service| Conflict {
        service: Some(service.name.clone()),
        message: format!(
            "takes every {} port of {}, an address of this machine that its own connections leave from: answers to \
             them, checks among them, go to the backends",
            if service.key.protocol == Protocol::Tcp {
                "TCP"
            } else {
                "UDP"
            },
            service.key.address
        ),
        hint: "give the service an address of its own, or name its ports",
    };
    services.map(|service| conflict(service)).collect()
}

fn source(way: &NextHopState) -> Option<IpAddr> {
    match way {
        NextHopState::Reached { source, .. } | NextHopState::Waiting { source, .. } => *source,
        NextHopState::Local
        | NextHopState::Unreachable
        | NextHopState::NotEthernet { .. }
        | NextHopState::TooManyTags { .. } => None,
    }
}

/// Says in events and log which conflicts arise and end, until `cancel`. Cancel-safe.
pub async fn watch(
    control: ControlHandle,
    mut ways: watch::Receiver<Arc<NextHops>>,
    events: Arc<EventLog>,
    cancel: CancellationToken,
) {
    let mut known = Vec::new();
    let mut views = control.views();
    let mut ticks = time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
            Ok(()) = views.changed() => {}
            Ok(()) = ways.changed() => {}
        }
        let desired = Arc::clone(&views.borrow_and_update().desired);
        let now = conflicts(&desired, &ways.borrow_and_update());
        let event = |conflict: &Conflict, message: String| {
            let event = NewEvent {
                kind: EventKind::OwnTraffic,
                service: conflict.service.as_ref().map(ToString::to_string),
                backend: None,
                revision: desired.revision.0,
                message,
            };
            events.push(event, SystemTime::now());
        };
        for conflict in now.iter().filter(|conflict| !known.contains(*conflict)) {
            let Conflict {
                service,
                message,
                hint,
            } = conflict;
            let service = service.as_ref().map(ServiceName::as_str).unwrap_or_default();
            tracing::warn!(service, hint, "{message}");
            event(conflict, message.clone());
        }
        for conflict in known.iter().filter(|conflict| !now.contains(*conflict)) {
            event(conflict, format!("no longer: {}", conflict.message));
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
            let conflict = of_ports(&desired, &range(local).unwrap());
            assert_eq!(conflict.is_some(), found, "{local}");
            assert!(conflict.is_none_or(|conflict| conflict.message.contains("ip_local_port_range")));
        }
        assert_eq!(range("all of them"), None);
        service.mode = Mode::L2dsr;
        for (backend, found) in [(None, false), (Some(Mode::Nat), true)] {
            service.backends[0].mode = backend;
            let conflict = of_ports(&testing::desired([service.clone()]), &(1..=u16::MAX));
            assert_eq!(
                conflict.is_some(),
                found,
                "a port of the range is used: {backend:?}"
            );
        }
    }

    #[test]
    fn a_service_on_every_port_of_an_own_source_is_found() {
        let mut service = testing::service("all", 1, &[("a", 1)]);
        let (own, backend) = (service.key.address, service.backends[0].address.ip());
        let ways = |source| {
            let way = NextHopState::Waiting {
                via: backend,
                interface: "eth0".to_owned(),
                source: Some(source),
            };
            NextHops::from([(backend, way)])
        };
        let found = |service: &Service, source| {
            of_addresses(&testing::desired([service.clone()]), &ways(source)).len()
        };
        assert_eq!(found(&service, own), 0, "one port alone");
        service.key.port = 0;
        assert_eq!((found(&service, own), found(&service, backend)), (1, 0));
        let mut desired = testing::desired([service]);
        desired.settings.snat_addresses = vec![own];
        assert_eq!(
            of_addresses(&desired, &ways(backend)).len(),
            1,
            "a source that was given"
        );
    }
}
