//! Peers whose answers do not end, in each state of each parser.

use tokio::{io, net::UdpSocket};

use super::{
    http2::{CONTINUATION, DATA, END_HEADERS, HEADERS, PING, SETTINGS, STATUS_200, frame, hello},
    tls::Authority,
    *,
};
use crate::settings::{DnsCheck, GrpcCheck, RecordType, TlsCheck, Transport};

/// The time-out of checks that must end by a bound of their own.
const TIMEOUT: Duration = PLENTY;
/// Simulated time between two pieces of a slow answer.
const PACE: Duration = Duration::from_millis(10);

/// An answer that begins with the first bytes and continues with the others.
type Endless = (&'static str, Vec<u8>, Vec<u8>);

/// A kind of check, the constructor of its checker, and answers to it.
type Kind = (&'static str, fn() -> Probe, Vec<Endless>);

/// Answers any request with `first` and then with `rest` without end, at once or at a `pace`.
async fn peer(first: Vec<u8>, rest: Vec<u8>, pace: Option<Duration>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // A flood comes in large pieces.
    let rest = match pace {
        Some(_) => rest,
        None => rest.repeat(16_384 / rest.len() + 1),
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (first, rest) = (first.clone(), rest.clone());
            tokio::spawn(async move {
                let (mut requests, mut answer) = stream.into_split();
                let _ = requests.read(&mut [0; 4096]).await;
                // Acknowledgements of the client must not fill its buffer.
                tokio::spawn(async move { io::copy(&mut requests, &mut io::sink()).await });
                let mut sent = answer.write_all(&first).await;
                while sent.is_ok() {
                    sent = answer.write_all(&rest).await;
                    if let Some(pace) = pace {
                        time::sleep(pace).await;
                    }
                }
            });
        }
    });
    address
}

fn wants_a_body(http: &mut HttpCheck) {
    http.expect_body = Some("^never$".to_owned());
    http.max_body = 1000;
}

/// Every state of a parser of HTTP/1.
fn http1_answers() -> Vec<Endless> {
    let head = "HTTP/1.1 200 OK\r\n";
    let chunked = &format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let states = [
        ("status line", "HTTP/1.1 200 ", "x"),
        ("header", &format!("{head}X: "), "y"),
        ("headers", head, "X: y\r\n"),
        ("interim answers", "", "HTTP/1.1 100 Continue\r\n\r\n"),
        (
            "interim answers with headers",
            "",
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n",
        ),
        (
            "body with a length",
            &format!("{head}Content-Length: 1000000000\r\n\r\n"),
            "x",
        ),
        ("body up to the end", &format!("{head}\r\n"), "x"),
        ("size of a chunk", chunked, "0"),
        ("extension of a chunk", &format!("{chunked}1;"), "x"),
        ("chunks", chunked, "1\r\nx\r\n"),
        ("end of a chunk", &format!("{chunked}1\r\nx"), "\r"),
        ("trailer", &format!("{chunked}0\r\nX: "), "y"),
        ("trailers", &format!("{chunked}0\r\n"), "X: y\r\n"),
    ];
    states
        .map(|(state, first, rest)| (state, first.into(), rest.into()))
        .into()
}

/// Every kind of frame that may come without end.
fn http2_answers() -> Vec<Endless> {
    const PRIORITY: u8 = 2;
    const WINDOW_UPDATE: u8 = 8;
    const UNKNOWN: u8 = 0x42;
    /// `:status: 100` (RFC 7541).
    const STATUS_100: &[u8] = b"\x48\x03100";
    const STATUS_103: &[u8] = b"\x48\x03103";
    let open = || [hello(), frame(HEADERS, END_HEADERS, 1, STATUS_200)].concat();
    let field = b"\x00\x01a\x01b";
    vec![
        ("settings", hello(), hello()),
        ("pings", hello(), frame(PING, 0, 0, b"are you?")),
        ("unknown frames", hello(), frame(UNKNOWN, 0, 0, b"")),
        ("priorities", hello(), frame(PRIORITY, 0, 3, &[0; 5])),
        (
            "window updates",
            hello(),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ),
        (
            "interim answers",
            hello(),
            frame(HEADERS, END_HEADERS, 1, STATUS_100),
        ),
        (
            "early hints",
            hello(),
            frame(HEADERS, END_HEADERS, 1, &[STATUS_103, field].concat()),
        ),
        (
            "headers",
            [hello(), frame(HEADERS, 0, 1, STATUS_200)].concat(),
            frame(CONTINUATION, 0, 1, field),
        ),
        (
            "empty headers",
            [hello(), frame(HEADERS, 0, 1, STATUS_200)].concat(),
            frame(CONTINUATION, 0, 1, b""),
        ),
        ("body", open(), frame(DATA, 0, 1, b"x")),
        ("empty body", open(), frame(DATA, 0, 1, b"")),
        (
            "trailers",
            [open(), frame(HEADERS, 1, 1, field)].concat(),
            frame(CONTINUATION, 0, 1, field),
        ),
        ("half a frame", [hello(), vec![0, 0x3f]].concat(), vec![0]),
        ("settings that are none", vec![0, 0, 0, SETTINGS, 0, 0], vec![0]),
    ]
}

/// More records than any handshake has.
fn tls_answers() -> Vec<Endless> {
    let record = |kind, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[kind, 3, 3, 0, length][..], payload].concat()
    };
    vec![
        ("half a record", vec![22, 3, 3, 0x40, 0], vec![2]),
        ("messages", Vec::new(), record(22, &[2, 0, 0xff, 0xff])),
        ("warnings", Vec::new(), record(21, &[1, 90])),
        ("changes of the cipher", Vec::new(), record(20, &[1])),
        ("empty records", Vec::new(), record(22, b"")),
        ("data", Vec::new(), record(23, b"x")),
    ]
}

fn dns(transport: Transport) -> DnsChecker {
    DnsChecker::new(&DnsCheck {
        name: "a.example".to_owned(),
        record: RecordType::A,
        transport,
        expect_answer: None,
    })
    .unwrap()
}

fn tls() -> TlsChecker {
    TlsChecker::new(&TlsCheck {
        verify: false,
        ..TlsCheck::default()
    })
    .unwrap()
}

/// A constructor for each kind of checker that uses a connection, and the answers.
fn kinds() -> Vec<Kind> {
    let grpc = || Probe::Grpc(GrpcChecker::new(&GrpcCheck::default()).unwrap());
    vec![
        ("http", || Probe::Http(http(wants_a_body)), http1_answers()),
        (
            "http2",
            || Probe::Http2(super::http2::http2(wants_a_body)),
            http2_answers(),
        ),
        ("grpc", grpc, http2_answers()),
        ("tls", || Probe::Tls(tls()), tls_answers()),
        (
            "dns",
            || Probe::Dns(dns(Transport::Tcp)),
            vec![("message", vec![0xff, 0xff], b"x".to_vec())],
        ),
    ]
}

/// A backend that floods its check must cost little, and is found at once.
#[tokio::test]
async fn a_flood_ends_the_check_long_before_the_time_out() {
    for (kind, probe, answers) in kinds() {
        for (state, first, rest) in answers {
            let target = peer(first, rest, None).await;
            let error = probe().check(target, TIMEOUT).await.unwrap_err();
            assert!(
                !error.is_local() && !matches!(error, CheckError::TimedOut { .. }),
                "{kind}, {state}: {error}"
            );
        }
    }
}

/// Bytes that come one by one must not keep a check alive beyond its time.
#[tokio::test(start_paused = true)]
async fn a_trickle_ends_with_the_time_out() {
    for (kind, probe, answers) in kinds() {
        for (state, first, rest) in answers {
            let target = peer(first, rest, Some(PACE)).await;
            let started = Instant::now();
            let error = probe().check(target, SECOND).await.unwrap_err();
            assert!(!error.is_local(), "{kind}, {state}: {error}");
            let took = started.elapsed();
            assert!(took <= SECOND + PACE, "{kind}, {state}: {took:?}");
        }
    }
}

/// Encrypted bytes are bounded too.
#[tokio::test]
async fn a_flood_within_tls_ends_the_check() {
    let ca = Authority::new();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(ca.server(2020, 4000, false)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
        while stream.write_all(&interim).await.is_ok() {}
    });
    let checker = http(|http| http.tls = Some(ca.settings()));
    let error = checker.check(target, TIMEOUT).await.unwrap_err();
    assert_eq!(class(&error), "not http: too many interim answers");
}

/// Replies to other questions are passed over, but not without end.
#[tokio::test]
async fn a_flood_of_datagrams_ends_the_check() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = server.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 512];
        let (length, client) = server.recv_from(&mut question).await.unwrap();
        question[0] = !question[0];
        while server.send_to(&question[..length], client).await.is_ok() {
            yield_now().await;
        }
    });
    let error = dns(Transport::Udp).check(target, TIMEOUT).await.unwrap_err();
    let expected = format!("wrong answer of {target}: 64 replies, and none to this question");
    assert_eq!(error.to_string(), expected);
}
