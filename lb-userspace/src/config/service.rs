//! `[[service]]` and `[[service.backend]]` tables.

use std::net::Ipv4Addr;

use super::{
    error::Reporter,
    health,
    table::{Spans, Table},
    values,
};
use crate::{
    health::settings::CheckSettings,
    state::{
        backend::{Admin, Backend},
        names::ServiceName,
        service::{Protocol, Service, ServiceKey},
    },
};

/// A service and where its parts stand in the file.
pub(super) struct Located {
    pub(super) service: Service,
    /// Whether the name is what the file says, not a stand-in for one that is missing or wrong.
    pub(super) named: bool,
    /// Whether name, address and port are.
    pub(super) complete: bool,
    pub(super) spans: Spans,
    pub(super) health: Spans,
    pub(super) backends: Vec<Spans>,
}

/// Weight of a backend that does not say another.
pub(super) const DEFAULT_WEIGHT: u16 = 100;

/// Reads a service. What is missing or wrong gets its default or a stand-in, so that the rest can be checked.
pub(super) fn read(reporter: &mut Reporter<'_>, mut table: Table<'_>) -> Located {
    table.require(reporter, "name", "\"web\"");
    table.require(reporter, "address", "\"192.0.2.10\"");
    table.require(reporter, "port", "80");
    let spans = table.spans();
    let name = table.text(reporter, "name", values::name);
    let address = table.text(reporter, "address", values::address);
    let port = table.number(reporter, "port", values::port);
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
    let slow_start = table.duration(reporter, "slow_start");
    let (checks, health_spans) = match table.table(reporter, "health", "[service.health]") {
        Some(table) => {
            let spans = table.spans();
            (health::read(reporter, table), spans)
        }
        None => (CheckSettings::default(), Spans::default()),
    };
    let (mut backends, mut backend_spans) = (Vec::new(), Vec::new());
    for (table, span) in table.tables(reporter, "backend", "[[service.backend]]") {
        let table = Table::new(table, span, "[[service.backend]]");
        let spans = table.spans();
        if let Some(backend) = backend(reporter, table) {
            backends.push(backend);
            backend_spans.push(spans);
        }
    }
    table.finish(reporter);

    let named = name.is_some();
    let complete = named && address.is_some() && port.is_some();
    let key = ServiceKey {
        address: address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        port: port.unwrap_or(0),
        protocol,
    };
    let default = Service::new(name.unwrap_or_else(ServiceName::stand_in), key);
    let service = Service {
        mode: mode.unwrap_or(default.mode),
        algorithm: algorithm.unwrap_or(default.algorithm),
        affinity: affinity.unwrap_or(default.affinity),
        tracking: tracking.unwrap_or(default.tracking),
        ring_size: ring_size.unwrap_or(default.ring_size),
        on_empty: on_empty.unwrap_or(default.on_empty),
        on_down: on_down.unwrap_or(default.on_down),
        slow_start: slow_start.unwrap_or(default.slow_start),
        health: checks,
        backends,
        ..default
    };
    Located {
        service,
        named,
        complete,
        spans,
        health: health_spans,
        backends: backend_spans,
    }
}

fn backend(reporter: &mut Reporter<'_>, mut table: Table<'_>) -> Option<Backend> {
    table.require(reporter, "name", "\"web-1\"");
    table.require(reporter, "address", "\"10.0.0.11:8080\"");
    let name = table.text(reporter, "name", values::name);
    let address = table.text(reporter, "address", values::endpoint);
    let weight = table
        .number(reporter, "weight", values::weight)
        .unwrap_or(DEFAULT_WEIGHT);
    let mode = table.text(reporter, "mode", values::word);
    let admin = table
        .text(reporter, "admin", values::word)
        .unwrap_or(Admin::Enabled);
    table.finish(reporter);
    Some(Backend {
        name: name?,
        address: address?,
        weight,
        mode,
        admin,
    })
}
