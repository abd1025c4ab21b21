//! Services and backends as tables.

use super::{
    agent,
    filter::BackendRow,
    fit::Extent,
    local_time,
    output::Context,
    table::{Cell, Column, Table, Tone, bytes, count, name, number, sentence, text},
};
use crate::api::{
    service_state::ServiceState,
    types::{Admin, Backend, CheckPart, Health, NextHop, Service},
};

/// All services, one line each.
pub(super) fn service_table(services: &[Service], context: &Context) -> String {
    let mut table = Table::new(&[
        name("SERVICE", 16),
        name("ADDRESS", 21).rank(2),
        text("MODE").rank(4),
        number("BACKENDS").rank(1),
        number("FLOWS").rank(3),
        number("NEW FLOWS").rank(7),
        number("PACKETS").rank(5),
        number("BYTES").rank(6),
        text("STATE"),
        text("ALGORITHM").extra(11),
        name("CHECK", 12).extra(8),
        text("ON EMPTY").extra(12),
        number("REPLY PACKETS").extra(10),
        number("DROPS").extra(9),
    ]);
    for service in services {
        let drops = service.drops.iter().map(|drops| drops.packets).sum();
        table.row([
            service.name.as_str().into(),
            endpoint(service).into(),
            service.mode.as_str().into(),
            able(service).into(),
            count(service.active_flows).into(),
            count(service.new_flows).into(),
            count(service.packets).into(),
            bytes(service.bytes).into(),
            state(service),
            service.algorithm.as_str().into(),
            service.check.as_str().into(),
            service.on_empty.as_str().into(),
            count(service.reply_packets).into(),
            count(drops).into(),
        ]);
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
    let mut table = Table::new(&columns(false, grouped));
    for backend in backends {
        table.row(row(backend, grouped, context));
    }
    table.render(context.style)
}

/// Backends of a service, or of several with its name in front of each, one line each.
pub(super) fn backend_rows(rows: &[BackendRow<'_>], several: bool, context: &Context) -> String {
    let grouped = rows.iter().any(|row| row.backend.group.is_some());
    let mut table = Table::new(&columns(several, grouped));
    for BackendRow { service, backend } in rows {
        let name = several.then(|| Cell::from(service.name.as_str()));
        table.row(name.into_iter().chain(row(backend, grouped, context)));
    }
    table.render(context.style)
}

fn columns(service: bool, grouped: bool) -> Vec<Column> {
    let service = service.then_some(name("SERVICE", 10));
    let group = grouped.then_some(name("GROUP", 8).rank(6));
    let columns = service
        .into_iter()
        .chain([name("BACKEND", 12), name("ADDRESS", 21).rank(4)]);
    let usual = [
        number("WEIGHT").rank(5),
        text("HEALTH"),
        sentence("STATE", 20).rank(1),
        number("FLOWS").rank(3),
        number("NEW FLOWS").rank(9),
        number("PACKETS").rank(7),
        number("BYTES").rank(8),
    ];
    let extra = [
        number("EFFECTIVE").extra(12),
        text("MODE").extra(14),
        text("AGENT").extra(11),
        text("CERTIFICATE").extra(13),
        name("NEXT HOP", 16).extra(15),
        number("REPLY PACKETS").extra(17),
        text("SINCE").extra(10),
        name("CHECKED WITH", 12).extra(18),
        name("HOST NAME OF", 12).extra(16),
    ];
    let last = sentence("LAST CHECK", 16).rank(2);
    columns
        .chain(group)
        .chain(usual)
        .chain(extra)
        .chain([last])
        .collect()
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
pub(super) fn admin(backend: &Backend, extent: Extent) -> (String, Tone) {
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
        Admin::Draining => (draining(backend, extent), Tone::Notice),
        Admin::Disabled => ("disabled".to_owned(), Tone::Notice),
    }
}

fn row<'a>(backend: &'a Backend, grouped: bool, context: &Context) -> Vec<Cell<'a>> {
    let extent = context.style.extent;
    let (health, tone) = health(backend);
    let (state, state_tone) = admin(backend, extent);
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
        backend.effective_weight.to_string().into(),
        backend.mode.as_str().into(),
        agent(backend),
        certificate(backend),
        next_hop(backend),
        count(backend.reply_packets).into(),
        since(backend, extent).into(),
        checked_with(backend).into(),
        backend.discovered_by.clone().unwrap_or_default().into(),
        last_check(backend, extent == Extent::All),
    ]);
    row
}

/// Since when its health state holds; in a window how long that is.
fn since(backend: &Backend, extent: Extent) -> String {
    let since = backend.since.as_deref();
    let text = since.map(|since| match extent {
        Extent::Window(_) => local_time::age(since).unwrap_or_default(),
        Extent::Usual | Extent::All => local_time::with_age(since, extent),
    });
    text.unwrap_or_default()
}

/// `draining until 2026-11-29T13:05:00Z`, where it has an end; for people `draining, 4m12s left`.
fn draining(backend: &Backend, extent: Extent) -> String {
    match backend.drain_until.as_deref() {
        Some(until) if extent.has_ages() => {
            let left = local_time::ahead(until).map(local_time::short);
            format!("draining, {} left", left.unwrap_or_default())
        }
        Some(until) => format!("draining until {}", local_time::second(until)),
        None => "draining".to_owned(),
    }
}

/// The backends of services that drain, one line each: until when, their remaining flows, and what becomes of these.
pub(super) fn draining_lines(services: &[Service]) -> String {
    let drains = services.iter().flat_map(|service| {
        let drains = service.backends.iter();
        let drains = drains.filter(|backend| backend.admin == Admin::Draining && !backend.removed);
        drains.map(move |backend| format!("{}/{}: {}\n", service.name, backend.name, drain_text(backend)))
    });
    drains.collect()
}

/// `draining until 2026-11-29T13:05:00Z (4m12s left), 12 flows left; then it is disabled and they move`
pub(super) fn drain_text(backend: &Backend) -> String {
    let flows = match backend.active_flows {
        1 => "1 flow left".to_owned(),
        flows => format!("{} flows left", count(flows)),
    };
    let Some(until) = backend.drain_until.as_deref() else {
        return format!("draining without a deadline, {flows}");
    };
    let left = local_time::ahead(until).unwrap_or_default();
    let local = local_time::beside_utc(until).map_or_else(String::new, |local| format!(", {local}"));
    format!(
        "draining until {} ({} left{local}), {flows}; then it is disabled and they move",
        local_time::second(until),
        local_time::short(left)
    )
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
            // The colour is not the only sign.
            let (mark, tone) = if certificate.expires_soon {
                (", soon", Tone::Notice)
            } else {
                ("", Tone::Plain)
            };
            Cell::new(format!("{} days{mark}", certificate.days_left), tone)
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
