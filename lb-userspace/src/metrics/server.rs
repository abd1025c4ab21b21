//! The HTTP endpoint: `/metrics`, `/healthz`, `/readyz`, and what is served beside them.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, VARY},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::body::{Body as _, Bytes};
use prometheus::Registry;
use tokio::{net::TcpListener, task};

use super::{format::Format, render::render, scrape::Scrape, shared::Shared};
use crate::{
    chain::chain,
    config_file::ConfigFile,
    control::{ControlHandle, Observer},
    datapath::{DatapathError, Interface, Interfaces},
    discovery::Hosts,
    events::EventLog,
    health::HealthHandle,
    parts::{MissingPart, PartBoard, RETRY},
    serve::{Limits, Restricted, Server},
};

/// Connections at once, if descriptors suffice.
pub const MAX_CONNECTIONS: usize = 64;
/// Time that a connection may be without a request: longer than the usual interval of scrapes.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of the head of a request.
const HEAD_BYTES: usize = 16 * 1024;
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
        head_bytes: HEAD_BYTES,
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
    /// The text cannot be compressed.
    #[error("cannot compress metrics")]
    Compress(#[from] io::Error),
    /// The thread that makes them has failed.
    #[error("cannot make metrics")]
    Thread(#[from] task::JoinError),
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
    /// Events so far.
    pub events: Arc<EventLog>,
    /// The configuration file, if there is one.
    pub config: Option<Arc<ConfigFile>>,
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

/// The state of the endpoint, and its renderings, made one after the other: threads that read maps have other work, too.
type Shown = State<Arc<(Endpoint, Shared<Format>)>>;

/// Serves until cancelled, `page` beside the metrics. Cancel-safe.
pub async fn serve(listener: Restricted, server: Server, endpoint: Endpoint, page: Router) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Arc::new((endpoint, Shared::default())))
        .merge(page)
        .layer(middleware::from_fn(without_body));
    server.run(listener, router).await;
}

/// No path takes a body, so one is not read, and nothing after it.
async fn without_body(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        [(CONNECTION, "close")],
        "no path takes a body\n",
    )
        .into_response()
}

/// 200 while the desired state is programmed on all its interfaces.
async fn ready(State(shown): Shown) -> (StatusCode, String) {
    let endpoint = &shown.0;
    match endpoint.control.view().not_ready(&endpoint.interfaces.borrow()) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn metrics(State(shown): Shown, headers: HeaderMap) -> Response {
    let format = Format::of(&headers);
    let render = async || {
        let endpoint = Arc::clone(&shown);
        // Reading maps is system calls, which may take a while.
        let encode = move || Ok(Bytes::from(format.encode(text(&endpoint.0)?)?));
        task::spawn_blocking(encode).await?
    };
    match shown.1.get(format, render).await {
        Ok(body) => {
            let mut response = body.into_response();
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
            headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
            if format.gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Err::<_, MetricsError>(error) => (StatusCode::INTERNAL_SERVER_ERROR, chain(&error)).into_response(),
    }
}

fn text(endpoint: &Endpoint) -> Result<String, MetricsError> {
    let view = endpoint.control.view();
    let interfaces = endpoint.interfaces.borrow().clone();
    let scrape = Scrape {
        registry: &endpoint.registry,
        ready: view.not_ready(&interfaces).is_none(),
        view: &view,
        seen: &endpoint.observer.observe(&view)?,
        checks: &endpoint.health.snapshot(),
        agents: &endpoint.health.agents().snapshot(),
        hosts: &endpoint.hosts.borrow().clone(),
        parts: &endpoint.parts,
        events: &endpoint.events,
        program: &program_tag(&interfaces),
        differs_from_file: endpoint
            .config
            .as_ref()
            .map(|file| !file.compare(&view.stored()).is_in_force()),
        now: SystemTime::now(),
        instant: Instant::now(),
    };
    Ok(render(&scrape)?)
}

/// Tag of the program on the first interface that has it.
fn program_tag(interfaces: &[Interface]) -> String {
    let attached = interfaces
        .iter()
        .find_map(|interface| interface.attached.as_ref());
    attached
        .map(|attached| attached.program_tag.clone())
        .unwrap_or_default()
}
