//! Services from keepalived's virtual servers.

use std::{collections::HashMap, net::IpAddr, rc::Rc};

use lb_common::{limits::MAX_SERVICES, service::Mode};
use lb_model::{
    number,
    state::{
        guard::Prefix,
        service::{OnDown, Protocol, Service, ServiceKey},
    },
};

use super::{
    check, reasons,
    server::{self, Wanted},
    tree::{self, Node},
};
use crate::{
    draft::{Draft, Entry, ServiceDraft, TOO_MUCH},
    error::ImportError,
    include::Include,
    ipvs_words::gue_port,
    names,
    statement::Statement,
};

/// Most addresses of a range in a group.
const MAX_RANGE: u32 = 65_536;
/// Most bits of a prefix whose addresses become services of their own.
const MAX_FREE_BITS: u8 = 12;

/// Lines of a virtual server about all checks of its servers.
const OF_CHECKS: [&str; 5] = [
    "delay_loop",
    "delay_before_retry",
    "connect_timeout",
    "retry",
    "virtualhost",
];

/// Reads a configuration of keepalived.
///
/// # Errors
/// It breaks the rules of its format.
pub(crate) fn import(
    file: &Rc<str>,
    text: &str,
    include: Include<'_>,
    draft: &mut Draft,
) -> Result<(), ImportError> {
    let nodes = tree::read(file, text, include)?;
    draft.statements = nodes.iter().flat_map(Node::statements).collect();
    let groups: HashMap<&str, &Node> = nodes
        .iter()
        .filter(|node| node.keyword() == "virtual_server_group")
        .map(|node| (node.line.word(1), node))
        .collect();
    let mut ports = Vec::new();
    for node in &nodes {
        match node.keyword() {
            "virtual_server" => ports.extend(virtual_server(node, &groups, draft)),
            "virtual_server_group" => {}
            keyword if keyword.starts_with("include") || keyword.starts_with('$') => {}
            keyword => {
                if node.line.is_open() {
                    node.lose(reasons::top(keyword));
                }
            }
        }
    }
    for group in groups.values().filter(|group| group.line.is_open()) {
        group.lose("no imported virtual_server uses this group");
    }
    let (port, differs) = gue_port(ports.into_iter());
    draft.settings.gue_port = port;
    if differs && let Some(service) = draft.services.first_mut() {
        service
            .notes
            .push(format!("gue_port in [lb] is one for all backends: {port}"));
    }
    Ok(())
}

/// Addresses and ports of a virtual server with the lines that name them, or why there are none.
type Addresses = Result<Vec<(Prefix, u16, Option<Rc<Statement>>)>, &'static str>;

/// The addresses of a prefix one by one, where replies would not tell which one they are of.
fn split(prefix: Prefix, mode: Mode) -> impl Iterator<Item = Prefix> {
    let alone = mode == Mode::Dnat && prefix.free_bits() <= MAX_FREE_BITS;
    let first = prefix.address();
    let last = if alone { 1_u32 << prefix.free_bits() } else { 1 };
    (0..last).map(move |more| match (alone, first) {
        (false, _) => prefix,
        (true, IpAddr::V4(v4)) => single(IpAddr::V4((v4.to_bits() + more).into())),
        (true, IpAddr::V6(v6)) => single(IpAddr::V6((v6.to_bits() + u128::from(more)).into())),
    })
}

fn single(address: IpAddr) -> Prefix {
    Prefix::around(address, Prefix::most(address))
}

/// Imports a virtual server. Gives the ports of GUE that it names.
fn virtual_server(node: &Node, groups: &HashMap<&str, &Node>, draft: &mut Draft) -> Vec<u16> {
    let line = &node.line;
    let group = groups.get(line.word(2)).filter(|_| line.word(1) == "group");
    if !draft.may_read(group.map_or(1, |group| group.children.len())) {
        node.lose(TOO_MUCH);
        return Vec::new();
    }
    let addresses = match addresses(node, groups) {
        Ok(addresses) => {
            draft.may_read(addresses.len());
            addresses
        }
        Err(why) => {
            node.lose(&format!("not imported: {why}"));
            return Vec::new();
        }
    };
    let mut settings = server::settings(node);
    let protocol = match settings.protocol {
        Wanted::Tcp => Protocol::Tcp,
        Wanted::Udp => Protocol::Udp,
        Wanted::Unsaid => {
            line.note("no protocol is named: TCP here, where keepalived 2.2 takes UDP; set protocol");
            Protocol::Tcp
        }
        Wanted::Other => {
            node.lose("not imported: lb forwards TCP and UDP, no other protocol");
            return Vec::new();
        }
    };
    let addresses = addresses.into_iter().flat_map(|(address, port, by)| {
        split(address, settings.method.mode).map(move |one| (one, port, by.clone()))
    });
    // All at once: reading servers may change the settings.
    let lines = node.statements().len();
    for (address, port, by) in addresses.take(MAX_SERVICES as usize + 1).collect::<Vec<_>>() {
        if !draft.may_read(lines) {
            node.lose(TOO_MUCH);
            break;
        }
        let wanted = match line.word(1) {
            "group" => line.word(2).to_owned(),
            _ => format!(
                "{}{}",
                names::of_endpoint(address.address(), port),
                if protocol == Protocol::Udp { "-udp" } else { "" }
            ),
        };
        let Some(name) = draft.names.unique(&wanted) else {
            continue;
        };
        let mut service = Service::new(name, ServiceKey::of_prefix(address, port, protocol));
        service.mode = settings.method.mode;
        let mut new = ServiceDraft::new(service);
        new.statements.extend(by);
        new.statements.extend(own_statements(node));
        server::add(&mut new, node, &mut settings);
        let of_checks = |child: &&Node| OF_CHECKS.contains(&child.keyword());
        new.checks.extend(
            node.children
                .iter()
                .filter(of_checks)
                .map(|child| Rc::clone(&child.line)),
        );
        let modes: Vec<Mode> = modes(&new);
        settings.scheduling.set(&mut new.service, &modes);
        if settings.inhibits {
            new.service.on_down = OnDown::Keep;
        }
        draft.push(new);
    }
    check::explain(node);
    settings.method.gue_port.into_iter().collect()
}

/// Modes of backends that have their own.
fn modes(draft: &ServiceDraft) -> Vec<Mode> {
    let of = |entry: &Entry| match entry {
        Entry::Backend(backend) => backend.mode,
        Entry::Host(host) => host.mode,
    };
    draft
        .entries
        .iter()
        .filter_map(|draft| of(&draft.entry))
        .collect()
}

/// The lines of a virtual server that are not of a real server.
fn own_statements(node: &Node) -> Vec<Rc<Statement>> {
    let mut own = vec![Rc::clone(&node.line)];
    let is_own = |child: &&Node| {
        !matches!(
            child.keyword(),
            "real_server" | "sorry_server" | "sorry_server_lvs_method"
        )
    };
    own.extend(node.children.iter().filter(is_own).flat_map(Node::statements));
    // Lines of servers that were not imported have no other place.
    let others = node.children.iter().filter(|child| !is_own(child));
    own.extend(others.flat_map(Node::statements));
    own
}

fn addresses(node: &Node, groups: &HashMap<&str, &Node>) -> Addresses {
    const MARK: &str = "a firewall mark does not say which packets are meant; write address and port of each service (ports takes \
        several ports, address takes a prefix)";
    let line = &node.line;
    match line.word(1) {
        "fwmark" => Err(MARK),
        "group" => {
            let group = groups
                .get(line.word(2))
                .ok_or("there is no virtual_server_group of this name")?;
            line.map_all();
            group.line.map_all();
            let mut all = Vec::new();
            for child in &group.children {
                let entry = &child.line;
                if entry.word(0) == "fwmark" {
                    entry.lose_all(format!("not imported: {MARK}"));
                } else if let Some(found) = range(entry.word(0), entry.word(1)) {
                    if all.len() > MAX_SERVICES as usize {
                        entry.lose_all(TOO_MUCH);
                        continue;
                    }
                    entry.map_all();
                    all.extend(
                        found
                            .into_iter()
                            .map(|(ip, port)| (ip, port, Some(Rc::clone(entry)))),
                    );
                }
            }
            let own = group.statements();
            match all.is_empty() {
                true => {
                    own.iter()
                        .for_each(|line| line.note("it has no address that lb import can read"));
                    Err("its group has no address that lb import can read")
                }
                false => Ok(all),
            }
        }
        address => {
            let found = range(address, line.word(2))
                .ok_or("it has no IP address and port that lb import can read")?;
            line.map(0..3);
            Ok(found.into_iter().map(|(ip, port)| (ip, port, None)).collect())
        }
    }
}

/// The addresses of `192.0.2.10`, `192.0.2.10-20`, `192.0.2.10-192.0.2.20` or `192.0.2.8/29`, each with the port, which is 0 where
/// there is none.
fn range(addresses: &str, port: &str) -> Option<Vec<(Prefix, u16)>> {
    let port: u16 = if port.is_empty() {
        0
    } else {
        number::decimal(port)?
    };
    if let Some((address, length)) = addresses.split_once('/') {
        let address: IpAddr = address.parse().ok()?;
        let length = number::decimal(length).filter(|length| *length <= Prefix::most(address))?;
        return Some(vec![(Prefix::around(address, length), port)]);
    }
    let Some((first, last)) = addresses.split_once('-') else {
        return Some(vec![(single(addresses.parse().ok()?), port)]);
    };
    let first: IpAddr = first.parse().ok()?;
    let count = |last: u32, first: u32| last.checked_sub(first).filter(|count| *count < MAX_RANGE);
    match first {
        IpAddr::V4(v4) => {
            let octet = u32::from(v4.octets()[3]);
            let last = match last.parse::<std::net::Ipv4Addr>() {
                Ok(last) => last.to_bits(),
                Err(_) => v4.to_bits() - octet + number::decimal::<u8>(last).map(u32::from)?,
            };
            let count = count(last, v4.to_bits())?;
            let all = (0..=count).map(|more| (single(IpAddr::V4((v4.to_bits() + more).into())), port));
            Some(all.collect())
        }
        IpAddr::V6(v6) => {
            let group = u32::from(v6.segments()[7]);
            let last = number::hexadecimal(last).and_then(|last| u16::try_from(last).ok())?;
            let last = u32::from(last);
            let count = count(last, group)?;
            let all =
                (0..=count).map(|more| (single(IpAddr::V6((v6.to_bits() + u128::from(more)).into())), port));
            Some(all.collect())
        }
    }
}
