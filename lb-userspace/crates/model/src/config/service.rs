//! `[[service]]` and `[[service.backend]]` tables.

use super::{
    agent,
    error::Reporter,
    guard, health, keys, quic,
    table::{Spans, Table},
    values::{self, BackendAddress},
};
use crate::{
    health::settings::CheckSettings,
    state::{
        backend::{Admin, Backend},
        desired::Desired,
        guard::Guard,
        hosts::HostBackend,
        service::{IdleSettings, Protocol, Service, ServiceKey},
    },
};

/// A service and the positions of its parts in the file.
pub(super) struct Located {
    pub(super) service: Service,
    pub(super) spans: Spans,
    pub(super) guard: Spans,
    pub(super) health: Spans,
    pub(super) agent: Spans,
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
    let mode = table.text(reporter, "mode", values::word);
    let algorithm = table.text(reporter, "algorithm", values::word);
    let affinity = table.text(reporter, "affinity", values::word);
    let tracking = table.text(reporter, "tracking", values::word);
    let ring_size = table.text_or_number(reporter, "ring_size", values::ring_size);
    let on_empty = table.text(reporter, "on_empty", values::word);
    let on_down = table.text(reporter, "on_down", values::word);
    let on_down_after = table.duration(reporter, "on_down_after");
    let max_removed_percent = table.number(reporter, "max_removed_percent", values::count);
    let backup_below = table.number(reporter, "backup_below", values::count);
    let slow_start = table.duration(reporter, "slow_start");
    let idle = IdleSettings {
        established: table.duration(reporter, "idle_timeout"),
        half_open: table.duration(reporter, "half_open_timeout"),
        closed: table.duration(reporter, "closed_timeout"),
    };
    let (guard, guard_spans) = match table.table(reporter, "guard", &keys::GUARD) {
        Some(table) => {
            let spans = table.spans();
            (guard::read(reporter, table), spans)
        }
        None => (Guard::default(), Spans::default()),
    };
    let (checks, health_spans) = match table.table(reporter, "health", &keys::HEALTH) {
        Some(table) => {
            let spans = table.spans();
            (health::read(reporter, table), spans)
        }
        None => (CheckSettings::default(), Spans::default()),
    };
    let (agent, agent_spans) = match table.table(reporter, "agent", &keys::AGENT) {
        Some(table) => {
            let spans = table.spans();
            (Some(agent::read(reporter, table)), spans)
        }
        None => (None, Spans::default()),
    };
    let (quic, quic_spans) = quic::read(reporter, &mut table, known);
    let (mut backends, mut backend_spans) = (Vec::new(), Vec::new());
    let (mut hosts, mut host_spans) = (Vec::new(), Vec::new());
    for (table, span) in table.tables(reporter, "backend", &keys::BACKEND) {
        let table = Table::new(table, span, &keys::BACKEND);
        let spans = table.spans();
        match backend(reporter, table, &spans) {
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

    let default = Service::new(name?, ServiceKey::of_prefix(address?, port?, protocol));
    let service = Service {
        ports,
        mode: mode.unwrap_or(default.mode),
        algorithm: algorithm.unwrap_or(default.algorithm),
        affinity: affinity.unwrap_or(default.affinity),
        tracking: tracking.unwrap_or(default.tracking),
        ring_size: ring_size.unwrap_or(default.ring_size),
        on_empty: on_empty.unwrap_or(default.on_empty),
        on_down: on_down.unwrap_or(default.on_down),
        on_down_after: on_down_after.unwrap_or(default.on_down_after),
        max_removed_percent: max_removed_percent.unwrap_or(default.max_removed_percent),
        backup_below: backup_below.unwrap_or(default.backup_below),
        slow_start: slow_start.unwrap_or(default.slow_start),
        idle,
        guard,
        health: checks,
        agent,
        quic,
        backends,
        hosts,
        ..default
    };
    Some(Located {
        service,
        spans,
        guard: guard_spans,
        health: health_spans,
        agent: agent_spans,
        quic: quic_spans,
        backends: backend_spans,
        hosts: host_spans,
    })
}

/// The meaning of a `[[service.backend]]` table.
enum Entry {
    Backend(Backend),
    Host(HostBackend),
}

fn backend(reporter: &mut Reporter<'_>, mut table: Table<'_>, spans: &Spans) -> Option<Entry> {
    table.require(reporter, "name", "\"web-1\"");
    table.require(reporter, "address", "\"10.0.0.11:8080\"");
    let name = table.text(reporter, "name", values::name);
    let address = table.text(reporter, "address", values::backend_address);
    let weight = table
        .number(reporter, "weight", values::weight)
        .unwrap_or(DEFAULT_WEIGHT);
    let mode = table.text(reporter, "mode", values::word);
    let server_ids = table.list(reporter, "server_ids", quic::hex, false);
    let agent_port = table.number(reporter, "agent_port", values::port);
    let backup = table.boolean(reporter, "backup").unwrap_or(false);
    let admin = table
        .text(reporter, "admin", values::word)
        .unwrap_or(Admin::Enabled);
    let drain_until = table.text(reporter, "drain_until", values::moment);
    let discovered_by = table.text(reporter, "discovered_by", values::name);
    table.finish(reporter);
    match address? {
        BackendAddress::Ip(address) => Some(Entry::Backend(Backend {
            name: name?,
            address,
            weight,
            mode,
            server_ids: server_ids.unwrap_or_default(),
            agent_port,
            backup,
            admin,
            drain_until,
            discovered_by,
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
            Some(Entry::Host(HostBackend {
                name: name?,
                host,
                port,
                weight,
                mode,
                agent_port,
                backup,
                admin,
                drain_until,
            }))
        }
    }
}
