//! `[[service]]` and `[[service.backend]]` tables.

use std::net::Ipv4Addr;

use super::{
    error::Reporter,
    health,
    keys::{self, KeyTable, Subject},
    quic,
    table::{Spans, Table},
    values::{self, BackendAddress},
};
use crate::state::{
    backend::{Admin, Backend},
    clients::Clients,
    desired::Desired,
    guard::Prefix,
    hosts::HostBackend,
    service::{Protocol, Service, ServiceKey},
};

/// A service and the positions of its parts in the file.
pub(super) struct Located {
    pub(super) service: Service,
    pub(super) spans: Spans,
    pub(super) guard: Spans,
    pub(super) health: Spans,
    pub(super) agent: Spans,
    pub(super) clients: Vec<Spans>,
    pub(super) quic: Vec<Spans>,
    pub(super) backends: Vec<Spans>,
    pub(super) hosts: Vec<Spans>,
}

/// Default weight of a backend.
pub const DEFAULT_WEIGHT: u16 = 100;

/// Reads a service; `None` if a required key is missing or wrong. Other wrong values keep their default.
pub(super) fn read(reporter: &mut Reporter<'_>, mut table: Table<'_>, known: &Desired) -> Option<Located> {
    table.require(reporter, "name", "\"web\"");
    table.require(reporter, "address", "\"192.0.2.10\"");
    let spans = table.spans();
    if !spans.has("ports") {
        table.require(reporter, "port", "80");
    }
    let name = table.text(reporter, "name", values::name);
    let address = table.text(reporter, "address", values::service_address);
    let port = table.number(reporter, "port", values::port);
    let ports = table.texts_or_numbers(reporter, "ports", values::port_range);
    let (port, ports) = match ports {
        None => (port, Vec::new()),
        Some(_) if spans.has("port") => {
            let what = "a service has port or ports, not both";
            reporter.error(
                spans.of("ports"),
                what.to_owned(),
                Some("leave one of them out".to_owned()),
            );
            return None;
        }
        // One that stands alone is a service's only port, however it is written.
        Some(ports) if ports.iter().map(|range| range.count()).sum::<usize>() == 1 => {
            (ports.first().map(|range| range.first()), Vec::new())
        }
        Some(ports) => (ports.first().map(|range| range.first()), ports),
    };
    if spans.has("ports") && port.is_none() {
        reporter.error(
            spans.of("ports"),
            "ports names no port".to_owned(),
            Some("for example [80, 443, \"8000-8100\"]".to_owned()),
        );
    }
    let protocol = table
        .text(reporter, "protocol", values::word)
        .unwrap_or(Protocol::Tcp);
    // A service without a name or an address is read all the same, for the errors in its other keys.
    let is_known = name.is_some() && address.is_some() && port.is_some();
    let name = name.or_else(|| "unnamed".parse().ok())?;
    let address = address.unwrap_or(Prefix::around(Ipv4Addr::UNSPECIFIED.into(), 32));
    let key = ServiceKey::of_prefix(address, port.unwrap_or_default(), protocol);
    let mut service = Service {
        ports,
        ..Service::new(name, key)
    };
    keys::SERVICE.read(&mut service, &mut table, reporter, known);
    let (guard, guard_spans) = of_table(reporter, &mut table, "guard", &keys::GUARD, known).unzip();
    let (agent, agent_spans) = of_table(reporter, &mut table, "agent", &keys::AGENT, known).unzip();
    let health = table.table(reporter, "health", keys::HEALTH.header).map(|table| {
        let spans = table.spans();
        (health::read(reporter, table, known), spans)
    });
    let (health, health_spans) = health.unzip();
    let (clients, clients_spans) = clients(reporter, &mut table);
    let (quic, quic_spans) = quic::read(reporter, &mut table, known);
    let (mut backends, mut backend_spans) = (Vec::new(), Vec::new());
    let (mut hosts, mut host_spans) = (Vec::new(), Vec::new());
    for (table, span) in table.tables(reporter, "backend", keys::BACKEND.header) {
        let table = Table::new(table, span, keys::BACKEND.header);
        let spans = table.spans();
        match backend(reporter, table, &spans, known) {
            Some(Entry::Backend(backend)) => {
                backends.push(backend);
                backend_spans.push(spans);
            }
            Some(Entry::Host(host)) => {
                hosts.push(host);
                host_spans.push(spans);
            }
            None => {}
        }
    }
    table.finish(reporter);

    let service = Service {
        guard: guard.unwrap_or_default(),
        health: health.unwrap_or_default(),
        agent,
        clients,
        quic,
        backends,
        hosts,
        ..service
    };
    is_known.then(|| Located {
        service,
        spans,
        guard: guard_spans.unwrap_or_default(),
        health: health_spans.unwrap_or_default(),
        agent: agent_spans.unwrap_or_default(),
        clients: clients_spans,
        quic: quic_spans,
        backends: backend_spans,
        hosts: host_spans,
    })
}

/// A table of a service with its positions; a wrong key keeps its default.
fn of_table<T: Subject + Default>(
    reporter: &mut Reporter<'_>,
    service: &mut Table<'_>,
    key: &'static str,
    keys: &'static KeyTable,
    known: &Desired,
) -> Option<(T, Spans)> {
    let mut table = service.table(reporter, key, keys.header)?;
    let spans = table.spans();
    let mut settings = T::default();
    keys.read(&mut settings, &mut table, reporter, known);
    table.finish(reporter);
    Some((settings, spans))
}

/// Reads the tables of clients with their positions. Leaves out tables without a group or a list.
fn clients(reporter: &mut Reporter<'_>, service: &mut Table<'_>) -> (Vec<Clients>, Vec<Spans>) {
    let mut tables = Vec::new();
    for (table, span) in service.tables(reporter, "clients", keys::CLIENTS.header) {
        let mut table = Table::new(table, span, keys::CLIENTS.header);
        let spans = table.spans();
        table.require(reporter, "group", "\"near\"");
        table.require(reporter, "from", "[\"10.0.0.0/8\"]");
        let group = table.text(reporter, "group", values::name);
        let from = table.list(reporter, "from", values::prefix, false);
        table.finish(reporter);
        let clients = group.zip(from).map(|(group, from)| Clients { group, from });
        tables.extend(clients.map(|clients| (clients, spans)));
    }
    tables.into_iter().unzip()
}

/// The meaning of a `[[service.backend]]` table.
pub(super) enum Entry {
    Backend(Backend),
    Host(HostBackend),
}

/// Reads a backend; `None` if its name or address is missing or wrong.
pub(super) fn backend(
    reporter: &mut Reporter<'_>,
    mut table: Table<'_>,
    spans: &Spans,
    known: &Desired,
) -> Option<Entry> {
    table.require(reporter, "name", "\"web-1\"");
    table.require(reporter, "address", "\"10.0.0.11:8080\"");
    let name = table.text(reporter, "name", values::name);
    let address = table.text(reporter, "address", values::backend_address);
    // Without a name or an address, the other keys are read for their errors.
    let mut backend = Backend {
        name: name.clone().or_else(|| "unnamed".parse().ok())?,
        address: (Ipv4Addr::UNSPECIFIED, 0).into(),
        weight: DEFAULT_WEIGHT,
        mode: None,
        server_ids: Vec::new(),
        agent_port: None,
        backup: false,
        group: None,
        admin: Admin::Enabled,
        drain_until: None,
        discovered_by: None,
    };
    keys::BACKEND.read(&mut backend, &mut table, reporter, known);
    table.finish(reporter);
    let (name, address) = (name?, address?);
    match address {
        BackendAddress::Ip(address) => Some(Entry::Backend(Backend {
            name,
            address,
            ..backend
        })),
        BackendAddress::Host(host, port) => {
            for (key, why) in [
                (
                    "server_ids",
                    "each address of a host name would have the same ones",
                ),
                ("discovered_by", "it names the host of an address"),
            ] {
                if spans.has(key) {
                    let what = format!("{key} does not go with a host name: {why}");
                    let hint = "remove it, or write the backends by their addresses";
                    reporter.error(spans.of(key), what, Some(hint.to_owned()));
                }
            }
            let Backend {
                name: _,
                address: _,
                weight,
                mode,
                server_ids: _,
                agent_port,
                backup,
                group,
                admin,
                drain_until,
                discovered_by: _,
            } = backend;
            Some(Entry::Host(HostBackend {
                name,
                host,
                port,
                weight,
                mode,
                agent_port,
                backup,
                group,
                admin,
                drain_until,
            }))
        }
    }
}
