//! Ways to backends: whether frames reach them, whether packets fit, whether replies come back.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::{service::Mode, tunnel};

use super::{
    super::facts::{Device, gateway, sysctl},
    interfaces,
};
use crate::{
    control::{Broken, broken, own_traffic},
    datapath::{
        NextHopState, NextHops, XdpMode,
        host_network::{HostLink, HostWay},
    },
    doctor::{
        facts::Facts,
        finding::{Finding, Level},
        setup::Setup,
    },
    state::{backend::Backend, service::Service},
};

/// Drivers of interfaces whose frames pass another interface first, on which the program may run.
const ABOVE_OTHERS: [&str; 6] = ["bridge", "bonding", "team", "macvlan", "ipvlan", "openvswitch"];
/// MTU of most clients' networks: longer packets seldom come from outside.
const USUAL_MTU: u32 = 1500;

pub(in super::super) fn all(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let ways: NextHops = facts
        .ways
        .iter()
        .map(|(address, way)| (*address, way.state.clone()))
        .collect();
    let mut findings = Vec::new();
    for service in setup.services() {
        if service.backends.is_empty() && service.hosts.is_empty() {
            let message = "has no backends: its packets are dropped";
            findings.push(
                Finding::warn("backends", service.name.to_string(), message)
                    .remedy(format!("lb backend add {} NAME --address IP:PORT", service.name)),
            );
        }
        findings.extend(reverse_path(facts, service));
        let mut found = Vec::new();
        for backend in &service.backends {
            found.extend(of_backend(setup, facts, service, backend));
        }
        let is_reachable = found.is_empty();
        findings.extend(found);
        if is_reachable
            && let Some(broken) = broken(&setup.desired, service, &ways, |setting| facts.forwards(setting))
        {
            findings.push(no_replies(service, &broken));
        } else if is_reachable && !service.backends.is_empty() {
            let count = service.backends.len();
            let message = format!("{count} of {count} backends can be reached");
            findings.push(Finding::ok("path", service.name.to_string(), message));
        }
    }
    findings.extend(exits(setup, facts));
    let ports = facts.settings.get("ipv4/ip_local_port_range");
    let conflict = ports.and_then(|ports| own_traffic::of_ports(&setup.desired, ports));
    findings.extend(conflict.map(|conflict| {
        Finding::warn("snat_ports", "machine", conflict.message)
            .remedy("sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"")
            .remedy("other snat_ports in the file")
    }));
    findings
}

/// Replies of mode dnat leave with the service's address. While a neighbour is unknown, the kernel forwards them, and with strict
/// rp_filter it drops packets that arrive elsewhere than their source is reached (ip-sysctl.rst of the kernel).
fn reverse_path(facts: &Facts, service: &Service) -> Option<Finding> {
    const STRICT: i64 = 1;
    const LOOSE: i64 = 2;
    let address = service.key.address;
    if !address.is_ipv4() || service.key.is_prefix() || facts.local.contains(&address) {
        return None;
    }
    let setting = |name: &str| facts.number(&format!("ipv4/conf/{name}/rp_filter")).unwrap_or(0);
    let translated = service
        .backends
        .iter()
        .filter(|backend| backend.mode.unwrap_or(service.mode) == Mode::Dnat);
    let link = translated
        .filter_map(|backend| facts.link(facts.ways.get(&backend.address.ip())?.state.interface()?))
        .filter(|link| facts.links_to.get(&address) != Some(&link.ifindex))
        .find(|link| setting("all").max(setting(&link.name)) == STRICT)?;
    let name = &link.name;
    let message = format!(
        "rp_filter of {name} is strict, and {address} is not reached by {name}: while a client's neighbour entry is missing, the \
         kernel drops its replies"
    );
    // The larger of both values counts.
    Some(
        Finding::warn("rp_filter", service.name.to_string(), message)
            .remedy(sysctl(&[format!("ipv4/conf/{name}/rp_filter")], LOOSE)),
    )
}

/// Why no flow of a service can work although its backends can be reached.
fn no_replies(service: &Service, broken: &Broken) -> Finding {
    let message = format!("no flow can work: {broken}");
    let finding = Finding::fail("replies", service.name.to_string(), message);
    let remedies = broken.cause.remedies(service).into_iter();
    remedies.fold(finding, Finding::remedy)
}

fn of_backend(setup: &Setup, facts: &Facts, service: &Service, backend: &Backend) -> Vec<Finding> {
    let address = backend.address.ip();
    let subject = format!("{}/{}", service.name, backend.name);
    let Some(way) = facts.ways.get(&address) else {
        return Vec::new();
    };
    let mode = backend.mode.unwrap_or(service.mode);
    let findings = [
        reach(facts, &subject, address, &way.state),
        direct(facts, &subject, address, mode, &way.state),
        headroom(setup, facts, &subject, address, mode, way),
        replies_elsewhere(setup, facts, &subject, address, mode, way),
    ];
    findings.into_iter().flatten().collect()
}

fn reach(facts: &Facts, subject: &str, address: IpAddr, state: &NextHopState) -> Option<Finding> {
    let message = state.error()?;
    // Without rights the kernel cannot be made to ask.
    let is_waiting = matches!(state, NextHopState::Waiting { .. });
    if is_waiting && facts.machine.missing_capabilities.contains(&"CAP_NET_ADMIN") {
        let message =
            format!("whether {address} answers is not known: this user may not have the kernel ask");
        return Some(
            Finding::warn("path", subject, message).remedy("run `lb doctor` as root, for example with sudo"),
        );
    }
    let fail = |remedy: String| Some(Finding::fail("path", subject, message.clone()).remedy(remedy));
    match state {
        NextHopState::Local => {
            fail("give the backend an address of another machine, or of a namespace".to_owned())
        }
        NextHopState::Unreachable => fail(format!("ip route add {address} via ROUTER")),
        NextHopState::NotEthernet { .. } => fail(
            "route it over an Ethernet interface, or use mode ipip or gue to an address there".to_owned(),
        ),
        NextHopState::TooManyTags { .. } => fail("use at most two VLANs, one in the other".to_owned()),
        NextHopState::Waiting { via, interface, .. } | NextHopState::Reached { via, interface, .. } => fail(
            format!("arping -I {interface} {via} # is it up, and on the network of {interface}?"),
        ),
    }
}

/// Mode l2dsr changes the frame's address alone, so that a router would send the packet back. The gateway of a route to this address
/// alone may be the backend itself: the address is one of its loopback interface.
pub(in super::super) fn direct(
    facts: &Facts,
    subject: &str,
    address: IpAddr,
    mode: Mode,
    state: &NextHopState,
) -> Option<Finding> {
    let via = gateway(address, state).filter(|_| mode == Mode::L2dsr)?;
    let finding = if facts.routed.contains(&address) {
        let message = format!(
            "mode l2dsr needs {address} on a network of this machine, but it is behind {via}, which sends its packets back"
        );
        Finding::fail("l2dsr", subject, message)
    } else {
        let message = format!(
            "mode l2dsr sends packets for {address} to {via}: if that is a router and not the backend, it sends them back"
        );
        Finding::warn("l2dsr", subject, message)
    };
    Some(finding.remedy("mode = \"ipip\" or \"gue\", with `lb decap` on the backend"))
}

/// Whether the longest packets of clients fit the way to a backend, in its tunnel where it has one.
fn headroom(
    setup: &Setup,
    facts: &Facts,
    subject: &str,
    address: IpAddr,
    mode: Mode,
    way: &HostWay,
) -> Option<Finding> {
    let tunnel = |is_gue| u32::try_from(tunnel::overhead(address.is_ipv6(), is_gue)).ok();
    let overhead = match mode {
        Mode::Ipip => tunnel(false)?,
        Mode::Gue => tunnel(true)?,
        Mode::Nat | Mode::Dnat | Mode::L2dsr => 0,
    };
    let fits = way.mtu.checked_sub(overhead)?;
    let longest = facts.interfaces(setup).map(|link| link.mtu).min()?.min(USUAL_MTU);
    (fits < longest).then(|| {
        let name = facts.links.iter().find(|link| link.ifindex == way.ifindex).map_or("", |link| &link.name);
        let needed = longest + overhead;
        let tunnel = if overhead == 0 { String::new() } else { format!("the tunnel adds {overhead} bytes: ") };
        let message = format!(
            "{tunnel}packets of clients over {fits} bytes do not fit MTU {} on {name}, and their senders are asked to send \
             shorter ones",
            way.mtu
        );
        Finding::warn("headroom", subject, message)
            .remedy(format!("ip link set dev {name} mtu {needed} # and the same on the switch and the backend"))
            .remedy(format!("clients' MSS of at most {}", fits.saturating_sub(40)))
    })
}

/// A backend of mode nat replies to the address that packets leave with. If that is on the backend's own network, by an interface without
/// the program, the kernel gets the replies and knows no such connection.
pub(in super::super) fn replies_elsewhere(
    setup: &Setup,
    facts: &Facts,
    subject: &str,
    address: IpAddr,
    mode: Mode,
    way: &HostWay,
) -> Option<Finding> {
    let NextHopState::Reached {
        via,
        interface,
        source,
        ..
    } = &way.state
    else {
        return None;
    };
    let link = facts.link(interface)?;
    let is_served = |own: &HostLink| own.ifindex == link.ifindex || own.ifindex == way.ifindex;
    // Behind a router, replies may take another way.
    if mode != Mode::Nat || *via != address || facts.interfaces(setup).any(is_served) {
        return None;
    }
    let driver = facts.devices.get(&way.ifindex)?.driver.as_str();
    let mut sources = setup.desired.settings.snat_addresses.to_vec();
    sources.retain(|given| given.is_ipv4() == address.is_ipv4());
    if sources.is_empty() {
        sources.extend(source);
    }
    let is_there = |source: &IpAddr| {
        let mut on_link = facts.addresses.iter().filter(|own| own.ifindex == link.ifindex);
        on_link.any(|own| own.address == *source)
    };
    let is_certain = !ABOVE_OTHERS.contains(&driver) && !sources.is_empty() && sources.iter().all(is_there);
    is_certain.then(|| {
        let message = format!("its replies come in by {interface}, on which the program does not run");
        Finding::fail("replies", subject, message)
            .remedy(format!(
                "name {interface}, too, in `interfaces` in [lb] of the file, then systemctl restart lb"
            ))
            .remedy(format!("lb run … --iface {interface}"))
    })
}

/// Interfaces by which packets leave but on which the program does not run.
fn exits(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    let own: BTreeSet<u32> = facts.interfaces(setup).map(|link| link.ifindex).collect();
    let exits: BTreeSet<u32> = facts.ways.values().map(|way| way.ifindex).collect();
    let others = facts
        .links
        .iter()
        .filter(|link| exits.contains(&link.ifindex) && !own.contains(&link.ifindex));
    others.filter_map(|link| exit(setup, facts, link)).collect()
}

/// The interfaces by which packets come in, where the program is in native mode and elsewhere. In generic mode it sends as the kernel
/// does, by any driver.
fn by_mode<'a>(setup: &'a Setup, facts: &'a Facts) -> (Vec<&'a HostLink>, Vec<&'a HostLink>) {
    let runs = |link: &&HostLink| !setup.has_daemon || setup.running.contains_key(&link.name);
    let is_native = |link: &&HostLink| {
        let device = facts.devices.get(&link.ifindex);
        device.and_then(|device| interfaces::mode(setup, link, device)) == Some(XdpMode::Native)
    };
    facts.interfaces(setup).filter(runs).partition(is_native)
}

/// Whether the program sends all packets as native XDP, which needs drivers that take them.
pub(in super::super) fn sends_natively(setup: &Setup, facts: &Facts) -> bool {
    let (native, others) = by_mode(setup, facts);
    !native.is_empty() && others.is_empty()
}

/// Why frames that the program redirects to an interface are lost: its driver must take frames of programs. A warning if those from some
/// interfaces are not.
pub(in super::super) fn exit(setup: &Setup, facts: &Facts, link: &HostLink) -> Option<Finding> {
    let (native, others) = by_mode(setup, facts);
    let first = native.first()?;
    let device: &Device = facts.devices.get(&link.ifindex)?;
    let found = if device.driver == "veth" {
        interfaces::veth_transmit(setup, link, device)?
    } else if device.features?.transmits {
        return None;
    } else {
        let message = format!(
            "packets to backends leave by it, but its driver, {}, takes no frames from XDP: they are lost",
            device.driver
        );
        Finding::fail("redirect", &link.name, message)
            .remedy(format!("attach to {} too: --iface {}", link.name, link.name))
            .remedy("--xdp-mode generic")
    };
    if others.is_empty() {
        return Some(found);
    }
    Some(Finding {
        level: Level::Warn,
        message: format!(
            "{}, if they come in by {} in native mode",
            found.message, first.name
        ),
        ..found
    })
}
