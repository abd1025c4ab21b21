//! The admin API: HTTP/1.1 with JSON over a unix socket, documented at `/openapi.json`.

mod agent;
mod error;
mod explain;
mod guard;
mod handlers;
mod picture;
mod reports;
pub mod requests;
pub mod socket;
mod stream;
#[cfg(test)]
mod tests;
pub mod types;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::SystemTime};

use axum::{Json, Router, extract::DefaultBodyLimit, routing::get};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use utoipa::{OpenApi, openapi};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    config::DaemonSettings,
    control::ControlHandle,
    datapath::AttachedInterface,
    events::EventLog,
    explain::ReadTables,
    health::{CheckId, CheckStatuses, HealthHandle, Report, agent::AgentStatus},
    metrics::Observer,
};

/// Largest body of a request, in bytes: a configuration file with as many backends as fit.
pub const MAX_REQUEST: usize = 64 << 20;

/// Reads what is known about checks, and hands in reports.
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

/// What the API shows and changes.
pub struct Api {
    /// Asks for changes.
    pub control: ControlHandle,
    /// Reads counters.
    pub observer: Arc<Observer>,
    /// Reads checks.
    pub checks: Box<dyn ReadChecks>,
    /// Reads the tables that packets meet.
    pub tables: Box<dyn ReadTables>,
    /// What happened.
    pub events: Arc<EventLog>,
    /// Interfaces that have the program.
    pub interfaces: Vec<AttachedInterface>,
    /// What the daemon was started with.
    pub settings: DaemonSettings,
    /// When the daemon started.
    pub started: SystemTime,
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
fn router(api: Arc<Api>) -> Router {
    let (router, document) = routes();
    router
        .route("/openapi.json", get(async move || Json(document)))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .fallback(async || handlers::no_such_path())
        .with_state(api)
}

/// Serves until the API's token is cancelled; requests under way are answered first. Cancel-safe.
pub async fn serve(listener: UnixListener, api: Api) {
    let cancel = api.cancel.clone();
    let server =
        axum::serve(listener, router(Arc::new(api))).with_graceful_shutdown(cancel.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!(%error, "the admin API has ended");
    }
}
