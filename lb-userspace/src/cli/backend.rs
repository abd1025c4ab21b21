//! `lb backend …`

use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};
use hyper::Method;

use super::{
    client::Client,
    error::{CliError, Exit},
    filter::{BackendRow, FilterOptions, filter_backends, rows},
    local_time,
    options::BackendKeys,
    output::{Context, Watch, print, remark},
    progress::Progress,
    service::{ChangeFlags, changed_text},
    tables::{backend_rows, backends_of_one, drain_text},
    wait::{self, Wait},
};
use crate::{
    api::{
        requests::{Changed, ReportSpec, ReportTaken, Reported},
        types::{Admin, Backend, Service},
    },
    config::{change::Request, values::duration},
    state::{
        backend::Admin as AdminWord,
        names::{BackendName, ServiceName},
        words::Word as _,
    },
};

/// Time between two looks of `drain --wait`.
const DRAIN_POLL: Duration = Duration::from_millis(500);

#[derive(Subcommand, Debug)]
pub(super) enum BackendCommand {
    /// List backends
    List {
        /// Only backends of this service
        service: Option<ServiceName>,
        #[command(flatten)]
        filter: FilterOptions,
        #[command(flatten)]
        watch: Watch,
    },
    /// Add a backend
    Add {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        #[command(flatten)]
        keys: BackendKeys<true>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Change a backend; options that are not given keep their value
    Set {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        #[command(flatten)]
        keys: BackendKeys<false>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Stop new flows to a backend; established flows stay
    Drain {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        /// Disable it after this time even if it still has flows, for example 5m
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        deadline: Option<Duration>,
        /// Wait until its last flow has ended
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Move all flows of a backend at once
    Disable {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Bring back a drained or disabled backend
    Enable {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// Report the health of a backend, for checks of kind push
    Report {
        /// Name of the service
        service: ServiceName,
        /// Name of the backend
        name: BackendName,
        /// Its health
        health: ReportedHealth,
        /// How long the report holds [default: ttl of the service's check]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
        /// Reason, shown with down
        #[arg(long, value_name = "TEXT")]
        detail: Option<String>,
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

/// The states that can be reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum ReportedHealth {
    /// The backend works
    Up,
    /// The backend does not work
    Down,
}

impl BackendCommand {
    /// Whether its output can be names alone.
    pub(super) const fn has_names(&self) -> bool {
        match self {
            Self::List { .. } => true,
            Self::Add { .. }
            | Self::Set { .. }
            | Self::Drain { .. }
            | Self::Disable { .. }
            | Self::Enable { .. }
            | Self::Report { .. }
            | Self::Remove { .. } => false,
        }
    }

    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let client = context.client();
        let changed = match self {
            Self::List {
                service,
                filter,
                watch,
            } => return list(context, service, &filter, watch).await,
            Self::Report {
                service,
                name,
                health,
                ttl,
                detail,
            } => {
                let spec = ReportSpec {
                    health: match health {
                        ReportedHealth::Up => Reported::Up,
                        ReportedHealth::Down => Reported::Down,
                    },
                    ttl_ms: ttl.map(millis),
                    detail,
                };
                let path = format!("/v1/services/{service}/backends/{name}/report");
                let taken: ReportTaken = client.change(Method::POST, &path, Some(&spec)).await?;
                return context.show(&taken, |_| String::new());
            }
            Self::Add {
                service,
                name,
                keys: BackendKeys(mut request),
                wait,
                change,
            } => {
                request.insert("name", name.as_str());
                let path = change.path(format!("/v1/services/{service}/backends"));
                let changed: Changed = client.change(Method::POST, &path, Some(&request)).await?;
                context.show(&changed, changed_text)?;
                let what = wait::Changed::Backend(service.as_str(), name.as_str());
                return wait.until(&client, what).await;
            }
            Self::Set {
                service,
                name,
                keys: BackendKeys(request),
                wait,
                change,
            } => {
                if request.is_empty() {
                    return Err(CliError::new(Exit::Usage, "nothing to set")
                        .hint("name what changes: --weight N, --address IP:PORT or --mode MODE"));
                }
                let changed = patch_backend(&client, &service, &name, change, &request).await?;
                context.show(&changed, changed_text)?;
                let what = wait::Changed::Backend(service.as_str(), name.as_str());
                return wait.until(&client, what).await;
            }
            Self::Drain {
                service,
                name,
                deadline,
                wait,
                change,
            } => {
                let mut request = admin(AdminWord::Draining);
                if let Some(deadline) = deadline {
                    let millis = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
                    request.insert("deadline_ms", millis);
                }
                let changed = patch_backend(&client, &service, &name, change, &request).await?;
                context.show(&changed, changed_text)?;
                if let Some(deadline) = deadline {
                    say_end(context, &service, &name, deadline);
                }
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
            } => patch_backend(&client, &service, &name, change, &admin(AdminWord::Disabled)).await?,
            Self::Enable {
                service,
                name,
                change,
            } => patch_backend(&client, &service, &name, change, &admin(AdminWord::Enabled)).await?,
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

fn admin(admin: AdminWord) -> Request {
    Request::one("admin", admin.word())
}

async fn patch_backend(
    client: &Client,
    service: &ServiceName,
    name: &BackendName,
    change: ChangeFlags,
    request: &Request,
) -> Result<Changed, CliError> {
    let path = change.path(format!("/v1/services/{service}/backends/{name}"));
    client.change(Method::PATCH, &path, Some(request)).await
}

async fn list(
    context: &Context,
    service: Option<ServiceName>,
    filter: &FilterOptions,
    watch: Watch,
) -> Result<(), CliError> {
    let client = context.client();
    // An unknown field is an error although nothing is listed.
    filter.backends()?;
    match service {
        Some(name) => {
            let path = format!("/v1/services/{name}");
            let fetch = async || {
                let mut services = vec![client.get::<Service>(&path).await?];
                filter_backends(filter, &mut services)?;
                let backends = services.into_iter().flat_map(|service| service.backends);
                Ok(backends.collect())
            };
            let table = |backends: &Vec<Backend>| {
                let names = backends.iter().map(|backend| backend.name.clone());
                context.names_or(names, || backends_of_one(backends, context))
            };
            context.show_watched(watch, fetch, table).await
        }
        None => {
            let fetch = async || {
                let mut services: Vec<Service> = client.get("/v1/services").await?;
                filter_backends(filter, &mut services)?;
                Ok(services)
            };
            let table = |services: &Vec<Service>| {
                let order = filter.backends();
                let rows = order.map_or_else(|_| Vec::new(), |order| rows(services, &order));
                let several = services.len() != 1 || filter.leaves_out();
                let name = |row: &BackendRow<'_>| format!("{}/{}", row.service.name, row.backend.name);
                context.names_or(rows.iter().map(name), || backend_rows(&rows, several, context))
            };
            context.show_watched(watch, fetch, table).await
        }
    }
}

/// What happens at the end of a drain that has one.
fn say_end(context: &Context, service: &ServiceName, name: &BackendName, deadline: Duration) {
    let after = local_time::short(deadline);
    let text = format!(
        "{service}/{name} is disabled after {after}, and the flows that it still has then move; `lb backend enable {service} {name}` \
         ends the drain"
    );
    remark(context.style.extent.fold(&text).trim_end());
}

/// Waits until the backend has no flows or its drain has ended otherwise.
async fn drained(
    context: &Context,
    client: &Client,
    service: &ServiceName,
    name: &BackendName,
) -> Result<(), CliError> {
    let path = format!("/v1/services/{service}/backends/{name}");
    let began = Instant::now();
    let mut progress = Progress::default();
    loop {
        let backend: Backend = client.get(&path).await?;
        // A count from before the drain misses later flows.
        let counted = backend.flows_counted_ms_ago.map(Duration::from_millis);
        let is_counted = counted.is_some_and(|ago| ago < began.elapsed());
        if backend.active_flows == 0 && is_counted {
            progress.end();
            return say(context, &format!("{service}/{name} has no flows left\n"));
        }
        match backend.admin {
            Admin::Draining => {
                if is_counted {
                    progress.show(&format!("{service}/{name}: {}", drain_text(&backend)));
                }
                tokio::time::sleep(DRAIN_POLL).await;
            }
            Admin::Disabled => {
                progress.end();
                return say(
                    context,
                    &format!(
                        "{service}/{name} is disabled; the {} flows it had move\n",
                        backend.active_flows
                    ),
                );
            }
            Admin::Enabled => {
                progress.end();
                return Err(CliError::new(
                    Exit::Conflict,
                    format!("{service}/{name}: enabled again by someone else while it drained"),
                ));
            }
        }
    }
}

/// A remark for people; readers of data look at the exit code.
fn say(context: &Context, text: &str) -> Result<(), CliError> {
    match context.output.data() {
        Some(_) => Ok(()),
        None => print(text),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
