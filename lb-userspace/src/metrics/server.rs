//! The HTTP endpoint: `/metrics`, `/healthz`, `/readyz`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::Registry;
use tokio::{net::TcpListener, sync::Mutex, task};

use super::{
    agent, hosts, judgement,
    render::render,
    text::{Kind, Text},
};
use crate::{
    chain::chain,
    control::{ControlHandle, Observer},
    datapath::{DatapathError, Interfaces},
    discovery::Hosts,
    health::{Health, HealthHandle},
    parts::{MissingPart, Part, PartBoard, RETRY},
    serve::{Limits, Server},
    state::effective::HealthView,
};

/// Connections at once, if descriptors suffice.
pub const MAX_CONNECTIONS: usize = 64;
/// Time that a connection may be without a request: longer than the usual interval of scrapes.
const IDLE: Duration = Duration::from_secs(30);
/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Time for the body of a request, which no path wants.
const BODY: Duration = Duration::from_secs(10);
/// Time in which a client takes no byte of an answer.
const STALL: Duration = Duration::from_secs(10);
/// Time for an answer to be made and read.
const ANSWER: Duration = Duration::from_secs(60);

/// Limits of the endpoint's clients, with `connections` in all.
pub const fn limits(connections: usize) -> Limits {
    Limits {
        connections,
        idle: IDLE,
        head: HEAD,
        body: BODY,
        stall: STALL,
        answer: Some(ANSWER),
        reserve: 0,
    }
}

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {source}")]
pub struct ServeError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

impl From<ServeError> for MissingPart {
    fn from(error: ServeError) -> Self {
        let port = error.address.port();
        Self {
            message: error.to_string(),
            hint: format!(
                "`ss -ltnp 'sport = :{port}'` names the owner of the address; retried every {} s",
                RETRY.as_secs()
            ),
        }
    }
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

/// Everything that the endpoint shows.
pub struct Endpoint {
    /// Metrics of the daemon itself.
    pub registry: Registry,
    /// Counters of the maps.
    pub observer: Arc<Observer>,
    /// Desired against programmed.
    pub control: ControlHandle,
    /// Verdicts.
    pub health: HealthHandle,
    /// How host names of backends do.
    pub hosts: Hosts,
    /// Whether the program runs where it is to.
    pub interfaces: Interfaces,
    /// Parts that are missing.
    pub parts: PartBoard,
}

/// Takes the address.
///
/// # Errors
/// [`ServeError`]
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError { address, source })
}

/// The state of the endpoint, which serves one client after the other: threads that read maps have other work, too.
type Shown = State<Arc<(Endpoint, Mutex<()>)>>;

/// Serves until cancelled. Cancel-safe.
pub async fn serve(listener: TcpListener, server: Server, endpoint: Endpoint) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Arc::new((endpoint, Mutex::new(()))));
    server.run(listener, router).await;
}

/// 200 while the desired state is programmed on all its interfaces.
async fn ready(State(shown): Shown) -> (StatusCode, String) {
    let endpoint = &shown.0;
    match endpoint.control.view().not_ready(&endpoint.interfaces.borrow()) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn metrics(State(shown): Shown) -> Response {
    let turn = shown.1.lock().await;
    // Reading maps is system calls, which may take a while.
    let endpoint = Arc::clone(&shown);
    let text = task::spawn_blocking(move || text(&endpoint.0)).await;
    drop(turn);
    match text {
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
    let down = agents
        .iter()
        .filter(|(_, agent)| !agent.report.word.state.is_up());
    health.extend(down.map(|(id, _)| (id.clone(), Health::Down)));
    let seen = endpoint.observer.observe(&view)?;
    let mut judged = Text::default();
    judgement::render(&mut judged, &checks, &seen);
    agent::render(&mut judged, &agents);
    hosts::render(&mut judged, &endpoint.hosts.borrow());
    let ready = view.not_ready(&endpoint.interfaces.borrow()).is_none();
    let text = render(&endpoint.registry, ready, &view, &health, &seen)?;
    parts(&mut judged, &endpoint.parts);
    Ok(text + &judged.into_string())
}

/// Which parts of the daemon are missing.
pub(super) fn parts(text: &mut Text, parts: &PartBoard) {
    let missing = parts.missing();
    let mut family = text.family(
        "lb_part_missing",
        Kind::Gauge,
        "1: this part of the daemon does not work; it forwards without",
    );
    for part in Part::ALL {
        family.sample(&[("part", part.name())], u8::from(missing.contains_key(&part)));
    }
}
