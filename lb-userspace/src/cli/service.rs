//! `lb service …`

use clap::{Args, Subcommand};
use hyper::Method;

use super::{
    error::{CliError, Exit},
    filter::FilterOptions,
    guard,
    options::ServiceKeys,
    output::{Context, Watch},
    table::bytes,
    tables::{backends_of_one, draining_lines, endpoint, service_table},
    wait::{self, Wait},
    whole_number::whole_number,
};
use crate::{
    api::{
        requests::{Changed, Moved},
        types::{Host, Service},
    },
    discovery::addresses,
    state::names::ServiceName,
};

#[derive(Subcommand, Debug)]
pub(super) enum ServiceCommand {
    /// List services
    List {
        #[command(flatten)]
        filter: FilterOptions,
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
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>(..))]
    revision: Option<u64>,
}

impl ChangeFlags {
    /// The path with the expected revision as its query.
    pub(super) fn path(&self, path: String) -> String {
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
    #[command(flatten)]
    keys: ServiceKeys<true>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    change: ChangeFlags,
}

#[derive(Args, Debug)]
pub(super) struct Set {
    /// Name of the service
    name: ServiceName,
    #[command(flatten)]
    keys: ServiceKeys<false>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    change: ChangeFlags,
}

impl ServiceCommand {
    /// Whether its output can be names alone.
    pub(super) const fn has_names(&self) -> bool {
        match self {
            Self::List { .. } | Self::Show { .. } => true,
            Self::Add(_) | Self::Set(_) | Self::Remove { .. } => false,
        }
    }

    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let (changed, wait): (Changed, Option<(Wait, ServiceName)>) = match self {
            Self::List { filter, watch } => {
                let filter = filter.services()?;
                let fetch = async || {
                    let mut services: Vec<Service> = client.get("/v1/services").await?;
                    filter.apply(&mut services);
                    Ok(services)
                };
                let table = |services: &Vec<Service>| {
                    let names = services.iter().map(|service| service.name.clone());
                    context.names_or(names, || service_table(services, context))
                };
                return context.show_watched(watch, fetch, table).await;
            }
            Self::Show { name, watch } => {
                let path = format!("/v1/services/{name}");
                let fetch = || client.get::<Service>(&path);
                let text =
                    |service: &Service| context.names_or([service.name.clone()], || show(service, context));
                return context.show_watched(watch, fetch, text).await;
            }
            Self::Add(add) => {
                let mut request = add.keys.0;
                request.insert("name", add.name.as_str());
                let path = add.change.path("/v1/services".into());
                let changed = client.change(Method::POST, &path, Some(&request)).await?;
                (changed, Some((add.wait, add.name)))
            }
            Self::Set(set) => {
                let request = set.keys.0;
                if request.is_empty() {
                    return Err(CliError::new(Exit::Usage, "nothing to set").hint(
                        "name what changes, for example --on-empty all; `lb service set --help` lists it",
                    ));
                }
                let path = set.change.path(format!("/v1/services/{}", set.name));
                let changed = client.change(Method::PATCH, &path, Some(&request)).await?;
                (changed, Some((set.wait, set.name)))
            }
            Self::Remove { name, change } => {
                let path = change.path(format!("/v1/services/{name}"));
                (client.change(Method::DELETE, &path, None::<&()>).await?, None)
            }
        };
        context.show(&changed, changed_text)?;
        match wait {
            Some((wait, name)) => {
                let name = [name.to_string()];
                wait.until(&client, wait::Changed::Services(&name)).await
            }
            None => Ok(()),
        }
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
        text.push_str(&moved_text(moved));
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

/// `web: 25.0 % of new flows go elsewhere, 3 established flows move`
fn moved_text(moved: &Moved) -> String {
    let Moved {
        service,
        removed,
        share,
        flows,
        uncounted,
    } = moved;
    let (one, many) = if *removed {
        ("ends", "end")
    } else {
        ("moves", "move")
    };
    let established = match (flows, uncounted) {
        (_, true) => format!("established flows {many}, which are not counted in its mode"),
        (0, false) => format!("no established flow {one}"),
        (1, false) => format!("1 established flow {one}"),
        (flows, false) => format!("{flows} established flows {many}"),
    };
    if *removed {
        return format!("{service}: removed, {established}\n");
    }
    let share = 100.0 * share;
    format!("{service}: {share:.1} % of new flows go elsewhere, {established}\n")
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
    let draining = draining_lines(std::slice::from_ref(service));
    if !draining.is_empty() {
        text.push_str(&format!("\n{draining}"));
    }
    let mut text = context.style.extent.fold(&text);
    text.push('\n');
    text.push_str(&backends_of_one(&service.backends, context));
    text
}

#[cfg(test)]
mod tests;
