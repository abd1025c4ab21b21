//! A sample as JSON, and as a table.

use std::net::SocketAddr;

use serde::Serialize;

use super::{
    rows::{self, BackendRow, ServiceRow},
    text::{latency, rate},
};
use crate::{
    api::{
        rates::{DropRate, Rates, Sample, Totals},
        types::{Admin, Health, MapUse, Problem},
    },
    cli::{
        table::{Cell, Style, Table, count, name, number, text},
        tables::{able, endpoint, tone},
    },
    events::rfc3339,
};

/// What `lb top --once -o json` prints. Fields may be added, but not changed.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    /// When, RFC 3339.
    at: String,
    /// Time over which rates are measured.
    seconds: f64,
    version: &'a str,
    revision: u64,
    ready: bool,
    totals: &'a Totals,
    services: Vec<ServiceReport<'a>>,
    maps: &'a [MapUse],
    problems: &'a [Problem],
}

/// Latencies of the last successful checks of a service, microseconds.
#[derive(Debug, Serialize)]
struct Latencies {
    median: u64,
    max: u64,
}

#[derive(Debug, Serialize)]
struct ServiceReport<'a> {
    name: &'a str,
    address: &'a str,
    port: u16,
    protocol: &'a str,
    mode: &'a str,
    state: &'static str,
    /// Backends that take new flows.
    healthy_backends: usize,
    /// `null` for a service that is new.
    rates: Option<Rates>,
    active_flows: u64,
    drops: &'a [DropRate],
    /// `null` without a successful check.
    check_latency_us: Option<Latencies>,
    backends: Vec<BackendReport<'a>>,
}

#[derive(Debug, Serialize)]
struct BackendReport<'a> {
    name: &'a str,
    address: SocketAddr,
    weight: u16,
    effective_weight: u32,
    health: Health,
    admin: Admin,
    removed: bool,
    rates: Option<Rates>,
    active_flows: u64,
    /// `null` where the last check failed, or there was none.
    check_latency_us: Option<u64>,
}

impl<'a> Report<'a> {
    /// All of a sample.
    pub(super) fn of(sample: &'a Sample) -> Self {
        let status = &sample.status;
        Self {
            at: rfc3339(sample.time),
            seconds: sample.seconds,
            version: &status.version,
            revision: status.revision,
            ready: status.ready,
            totals: &sample.totals,
            services: rows::services(sample).map(ServiceReport::of).collect(),
            maps: &status.maps,
            problems: &status.problems,
        }
    }
}

impl<'a> ServiceReport<'a> {
    fn of(row: ServiceRow<'a>) -> Self {
        let service = row.service;
        Self {
            name: &service.name,
            address: &service.address,
            port: service.port,
            protocol: &service.protocol,
            mode: &service.mode,
            state: service.judged().name(),
            healthy_backends: service.healthy_backends,
            rates: row.rates.traffic,
            active_flows: service.active_flows,
            drops: &row.rates.drops,
            check_latency_us: row.latency().map(|(median, max)| Latencies { median, max }),
            backends: rows::backends(row).map(BackendReport::of).collect(),
        }
    }
}

impl<'a> BackendReport<'a> {
    fn of(row: BackendRow<'a>) -> Self {
        let backend = row.backend;
        Self {
            name: &backend.name,
            address: backend.address,
            weight: backend.weight,
            effective_weight: backend.effective_weight,
            health: backend.health,
            admin: backend.admin,
            removed: backend.removed,
            rates: row.rates,
            active_flows: backend.active_flows,
            check_latency_us: rows::latency(backend),
        }
    }
}

/// The services of a sample, one line each.
pub(super) fn table(sample: &Sample, style: Style) -> String {
    let mut table = Table::new(&[
        name("SERVICE", 12),
        text("STATE"),
        number("UP").rank(1),
        number("PKT/s").rank(1),
        number("BIT/s").rank(2),
        number("NEW/s").rank(3),
        number("FLOWS").rank(4),
        number("DROP/s").rank(2),
        number("CHECK").rank(5),
        name("ADDRESS", 21).extra(6),
        text("MODE").extra(7),
        number("RPKT/s").extra(8),
        number("RBIT/s").extra(8),
    ]);
    for row in rows::services(sample) {
        let state = row.service.judged();
        let rates = row.rates.traffic;
        table.row([
            Cell::from(row.service.name.as_str()),
            Cell::new(state.name(), tone(state)),
            able(row.service).into(),
            rate(rates.map(|rates| rates.packets)).into(),
            rate(rates.map(|rates| rates.bits)).into(),
            rate(rates.map(|rates| rates.new_flows)).into(),
            count(row.service.active_flows).into(),
            rate(row.rates.dropped()).into(),
            row.latency()
                .map_or_else(String::new, |(median, _)| latency(median))
                .into(),
            endpoint(row.service).into(),
            row.service.mode.as_str().into(),
            rate(rates.map(|rates| rates.reply_packets)).into(),
            rate(rates.map(|rates| rates.reply_bits)).into(),
        ]);
    }
    table.render(style)
}
