//! Clients of every kind, over pipes in memory, in simulated time.

use std::{collections::VecDeque, sync::Mutex};

use axum::{
    body::{Body, Bytes},
    response::Response,
    routing::{get, post},
};
use http_body_util::{BodyExt, channel::Channel};
use prometheus::Registry;
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::*;

const LIMITS: Limits = Limits {
    connections: 2,
    idle: Duration::from_secs(30),
    head_bytes: 8_192,
    head: Duration::from_secs(10),
    body: Duration::from_secs(20),
    stall: Duration::from_secs(5),
    answer: Some(Duration::from_secs(60)),
    reserve: 1,
};
/// Bytes that a pipe holds.
const PIPE: usize = 64;

/// Accepts the connections that the test sends.
struct Pipes(tokio::sync::Mutex<mpsc::UnboundedReceiver<io::Result<DuplexStream>>>);

impl Listener for Pipes {
    type Io = DuplexStream;
    type Open = DuplexStream;

    async fn open(&self, io: DuplexStream) -> io::Result<(DuplexStream, Option<Peer>)> {
        Ok((io, None))
    }

    async fn accept(&self) -> io::Result<DuplexStream> {
        match self.0.lock().await.recv().await {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }
}

struct Running {
    accepts: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    metrics: ListenerMetrics,
    registry: Registry,
    cancel: CancellationToken,
    task: JoinHandle<()>,
    /// Ends answers to `/held`.
    held: Arc<Mutex<VecDeque<oneshot::Sender<()>>>>,
}

impl Running {
    fn start() -> Self {
        let (accepts, listener) = mpsc::unbounded_channel();
        let registry = Registry::new();
        let metrics = ServerMetrics::register(&registry).unwrap().listener("test");
        let cancel = CancellationToken::new();
        let server = Server {
            limits: LIMITS,
            metrics: metrics.clone(),
            released: Arc::default(),
            cancel: cancel.clone(),
        };
        let held = Arc::new(Mutex::new(VecDeque::new()));
        let waiting = Arc::clone(&held);
        let router = Router::new()
            .route("/", get(async || "ok"))
            .route("/large", get(async || "x".repeat(100 * PIPE)))
            .route("/body", post(async |bytes: Bytes| bytes.len().to_string()))
            .route(
                "/thinks",
                post(async |body: Body| {
                    let mut body = body;
                    while body.frame().await.is_some() {}
                    time::sleep(2 * LIMITS.body).await;
                    drop(body);
                }),
            )
            .route(
                "/skips",
                post(async |body: Body| {
                    let mut body = body;
                    body.frame().await.unwrap().unwrap();
                    drop(body);
                    time::sleep(2 * LIMITS.body).await;
                }),
            )
            .route(
                "/held",
                get(async move || {
                    let (sender, receiver) = oneshot::channel();
                    waiting.lock().unwrap().push_back(sender);
                    let _ = receiver.await;
                    "held"
                }),
            )
            .route(
                "/events",
                get(async || {
                    let (mut sender, body) = Channel::<Bytes>::new(1);
                    tokio::spawn(async move {
                        while sender.send_data(Bytes::from_static(b"event\n")).await.is_ok() {
                            time::sleep(Duration::from_secs(1)).await;
                        }
                    });
                    let mut response = Response::new(Body::new(body));
                    response.extensions_mut().insert(Endless);
                    response
                }),
            )
            .route(
                "/endless",
                get(async || {
                    let (mut sender, body) = Channel::<Bytes>::new(1);
                    tokio::spawn(async move {
                        while sender.send_data(Bytes::from_static(b"x")).await.is_ok() {
                            time::sleep(Duration::from_secs(1)).await;
                        }
                    });
                    Body::new(body)
                }),
            );
        let task = tokio::spawn(server.run(Pipes(tokio::sync::Mutex::new(listener)), router));
        Self {
            accepts,
            metrics,
            registry,
            cancel,
            task,
            held,
        }
    }

    /// A client that has sent `request`.
    async fn client(&self, request: &str) -> DuplexStream {
        let (mut client, server) = duplex(PIPE);
        self.accepts.send(Ok(server)).unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    fn ended(&self, cause: Ended) -> u64 {
        self.metrics
            .ended
            .with_label_values(&["test", cause.name()])
            .get()
    }

    fn open(&self) -> i64 {
        self.metrics.connections.get()
    }
}

/// All that comes until the end.
async fn rest(mut client: DuplexStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

async fn first_line(client: &mut DuplexStream) -> String {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(char::from(client.read_u8().await.unwrap()));
    }
    line
}

const WHOLE: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_too_long_is_ended_and_counted() {
    let body = "POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nfive!";
    for (request, ended, after) in [
        ("", Ended::Idle, LIMITS.idle),
        ("GET / HT", Ended::SlowRequest, LIMITS.head),
        (body, Ended::SlowRequest, LIMITS.body),
        (WHOLE, Ended::Idle, LIMITS.idle),
    ] {
        let server = Running::start();
        let began = Instant::now();
        rest(server.client(request).await).await;
        assert_eq!(began.elapsed().as_secs(), after.as_secs(), "{request:?}");
        assert_eq!(server.ended(ended), 1, "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_trickle_in_do_not_prolong_a_request() {
    let server = Running::start();
    let mut client = server.client("GET / HTTP/1.1\r\n").await;
    let began = Instant::now();
    while client.write_all(b"a: b\r\n").await.is_ok() {
        time::sleep(Duration::from_secs(1)).await;
    }
    let took = began.elapsed();
    assert!(
        took >= LIMITS.head && took <= LIMITS.head + Duration::from_secs(1),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_read_is_closed_and_a_reader_gets_all() {
    let server = Running::start();
    let large = "GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let began = Instant::now();
    let asleep = server.client(large).await;
    let awake = rest(server.client(large).await).await;
    assert!(awake.ends_with(&"x".repeat(100 * PIPE)));
    while server.open() > 0 {
        time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() <= 2 * LIMITS.stall);
    assert_eq!(server.ended(Ended::SlowReader), 1);
    assert!(!rest(asleep).await.ends_with(&"x".repeat(100 * PIPE)));
    // A slow reader has one time limit for the whole answer.
    let began = Instant::now();
    rest(server.client("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await).await;
    assert_eq!(
        Some(began.elapsed().as_secs()),
        LIMITS.answer.map(|time| time.as_secs())
    );
}

/// The last bytes of an answer have no time of their own.
#[tokio::test(start_paused = true)]
async fn late_answer_has_the_rest_of_its_time_limit() {
    let server = Running::start();
    let mut client = server.client("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    time::sleep(Duration::from_secs(50)).await;
    let held = server.held.lock().unwrap().pop_front().unwrap();
    held.send(()).unwrap();
    while client.read_u8().await.is_ok() {
        time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(server.ended(Ended::SlowReader), 1);
}

/// The time for a body ends with it, whether it was read to its end or not: a handler may take longer.
#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_longer_than_a_body_may_is_waited_for() {
    let server = Running::start();
    for path in ["/thinks", "/skips"] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nten bytes");
        let mut client = server.client(&request).await;
        time::sleep(Duration::from_secs(1)).await;
        client.write_all(b"!").await.unwrap();
        assert!(first_line(&mut client).await.contains("200"), "{path}");
    }
    assert_eq!(server.ended(Ended::SlowRequest), 0);
}

/// A page that follows the daemon is not cut off while it reads, and is once it does not.
#[tokio::test(start_paused = true)]
async fn an_endless_answer_ends_with_a_reader_that_stops_to_read() {
    let server = Running::start();
    let mut client = server.client("GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let limit = LIMITS.answer.unwrap();
    let began = Instant::now();
    while began.elapsed() < 3 * limit {
        client.read_u8().await.unwrap();
    }
    assert_eq!((server.ended(Ended::SlowReader), server.open()), (0, 1));
    let stopped = Instant::now();
    while server.open() > 0 {
        time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.ended(Ended::SlowReader), 1);
    // Some events fit into the pipe.
    assert!(stopped.elapsed() < LIMITS.stall + Duration::from_secs(PIPE as u64));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_long_is_refused() {
    let server = Running::start();
    let long = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "x".repeat(LIMITS.head_bytes)
    );
    let (mut client, io) = duplex(2 * LIMITS.head_bytes);
    server.accepts.send(Ok(io)).unwrap();
    client.write_all(long.as_bytes()).await.unwrap();
    assert!(first_line(&mut client).await.contains("431"));
}

#[tokio::test]
async fn only_clients_of_the_listed_prefixes_connect() {
    for (access, admitted) in [
        (vec![], true),
        (vec!["127.0.0.0/8"], true),
        (vec!["10.0.0.0/8", "::1"], false),
        (vec!["10.0.0.0/8", "127.0.0.1"], true),
    ] {
        // A socket for both families sees IPv4 clients with mapped addresses.
        for address in ["127.0.0.1:0", "[::]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let restricted = Restricted {
                listener,
                access: access.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            };
            let _client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let io = Listener::accept(&restricted).await.unwrap();
            assert_eq!(restricted.admits(&io), admitted, "{access:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_be_accepted_costs_itself_alone() {
    for (error, wait) in [(libc::ECONNABORTED, Duration::ZERO), (libc::EIO, ACCEPT_RETRY)] {
        let server = Running::start();
        let began = Instant::now();
        let error = io::Error::from_raw_os_error(error);
        server.accepts.send(Err(error)).unwrap();
        let mut client = server.client(WHOLE).await;
        assert!(first_line(&mut client).await.contains("200"));
        assert_eq!(began.elapsed().as_millis() / 10, wait.as_millis() / 10);
    }
}

#[test]
fn memory_is_given_back_after_most_of_many_connections_end() {
    for (connections, expected) in [(MANY, &[MANY / 2][..]), (MANY - 1, &[])] {
        let all = Connections::default();
        let entries: Vec<u64> = (0..connections).map(|_| all.enter().1).collect();
        let gone = (1..).zip(entries).filter(|(_, entry)| all.leave(*entry));
        assert_eq!(gone.map(|(gone, _)| gone).collect::<Vec<_>>(), expected);
    }
}

/// A client with a request gets an answer, however many connections are idle.
#[tokio::test(start_paused = true)]
async fn longest_idle_connection_is_closed_first() {
    let server = Running::start();
    let oldest = server.client("").await;
    time::sleep(Duration::from_secs(1)).await;
    let _slow = server.client("GET / HT").await;
    time::sleep(Duration::from_secs(1)).await;
    let mut new = server.client(WHOLE).await;
    assert!(first_line(&mut new).await.contains("200"));
    assert_eq!(rest(oldest).await, "");
    assert_eq!((server.ended(Ended::Displaced), server.open()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn where_all_are_busy_a_new_client_is_refused_in_words() {
    let server = Running::start();
    let held = "GET /held HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let busy = [server.client(held).await, server.client(held).await];
    while server.held.lock().unwrap().len() < busy.len() {
        tokio::task::yield_now().await;
    }
    let refused = rest(server.client("").await).await;
    let (head, body) = refused.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
    serde_json::from_str::<crate::api::requests::ErrorBody>(body).unwrap();
    assert_eq!(server.ended(Ended::Full), 1);
    // The end of the daemon ends neither of them before its answer.
    server.cancel.cancel();
    for end in server.held.lock().unwrap().drain(..) {
        end.send(()).unwrap();
    }
    for client in busy {
        assert!(rest(client).await.ends_with("held"));
    }
    server.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_descriptors_an_idle_client_gives_up_its_own() {
    let server = Running::start();
    let idle = server.client("").await;
    server
        .accepts
        .send(Err(io::Error::from_raw_os_error(libc::EMFILE)))
        .unwrap();
    let mut new = server.client(WHOLE).await;
    assert!(first_line(&mut new).await.contains("200"));
    assert_eq!(rest(idle).await, "");
    assert_eq!(server.ended(Ended::NoDescriptor), 1);
    assert_eq!(server.ended(Ended::Displaced), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_daemon_ends_idle_connections() {
    let server = Running::start();
    let idle = server.client("").await;
    let mut kept = server.client(WHOLE).await;
    first_line(&mut kept).await;
    let began = Instant::now();
    server.cancel.cancel();
    assert_eq!(rest(idle).await, "");
    server.task.await.unwrap();
    assert!(began.elapsed() < LIMITS.idle, "their time-out is not waited for");
    let families = server.registry.gather();
    let named = |name: &str| families.iter().any(|family| family.name() == name);
    assert!(named("lb_listener_connections") && named("lb_listener_ended_total"));
}

#[test]
fn a_reserve_is_given_up_as_a_whole_and_filled_again() {
    let mut reserve = Reserve::new(3);
    assert!(!reserve.release());
    reserve.fill();
    assert_eq!(reserve.held.len(), 3);
    assert!(reserve.release() && reserve.held.is_empty());
}
