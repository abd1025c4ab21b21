//! `server` and `server-template` lines as backends.

use std::{net::SocketAddr, rc::Rc};

use lb_model::{
    config::DEFAULT_WEIGHT,
    health::agent::AgentSettings,
    state::{
        backend::{Admin, Backend},
        hosts::HostBackend,
        service::{OnDown, Service},
    },
};

use super::{
    address::{Host, Port, address},
    check,
    profile::Profile,
    sections::Section,
    server::Params,
};
use crate::{
    draft::{Entry, ServiceDraft},
    names::Names,
    statement::Statement,
};

/// The words of lines that name servers.
const LINES: [&str; 2] = ["server", "server-template"];

/// Whether a line names servers.
pub(super) fn is_server(line: &Statement) -> bool {
    LINES.contains(&line.word(0))
}

/// The servers of a section with their parameters.
pub(super) fn servers(section: &Section, profile: &Profile) -> Vec<(Rc<Statement>, Params)> {
    let lines = section.lines().filter(|line| is_server(line));
    lines
        .map(|line| {
            let mut params = profile.server.clone();
            let at = if line.word(0) == "server" { 3 } else { 4 };
            params.read(line, at);
            (Rc::clone(line), params)
        })
        .collect()
}

/// Adds the servers to a service, with checks, agents and what else they set for it.
pub(super) fn add(draft: &mut ServiceDraft, profile: &Profile, servers: &[(Rc<Statement>, Params)]) {
    draft.checks = profile.check.iter().chain(&*profile.rules).cloned().collect();
    draft
        .checks
        .extend(servers.iter().map(|(line, _)| Rc::clone(line)));
    let service = &mut draft.service;
    service.health = check::settings(profile, servers);
    service.slow_start = servers
        .iter()
        .filter_map(|(_, params)| params.slow_start)
        .max()
        .unwrap_or_default();
    if servers.iter().any(|(_, params)| params.cut) {
        service.on_down = OnDown::Move;
        service.on_down_after = std::time::Duration::ZERO;
    }
    agent(service, servers);
    let weighted = servers.iter().any(|(_, params)| params.weight.is_some());
    let mut names = Names::default();
    let backups = servers.iter().filter(|(_, params)| params.backup).count();
    for (line, params) in servers {
        if params.backup && !profile.all_backups && backups > 1 {
            line.note("all backups take flows together, as with option allbackups");
        }
        let weight = match params.weight {
            Some(weight) => weight,
            // HAProxy's default.
            None if weighted => 1,
            None => DEFAULT_WEIGHT,
        };
        if let Some(entry) = entry(draft, line, params, weight, &mut names) {
            draft.push(entry, vec![Rc::clone(line)]);
        }
    }
}

/// Agents: the first port is the service's, and others are of their backends.
fn agent(service: &mut Service, servers: &[(Rc<Statement>, Params)]) {
    let asked = |params: &&Params| params.agent && params.agent_port.is_some();
    let Some(first) = servers.iter().map(|(_, params)| params).find(asked) else {
        return;
    };
    let defaults = AgentSettings::default();
    service.agent = Some(AgentSettings {
        port: first.agent_port,
        send: first.agent_send.as_deref().unwrap_or_default().to_owned(),
        interval: first.agent_inter.unwrap_or(defaults.interval),
        ..defaults
    });
}

/// Port of the agent of a server, where it is not the service's.
fn agent_port(service: &Service, params: &Params) -> Option<u16> {
    let of_service = service.agent.as_ref()?.port;
    let own = params.agent_port.filter(|_| params.agent).unwrap_or(0);
    (Some(own) != of_service).then_some(own)
}

fn entry(
    draft: &ServiceDraft,
    line: &Statement,
    params: &Params,
    weight: u16,
    names: &mut Names,
) -> Option<Entry> {
    let is_template = line.word(0) == "server-template";
    let at = if is_template { 3 } else { 2 };
    let (name, text) = (line.word(1), line.word(at));
    line.map(0..at + 1);
    let (host, port) = match address(text) {
        Ok(address) => address,
        Err(why) => {
            line.note(format!("not imported: {why}"));
            return None;
        }
    };
    let service = &draft.service;
    let keeps = service.key.port == 0 || !service.ports.is_empty();
    let port = match port {
        Port::Range(range) if range.count() == 1 => range.first(),
        // The packet's own port.
        Port::Kept if keeps => 0,
        Port::Kept => service.key.port,
        Port::Range(_) | Port::Other => {
            line.note("not imported: a backend has one port, or keeps the packet's (no port)");
            return None;
        }
    };
    if params.agent && params.agent_port.is_none() {
        line.note("the agent is not asked: agent-port is missing");
    }
    let admin = if params.disabled {
        Admin::Disabled
    } else {
        Admin::Enabled
    };
    match host {
        Host::Ip(ip) => {
            let address = SocketAddr::new(ip, port);
            if draft.has_backend_at(address) {
                line.note("not imported: another server of the service has this address");
                return None;
            }
            Some(Entry::Backend(Backend {
                name: names.unique(name)?,
                address,
                weight,
                mode: None,
                server_ids: Vec::new(),
                agent_port: agent_port(service, params),
                backup: params.backup,
                group: None,
                admin,
                drain_until: None,
                discovered_by: None,
            }))
        }
        Host::Name(host) => {
            let host = match host.parse() {
                Ok(host) => host,
                Err(error) => {
                    line.note(format!(
                        "not imported: {host}: {error}; SRV records are not looked up"
                    ));
                    return None;
                }
            };
            if is_template {
                line.note("as many backends as the name has addresses");
            }
            Some(Entry::Host(HostBackend {
                name: names.unique(name)?,
                host,
                port,
                weight,
                mode: None,
                agent_port: agent_port(service, params),
                backup: params.backup,
                group: None,
                admin,
                drain_until: None,
            }))
        }
        Host::Any(_) => {
            line.note("not imported: it is no address of a server");
            None
        }
    }
}
