//! HTTP/2 against peers that send frames, half frames and everything else byte by byte. The root lanes have real
//! servers.

use super::*;

/// The first bytes of a client (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// `:status: 200` (RFC 7541 appendix A).
pub(super) const STATUS_200: &[u8] = &[0x88];
/// `:status: 503`.
const STATUS_503: &[u8] = b"\x48\x03503";

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [
        &length[1..],
        &[kind, flags],
        stream.to_be_bytes().as_slice(),
        payload,
    ]
    .concat()
}

pub(super) fn hello() -> Vec<u8> {
    frame(SETTINGS, 0, 0, b"")
}

/// A whole answer on a stream.
pub(super) fn answer(stream: u32, status: &[u8], body: &[u8]) -> Vec<u8> {
    [
        frame(HEADERS, END_HEADERS, stream, status),
        frame(DATA, END_STREAM, stream, body),
    ]
    .concat()
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
    frame(GOAWAY, 0, 0, &payload)
}

/// The reaction of a peer to a request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Send(Vec<u8>),
    SendAndClose(Vec<u8>),
    SendAndReset(Vec<u8>),
    /// Sends the first once, the second for ever.
    Endless(Vec<u8>, Vec<u8>),
}

/// Answers the n-th request of each connection with the n-th reply; then closes it at the next request. Counts
/// connections.
pub(super) async fn peer(replies: Vec<Reply>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream, replies.clone()));
        }
    });
    (address, connections)
}

async fn serve(mut stream: TcpStream, replies: Vec<Reply>) {
    let mut preface = [0; PREFACE.len()];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    assert_eq!(preface, PREFACE);
    for reply in replies {
        if !request_came(&mut stream).await {
            return;
        }
        match reply {
            Reply::Send(bytes) => drop(stream.write_all(&bytes).await),
            Reply::SendAndClose(bytes) => return drop(stream.write_all(&bytes).await),
            Reply::SendAndReset(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return stream.set_zero_linger().unwrap();
            }
            Reply::Endless(first, rest) => {
                let mut sent = stream.write_all(&first).await;
                while sent.is_ok() {
                    sent = stream.write_all(&rest).await;
                }
            }
        }
    }
    request_came(&mut stream).await;
}

/// Reads frames up to the next HEADERS.
async fn request_came(stream: &mut TcpStream) -> bool {
    loop {
        let mut header = [0; 9];
        if stream.read_exact(&mut header).await.is_err() {
            return false;
        }
        let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
        if stream.read_exact(&mut payload).await.is_err() {
            return false;
        }
        if header[3] == HEADERS {
            return true;
        }
    }
}

pub(super) fn http2(change: impl FnOnce(&mut HttpCheck)) -> Http2Checker {
    let mut settings = HttpCheck::default();
    change(&mut settings);
    Http2Checker::new(&settings).unwrap()
}

/// Each way to fail gives its own error, and none takes longer than the time-out.
#[tokio::test(start_paused = true)]
async fn each_failure_has_its_own_error() {
    use Reply::{Endless, Send, SendAndClose, SendAndReset};
    let and = |frames: &[Vec<u8>]| [vec![hello()], frames.to_vec()].concat().concat();
    let head = frame(HEADERS, END_HEADERS, 1, STATUS_200);
    let half_body = frame(DATA, 0, 1, b"o");
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    let code = |code: u32| frame(RST_STREAM, 0, 1, &code.to_be_bytes());
    let cases = [
        (Send(vec![]), "timed out in Request"),
        (Send(and(&[])), "timed out in Request"),
        (Send(cut(and(std::slice::from_ref(&head)))), "timed out in Frame"),
        (
            Send(and(&[frame(HEADERS, 0, 1, STATUS_200)])),
            "timed out in Head",
        ),
        (Send(and(&[head.clone(), half_body.clone()])), "timed out in Body"),
        (
            Send(cut(and(&[head.clone(), half_body.clone()]))),
            "timed out in Frame",
        ),
        (SendAndClose(vec![]), "closed in Request"),
        (SendAndClose(and(&[])), "closed in Request"),
        (
            SendAndClose(cut(and(std::slice::from_ref(&head)))),
            "closed in Frame",
        ),
        (
            SendAndClose(and(&[head.clone(), half_body.clone()])),
            "closed in Body",
        ),
        (SendAndReset(vec![]), "reset in Request"),
        (
            SendAndReset(and(&[head.clone(), half_body.clone()])),
            "reset in Body",
        ),
        (
            Send(and(&[answer(1, STATUS_503, b"ok")])),
            "status 503 from URL, expected 200",
        ),
        (
            Send(and(&[answer(1, STATUS_200, b"bad")])),
            "body of URL does not match \"^ok$\" in its first 3 bytes",
        ),
        (
            Send(and(&[head, frame(DATA, 0, 1, &b"ok and more".repeat(100))])),
            "body of URL does not match \"^ok$\" in its first 1000 bytes",
        ),
        (
            Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            "answers in HTTP/1 and does not speak HTTP/2",
        ),
        (
            Send(b"220 mail.example ESMTP\r\n".to_vec()),
            "does not speak HTTP/2: its first frame is not SETTINGS",
        ),
        (
            SendAndClose(and(&[goaway(0, 11)])),
            "gave the HTTP/2 connection up: GOAWAY with ENHANCE_YOUR_CALM",
        ),
        (
            Send(and(&[goaway(0, 0)])),
            "gave the HTTP/2 connection up: GOAWAY with NO_ERROR",
        ),
        (
            SendAndClose(and(&[code(7)])),
            "gave the request up: RST_STREAM with REFUSED_STREAM",
        ),
        (
            Send(and(&[code(2)])),
            "gave the request up: RST_STREAM with INTERNAL_ERROR",
        ),
        (
            Send(and(&[frame(DATA, 0, 1, &[0; 20_000])])),
            "breaks the rules of HTTP/2: FRAME_SIZE_ERROR",
        ),
        (
            Send(and(&[frame(DATA, 0, 1, b"before its head")])),
            "breaks the rules of HTTP/2: PROTOCOL_ERROR",
        ),
        // A header field of a table that is empty.
        (
            Send(and(&[frame(HEADERS, END_HEADERS, 1, b"\xbe")])),
            "breaks the rules of HTTP/2: PROTOCOL_ERROR",
        ),
        (
            Endless(
                and(&[frame(HEADERS, 0, 1, STATUS_200)]),
                frame(CONTINUATION, 0, 1, &b"\x00\x01a\x01b".repeat(100)),
            ),
            "breaks the rules of HTTP/2: ENHANCE_YOUR_CALM",
        ),
    ];
    let timeout = SECOND * 5;
    for (reply, expected) in cases {
        let (target, connections) = peer(vec![reply.clone()]).await;
        let checker = http2(|http| {
            http.expect_body = Some("^ok$".to_owned());
            http.max_body = 1000;
        });
        let started = Instant::now();
        let error = settled(checker.check(target, timeout)).await.unwrap_err();
        assert_eq!(class(&error), expected, "{reply:?}");
        // Simulated time: one tick of the timer wheel at most.
        assert!(
            started.elapsed() <= timeout + Duration::from_millis(1),
            "{expected}: {:?}",
            started.elapsed()
        );
        assert_eq!(connections.load(Ordering::SeqCst), 1, "{expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_and_black_hole() {
    let (_taken, target) = refusing();
    assert_eq!(
        settled(http2(any).check(target, SECOND)).await,
        Err(CheckError::Refused(target))
    );
    let (_listener, _filler, target) = black_hole();
    let timed_out = CheckError::TimedOut {
        target,
        stage: Stage::Connect,
        after: SECOND,
    };
    assert_eq!(http2(any).check(target, SECOND).await, Err(timed_out));
}

#[tokio::test]
async fn connections_are_kept_and_renewed() {
    let replies = (0..100_u32).map(|n| {
        let start = if n == 0 { hello() } else { Vec::new() };
        // In between it sends a PING, and changes its SETTINGS.
        let between = [frame(PING, 0, 0, b"are you?"), hello()].concat();
        Reply::Send([start, answer(2 * n + 1, STATUS_200, b"ok"), between].concat())
    });
    let (target, connections) = peer(replies.collect()).await;
    let checker = http2(any);
    for check in 0..25 {
        checker.check(target, PLENTY).await.unwrap();
        let expected = check / usize::try_from(FRESH_EVERY).unwrap() + 1;
        // The first check tries a second connection.
        assert_eq!(connections.load(Ordering::SeqCst), expected + 1);
    }
}

/// Servers give up idle connections whenever they like; that is no failure of the backend.
#[tokio::test]
async fn a_stale_connection_is_replaced_before_it_counts() {
    use Reply::{Send, SendAndClose, SendAndReset};
    let first = [hello(), answer(1, STATUS_200, b"")].concat();
    let cases = [
        ("closed at once", vec![SendAndClose(first.clone())]),
        (
            "given up at once",
            vec![SendAndClose([first.clone(), goaway(1, 0)].concat())],
        ),
        (
            "given up and left open",
            vec![Send([first.clone(), goaway(1, 0)].concat())],
        ),
        (
            "given up when used again",
            vec![Send(first.clone()), Send(goaway(1, 0))],
        ),
        (
            "closed when used again",
            vec![Send(first.clone()), SendAndClose(vec![])],
        ),
        ("reset when used again", vec![Send(first), SendAndReset(vec![])]),
    ];
    for (name, replies) in cases {
        let (target, connections) = peer(replies).await;
        let checker = http2(any);
        for check in 1..=5 {
            let outcome = checker.check(target, PLENTY).await.map(drop);
            assert_eq!(outcome, Ok(()), "{name}");
            assert_eq!(connections.load(Ordering::SeqCst), check + 1, "{name}");
        }
    }
}

/// A server that respects flow control and whose bodies have `length` bytes.
pub(super) async fn long_winded(length: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut server = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = server.accept().await {
                    let head = ::http::Response::new(());
                    let mut body = respond.send_response(head, false).unwrap();
                    body.send_data(bytes::Bytes::from(vec![b'x'; length]), true)
                        .unwrap();
                }
            });
        }
    });
    (address, connections)
}

/// A body is read to its bound and not further, and the flow-control window is opened until then.
#[tokio::test]
async fn a_long_body_is_read_to_its_bound() {
    let (target, connections) = long_winded(MAX_BODY_LIMIT).await;
    let bounded = |max_body| {
        http2(|http| {
            http.max_body = max_body;
            http.expect_body = Some("^x*$".to_owned());
        })
    };
    let cases = [
        // A truncated body leaves the connection in the middle of an answer; a kept one is tested beside another.
        (MAX_BODY_LIMIT - 1, 3),
        (MAX_BODY_LIMIT, 2),
        (1, 3),
    ];
    for (max_body, fresh) in cases {
        let before = connections.load(Ordering::SeqCst);
        let checker = bounded(max_body);
        for _ in 0..3 {
            checker.check(target, PLENTY).await.unwrap();
        }
        assert_eq!(connections.load(Ordering::SeqCst) - before, fresh, "{max_body}");
    }
    let error = http2(|http| {
        http.max_body = MAX_BODY_LIMIT;
        http.expect_body = Some("y".to_owned());
    });
    let error = error.check(target, PLENTY).await.unwrap_err();
    let expected =
        format!("body of http://{target}/ does not match \"y\" in its first {MAX_BODY_LIMIT} bytes");
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn request_follows_the_settings() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = server.accept().await {
                respond.send_response(::http::Response::new(()), true).unwrap();
                let headers = request.headers().iter();
                let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
                let headers = headers.collect::<Vec<_>>().join(", ");
                seen.push(format!("{} {} {headers}", request.method(), request.uri()));
            }
        }
        seen
    });
    let checker = http2(|http| {
        http.method = "POST".to_owned();
        http.path = "/check?deep=1".to_owned();
        http.host = Some("web.example:81".to_owned());
        http.headers = vec![
            ("X-Key".to_owned(), "a b".to_owned()),
            ("User-Agent".to_owned(), "us".to_owned()),
        ];
        http.keep_alive = false;
    });
    checker.check(target, PLENTY).await.unwrap();
    drop(checker);
    let checker = http2(|http| http.keep_alive = false);
    checker.check(target, PLENTY).await.unwrap();
    drop(checker);
    let agent = concat!("user-agent: lb-health/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        server.await.unwrap(),
        [
            "POST http://web.example:81/check?deep=1 x-key: a b, user-agent: us, content-length: 0"
                .to_owned(),
            format!("GET http://{target}/ {agent}"),
        ]
    );
}

#[test]
fn settings_that_make_no_request_are_refused() {
    type Change = fn(&mut HttpCheck);
    let cases: [(Change, &str); 5] = [
        (
            |http| http.headers = vec![("Upgrade".to_owned(), "h2c".to_owned())],
            "header \"Upgrade\" cannot be set",
        ),
        (
            |http| http.headers = vec![("TE".to_owned(), "trailers".to_owned())],
            "header \"TE\" cannot be set",
        ),
        (
            |http| http.host = Some("a/b".to_owned()),
            "\"a/b\" is no host name",
        ),
        (
            |http| http.path = "/a#b".to_owned(),
            "path \"/a#b\" must begin with /",
        ),
        (|http| http.expect_status = vec![], "expected statuses must be"),
    ];
    for (change, expected) in cases {
        let mut settings = HttpCheck::default();
        change(&mut settings);
        let problems = super::super::http2::problems(&settings);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().starts_with(expected), "{problems:?}");
    }
}
