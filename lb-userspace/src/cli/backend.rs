//! `lb backend …`

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use clap::Subcommand;
use hyper::Method;

use super::{
    client::Client,
    error::{CliError, Exit},
    output::{Context, Output, Watch, print},
    service::{ChangeFlags, changed_text},
    table::{Align, Cell, Table, Tone, bytes, count},
};
use crate::{
    api::{
        requests::{BackendPatch, BackendSpec, Changed},
        types::{Admin, Backend, Health, NextHop, Service},
    },
    config::values::duration,
    state::names::{BackendName, ServiceName},
};

/// How often `drain --wait` looks whether the flows are gone.
const DRAIN_POLL: Duration = Duration::from_millis(500);

#[derive(Subcommand, Debug)]
pub(super) enum BackendCommand {
    /// List backends
    List {
        /// Only of this service
        service: Option<ServiceName>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Add a backend
    Add {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        /// Where packets go; port 0 keeps the packet's own
        #[arg(long, value_name = "IP:PORT")]
        address: SocketAddr,
        /// Share of new flows, relative to the other backends; 0 takes none [default: 100]
        #[arg(long, value_name = "N")]
        weight: Option<u16>,
        /// Mode of its own [default: the service's]
        #[arg(long, value_name = "MODE")]
        mode: Option<String>,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Change a backend; what is not named stays
    Set {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        /// Where packets go
        #[arg(long, value_name = "IP:PORT")]
        address: Option<SocketAddr>,
        /// Share of new flows, relative to the other backends; 0 takes none
        #[arg(long, value_name = "N")]
        weight: Option<u16>,
        /// Mode of its own
        #[arg(long, value_name = "MODE")]
        mode: Option<String>,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Give a backend no new flows and let it keep the ones it has
    Drain {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        /// Disable it after this time, whatever flows it still has, for example 5m
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        deadline: Option<Duration>,
        /// Return when its last flow has ended
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Take all flows from a backend at once
    Disable {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Let a drained or disabled backend take flows again
    Enable {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Remove a backend; its flows may finish first
    Remove {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        /// Move its flows at once instead of letting them finish
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        change: ChangeFlags,
    },
}

impl BackendCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let changed = match self {
            Self::List { service, watch } => return list(context, service, watch).await,
            Self::Add {
                service,
                name,
                address,
                weight,
                mode,
                change,
            } => {
                let spec = BackendSpec {
                    name: name.to_string(),
                    address: address.to_string(),
                    weight,
                    mode,
                };
                let path = change.path(format!("/v1/services/{service}/backends"));
                client.change(Method::POST, &path, Some(&spec)).await?
            }
            Self::Set {
                service,
                name,
                address,
                weight,
                mode,
                change,
            } => {
                let patch = BackendPatch {
                    address: address.map(|address| address.to_string()),
                    weight,
                    mode,
                    ..BackendPatch::default()
                };
                if patch == BackendPatch::default() {
                    return Err(CliError::new(Exit::Usage, "nothing to set")
                        .hint("name what changes: --weight N, --address IP:PORT or --mode MODE"));
                }
                patch_backend(&client, &service, &name, change, &patch).await?
            }
            Self::Drain {
                service,
                name,
                deadline,
                wait,
                change,
            } => {
                let patch = BackendPatch {
                    deadline_ms: deadline
                        .map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)),
                    ..admin(Admin::Draining)
                };
                let changed = patch_backend(&client, &service, &name, change, &patch).await?;
                context.show(&changed, changed_text)?;
                return if wait {
                    drained(context, &client, &service, &name).await
                } else {
                    Ok(())
                };
            }
            Self::Disable {
                service,
                name,
                change,
            } => patch_backend(&client, &service, &name, change, &admin(Admin::Disabled)).await?,
            Self::Enable {
                service,
                name,
                change,
            } => patch_backend(&client, &service, &name, change, &admin(Admin::Enabled)).await?,
            Self::Remove {
                service,
                name,
                now,
                change,
            } => {
                let path = change.path(format!("/v1/services/{service}/backends/{name}"));
                let joint = if path.contains('?') { '&' } else { '?' };
                let path = format!("{path}{joint}now={now}");
                client.change(Method::DELETE, &path, None::<&()>).await?
            }
        };
        context.show(&changed, changed_text)
    }
}

fn admin(admin: Admin) -> BackendPatch {
    BackendPatch {
        admin: Some(admin),
        ..BackendPatch::default()
    }
}

async fn patch_backend(
    client: &Client,
    service: &ServiceName,
    name: &BackendName,
    change: ChangeFlags,
    patch: &BackendPatch,
) -> Result<Changed, CliError> {
    let path = change.path(format!("/v1/services/{service}/backends/{name}"));
    client.change(Method::PATCH, &path, Some(patch)).await
}

async fn list(context: &Context, service: Option<ServiceName>, watch: Watch) -> Result<(), CliError> {
    let client = context.client();
    match service {
        Some(name) => {
            let path = format!("/v1/services/{name}");
            let fetch = async || {
                let service = client.get::<Service>(&path).await?;
                Ok(service.backends)
            };
            let table = |backends: &Vec<Backend>| {
                let mut table = Table::new(&columns(false, context));
                backends
                    .iter()
                    .for_each(|backend| table.row(row(backend, context)));
                table.render(context.style)
            };
            context.show_watched(watch, fetch, table).await
        }
        None => {
            let fetch = || client.get::<Vec<Service>>("/v1/services");
            context
                .show_watched(watch, fetch, |services| backend_table(services, context))
                .await
        }
    }
}

/// Waits until the backend has no flow left or its drain has ended another way.
async fn drained(
    context: &Context,
    client: &Client,
    service: &ServiceName,
    name: &BackendName,
) -> Result<(), CliError> {
    let path = format!("/v1/services/{service}/backends/{name}");
    let began = Instant::now();
    loop {
        let backend: Backend = client.get(&path).await?;
        // A count from before the drain says nothing about flows that came since.
        let counted = backend.flows_counted_ms_ago.map(Duration::from_millis);
        if backend.active_flows == 0 && counted.is_some_and(|ago| ago < began.elapsed()) {
            return say(context, &format!("{service}/{name} has no flows left\n"));
        }
        match backend.admin {
            Admin::Draining => tokio::time::sleep(DRAIN_POLL).await,
            Admin::Disabled => {
                return say(
                    context,
                    &format!(
                        "{service}/{name} is disabled; the {} flows it had move\n",
                        backend.active_flows
                    ),
                );
            }
            Admin::Enabled => {
                return Err(CliError::new(
                    Exit::Conflict,
                    format!("{service}/{name}: enabled again by someone else while it drained"),
                ));
            }
        }
    }
}

/// A remark for people; JSON readers look at the exit code.
fn say(context: &Context, text: &str) -> Result<(), CliError> {
    match context.output {
        Output::Json => Ok(()),
        Output::Table | Output::Wide => print(text),
    }
}

/// Backends of several services, one line each.
pub(super) fn backend_table(services: &[Service], context: &Context) -> String {
    let several = services.len() != 1;
    let mut table = Table::new(&columns(several, context));
    for service in services {
        for backend in &service.backends {
            let name = several.then(|| Cell::from(service.name.as_str()));
            table.row(name.into_iter().chain(row(backend, context)));
        }
    }
    table.render(context.style)
}

fn columns(service: bool, context: &Context) -> Vec<(&'static str, Align)> {
    let mut columns = Vec::new();
    if service {
        columns.push(("SERVICE", Align::Left));
    }
    columns.extend([
        ("BACKEND", Align::Left),
        ("ADDRESS", Align::Left),
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
            ("NEXT HOP", Align::Left),
            ("REPLY PACKETS", Align::Right),
            ("SINCE", Align::Left),
        ]);
    }
    columns.push(("LAST CHECK", Align::Left));
    columns
}

fn row(backend: &Backend, context: &Context) -> Vec<Cell> {
    let (health, tone) = match backend.health {
        Health::Up => ("up", Tone::Good),
        Health::Down => ("down", Tone::Bad),
        Health::Unchecked => ("unchecked", Tone::Plain),
    };
    let (state, state_tone) = match backend.admin {
        _ if backend.removed => ("removed", Tone::Notice),
        Admin::Enabled => ("enabled", Tone::Plain),
        Admin::Draining => ("draining", Tone::Notice),
        Admin::Disabled => ("disabled", Tone::Notice),
    };
    let mut row: Vec<Cell> = vec![
        backend.name.as_str().into(),
        backend.address.to_string().into(),
        backend.weight.to_string().into(),
        Cell::new(health, tone),
        Cell::new(state, state_tone),
        count(backend.active_flows).into(),
        count(backend.new_flows).into(),
        count(backend.packets).into(),
        bytes(backend.bytes).into(),
    ];
    if context.output == Output::Wide {
        row.extend([
            backend.effective_weight.to_string().into(),
            backend.mode.as_str().into(),
            next_hop(backend),
            count(backend.reply_packets).into(),
            backend.since.clone().unwrap_or_default().into(),
        ]);
    }
    row.push(last_check(backend));
    row
}

fn next_hop(backend: &Backend) -> Cell {
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

fn last_check(backend: &Backend) -> Cell {
    match &backend.last_check {
        None => Cell::from(""),
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
