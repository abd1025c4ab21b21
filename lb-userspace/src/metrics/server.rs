//! The HTTP endpoint: `/metrics`, `/healthz`, `/readyz`.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::Registry;
use tokio::{net::TcpListener, task};
use tokio_util::sync::CancellationToken;

use super::{agent, judgement, observe::Observer, render::render, text::Text};
use crate::{
    control::{ControlHandle, chain},
    datapath::DatapathError,
    health::{Health, HealthHandle},
    state::effective::HealthView,
};

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {source}")]
pub struct ServeError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Why there are no metrics at the moment.
#[derive(Debug, thiserror::Error)]
enum MetricsError {
    /// The maps cannot be read.
    #[error("cannot read counters")]
    Counters(#[from] DatapathError),
    /// The registry cannot be encoded.
    #[error("cannot encode metrics")]
    Encode(#[from] prometheus::Error),
}

/// What the endpoint shows.
pub struct Endpoint {
    /// Metrics of the daemon itself.
    pub registry: Registry,
    /// Counters of the maps.
    pub observer: Arc<Observer>,
    /// Desired against programmed.
    pub control: ControlHandle,
    /// Verdicts.
    pub health: HealthHandle,
}

/// Takes the address, so that a start fails where it is taken already.
///
/// # Errors
/// [`ServeError`]
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError { address, source })
}

/// Serves until `cancel`; cancel-safe.
pub async fn serve(listener: TcpListener, endpoint: Endpoint, cancel: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Arc::new(endpoint));
    let server = axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!(%error, "metrics are not served any more");
    }
}

/// 200 while the data plane does what is desired.
async fn ready(State(endpoint): State<Arc<Endpoint>>) -> (StatusCode, String) {
    let view = endpoint.control.view();
    match &view.failure {
        None if view.is_programmed() => (StatusCode::OK, "ready\n".to_owned()),
        failure => {
            let why = failure.as_deref().unwrap_or("not programmed yet");
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
        }
    }
}

async fn metrics(State(endpoint): State<Arc<Endpoint>>) -> Response {
    // Reading maps is system calls, which may take a while.
    match task::spawn_blocking(move || text(&endpoint)).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, chain(&error)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn text(endpoint: &Endpoint) -> Result<String, MetricsError> {
    let view = endpoint.control.view();
    let checks = endpoint.health.snapshot();
    let agents = endpoint.health.agents().snapshot();
    let mut health: HealthView = checks
        .iter()
        .map(|(id, status)| (id.clone(), status.health))
        .collect();
    let down = agents.iter().filter(|(_, agent)| !agent.said.word.state.is_up());
    health.extend(down.map(|(id, _)| (id.clone(), Health::Down)));
    let seen = endpoint.observer.observe(&view)?;
    let mut judged = Text::default();
    judgement::render(&mut judged, &checks, &seen);
    agent::render(&mut judged, &agents);
    let text = render(&endpoint.registry, view.is_programmed(), &view, &health, &seen)?;
    Ok(text + &judged.into_string())
}
