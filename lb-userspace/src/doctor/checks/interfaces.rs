//! Interfaces: whether the program runs on them, in which mode, and what their drivers do to frames.

use std::collections::BTreeSet;

use super::super::facts::Device;
use crate::{
    datapath::{
        LinkOperation, XdpMode,
        host_network::{HostLink, Peer, Place},
    },
    doctor::{facts::Facts, finding::Finding, setup::Setup},
    state::xdp_mode::XdpModeChoice,
};

/// Most bytes of a packet that a driver without support for several buffers takes, at least: a page less headroom and overhead.
const ONE_BUFFER_MTU: u32 = 3498;

pub(in super::super) fn all(setup: &Setup, facts: &Facts) -> Vec<Finding> {
    setup
        .interfaces
        .iter()
        .flat_map(|name| match facts.link(name) {
            Some(link) => of_link(setup, facts, link),
            None => vec![missing(name, facts)],
        })
        .collect()
}

fn missing(name: &str, facts: &Facts) -> Finding {
    let there: Vec<&str> = facts.links.iter().map(|link| link.name.as_str()).collect();
    let message = format!("no such interface; there are {}", there.join(", "));
    Finding::fail("interface", name, message).remedy("name one of them with --iface or in interfaces")
}

fn of_link(setup: &Setup, facts: &Facts, link: &HostLink) -> Vec<Finding> {
    let unknown = Device::default();
    let device = facts.devices.get(&link.ifindex).unwrap_or(&unknown);
    if !link.framed {
        let message = "its frames are not Ethernet: the program cannot run on it";
        return vec![Finding::fail("ethernet", &link.name, message).remedy("use the interface below it")];
    }
    let checks = [
        operation(link),
        foreign_program(setup, facts, link),
        native(setup, link, device),
        veth_transmit(setup, link, device),
        checksums(link, device),
        receive_offload(link, device),
        vlan_tags(facts, link, device),
        buffers(setup, link, device),
        interrupts(facts, link, device),
        indirection(link, device),
    ];
    let mut findings: Vec<Finding> = checks.into_iter().flatten().collect();
    if findings.is_empty() {
        findings.push(Finding::ok("interface", &link.name, summary(setup, link, device)));
    }
    findings
}

/// `virtio_net, native XDP, multi-buffer, 8 queues, 8 interrupts on 8 CPUs`
fn summary(setup: &Setup, link: &HostLink, device: &Device) -> String {
    let mut parts = vec![if device.driver.is_empty() {
        "driver unknown".to_owned()
    } else {
        device.driver.clone()
    }];
    parts.push(match mode(setup, link, device) {
        Some(mode) => format!("{} XDP", mode.name()),
        None => "XDP mode known once the program is attached".to_owned(),
    });
    if device.features.is_some_and(|features| features.multi_buffer) {
        parts.push("multi-buffer".to_owned());
    }
    if let Some(queues) = device.queues {
        parts.push(counted(queues as usize, "receive queue"));
    }
    if !device.interrupts.is_empty() {
        let cpus = cpus(device).len();
        parts.push(format!(
            "{} on {}",
            counted(device.interrupts.len(), "interrupt"),
            counted(cpus, "CPU")
        ));
    }
    parts.join(", ")
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The mode in which the program runs there, or would; `None` if the kernel does not say.
pub(super) fn mode(setup: &Setup, link: &HostLink, device: &Device) -> Option<XdpMode> {
    if let Some(mode) = setup.running.get(&link.name) {
        return Some(*mode);
    }
    match (setup.xdp_mode, device.features?.native) {
        (XdpModeChoice::Generic, _) | (XdpModeChoice::Auto, false) => Some(XdpMode::Generic),
        (XdpModeChoice::Native, _) | (XdpModeChoice::Auto, true) => Some(XdpMode::Native),
    }
}

pub(in super::super) fn operation(link: &HostLink) -> Option<Finding> {
    let name = &link.name;
    match link.operation {
        LinkOperation::Up | LinkOperation::Missing => None,
        LinkOperation::Down => Some(
            Finding::fail("link", name, "is down: it receives and sends no packets")
                .remedy(format!("ip link set dev {name} up")),
        ),
        LinkOperation::NoCarrier => Some(
            Finding::fail("link", name, "has no carrier: it receives and sends no packets")
                .remedy("check its cable, its switch port, or its peer"),
        ),
    }
}

fn foreign_program(setup: &Setup, facts: &Facts, link: &HostLink) -> Option<Finding> {
    let (program, mode) = link.xdp?;
    let name = &link.name;
    let is_ours = setup.running.contains_key(name) || facts.ours.contains(name);
    (facts.machine.sees_programs && !is_ours).then(|| {
        let kind = match mode {
            XdpMode::Native => "xdp",
            XdpMode::Generic => "xdpgeneric",
        };
        Finding::fail(
            "foreign_program",
            name,
            format!("another XDP program is on it, id {program}: `lb run` does not replace it"),
        )
        .remedy(format!(
            "stop what attached it, which `bpftool net` and `bpftool prog show id {program}` name"
        ))
        .remedy(format!("ip link set dev {name} {kind} off"))
    })
}

fn native(setup: &Setup, link: &HostLink, device: &Device) -> Option<Finding> {
    let name = &link.name;
    // Of a running program, the daemon says why its mode is not native.
    if device.features?.native || setup.running.contains_key(name) {
        return None;
    }
    let driver = if device.driver.is_empty() {
        String::new()
    } else {
        format!(", {},", device.driver)
    };
    let cannot = format!("its driver{driver} cannot run XDP programs");
    match setup.xdp_mode {
        XdpModeChoice::Native => {
            let message = format!("{cannot}, and xdp_mode is native");
            Some(Finding::fail("xdp_mode", name, message).remedy("--xdp-mode auto"))
        }
        XdpModeChoice::Auto => {
            let message = format!("{cannot}: generic mode is used, which is slower");
            Some(
                Finding::warn("xdp_mode", name, message)
                    .remedy("attach to an interface below it, whose driver can")
                    .remedy("--xdp-mode generic, if that is enough"),
            )
        }
        XdpModeChoice::Generic => None,
    }
}

/// Where a peer is, for a sentence: `sw/u0`.
fn peer_name(peer: Option<&Peer>) -> String {
    let Some(peer) = peer else {
        return "in a namespace that was not found".to_owned();
    };
    match &peer.place {
        Place::Here => peer.name.clone(),
        Place::Named(place) => format!("{place}/{}", peer.name),
        Place::Process(pid) => format!("{} of process {pid}", peer.name),
    }
}

/// A veth drops what a native program sends unless its peer polls for frames: with a program of its own, or with GRO.
pub(in super::super) fn veth_transmit(setup: &Setup, link: &HostLink, device: &Device) -> Option<Finding> {
    let drops = device.driver == "veth"
        && device.features.is_some_and(|features| !features.transmits)
        && mode(setup, link, device) == Some(XdpMode::Native);
    drops.then(|| {
        let peer = device.peer.as_ref();
        let message = format!(
            "veth, and its peer ({}) takes no frames from XDP: all that the program sends there is lost",
            peer_name(peer)
        );
        let finding = Finding::fail("veth_peer", &link.name, message);
        let finding = match peer {
            Some(peer) => finding.remedy(peer.place.command(&format!("ethtool -K {} gro on", peer.name))),
            None => finding.remedy("ethtool -K PEER gro on, where the peer is"),
        };
        finding.remedy("--xdp-mode generic")
    })
}

/// A veth does not compute the checksums that a sender leaves to its driver.
fn checksums(link: &HostLink, device: &Device) -> Option<Finding> {
    let peer = device.peer.as_ref()?;
    (peer.offloads.tx_checksums == Some(true) && !peer.is_port).then(|| {
        let message = format!(
            "its peer ({}) leaves checksums to its driver: packets that begin there are forwarded with wrong ones",
            peer_name(Some(peer))
        );
        Finding::warn("tx_checksums", &link.name, message)
            .remedy(peer.place.command(&format!("ethtool -K {} tx off", peer.name)))
    })
}

fn receive_offload(link: &HostLink, device: &Device) -> Option<Finding> {
    let name = &link.name;
    (device.offloads.lro == Some(true)).then(|| {
        let message = "large receive offload joins packets: native XDP is refused, or joined packets cannot be forwarded";
        Finding::warn("lro", name, message).remedy(format!("ethtool -K {name} lro off"))
    })
}

fn vlan_tags(facts: &Facts, link: &HostLink, device: &Device) -> Option<Finding> {
    let name = &link.name;
    let mut above = facts
        .links
        .iter()
        .filter(|above| above.vlan_parent == Some(link.ifindex));
    let above = above.next()?;
    if device.driver == "veth" {
        let peer = device.peer.as_ref()?;
        return (peer.offloads.tx_vlan == Some(true)).then(|| {
            let message = format!(
                "its peer ({}) sends VLAN tags beside frames, so that the program cannot tell those of {} apart",
                peer_name(Some(peer)),
                above.name
            );
            Finding::warn("rx_vlan", name, message)
                .remedy(peer.place.command(&format!("ethtool -K {} txvlan off", peer.name)))
        });
    }
    (device.offloads.rx_vlan == Some(true)).then(|| {
        let message = format!(
            "the driver takes VLAN tags off frames, so that the program cannot tell those of {} apart",
            above.name
        );
        Finding::warn("rx_vlan", name, message).remedy(format!("ethtool -K {name} rxvlan off"))
    })
}

fn buffers(setup: &Setup, link: &HostLink, device: &Device) -> Option<Finding> {
    let name = &link.name;
    let features = device.features?;
    let is_too_long = features.native && !features.multi_buffer && link.mtu > ONE_BUFFER_MTU;
    (is_too_long && setup.xdp_mode != XdpModeChoice::Generic).then(|| {
        let message = format!(
            "MTU {} does not fit one buffer, and the driver, {}, gives programs one alone: native mode may be refused",
            link.mtu, device.driver
        );
        Finding::warn("mtu", name, message).remedy(format!("ip link set dev {name} mtu {ONE_BUFFER_MTU}"))
    })
}

/// CPUs named by the lists of all interrupts.
fn cpus(device: &Device) -> BTreeSet<u32> {
    let lists = device.interrupts.iter().flat_map(|list| list.split(','));
    lists
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.trim().parse::<u32>().ok()?..=last.trim().parse().ok()?)
        })
        .flatten()
        .collect()
}

fn interrupts(facts: &Facts, link: &HostLink, device: &Device) -> Option<Finding> {
    let (name, queues) = (&link.name, device.queues?);
    let machine = facts.machine.cpus;
    let used = cpus(device);
    if machine < 2 || device.interrupts.is_empty() {
        return None;
    }
    if queues > 1 && used.len() == 1 {
        let message = format!(
            "all interrupts of its {queues} queues are on one CPU of {machine}: the others do no work"
        );
        return Some(
            Finding::warn("interrupts", name, message)
                .remedy("systemctl start irqbalance")
                .remedy("write a CPU for each to /proc/irq/N/smp_affinity_list"),
        );
    }
    None
}

/// Queues that the device does not choose by a packet's hash (RSS) are idle, unless rules of their own fill them.
fn indirection(link: &HostLink, device: &Device) -> Option<Finding> {
    let (name, queues) = (&link.name, device.queues?);
    let spread_over = device.spread_over.as_ref()?;
    let idle: Vec<String> = (0..queues)
        .filter(|queue| !spread_over.contains(queue))
        .map(|queue| queue.to_string())
        .collect();
    if idle.is_empty() {
        return None;
    }
    let message = format!(
        "its indirection table leaves out {} of {queues} receive queues ({}): their CPUs get no packets",
        idle.len(),
        idle.join(", ")
    );
    Some(
        Finding::warn("rss", name, message)
            .remedy(format!("ethtool -X {name} equal {queues}"))
            .remedy(format!(
                "ethtool -L {name} combined {}",
                queues as usize - idle.len()
            )),
    )
}
