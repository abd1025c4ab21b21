//! The admin API: HTTP/1.1 with JSON over a unix socket, documented at `/openapi.json`.

mod agent;
mod bodies;
mod document;
mod error;
mod explain;
mod guard;
mod handlers;
mod parser;
mod reports;
pub mod requests;
mod schema;
pub mod service_state;
mod snapshot;
pub mod socket;
mod stream;
#[cfg(test)]
mod tests;
pub mod types;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Json, Router, extract::DefaultBodyLimit, middleware, routing::get};
use tokio::{net::UnixListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use utoipa::{OpenApi, openapi};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::bodies::{Bodies, within_budget};
pub use self::parser::FileParser;

use crate::{
    config::DaemonSettings,
    config_file::ConfigFile,
    control::{ControlHandle, Observer},
    datapath::Interfaces,
    discovery,
    events::EventLog,
    explain::ReadTables,
    health::{CheckId, CheckStatuses, HealthHandle, Report, agent::AgentStatus},
    parts::PartBoard,
    serve::{Limits, Server},
    state::store::Store,
};

/// Connections to the socket at once, if descriptors suffice.
pub const MAX_CONNECTIONS: usize = 128;
/// Time that a connection may be without a request.
const IDLE: Duration = Duration::from_secs(30);
/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Time for the body of a request, which may be a file of [`MAX_REQUEST`] bytes.
const BODY: Duration = Duration::from_secs(60);
/// Time in which a client takes no byte of an answer.
const STALL: Duration = Duration::from_secs(30);
/// File descriptors that are held back for commands.
const RESERVED_DESCRIPTORS: usize = 8;

/// Limits of the socket's clients, with `connections` in all.
pub const fn limits(connections: usize) -> Limits {
    Limits {
        connections,
        idle: IDLE,
        head: HEAD,
        body: BODY,
        stall: STALL,
        // Events are followed for as long as the client likes.
        answer: None,
        reserve: RESERVED_DESCRIPTORS,
    }
}

/// Largest body of a request, in bytes: a configuration file with as many backends as fit.
pub const MAX_REQUEST: usize = 64 << 20;

/// Reads the state of checks, and takes reports.
pub trait ReadChecks: Send + Sync {
    /// All checks by backend.
    fn checks(&self) -> Arc<CheckStatuses>;

    /// All agents by backend.
    fn agents(&self) -> Arc<BTreeMap<CheckId, AgentStatus>>;

    /// Takes a report about the backend at `target`.
    fn report(&self, target: SocketAddr, report: Report);
}

impl ReadChecks for HealthHandle {
    fn checks(&self) -> Arc<CheckStatuses> {
        self.snapshot()
    }

    fn agents(&self) -> Arc<BTreeMap<CheckId, AgentStatus>> {
        Self::agents(self).snapshot()
    }

    fn report(&self, target: SocketAddr, report: Report) {
        Self::report(self, target, report);
    }
}

/// Everything that the API shows and changes.
pub struct Api {
    /// Requests changes.
    pub control: ControlHandle,
    /// Reads counters.
    pub observer: Arc<Observer>,
    /// Reads checks.
    pub checks: Box<dyn ReadChecks>,
    /// Reads the tables that packets meet.
    pub tables: Box<dyn ReadTables>,
    /// The events.
    pub events: Arc<EventLog>,
    /// Keeps the state.
    pub store: Arc<dyn Store + Send + Sync>,
    /// The configuration file that the daemon was started with.
    pub config: Option<Arc<ConfigFile>>,
    /// Interfaces that are to have the program.
    pub interfaces: Interfaces,
    /// How host names of backends do.
    pub hosts: discovery::Hosts,
    /// Parts that are missing.
    pub parts: PartBoard,
    /// The start settings of the daemon.
    pub settings: DaemonSettings,
    /// When the daemon started.
    pub started: SystemTime,
    /// Permits for clients that follow events.
    pub followers: Arc<Semaphore>,
    /// Parses configuration files.
    pub parser: FileParser,
    /// Ends streams when the daemon leaves.
    pub cancel: CancellationToken,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "lb admin API",
    description = "Reads and changes the desired state of a balancer."
))]
struct Document;

/// The routes with their document.
fn routes() -> (Router<Arc<Api>>, openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(handlers::status))
        .routes(routes!(handlers::health))
        .routes(routes!(handlers::export))
        .routes(routes!(handlers::apply))
        .routes(routes!(handlers::events))
        .routes(routes!(explain::explain))
        .routes(routes!(handlers::list_services, handlers::add_service))
        .routes(routes!(
            handlers::show_service,
            handlers::set_service,
            handlers::remove_service
        ))
        .routes(routes!(handlers::list_backends, handlers::add_backend))
        .routes(routes!(
            handlers::show_backend,
            handlers::set_backend,
            handlers::remove_backend
        ))
        .routes(routes!(reports::report))
        .split_for_parts()
}

/// The whole API.
fn router(api: Arc<Api>, bodies: Arc<Bodies>) -> Router {
    let (router, _) = routes();
    router
        // Built on request, which is rare: it is larger than everything else that a connection needs.
        .route("/openapi.json", get(async || document::served().map(Json)))
        .layer(middleware::from_fn_with_state(bodies, within_budget))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .fallback(async || handlers::no_such_path())
        .with_state(api)
}

/// Serves until the API's token is cancelled; requests under way are answered first. Cancel-safe.
pub async fn serve(listener: UnixListener, server: Server, api: Api) {
    let bodies = Bodies::new(Arc::clone(&server.released));
    let router = router(Arc::new(api), Arc::new(bodies));
    server.run(listener, router).await;
}
