//! What forwards on while no daemon can be reached: for `lb status`.

use serde::Serialize;

use super::{
    error::CliError,
    local_time::with_age,
    output::{Context, Output},
    table::{Cell, Table, Tone, name, number, sentence, text},
};
use crate::{
    datapath::{LeftBackend, LeftService, LeftState, left_state},
    events::rfc3339,
    state::words::Word as _,
};

/// Services that forward on which the error names.
const NAMED: usize = 8;

/// Backends of a service that a table shows; more are counted.
const SHOWN: usize = 8;

/// What a daemon does that nothing else does, with what comes of it.
const STOPPED: [&str; 6] = [
    "health checks, agents and reports: a backend that fails keeps its share of new flows",
    "routes and neighbours: a backend or router with another MAC address or way is not followed",
    "sweeping: ended flows stay in the flow table, and no new ones fit once it is full",
    "what takes time: slow starts, deadlines of drains, host names of backends",
    "interfaces: one that comes back after it was removed does not get the program",
    "metrics, events, API and web page",
];

/// With `-o json`.
#[derive(Serialize)]
struct Report {
    without_daemon: Left,
}

#[derive(Serialize)]
struct Left {
    error: String,
    pin_dir: Option<String>,
    interfaces: Vec<Interface>,
    /// `null` where the maps cannot be read.
    services: Option<Vec<Service>>,
    /// What no longer happens.
    stopped: [&'static str; 6],
}

#[derive(Serialize)]
struct Interface {
    name: String,
    xdp_mode: &'static str,
    program_id: u32,
    loaded_at: Option<String>,
}

#[derive(Serialize)]
struct Service {
    /// Address, port and protocol.
    key: String,
    mode: Option<&'static str>,
    backends: Vec<Backend>,
}

#[derive(Serialize)]
struct Backend {
    address: String,
    /// Share of the service's new flows, from 0 to 1; `null` where it cannot be read.
    new_flows_share: Option<f64>,
    /// Whether it keeps the flows that it has.
    keeps_flows: bool,
}

/// Prints what forwards on without the daemon that could not be reached, and adds that to the error.
pub(super) fn with_left_forwarding(error: CliError, context: &Context) -> CliError {
    let left = left_state();
    if left.interfaces.is_empty() {
        return error;
    }
    let interfaces = left.interfaces.iter();
    let interfaces: Vec<String> = interfaces
        .map(|interface| format!("{} (XDP {})", interface.name, interface.mode.name()))
        .collect();
    let all = left.services.as_deref().unwrap_or_default();
    let mut services: Vec<String> = all
        .iter()
        .take(NAMED)
        .map(|service| service.key.to_string())
        .collect();
    if let Some(more) = all.len().checked_sub(NAMED).filter(|more| *more > 0) {
        services.push(format!("{more} more"));
    }
    let services = match services.as_slice() {
        [] => String::new(),
        some => format!(", services {}", some.join(", ")),
    };
    let message = format!(
        "{}\nforwarding goes on without a daemon, as it was last programmed and without health checks: on {}{services}",
        error.message,
        interfaces.join(", ")
    );
    let report = report(&left, error.message.clone());
    if let Err(error) = context.show(&report, |report| shown(report, context)) {
        return error;
    }
    let hint = "`lb run` with the same --pin-dir takes it over; `lb detach` ends it; if a daemon does run, name its \
                socket with --socket or LB_SOCKET";
    CliError { message, ..error }.hint(hint)
}

fn report(left: &LeftState, error: String) -> Report {
    let interfaces = left.interfaces.iter().map(|interface| Interface {
        name: interface.name.clone(),
        xdp_mode: interface.mode.name(),
        program_id: interface.program,
        loaded_at: interface.loaded.map(rfc3339),
    });
    let service = |service: &LeftService| Service {
        key: service.key.to_string(),
        mode: service.mode.map(|mode| mode.word()),
        backends: service.backends.iter().map(backend).collect(),
    };
    let services = left.services.as_ref();
    Report {
        without_daemon: Left {
            error,
            pin_dir: left.pin_dir.as_ref().map(|dir| dir.display().to_string()),
            interfaces: interfaces.collect(),
            services: services.map(|services| services.iter().map(service).collect()),
            stopped: STOPPED,
        },
    }
}

fn backend(backend: &LeftBackend) -> Backend {
    Backend {
        address: backend.address.to_string(),
        new_flows_share: backend.share,
        keeps_flows: backend.keeps_flows,
    }
}

fn shown(report: &Report, context: &Context) -> String {
    let Left {
        pin_dir,
        interfaces,
        services,
        stopped,
        error: _,
    } = &report.without_daemon;
    let names = interfaces.iter().map(|interface| interface.name.clone());
    if context.output == Output::Name {
        return context.names_or(names, String::new);
    }
    let style = context.style;
    let mut all = String::from("no daemon: packets are forwarded as it was last programmed\n");
    if let Some(dir) = pin_dir {
        all.push_str(&format!("pins  {dir}\n"));
    }
    let mut table = Table::new(&[
        name("INTERFACE", 15),
        text("XDP MODE"),
        number("PROGRAM").rank(1),
        sentence("LOADED", 20),
    ]);
    for interface in interfaces {
        let loaded = interface.loaded_at.as_deref();
        table.row([
            interface.name.as_str().into(),
            interface.xdp_mode.into(),
            interface.program_id.to_string().into(),
            loaded
                .map(|at| with_age(at, style.extent))
                .unwrap_or_default()
                .into(),
        ]);
    }
    all.push_str(&format!("\n{}\n", table.render(style)));
    match services.as_deref() {
        None => all.push_str(
            "the maps of services cannot be read: they are pinned elsewhere, or are of another version\n",
        ),
        Some([]) => all.push_str("no services\n"),
        Some(services) => all.push_str(&services_table(services, context)),
    }
    all.push_str("\nno longer happens\n");
    for what in stopped {
        all.push_str(&style.extent.fold(&format!("  {what}\n")));
    }
    all
}

/// Services with their backends, those with most new flows first. Of many, some: `-o wide` shows all.
fn services_table(services: &[Service], context: &Context) -> String {
    let shown = match context.output {
        Output::Wide => usize::MAX,
        Output::Table | Output::Json | Output::Yaml | Output::Name => SHOWN,
    };
    let mut table = Table::new(&[
        name("SERVICE", 21),
        text("MODE").rank(2),
        name("BACKEND", 21),
        number("NEW FLOWS"),
        sentence("ESTABLISHED FLOWS", 17).rank(1),
    ]);
    for service in services {
        let mode = service.mode.unwrap_or_default();
        if service.backends.is_empty() {
            table.row([service.key.as_str().into(), mode.into()]);
        }
        let mut backends: Vec<&Backend> = service.backends.iter().collect();
        let share_of = |backend: &Backend| backend.new_flows_share.unwrap_or_default();
        backends.sort_by(|one, other| share_of(other).total_cmp(&share_of(one)));
        for backend in backends.iter().take(shown) {
            let share = backend.new_flows_share;
            let share = share.map(|share| format!("{:.1} %", 100.0 * share));
            let (flows, tone) = if backend.keeps_flows {
                ("stay", Tone::Plain)
            } else {
                ("move to others", Tone::Bad)
            };
            table.row([
                service.key.as_str().into(),
                mode.into(),
                backend.address.as_str().into(),
                share.unwrap_or_default().into(),
                Cell::new(flows, tone),
            ]);
        }
        if let Some(more @ 1..) = backends.len().checked_sub(shown) {
            table.row([
                service.key.as_str().into(),
                mode.into(),
                format!("and {more} more").into(),
            ]);
        }
    }
    table.render(context.style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Colour;

    #[test]
    fn the_report_names_interfaces_backends_and_what_no_longer_happens() {
        let backend = |address: &str, share| Backend {
            address: address.to_owned(),
            new_flows_share: Some(share),
            keeps_flows: share > 0.0,
        };
        let report = Report {
            without_daemon: Left {
                error: "cannot reach the daemon".into(),
                pin_dir: Some("/sys/fs/bpf/lb".into()),
                interfaces: vec![Interface {
                    name: "eth0".into(),
                    xdp_mode: "native",
                    program_id: 17,
                    loaded_at: Some("2026-01-01T00:00:00.000Z".into()),
                }],
                services: Some(vec![Service {
                    key: "192.0.2.10:80/tcp".into(),
                    mode: Some("nat"),
                    backends: vec![backend("10.0.0.11:80", 1.0), backend("10.0.0.12:80", 0.0)],
                }]),
                stopped: STOPPED,
            },
        };
        let context = Context::new(None, None, Output::Table, Colour::Never, true);
        let text = shown(&report, &context);
        for line in [
            "INTERFACE  XDP MODE  PROGRAM  LOADED\neth0       native         17  2026-01-01T00:00:00.000Z\n",
            "192.0.2.10:80/tcp  nat   10.0.0.11:80    100.0 %  stay\n",
            "192.0.2.10:80/tcp  nat   10.0.0.12:80      0.0 %  move to others\n",
            "no longer happens\n  health checks",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
