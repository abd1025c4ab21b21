//! The admin API: HTTP/1.1 with JSON over a unix socket, documented at `/openapi.json`.

pub mod access;
mod agent;
mod bodies;
mod context;
mod document;
pub(crate) mod error;
mod events;
mod explain;
mod flows;
mod guard;
mod handlers;
pub mod history;
mod monitor;
mod names;
mod parser;
mod query;
pub(crate) mod rates;
pub mod refusals;
pub mod reload;
pub mod reloads;
mod reports;
pub mod requests;
mod schema;
mod selection;
pub mod service_state;
pub(crate) mod short_list;
pub(crate) mod snapshot;
pub mod socket;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
pub mod types;

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::DefaultBodyLimit, http::Method, middleware, routing::get};
use utoipa::{OpenApi, openapi};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use self::{
    access::{Access, admit},
    bodies::{Bodies, within_budget},
    requests::MAX_SERVICE_REQUEST,
};
pub use self::{
    bodies::MAX_REQUEST,
    context::{Api, BeginMonitor, Flows, MAX_JOURNAL_READS, MAX_WALKS, ReadChecks},
    parser::FileParser,
};

use crate::serve::{Limits, Listener, Server};

/// Connections to the socket at once, if descriptors suffice.
pub const MAX_CONNECTIONS: usize = 128;
/// Connections to the socket for reading at once, if descriptors suffice.
pub const MAX_READERS: usize = 64;
/// Time that a connection may be without a request.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of the head of a request.
const HEAD_BYTES: usize = 64 * 1024;
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
        head_bytes: HEAD_BYTES,
        head: HEAD,
        body: BODY,
        stall: STALL,
        // Events are followed for as long as the client likes.
        answer: None,
        reserve: RESERVED_DESCRIPTORS,
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "lb admin API",
    description = "Reads and changes the desired state of a balancer."
))]
struct Document;

/// The routes with their document.
fn routes() -> (Router<Arc<Api>>, openapi::OpenApi) {
    let small = || DefaultBodyLimit::max(MAX_SERVICE_REQUEST);
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(handlers::status))
        .routes(routes!(handlers::health))
        .routes(routes!(handlers::export))
        .routes(routes!(handlers::apply))
        .routes(routes!(reload::reload))
        .routes(routes!(events::events))
        .routes(routes!(history::history))
        .routes(routes!(history::rollback).layer(small()))
        .routes(routes!(explain::explain))
        .routes(routes!(flows::list_flows, flows::flush_flows))
        .routes(routes!(flows::count_flows))
        .routes(routes!(monitor::monitor))
        .routes(routes!(handlers::list_services, handlers::add_service).layer(small()))
        .routes(
            routes!(
                handlers::show_service,
                handlers::set_service,
                handlers::remove_service
            )
            .layer(small()),
        )
        .routes(routes!(handlers::list_backends, handlers::add_backend).layer(small()))
        .routes(
            routes!(
                handlers::show_backend,
                handlers::set_backend,
                handlers::remove_backend
            )
            .layer(small()),
        )
        .routes(routes!(reports::report))
        .split_for_parts()
}

/// The whole API, as far as `role` allows it.
fn router(api: Arc<Api>, bodies: Arc<Bodies>, access: Access) -> Router {
    let (router, _) = routes();
    router
        // Built on request, which is rare: it is larger than everything else that a connection needs.
        .route(
            "/openapi.json",
            get(async || document::served(routes().1).map(Json)),
        )
        .layer(middleware::from_fn_with_state(bodies, within_budget))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .fallback(async || handlers::no_such_path())
        .method_not_allowed_fallback(async |method: Method| handlers::no_such_method(&method))
        // The outermost: a refused request is not read.
        .layer(middleware::from_fn_with_state((access, Arc::clone(&api)), admit))
        .with_state(api)
}

/// Serves until the API's token is cancelled; requests under way are answered first. Cancel-safe.
pub async fn serve(listener: impl Listener, server: Server, api: Arc<Api>, access: Access) {
    let bodies = Bodies::new(Arc::clone(&server.released));
    let router = router(api, Arc::new(bodies), access);
    server.run(listener, router).await;
}
