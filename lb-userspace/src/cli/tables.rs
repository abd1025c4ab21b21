//! Services and backends as tables.

use super::{
    agent,
    output::{Context, Output},
    table::{Align, Cell, Table, Tone, bytes, count},
};
use crate::api::{
    service_state::ServiceState,
    types::{Admin, Backend, CheckPart, Health, NextHop, Service},
};

/// All services, one line each.
pub(super) fn service_table(services: &[Service], context: &Context) -> String {
    let wide = context.output == Output::Wide;
    let mut columns = vec![
        ("SERVICE", Align::Left),
        ("ADDRESS", Align::Left),
        ("MODE", Align::Left),
        ("BACKENDS", Align::Right),
        ("FLOWS", Align::Right),
        ("NEW FLOWS", Align::Right),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("STATE", Align::Left),
    ];
    if wide {
        columns.extend([
            ("ALGORITHM", Align::Left),
            ("CHECK", Align::Left),
            ("ON EMPTY", Align::Left),
            ("REPLY PACKETS", Align::Right),
            ("DROPS", Align::Right),
        ]);
    }
    let mut table = Table::new(&columns);
    for service in services {
        let mut row: Vec<Cell> = vec![
            service.name.as_str().into(),
            endpoint(service).into(),
            service.mode.as_str().into(),
            able(service).into(),
            count(service.active_flows).into(),
            count(service.new_flows).into(),
            count(service.packets).into(),
            bytes(service.bytes).into(),
            state(service),
        ];
        if wide {
            let drops = service.drops.iter().map(|drops| drops.packets).sum();
            row.extend([
                service.algorithm.as_str().into(),
                service.check.as_str().into(),
                service.on_empty.as_str().into(),
                count(service.reply_packets).into(),
                count(drops).into(),
            ]);
        }
        table.row(row);
    }
    table.render(context.style)
}

/// Backends that take new flows, of how many, and how many backups there are beside them.
pub(super) fn able(service: &Service) -> String {
    let others = service
        .backends
        .iter()
        .filter(|backend| !backend.removed && !backend.backup)
        .count();
    let able = service.healthy_backends.saturating_sub(service.serving_backups);
    match (backups(service).count(), service.serving_backups) {
        (0, _) => format!("{able}/{others}"),
        (all, 0) => format!("{able}/{others} (+{all} in reserve)"),
        (all, serving) => format!("{able}/{others} (+{serving}/{all} backup)"),
    }
}

fn backups(service: &Service) -> impl Iterator<Item = &Backend> {
    service
        .backends
        .iter()
        .filter(|backend| backend.backup && !backend.removed)
}

/// `address:port/protocol`, `*` for every port.
pub(super) fn endpoint(service: &Service) -> String {
    let port = match service.port {
        _ if !service.ports.is_empty() => service.ports.join(","),
        0 => "*".to_owned(),
        port => port.to_string(),
    };
    let (address, protocol) = (&service.address, &service.protocol);
    if address.contains(':') {
        format!("[{address}]:{port}/{protocol}")
    } else {
        format!("{address}:{port}/{protocol}")
    }
}

fn state(service: &Service) -> Cell<'_> {
    let state = service.judged();
    Cell::new(state.name(), tone(state))
}

/// The tone of a service's state.
pub(super) const fn tone(state: ServiceState) -> Tone {
    match state {
        ServiceState::Ok => Tone::Good,
        ServiceState::Degraded | ServiceState::OnBackup | ServiceState::NoBackends => Tone::Notice,
        ServiceState::Down | ServiceState::Broken | ServiceState::NotProgrammed => Tone::Bad,
    }
}

/// The backends of one service, one line each.
pub(super) fn backends_of_one(backends: &[Backend], context: &Context) -> String {
    let grouped = backends.iter().any(|backend| backend.group.is_some());
    let mut table = Table::new(&columns(false, grouped, context));
    for backend in backends {
        table.row(row(backend, grouped, context));
    }
    table.render(context.style)
}

/// Backends of several services, one line each.
pub(super) fn backend_table(services: &[Service], context: &Context) -> String {
    let several = services.len() != 1;
    let mut backends = services.iter().flat_map(|service| &service.backends);
    let grouped = backends.any(|backend| backend.group.is_some());
    let mut table = Table::new(&columns(several, grouped, context));
    for service in services {
        for backend in &service.backends {
            let name = several.then(|| Cell::from(service.name.as_str()));
            table.row(name.into_iter().chain(row(backend, grouped, context)));
        }
    }
    table.render(context.style)
}

fn columns(service: bool, grouped: bool, context: &Context) -> Vec<(&'static str, Align)> {
    let mut columns = Vec::new();
    if service {
        columns.push(("SERVICE", Align::Left));
    }
    columns.extend([("BACKEND", Align::Left), ("ADDRESS", Align::Left)]);
    columns.extend(grouped.then_some(("GROUP", Align::Left)));
    columns.extend([
        ("WEIGHT", Align::Right),
        ("HEALTH", Align::Left),
        ("STATE", Align::Left),
        ("FLOWS", Align::Right),
        ("NEW FLOWS", Align::Right),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
    ]);
    if context.output == Output::Wide {
        columns.extend([
            ("EFFECTIVE", Align::Right),
            ("MODE", Align::Left),
            ("AGENT", Align::Left),
            ("CERTIFICATE", Align::Left),
            ("NEXT HOP", Align::Left),
            ("REPLY PACKETS", Align::Right),
            ("SINCE", Align::Left),
            ("CHECKED WITH", Align::Left),
            ("HOST NAME OF", Align::Left),
        ]);
    }
    columns.push(("LAST CHECK", Align::Left));
    columns
}

/// The health state in words.
pub(super) fn health(backend: &Backend) -> (&'static str, Tone) {
    match backend.health {
        Health::Up if backend.suspect => ("up, suspect", Tone::Notice),
        Health::Up => ("up", Tone::Good),
        Health::Down if backend.agent.as_ref().is_some_and(|agent| agent.state != "up") => {
            ("down, by agent", Tone::Bad)
        }
        Health::Down if backend.damped => ("down, damped", Tone::Bad),
        Health::Down if backend.breaker.as_deref() == Some("open") => ("down, breaker open", Tone::Bad),
        Health::Down => ("down", Tone::Bad),
        Health::Unchecked => ("unchecked", Tone::Plain),
    }
}

/// Whether it takes new flows, apart from its health, and why not.
pub(super) fn admin(backend: &Backend) -> (String, Tone) {
    match backend.admin {
        _ if backend.removed => ("removed".to_owned(), Tone::Notice),
        Admin::Enabled => match &backend.slow_start {
            Some(slow) => (format!("slow start {}%", slow.percent), Tone::Notice),
            None => match backend.agent.as_ref().map(|agent| agent.admin.as_str()) {
                Some(word @ ("drain" | "maint")) => (format!("{word} by agent"), Tone::Notice),
                _ if backend.is_serving_backup() => ("backup, serving".to_owned(), Tone::Notice),
                _ if backend.backup => ("backup".to_owned(), Tone::Plain),
                _ => ("enabled".to_owned(), Tone::Plain),
            },
        },
        Admin::Draining => (draining(backend), Tone::Notice),
        Admin::Disabled => ("disabled".to_owned(), Tone::Notice),
    }
}

fn row<'a>(backend: &'a Backend, grouped: bool, context: &Context) -> Vec<Cell<'a>> {
    let (health, tone) = health(backend);
    let (state, state_tone) = admin(backend);
    let mut row: Vec<Cell> = vec![backend.name.as_str().into(), backend.address.to_string().into()];
    row.extend(grouped.then(|| backend.group.clone().unwrap_or_default().into()));
    row.extend([
        backend.weight.to_string().into(),
        Cell::new(health, tone),
        Cell::new(state, state_tone),
        count(backend.active_flows).into(),
        count(backend.new_flows).into(),
        count(backend.packets).into(),
        bytes(backend.bytes).into(),
    ]);
    if context.output == Output::Wide {
        row.extend([
            backend.effective_weight.to_string().into(),
            backend.mode.as_str().into(),
            agent(backend),
            certificate(backend),
            next_hop(backend),
            count(backend.reply_packets).into(),
            backend.since.clone().unwrap_or_default().into(),
            checked_with(backend).into(),
            backend.discovered_by.clone().unwrap_or_default().into(),
        ]);
    }
    row.push(last_check(backend, context.output == Output::Wide));
    row
}

/// `draining until 2026-11-29T13:05:00Z`, where it has an end.
fn draining(backend: &Backend) -> String {
    match backend.drain_until.as_deref() {
        Some(until) => {
            let second = until.split_once('.').map_or(until, |(second, _)| second);
            format!("draining until {}Z", second.trim_end_matches('Z'))
        }
        None => "draining".to_owned(),
    }
}

/// The backends of services that drain, one line each.
pub(super) fn draining_lines(services: &[Service]) -> String {
    let drains = services.iter().flat_map(|service| {
        let drains = service.backends.iter();
        let drains = drains.filter(|backend| backend.admin == Admin::Draining && !backend.removed);
        drains.map(move |backend| {
            let flows = count(backend.active_flows);
            format!(
                "{}/{}: {}, {flows} flows left\n",
                service.name,
                backend.name,
                draining(backend)
            )
        })
    });
    drains.collect()
}

/// The other backends that the same check judges.
fn checked_with(backend: &Backend) -> String {
    match backend.check_shared_with.as_slice() {
        [] => String::new(),
        [other] => other.clone(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
    }
}

/// The report of its agent.
fn agent(backend: &Backend) -> Cell<'_> {
    match &backend.agent {
        None => Cell::from(""),
        Some(agent) => {
            let words = agent::words(agent);
            let tone = if words == "ready" {
                Tone::Plain
            } else {
                Tone::Notice
            };
            Cell::new(words, tone)
        }
    }
}

/// How long its certificate is valid.
fn certificate(backend: &Backend) -> Cell<'_> {
    match &backend.certificate {
        None => Cell::from(""),
        Some(certificate) if certificate.days_left < 0 => Cell::new("expired", Tone::Bad),
        Some(certificate) => {
            let tone = if certificate.expires_soon {
                Tone::Notice
            } else {
                Tone::Plain
            };
            Cell::new(format!("{} days", certificate.days_left), tone)
        }
    }
}

fn next_hop(backend: &Backend) -> Cell<'_> {
    match &backend.next_hop {
        None => Cell::from(""),
        Some(NextHop {
            error: Some(error), ..
        }) => Cell::new(error.as_str(), Tone::Bad),
        Some(NextHop { via, interface, .. }) => {
            let via = via.map(|via| via.to_string()).unwrap_or_default();
            Cell::from(format!("{via} on {}", interface.as_deref().unwrap_or("-")))
        }
    }
}

/// The result of the last check; if `each`, of each of several, and by which way.
fn last_check(backend: &Backend, each: bool) -> Cell<'_> {
    match &backend.last_check {
        None => Cell::from(""),
        Some(check) if each && !check.parts.is_empty() => {
            let tone = if check.ok { Tone::Plain } else { Tone::Bad };
            let part = |part: &CheckPart| {
                let words = if part.ok {
                    latency(part.latency_us)
                } else {
                    part.detail.clone()
                };
                format!("{}: {words}", part.check)
            };
            let parts: Vec<String> = check.parts.iter().map(part).collect();
            Cell::new(parts.join("; "), tone)
        }
        Some(check) if check.ok && each && check.through.is_some() => Cell::from(format!(
            "{} through {}",
            latency(check.latency_us),
            check.through.as_deref().unwrap_or_default()
        )),
        Some(check) if check.ok => Cell::from(latency(check.latency_us)),
        Some(check) => Cell::new(check.detail.as_str(), Tone::Bad),
    }
}

/// Microseconds for people.
fn latency(us: u64) -> String {
    match us {
        0..1_000 => format!("ok {us} us"),
        1_000..1_000_000 => format!("ok {}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("ok {}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}
