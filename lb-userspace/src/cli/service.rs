//! `lb service …`

use clap::{Args, Subcommand};
use hyper::Method;

use super::{
    agent::AgentOptions,
    check::CheckOptions,
    error::{CliError, Exit},
    guard::{self, GuardOptions},
    help::{help, remark},
    output::{Context, Watch},
    table::bytes,
    tables::{backend_table, endpoint, service_table},
};
use crate::{
    api::{
        requests::Changed,
        types::{Host, Service},
    },
    config::{keys, values},
    discovery::addresses,
    spec::{ClientsSpec, PortsSpec, RingSizeSpec, ServiceSpec},
    state::names::ServiceName,
};

#[derive(Subcommand, Debug)]
pub(super) enum ServiceCommand {
    /// List services
    List {
        #[command(flatten)]
        watch: Watch,
    },
    /// Show a service and its backends
    Show {
        /// Name of the service
        name: ServiceName,
        #[command(flatten)]
        watch: Watch,
    },
    /// Add a service
    Add(Add),
    /// Change a service; options that are not given keep their value
    Set(Set),
    /// Remove a service and its backends
    Remove {
        /// Name of the service
        name: ServiceName,
        #[command(flatten)]
        change: ChangeFlags,
    },
}

/// Flags of commands that change the desired state.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct ChangeFlags {
    /// Refuse unless the desired state is at this revision
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
}

impl ChangeFlags {
    /// The path with the expected revision as its query.
    pub(super) fn path(self, path: String) -> String {
        match self.revision {
            Some(revision) => format!("{path}?revision={revision}"),
            None => path,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct Add {
    /// Name of the service
    name: ServiceName,
    #[arg(long, value_name = "IP", value_parser = service_address, help = help(&keys::SERVICE, "address"))]
    address: String,
    #[arg(long, value_name = "N", required_unless_present = "ports", help = help(&keys::SERVICE, "port"))]
    port: Option<u16>,
    #[arg(long, value_name = "PORTS", value_delimiter = ',', conflicts_with = "port", help = remark(help(&keys::SERVICE, "ports"), "for example 80,443,8000-8100"))]
    ports: Option<Vec<String>>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    change: ChangeFlags,
}

#[derive(Args, Debug)]
pub(super) struct Set {
    /// Name of the service
    name: ServiceName,
    #[arg(long, value_name = "IP", value_parser = service_address, help = help(&keys::SERVICE, "address"))]
    address: Option<String>,
    #[arg(long, value_name = "N", help = help(&keys::SERVICE, "port"))]
    port: Option<u16>,
    #[arg(long, value_name = "PORTS", value_delimiter = ',', conflicts_with = "port", help = remark(help(&keys::SERVICE, "ports"), "for example 80,443,8000-8100"))]
    ports: Option<Vec<String>>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    change: ChangeFlags,
}

/// The text of an address or a prefix.
fn service_address(text: &str) -> Result<String, String> {
    let read = values::service_address(text).map(|_| text.to_owned());
    read.map_err(|error| match &error.hint {
        Some(hint) => format!("{error}: {hint}"),
        None => error.to_string(),
    })
}

/// Options that `add` and `set` share. The daemon has the defaults and the words.
#[derive(Args, Debug)]
struct Options {
    #[arg(long, value_name = "PROTOCOL", help = help(&keys::SERVICE, "protocol"))]
    protocol: Option<String>,
    #[arg(long, value_name = "MODE", help = help(&keys::SERVICE, "mode"))]
    mode: Option<String>,
    #[arg(long, value_name = "ALGORITHM", help = help(&keys::SERVICE, "algorithm"))]
    algorithm: Option<String>,
    #[arg(long, value_name = "AFFINITY", help = help(&keys::SERVICE, "affinity"))]
    affinity: Option<String>,
    #[arg(long, value_name = "TRACKING", help = help(&keys::SERVICE, "tracking"))]
    tracking: Option<String>,
    #[arg(long, value_name = "SLOTS", help = help(&keys::SERVICE, "ring_size"))]
    ring_size: Option<String>,
    #[arg(long, value_name = "POLICY", help = help(&keys::SERVICE, "on_empty"))]
    on_empty: Option<String>,
    #[arg(long, value_name = "POLICY", help = help(&keys::SERVICE, "on_down"))]
    on_down: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::SERVICE, "on_down_after"))]
    on_down_after: Option<String>,
    #[arg(long, value_name = "PERCENT", help = help(&keys::SERVICE, "max_removed_percent"))]
    max_removed_percent: Option<u8>,
    #[arg(long, value_name = "N", help = help(&keys::SERVICE, "backup_below"))]
    backup_below: Option<u32>,
    #[arg(long, value_name = "DURATION", help = help(&keys::SERVICE, "slow_start"))]
    slow_start: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::SERVICE, "idle_timeout"))]
    idle_timeout: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::SERVICE, "half_open_timeout"))]
    half_open_timeout: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::SERVICE, "closed_timeout"))]
    closed_timeout: Option<String>,
    #[arg(long, value_name = "GROUP=PREFIXES", help = remark(help(&keys::SERVICE, "clients"), "for example near=10.0.0.0/8,192.0.2.0/24, once for each group; replaces all of them, \"\" removes them"))]
    clients: Option<Vec<String>>,
    #[command(flatten)]
    guard: GuardOptions,
    #[command(flatten)]
    agent: AgentOptions,
    #[command(flatten)]
    check: CheckOptions,
}

/// Ports as the API takes them.
fn ports(texts: Vec<String>) -> Vec<PortsSpec> {
    let port = |text: String| match text.parse() {
        Ok(port) => PortsSpec::One(port),
        Err(_) => PortsSpec::Range(text),
    };
    texts.into_iter().map(port).collect()
}

/// Tables of clients: `near=10.0.0.0/8,192.0.2.0/24`.
fn clients(texts: Vec<String>) -> Result<Vec<ClientsSpec>, CliError> {
    let table = |text: String| match text.split_once('=') {
        Some((group, from)) => Ok(ClientsSpec {
            group: group.to_owned(),
            from: from.split(',').map(str::to_owned).collect(),
        }),
        None => Err(
            CliError::new(Exit::Usage, format!("{text:?} names no group and prefixes"))
                .hint("for example --clients near=10.0.0.0/8,192.0.2.0/24"),
        ),
    };
    texts
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(table)
        .collect()
}

impl Options {
    /// Field by field, so that the compiler asks for a new option and for a new key.
    fn spec(self) -> Result<ServiceSpec, CliError> {
        let Self {
            protocol,
            mode,
            algorithm,
            affinity,
            tracking,
            ring_size,
            on_empty,
            on_down,
            on_down_after,
            max_removed_percent,
            backup_below,
            slow_start,
            idle_timeout,
            half_open_timeout,
            closed_timeout,
            guard,
            agent,
            check,
            clients: tables,
        } = self;
        Ok(ServiceSpec {
            name: None,
            address: None,
            port: None,
            ports: None,
            protocol,
            mode,
            algorithm,
            affinity,
            tracking,
            ring_size: ring_size.map(|text| match text.parse() {
                Ok(slots) => RingSizeSpec::Slots(slots),
                Err(_) => RingSizeSpec::Text(text),
            }),
            on_empty,
            on_down,
            on_down_after,
            max_removed_percent,
            backup_below,
            slow_start,
            idle_timeout,
            half_open_timeout,
            closed_timeout,
            guard: guard.spec(),
            agent: agent.spec(),
            health: check.spec(),
            clients: tables.map(clients).transpose()?,
            quic: None,
        })
    }
}

impl ServiceCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let changed: Changed = match self {
            Self::List { watch } => {
                let fetch = || client.get::<Vec<Service>>("/v1/services");
                let table = |services: &Vec<Service>| service_table(services, context);
                return context.show_watched(watch, fetch, table).await;
            }
            Self::Show { name, watch } => {
                let path = format!("/v1/services/{name}");
                let fetch = || client.get::<Service>(&path);
                return context
                    .show_watched(watch, fetch, |service| show(service, context))
                    .await;
            }
            Self::Add(add) => {
                let spec = ServiceSpec {
                    name: Some(add.name.to_string()),
                    address: Some(add.address),
                    port: add.port,
                    ports: add.ports.map(ports),
                    ..add.options.spec()?
                };
                let path = add.change.path("/v1/services".into());
                client.change(Method::POST, &path, Some(&spec)).await?
            }
            Self::Set(set) => {
                let spec = ServiceSpec {
                    address: set.address,
                    port: set.port,
                    ports: set.ports.map(ports),
                    ..set.options.spec()?
                };
                if spec == ServiceSpec::default() {
                    return Err(CliError::new(Exit::Usage, "nothing to set").hint(
                        "name what changes, for example --on-empty all; `lb service set --help` lists it",
                    ));
                }
                let path = set.change.path(format!("/v1/services/{}", set.name));
                client.change(Method::PATCH, &path, Some(&spec)).await?
            }
            Self::Remove { name, change } => {
                let path = change.path(format!("/v1/services/{name}"));
                client.change(Method::DELETE, &path, None::<&()>).await?
            }
        };
        context.show(&changed, changed_text)
    }
}

/// The effect of a change, as text.
pub(super) fn changed_text(changed: &Changed) -> String {
    let mut text = String::new();
    for line in &changed.diff {
        text.push_str(line);
        text.push('\n');
    }
    for moved in &changed.moved {
        let under_way = match moved.flows {
            0 => "no established flow moves".to_owned(),
            1 => "1 established flow moves".to_owned(),
            flows => format!("{flows} established flows move"),
        };
        text.push_str(&format!(
            "{}: {:.1} % of new flows go elsewhere, {under_way}\n",
            moved.service,
            100.0 * moved.share
        ));
    }
    if !changed.replaced.is_empty() {
        text.push_str("of that, the file replaces changes made by command:\n");
        for line in &changed.replaced {
            text.push_str(&format!("  {line}\n"));
        }
    }
    for warning in &changed.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(&match (changed.dry_run, changed.changed) {
        (true, true) => "nothing was changed (dry run)\n".to_owned(),
        (_, false) => format!("no change, revision {}\n", changed.revision),
        (false, true) => format!("done, revision {}\n", changed.revision),
    });
    text
}

fn show(service: &Service, context: &Context) -> String {
    let mut text = format!("{}  {}  mode {}\n", service.name, endpoint(service), service.mode);
    let backup = format!(
        "below {} other backends that can take flows",
        service.backup_below
    );
    let max_removed = format!(
        "{} percent of the weight, by checks alone",
        service.max_removed_percent
    );
    let settings = [
        ("algorithm", &service.algorithm),
        ("affinity", &service.affinity),
        ("tracking", &service.tracking),
        ("ring size", &service.ring_size),
        ("on empty", &service.on_empty),
        ("on down", &service.on_down),
        ("on down after", &service.on_down_after),
        ("max removed", &max_removed),
        ("slow start", &service.slow_start),
        ("idle", &service.idle_timeout),
        ("half open", &service.half_open_timeout),
        ("backup", &backup),
        ("check", &service.check),
    ];
    for (name, value) in settings {
        text.push_str(&format!("  {name:<15} {value}\n"));
    }
    if let Some(closed) = &service.closed_timeout {
        text.push_str(&format!("  {:<15} {closed}\n", "closed"));
    }
    if let Some(agent) = &service.agent {
        text.push_str(&format!("  {:<15} {agent}\n", "agent"));
    }
    for (name, value) in guard::lines(&service.guard) {
        text.push_str(&format!("  {name:<15} {value}\n"));
    }
    for clients in &service.clients {
        text.push_str(&format!(
            "  {:<15} {} go to group {}, {} take their new flows\n",
            "clients",
            clients.from.join(", "),
            clients.group,
            match clients.taken_by.as_str() {
                "group" => "whose backends",
                "general" => "but backends of no such group",
                "all" => "but all backends",
                _ => "but no backends",
            }
        ));
    }
    for quic in &service.quic {
        let key = quic.key.as_deref().unwrap_or("not encrypted");
        text.push_str(&format!(
            "  {:<15} config {}, server id of {} bytes, nonce of {}, {key}\n",
            "quic", quic.config_id, quic.server_id_length, quic.nonce_length
        ));
    }
    for host in &service.hosts {
        let state = match &host.error {
            Some(error) => format!("cannot be looked up: {error}"),
            None if host.resolved => "resolved".to_owned(),
            None => "not looked up yet".to_owned(),
        };
        let Host {
            name,
            address,
            backends,
            ..
        } = host;
        let backends = addresses(*backends);
        text.push_str(&format!(
            "  {:<15} {name}: {address}, {backends}, {state}\n",
            "host name"
        ));
    }
    text.push_str(&format!(
        "  {:<15} {} active flows, {} new, {} packets ({}), {} replies ({})\n",
        "traffic",
        service.active_flows,
        service.new_flows,
        service.packets,
        bytes(service.bytes),
        service.reply_packets,
        bytes(service.reply_bytes)
    ));
    for (name, counts) in [("dropped", &service.drops), ("answered", &service.replies)] {
        for count in counts {
            text.push_str(&format!("  {name:<15} {} ({})\n", count.packets, count.reason));
        }
    }
    if let Some(error) = &service.error {
        text.push_str(&format!("  {:<15} {error}\n", "error"));
    }
    text.push('\n');
    text.push_str(&backend_table(std::slice::from_ref(service), context));
    text
}
