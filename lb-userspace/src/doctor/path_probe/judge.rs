//! Findings from the answers of backends. Pure.

use lb_common::service::Mode;

use super::{
    asked::{Aim, Came, Subject},
    packet::{Answer, Asks},
};
use crate::{
    datapath::XdpMode,
    doctor::{facts::Facts, finding::Finding, setup::Setup},
    state::words::Word as _,
};

pub(super) fn all(setup: &Setup, facts: &Facts, subjects: &[Subject<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for of_service in subjects.chunk_by(|one, next| one.service.name == next.service.name) {
        let mut found = Vec::new();
        for subject in of_service {
            found.extend(of_backend(setup, facts, subject));
            found.extend(checksum(setup, facts, subject));
        }
        if found.is_empty()
            && let Some(first) = of_service.first()
        {
            let count = of_service.len();
            let message = format!("{count} of {count} backends answer through the path");
            found.push(Finding::ok("probe", first.service.name.to_string(), message));
        }
        findings.extend(found);
    }
    findings
}

fn of_backend(setup: &Setup, facts: &Facts, subject: &Subject<'_>) -> Option<Finding> {
    match subject.mode {
        Mode::L2dsr | Mode::Ipip | Mode::Gue => direct(setup, subject),
        Mode::Nat | Mode::Dnat => translated(facts, subject),
    }
}

fn name(subject: &Subject<'_>) -> String {
    format!("{}/{}", subject.service.name, subject.backend.name)
}

/// A command for the backend's shell.
fn there(subject: &Subject<'_>, command: &str) -> String {
    format!("{command} # on {}", subject.backend.address.ip())
}

/// Why a server does not accept connections although packets arrive; `None` if it does.
fn server(subject: &Subject<'_>, place: &str, came: Option<Came>) -> Option<Finding> {
    let port = match subject.question(Aim::Server)?.asks {
        Asks::Connection { port, .. } => port,
        Asks::Echo { .. } => return None,
    };
    let fail = |message: String, command: String| {
        Finding::fail("backend_port", name(subject), message).remedy(there(subject, &command))
    };
    let listeners = format!("ss -ltn 'sport = :{port}'");
    let rules = "nft list ruleset".to_owned();
    match came.map(|came| came.answer) {
        Some(Answer::Accepted | Answer::Echo) => None,
        Some(Answer::Closed) => Some(fail(
            format!("packets to {place} arrive, and no server listens there"),
            listeners,
        )),
        Some(Answer::Refused | Answer::NoTunnel) => Some(fail(
            format!("packets to {place} are refused: by a firewall"),
            rules,
        )),
        None => Some(fail(
            format!(
                "has the address, and does not answer at {place}: a firewall drops it, or its queue is full"
            ),
            rules,
        )),
    }
}

fn direct(setup: &Setup, subject: &Subject<'_>) -> Option<Finding> {
    let vip = subject.service.key.address;
    let place = format!("{vip} port {}", subject.service.key.port);
    let came = |aim| subject.came(aim);
    let said = |aim| came(aim).map(|came| came.answer);
    let has = |answer| {
        subject
            .asked
            .iter()
            .any(|asked| asked.answer.is_some_and(|came| came.answer == answer))
    };
    let bits = if vip.is_ipv4() { 32 } else { 128 };
    // It must not answer ARP for it.
    let quiet = if vip.is_ipv4() {
        "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 && "
    } else {
        ""
    };
    let hold = there(subject, &format!("{quiet}ip addr add {vip}/{bits} dev lo"));
    let mode = subject.mode.word();
    if has(Answer::NoTunnel) {
        let message = format!("nothing there ends tunnels of mode {mode}: its kernel refuses them");
        return Some(ends(
            setup,
            subject,
            Finding::fail("tunnel", name(subject), message),
        ));
    }
    match said(Aim::Server) {
        Some(Answer::Accepted) => return None,
        Some(Answer::Closed) => return server(subject, &place, came(Aim::Server)),
        Some(Answer::Refused | Answer::NoTunnel | Answer::Echo) | None => {}
    }
    if said(Aim::Address) == Some(Answer::Echo) {
        return server(subject, &place, came(Aim::Server));
    }
    if has(Answer::Refused) {
        let message = format!("packets of mode {mode} are refused: by a firewall there, or on the way");
        let finding = Finding::fail("backend_port", name(subject), message);
        return Some(finding.remedy(there(subject, "nft list ruleset")));
    }
    if said(Aim::Tunnel) == Some(Answer::Echo) {
        let message = format!("ends tunnels, and does not answer for {vip}: it does not have the address");
        return Some(Finding::fail("backend_address", name(subject), message).remedy(hold));
    }
    let is_connection = subject.question(Aim::Server).is_some();
    let finding = |check, message: String| {
        if is_connection {
            Finding::fail(check, name(subject), message)
        } else {
            // Machines need not answer pings.
            Finding::warn(check, name(subject), message)
        }
    };
    if subject.mode == Mode::L2dsr {
        let message = format!(
            "does not answer for {vip}: it does not have the address, or a firewall drops packets to it"
        );
        return Some(finding("backend_address", message).remedy(hold));
    }
    let message = format!(
        "no answer through a tunnel of mode {mode}: it is dropped there, by a tunnel end for other balancers, by rp_filter, by a \
         firewall, or since {vip} is missing"
    );
    let finding = ends(setup, subject, finding("tunnel", message)).remedy(hold);
    Some(finding.remedy(there(
        subject,
        "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0",
    )))
}

/// The finding with commands that end tunnels.
fn ends(setup: &Setup, subject: &Subject<'_>, finding: Finding) -> Finding {
    let Some(outer) = subject.asked.iter().find_map(|asked| asked.question.outer) else {
        return finding;
    };
    let mut given = setup.desired.settings.tunnel_sources.iter();
    let from = given
        .find(|prefix| prefix.contains(outer.source))
        .map_or_else(|| outer.source.to_string(), ToString::to_string);
    let finding = finding.remedy(there(subject, &format!("lb decap --iface eth0 --from {from}")));
    match outer.gue_port {
        Some(port) => finding.remedy(there(
            subject,
            &format!("modprobe -a fou ipip && ip fou add port {port} gue && ip link set tunl0 up"),
        )),
        None if outer.backend.is_ipv4() => {
            finding.remedy(there(subject, "modprobe ipip && ip link set tunl0 up"))
        }
        None => finding.remedy(there(subject, "modprobe ip6_tunnel && ip link set ip6tnl0 up")),
    }
}

fn translated(facts: &Facts, subject: &Subject<'_>) -> Option<Finding> {
    let question = subject.question(Aim::Server)?;
    let address = question.destination;
    let source = question.source.ip();
    let fail = |message: String| Finding::fail("backend_way", name(subject), message);
    let Some(came) = subject.came(Aim::Server) else {
        let message =
            format!("does not answer to {source}: a firewall drops its packets, or it has no route back");
        return Some(
            fail(message)
                .remedy(there(subject, &format!("ip route get {source}")))
                .remedy(there(subject, "nft list ruleset")),
        );
    };
    if came.answer != Answer::Accepted {
        return server(subject, &subject.backend.address.to_string(), Some(came));
    }
    let other = subject.question(Aim::Return)?.source.ip();
    let whole = if other.is_ipv4() { 32 } else { 128 };
    let what = match subject.mode {
        Mode::Nat => "source NAT sends with",
        Mode::Dnat | Mode::L2dsr | Mode::Ipip | Mode::Gue => "is in another network, as clients are",
    };
    let remedy = match subject.mode {
        Mode::Nat => format!("ip route replace {other}/{whole} via {source}"),
        Mode::Dnat | Mode::L2dsr | Mode::Ipip | Mode::Gue => format!("ip route replace default via {source}"),
    };
    let Some(back) = subject.came(Aim::Return) else {
        let message = format!(
            "answers to {source}, and not to {other}, which {what}: it has no way back through this machine, or rp_filter drops it"
        );
        return Some(fail(message).remedy(there(subject, &remedy)));
    };
    let is_same = back.mac == came.mac && back.ifindex == came.ifindex;
    (!is_same && !subject.is_routed && subject.mode == Mode::Dnat).then(|| {
        let link = facts.links.iter().find(|link| link.ifindex == back.ifindex);
        let mac = back.mac.map(|byte| format!("{byte:02x}")).join(":");
        let message = format!(
            "its answers to other networks come by a router ({mac} on {}), not directly: {address} sends replies to clients past this \
             machine",
            link.map_or("another interface", |link| &link.name)
        );
        fail(message).remedy(there(subject, &remedy))
    })
}

/// Answers whose checksums are wrong: the program would forward them so. In generic mode the kernel completes them.
fn checksum(setup: &Setup, facts: &Facts, subject: &Subject<'_>) -> Option<Finding> {
    let mut came = subject.asked.iter().filter_map(|asked| asked.answer);
    let unsound = came.find(|came| !came.is_sound)?;
    let link = facts.links.iter().find(|link| link.ifindex == unsound.ifindex)?;
    let is_veth = facts
        .devices
        .get(&link.ifindex)
        .is_some_and(|device| device.driver == "veth");
    let is_native = setup.running.get(&link.name) == Some(&XdpMode::Native);
    (is_veth || is_native).then(|| {
        let message = format!(
            "its answer arrived at {} with a wrong checksum: its machine leaves that to the driver, and clients drop such replies",
            link.name
        );
        let command = "ethtool -K eth0 tx off";
        Finding::warn("backend_checksum", name(subject), message).remedy(there(subject, command))
    })
}
