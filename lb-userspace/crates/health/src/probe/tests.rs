//! Checkers against real sockets on loopback. Timeouts use simulated time: it jumps to the next timer when there is no
//! other work, but not before packets in flight had time to arrive ([`settled`]).

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::{spawn_blocking, yield_now},
    time::{self, Instant},
};

use crate::{
    CheckError,
    settings::{CheckKind, CheckSettings, HttpCheck, Through},
};

mod certificates;
mod datagrams;
mod dialogue;
mod endless;
mod exec;
mod grpc;
mod heads;
mod http2;
mod keeping;
mod proxied;
mod tls;
mod ways;

use super::*;
use crate::{error::Stage, status::LastCheck};

/// Longer than any stall of the machine, for tests that run in real time.
const PLENTY: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// Real time for packets in flight between two sockets of this machine: a busy kernel delivers late.
const DELIVERY: Duration = Duration::from_millis(250);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The reaction of a peer to one request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// Sends it and waits for the next request.
    Send(&'static [u8]),
    SendAndClose(&'static [u8]),
    SendAndReset(&'static [u8]),
    /// Sends the first once, the second for ever.
    Endless(&'static [u8], &'static [u8]),
}

/// A server on loopback.
struct Peer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Peer {
    /// Answers the n-th request of each connection with the n-th answer; then closes it at the next request.
    async fn start(answers: &'static [Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, requests) = (Arc::clone(&peer.connections), Arc::clone(&peer.requests));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, answers, Arc::clone(&requests)));
            }
        });
        peer
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answers: &[Answer], requests: Arc<std::sync::Mutex<Vec<String>>>) {
    for answer in answers {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        requests.lock().unwrap().push(String::from_utf8(request).unwrap());
        // A checker that has seen enough resets the connection: errors are no failure here.
        match *answer {
            Answer::Send(bytes) => drop(stream.write_all(bytes).await),
            Answer::SendAndClose(bytes) => return drop(stream.write_all(bytes).await),
            Answer::SendAndReset(bytes) => {
                let _ = stream.write_all(bytes).await;
                return stream.set_zero_linger().unwrap();
            }
            Answer::Endless(first, rest) => {
                let mut sent = stream.write_all(first).await;
                while sent.is_ok() {
                    sent = stream.write_all(rest).await;
                }
            }
        }
    }
    let _ = stream.read(&mut [0; 1]).await;
}

/// Awaits a check in simulated time, which stands still meanwhile: for [`DELIVERY`] of real time at most.
async fn settled<T>(check: impl Future<Output = T>) -> T {
    let (over, wait) = mpsc::channel::<()>();
    // Simulated time does not move while there is blocking work.
    let held = spawn_blocking(move || {
        let _ = wait.recv_timeout(DELIVERY);
    });
    let outcome = check.await;
    drop(over);
    held.await.unwrap();
    outcome
}

/// A port that is taken and refuses.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A listener that never accepts and whose backlog is full: the kernel drops further connection requests.
fn black_hole() -> (TcpListener, std::net::TcpStream, SocketAddr) {
    let (socket, address) = refusing();
    let listener = socket.listen(0).unwrap();
    let filler = std::net::TcpStream::connect(address).unwrap();
    (listener, filler, address)
}

fn http(change: impl FnOnce(&mut HttpCheck)) -> HttpChecker {
    let mut settings = HttpCheck {
        path: "/health".to_owned(),
        ..HttpCheck::default()
    };
    change(&mut settings);
    HttpChecker::new(&settings).unwrap()
}

fn any(_: &mut HttpCheck) {}

#[tokio::test]
async fn tcp_check_succeeds_without_the_servers_doing() {
    // Bound and listening, but never accepting: the kernel completes the connection.
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let latency = TcpChecker
        .check(listener.local_addr().unwrap(), PLENTY)
        .await
        .unwrap();
    assert!(latency.0 < PLENTY);
}

/// Sockets of the table of TCP whose local or remote port is `port`, in `state` (as in `/proc/net/tcp`).
fn sockets(port: u16, state: &str) -> usize {
    let port = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let found = table.lines().filter(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[3] == state && (fields[1].ends_with(&port) || fields[2].ends_with(&port))
    });
    found.count()
}

/// Less than TIME_WAIT lasts.
const SETTLES: Duration = Duration::from_secs(10);

/// Waits until there are `count`: a table read while it changes may miss a socket, or show one twice.
async fn settles(port: u16, state: &str, count: usize) {
    let settled = async {
        while sockets(port, state) != count {
            tokio::task::yield_now().await;
        }
    };
    let settled = tokio::time::timeout(SETTLES, settled).await;
    assert!(
        settled.is_ok(),
        "{} sockets in state {state}",
        sockets(port, state)
    );
}

const ESTABLISHED: &str = "01";
const TIME_WAIT: &str = "06";

#[tokio::test]
async fn a_half_open_check_never_reaches_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let half = TcpProbe {
        half_open: true,
        ..TcpProbe::default()
    };
    for _ in 0..20 {
        half.check(target, PLENTY).await.unwrap();
    }
    // The next accepted connection is the only completed one.
    let marker = TcpStream::connect(target).await.unwrap();
    let (_accepted, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, marker.local_addr().unwrap());
    settles(target.port(), TIME_WAIT, 0).await;
    // Both ends of the marker, and no connection of the checks.
    settles(target.port(), ESTABLISHED, 2).await;

    let (_taken, target) = refusing();
    assert_eq!(half.check(target, PLENTY).await, Err(CheckError::Refused(target)));
}

#[tokio::test]
async fn source_address_is_as_set() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let from = |source: &str| TcpProbe {
        route: Route {
            source: Some(source.parse().unwrap()),
            ..Route::default()
        },
        half_open: false,
    };
    from("127.0.0.9").check(target, PLENTY).await.unwrap();
    let (_, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.9");
    for wrong in ["::1", "192.0.2.77"] {
        let error = from(wrong).check(target, PLENTY).await.unwrap_err();
        assert!(error.is_local(), "{error}");
    }
}

#[tokio::test]
async fn checks_leave_no_port_in_time_wait() {
    let peer = Peer::start(&[Answer::Send(OK)]).await;
    for _ in 0..20 {
        TcpChecker.check(peer.address, PLENTY).await.unwrap();
        http(any).check(peer.address, PLENTY).await.unwrap();
    }
    settles(peer.address.port(), TIME_WAIT, 0).await;
}

#[tokio::test]
async fn refused() {
    let (_taken, target) = refusing();
    assert_eq!(
        TcpChecker.check(target, PLENTY).await,
        Err(CheckError::Refused(target))
    );
    assert_eq!(
        http(any).check(target, PLENTY).await,
        Err(CheckError::Refused(target))
    );
}

/// The name of an error with its stage, without the numbers.
fn class(error: &CheckError) -> String {
    match error {
        CheckError::TimedOut { stage, .. } => format!("timed out in {stage:?}"),
        CheckError::Reset { stage, .. } => format!("reset in {stage:?}"),
        CheckError::Closed { stage, .. } => format!("closed in {stage:?}"),
        CheckError::NotHttp { reason, .. } => format!("not http: {reason}"),
        CheckError::Http2 { problem, .. } => problem.to_string(),
        CheckError::Status { url, .. } | CheckError::Body { url, .. } => {
            error.to_string().replace(&**url, "URL")
        }
        CheckError::Refused(_)
        | CheckError::Unreachable { .. }
        | CheckError::Connection { .. }
        | CheckError::Tls { .. }
        | CheckError::Grpc { .. }
        | CheckError::Answer { .. }
        | CheckError::Command { .. }
        | CheckError::Certificate { .. }
        | CheckError::Protocol { .. }
        | CheckError::NoEcho { .. }
        | CheckError::Reported { .. }
        | CheckError::Expired { .. }
        | CheckError::IcmpError { .. }
        | CheckError::Through { .. }
        | CheckError::Endless { .. }
        | CheckError::Local { .. } => panic!("{error}"),
    }
}

/// Each way to fail gives its own error, and none takes longer than the time-out.
#[tokio::test(start_paused = true)]
async fn each_failure_has_its_own_error() {
    use Answer::{Endless, Send, SendAndClose, SendAndReset};
    let cases: [(&'static [Answer], &str); 16] = [
        (&[Send(b"")], "timed out in Request"),
        (&[Send(b"HTTP/1.1 200 OK\r\nContent-")], "timed out in Head"),
        (&[Send(b"HTTP/1.1 100 Continue\r\n\r\n")], "timed out in Request"),
        (
            &[Send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok")],
            "timed out in Body",
        ),
        (&[SendAndClose(b"")], "closed in Request"),
        (&[SendAndClose(b"HTTP/1.1 200 OK\r\nContent-")], "closed in Head"),
        (
            &[SendAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok")],
            "closed in Body",
        ),
        (&[SendAndReset(b"")], "reset in Request"),
        (
            &[SendAndReset(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok")],
            "reset in Body",
        ),
        (
            &[Send(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n")],
            "status 503 from URL, expected 200",
        ),
        (
            &[Send(b"220 mail.example ESMTP\r\n")],
            "not http: it does not begin with HTTP/1.",
        ),
        (
            &[Send(b"\x15\x03\x01\x00\x02\x02\x0a")],
            "not http: it does not begin with HTTP/1.",
        ),
        (
            &[Endless(b"HTTP/1.1 200 OK\r\nX: ", b"yyyyyyyyyyyyyyyyyyyyy")],
            "not http: header too long",
        ),
        (
            &[Send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")],
            "body of URL does not match \"^ok$\" in its first 3 bytes",
        ),
        (
            &[Endless(b"HTTP/1.1 200 OK\r\n\r\n", b"ok and more")],
            "body of URL does not match \"^ok$\" in its first 1000 bytes",
        ),
        (
            &[Endless(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"2\r\nok\r\n",
            )],
            "body of URL does not match \"^ok$\" in its first 1000 bytes",
        ),
    ];
    let timeout = SECOND * 5;
    for (answers, expected) in cases {
        let peer = Peer::start(answers).await;
        let checker = http(|http| {
            http.expect_body = Some("^ok$".to_owned());
            http.max_body = 1000;
        });
        let started = Instant::now();
        let error = settled(checker.check(peer.address, timeout)).await.unwrap_err();
        assert_eq!(class(&error), expected);
        // Simulated time: one tick of the timer wheel at most.
        assert!(
            started.elapsed() <= timeout + Duration::from_millis(1),
            "{expected}: {:?}",
            started.elapsed()
        );
        assert_eq!(peer.connections(), 1, "{expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn black_hole_is_given_up_at_the_time_out() {
    let (_listener, _filler, target) = black_hole();
    let timed_out = Err(CheckError::TimedOut {
        target,
        stage: Stage::Connect,
        after: SECOND,
    });
    let started = Instant::now();
    assert_eq!(TcpChecker.check(target, SECOND).await, timed_out);
    assert_eq!(http(any).check(target, SECOND).await, timed_out);
    assert!(started.elapsed() <= 2 * SECOND + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn time_out_covers_the_whole_check_not_each_read() {
    // A byte now and then: each comes in time, the answer does not.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
        let mut sent = stream.write_all(head).await;
        while sent.is_ok() {
            time::sleep(SECOND / 4).await;
            sent = stream.write_all(b"x").await;
        }
    });
    let started = Instant::now();
    let checker = http(|http| http.expect_body = Some("x".repeat(100)));
    let error = settled(checker.check(target, SECOND)).await.unwrap_err();
    assert_eq!(
        error,
        CheckError::TimedOut {
            target,
            stage: Stage::Body,
            after: SECOND
        }
    );
    assert!(started.elapsed() <= SECOND + Duration::from_millis(1));
}

#[tokio::test]
async fn an_endless_body_is_read_to_its_bound_only() {
    let peer = Peer::start(&[Answer::Endless(b"HTTP/1.1 200 OK\r\n\r\n", b"more and more ")]).await;
    let checker = http(|http| http.expect_body = Some("^more and".to_owned()));
    checker.check(peer.address, PLENTY).await.unwrap();
    checker.check(peer.address, PLENTY).await.unwrap();
    // Its connection cannot be used again.
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn request_follows_the_settings() {
    let peer = Peer::start(&[Answer::Send(OK)]).await;
    let checker = http(|http| {
        http.method = "POST".to_owned();
        http.path = "/check?deep=1".to_owned();
        http.host = Some("web.example".to_owned());
        http.headers = vec![
            ("X-Key".to_owned(), "a b".to_owned()),
            ("User-Agent".to_owned(), "us".to_owned()),
        ];
    });
    checker.check(peer.address, PLENTY).await.unwrap();
    let first = peer.requests().swap_remove(0);
    let last = http(any).with_fresh_every(1);
    last.check(peer.address, PLENTY).await.unwrap();
    let agent = concat!("User-Agent: lb-health/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        [first, peer.requests().pop().unwrap()],
        [
            "POST /check?deep=1 HTTP/1.1\r\nHost: web.example\r\nX-Key: a b\r\nUser-Agent: us\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
            format!("GET /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{agent}\r\n\r\n", peer.address),
        ]
    );
}

#[tokio::test]
async fn connections_are_kept_and_renewed() {
    let peer = Peer::start(&[Answer::Send(OK); 100]).await;
    let checker = http(any);
    for check in 0..25 {
        checker.check(peer.address, PLENTY).await.unwrap();
        assert_eq!(
            peer.connections(),
            // The first check tries a second connection.
            check / usize::try_from(FRESH_EVERY).unwrap() + 2
        );
    }
    let checker = http(any).with_fresh_every(1);
    let before = peer.connections();
    for _ in 0..3 {
        checker.check(peer.address, PLENTY).await.unwrap();
    }
    assert_eq!(peer.connections(), before + 3);
}

/// After a failure the check uses a new connection, to see what new clients see.
#[tokio::test]
async fn a_wrong_status_keeps_no_connection() {
    static ANSWERS: [Answer; 2] = [
        Answer::Send(OK),
        Answer::Send(b"HTTP/1.1 503 no\r\nContent-Length: 5\r\n\r\nsorry"),
    ];
    let peer = Peer::start(&ANSWERS).await;
    let checker = http(any);
    checker.check(peer.address, PLENTY).await.unwrap();
    assert!(checker.check(peer.address, PLENTY).await.is_err());
    assert_eq!(peer.connections(), 2);
    checker.check(peer.address, PLENTY).await.unwrap();
    assert_eq!(peer.connections(), 3);
}

/// Servers give up idle connections whenever they like; that is no failure of the backend.
#[tokio::test]
async fn a_stale_connection_is_replaced_before_it_counts() {
    let cases: [(&str, &'static [Answer]); 4] = [
        ("closed at once", &[Answer::SendAndClose(OK)]),
        (
            "closed when used again",
            &[Answer::Send(OK), Answer::SendAndClose(b"")],
        ),
        (
            "reset when used again",
            &[Answer::Send(OK), Answer::SendAndReset(b"")],
        ),
        (
            "timed out by the server",
            &[Answer::Send(OK), Answer::SendAndClose(b"HTTP/1.1 408 x\r\n\r\n")],
        ),
    ];
    for (name, answers) in cases {
        let peer = Peer::start(answers).await;
        let checker = http(any);
        for check in 1..=5 {
            assert_eq!(
                checker.check(peer.address, PLENTY).await.map(|_| ()),
                Ok(()),
                "{name}"
            );
            assert_eq!(peer.connections(), check + 1, "{name}");
        }
    }
}

#[tokio::test]
async fn a_dead_server_is_not_hidden_by_the_second_try() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let checker = http(any);
    let answers = async {
        let mut streams = Vec::new();
        // The check tries a second connection.
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 1000]).await.unwrap(), 0);
            stream.write_all(OK).await.unwrap();
            streams.push(stream);
        }
        streams
    };
    let (first, streams) = tokio::join!(checker.check(target, PLENTY), answers);
    first.unwrap();
    drop((streams, listener));
    assert_eq!(
        checker.check(target, PLENTY).await,
        Err(CheckError::Refused(target))
    );
}

#[tokio::test]
async fn a_kept_connection_serves_its_own_target_only() {
    let good = Peer::start(&[Answer::Send(OK); 10]).await;
    let (_taken, refusing) = refusing();
    let checker = http(any);
    checker.check(good.address, PLENTY).await.unwrap();
    assert_eq!(
        checker.check(refusing, PLENTY).await,
        Err(CheckError::Refused(refusing))
    );
}

#[test]
fn settings_that_make_no_check_are_refused() {
    type Change = fn(&mut HttpCheck);
    let cases: [(Change, &str); 13] = [
        (|http| http.method = String::new(), "\"\" is no method of a check"),
        (
            |http| http.method = "GE T".to_owned(),
            "\"GE T\" is no method of a check",
        ),
        (
            |http| http.method = "CONNECT".to_owned(),
            "\"CONNECT\" is no method of a check",
        ),
        (
            |http| http.path = "health".to_owned(),
            "path \"health\" must begin with /",
        ),
        (
            |http| http.path = "/a b".to_owned(),
            "path \"/a b\" must begin with /",
        ),
        (
            |http| http.path = "/\r\nX: y".to_owned(),
            "path \"/\r\nX: y\" must begin with /",
        ),
        (
            |http| http.host = Some("a\r\nb".to_owned()),
            "\"a\r\nb\" is no host name",
        ),
        (
            |http| http.headers = vec![("Host".to_owned(), "a".to_owned())],
            "header \"Host\" cannot be set",
        ),
        (
            |http| http.headers = vec![("A:".to_owned(), "a".to_owned())],
            "header \"A:\" cannot be set",
        ),
        (
            |http| http.headers = vec![("A".to_owned(), "a\nb".to_owned())],
            "value of header \"A\" has control",
        ),
        (
            |http| http.expect_status = vec![200, 0],
            "expected statuses must be",
        ),
        (
            |http| http.expect_body = Some("(".to_owned()),
            "\"(\" is no regular expression",
        ),
        (
            |http| http.max_body = MAX_BODY_LIMIT + 1,
            "max_body must be between",
        ),
    ];
    for (change, expected) in cases {
        let mut settings = HttpCheck::default();
        change(&mut settings);
        let error = HttpChecker::new(&settings).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn impossible_check_is_explained_and_does_not_count() {
    let vip = CheckSettings {
        kind: CheckKind::Tcp,
        through: Through::Vip,
        ..CheckSettings::default()
    };
    let outcome = ProbeCache::default()
        .probe(&vip)
        .check("10.0.0.1:1".parse().unwrap(), SECOND)
        .await;
    let last = LastCheck {
        outcome: outcome.map(|_| ()),
        latency: SECOND,
        at: std::time::UNIX_EPOCH,
        parts: Default::default(),
        certificate: None,
        serves_one: false,
    };
    assert_eq!(
        last.detail(),
        "cannot check 10.0.0.1:1: only the balancer checks through the VIP"
    );
    assert!(last.outcome.unwrap_err().is_local());
}
