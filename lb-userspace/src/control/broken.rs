//! Why a service cannot work at all, even if its checks succeed.

use std::{fs, net::IpAddr};

use lb_common::service::Mode;

use crate::{
    datapath::{NextHopState, NextHops},
    state::{
        backend::{Admin, Backend},
        desired::Desired,
        service::Service,
    },
};

/// Why no packet of the service can reach a backend, or no reply its client. `None` if a packet can, as far as is
/// known, or if no backend should take new flows.
pub fn broken(desired: &Desired, service: &Service, ways: &NextHops) -> Option<String> {
    let reason = |backend: &Backend| reason(desired, service, backend, ways, forwards);
    of_all(service, reason)
}

/// The first reason, if every backend that should take new flows has one.
fn of_all(service: &Service, reason: impl Fn(&Backend) -> Option<String>) -> Option<String> {
    let wanted = |backend: &&Backend| backend.admin == Admin::Enabled && backend.weight > 0;
    let mut first = None;
    for backend in service.backends.iter().filter(wanted) {
        let why = reason(backend)?;
        first.get_or_insert_with(|| format!("{}: {why}", backend.name));
    }
    first
}

fn reason(
    desired: &Desired,
    service: &Service,
    backend: &Backend,
    ways: &NextHops,
    forwards: impl Fn(&str, IpAddr) -> bool,
) -> Option<String> {
    let address = backend.address.ip();
    let way = ways.get(&address)?;
    if way.is_blocked() {
        return way.error();
    }
    let (NextHopState::Reached {
        interface, source, ..
    }
    | NextHopState::Waiting {
        interface, source, ..
    }) = way
    else {
        return None;
    };
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    match backend.mode.unwrap_or(service.mode) {
        Mode::Nat => {
            let mut given = desired.settings.snat_addresses.iter();
            let is_given = given.any(|given| given.is_ipv4() == address.is_ipv4());
            let has_source = source.is_some_and(|source| is_usable(source, address));
            (!is_given && !has_source)
                .then(|| format!("no {family} source address: give {interface} one, or set snat_addresses"))
        }
        Mode::Dnat => (!forwards(interface, address)).then(|| {
            format!(
                "its replies are not forwarded: {} is 0",
                forwarding_key(interface, address).replace('/', ".")
            )
        }),
        Mode::L2dsr | Mode::Ipip | Mode::Gue => None,
    }
}

/// Whether packets to an address may have this source: a link-local source does not leave the link.
fn is_usable(source: IpAddr, address: IpAddr) -> bool {
    let of_link = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !of_link(source) || of_link(address)
}

fn forwarding_key(interface: &str, address: IpAddr) -> String {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    format!("net/{family}/conf/{interface}/forwarding")
}

/// Whether the kernel forwards packets that come in on an interface. True if the setting cannot be read, so that a
/// service is not called broken for that.
fn forwards(interface: &str, address: IpAddr) -> bool {
    let key = forwarding_key(interface, address);
    fs::read_to_string(format!("/proc/sys/{key}")).map_or(true, |value| value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    fn way(source: Option<&str>) -> NextHopState {
        NextHopState::Reached {
            via: "10.0.0.254".parse().unwrap(),
            interface: "eth0".to_owned(),
            answering: true,
            source: source.map(|source| source.parse().unwrap()),
        }
    }

    #[test]
    fn broken_service_is_reported_with_its_reason() {
        let source = "10.0.0.1";
        for (name, mode, way, forwards, expected) in [
            ("all is well", Mode::Nat, way(Some(source)), false, None),
            ("mode dnat", Mode::Dnat, way(None), true, None),
            (
                "no forwarding",
                Mode::Dnat,
                way(Some(source)),
                false,
                Some("a: its replies are not forwarded: net.ipv4.conf.eth0.forwarding is 0"),
            ),
            (
                "no source",
                Mode::Nat,
                way(None),
                true,
                Some("a: no IPv4 source address: give eth0 one, or set snat_addresses"),
            ),
            (
                "a source of the link",
                Mode::Nat,
                way(Some("169.254.0.1")),
                true,
                Some("a: no IPv4 source address: give eth0 one, or set snat_addresses"),
            ),
            (
                "no route",
                Mode::Ipip,
                NextHopState::Unreachable,
                true,
                Some("a: no route to it"),
            ),
            ("no source is needed", Mode::L2dsr, way(None), false, None),
        ] {
            let mut service = testing::service("web", 1, &[("a", 1), ("b", 1), ("c", 0)]);
            service.mode = mode;
            let desired = testing::desired([service.clone()]);
            let ways: NextHops = service
                .backends
                .iter()
                .filter(|backend| backend.weight > 0)
                .map(|backend| (backend.address.ip(), way.clone()))
                .collect();
            let why = |ways: &NextHops| {
                of_all(&service, |backend| {
                    reason(&desired, &service, backend, ways, |_, _| forwards)
                })
            };
            assert_eq!(why(&ways).as_deref(), expected, "{name}");
            let mut one = ways;
            one.remove(&service.backends[1].address.ip());
            assert_eq!(why(&one), None, "{name}: nothing is known of one backend's way");
        }
    }
}
