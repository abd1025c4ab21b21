//! gRPC, and HTTP/2 over TLS, against servers of the library that the checks use too. Real gRPC servers are in the root
//! lanes.

use ::http::{HeaderMap, HeaderValue, Response};
use bytes::Bytes;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::{tls::Authority, *};
use crate::settings::{GrpcCheck, TlsCheck};

/// URI and body of each request.
type Requests = Arc<std::sync::Mutex<Vec<(String, Vec<u8>)>>>;

/// A server of HTTP/2.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Requests,
}

/// An answer: status, body, and the status of the call in the trailers.
type Canned = (u16, &'static [u8], &'static str);

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

impl Server {
    async fn start(tls: Option<ServerConfig>, canned: Canned) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let (connections, requests) = (Arc::clone(&server.connections), Arc::clone(&server.requests));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let requests = Arc::clone(&requests);
                match &acceptor {
                    None => drop(tokio::spawn(talk(stream, canned, requests))),
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            tokio::spawn(talk(stream, canned, requests));
                        }
                    }
                }
            }
        });
        server
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, (status, body, call): Canned, requests: Requests) {
    let mut server = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((mut request, mut respond))) = server.accept().await {
        // The request is one frame, and the connection advances only with `accept`: its bytes are here already.
        let mut message = Vec::new();
        if !request.body().is_end_stream() {
            let first = tokio::select! {
                piece = request.body_mut().data() => piece,
                _ = server.accept() => None,
            };
            message.extend(first.unwrap().unwrap());
        }
        requests
            .lock()
            .unwrap()
            .push((request.uri().to_string(), message));
        let head = Response::builder().status(status);
        let head = head.header("content-type", "application/grpc").body(()).unwrap();
        let mut answer = respond.send_response(head, false).unwrap();
        answer.send_data(Bytes::from_static(body), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(call));
        answer.send_trailers(trailers).unwrap();
    }
}

fn grpc(change: impl FnOnce(&mut GrpcCheck)) -> GrpcChecker {
    let mut settings = GrpcCheck::default();
    change(&mut settings);
    GrpcChecker::new(&settings).unwrap()
}

#[tokio::test]
async fn only_serving_is_success() {
    let cases: [(Canned, Option<&str>); 5] = [
        ((200, SERVING, "0"), None),
        (
            (200, b"\0\0\0\0\x02\x08\x02", "0"),
            Some("service a.B of TARGET is NOT_SERVING"),
        ),
        (
            (200, b"", "12"),
            Some(
                "service a.B of TARGET cannot be asked: the server has no grpc.health.v1.Health (UNIMPLEMENTED)",
            ),
        ),
        (
            (200, SERVING, "14"),
            Some("service a.B of TARGET cannot be asked: UNAVAILABLE"),
        ),
        (
            (502, b"no", "0"),
            Some("status 502 from http://TARGET/grpc.health.v1.Health/Check, expected 200"),
        ),
    ];
    for (canned, expected) in cases {
        let server = Server::start(None, canned).await;
        let checker = grpc(|grpc| grpc.service = "a.B".to_owned());
        let expected = expected.map(|text| text.replace("TARGET", &server.address.to_string()));
        for _ in 0..3 {
            let error = checker.check(server.address, PLENTY).await.err();
            assert_eq!(error.map(|error| error.to_string()), expected);
        }
        // A kept connection is first tested beside another; after a bad answer the next check uses a new one.
        let (connections, requests) = if expected.is_none() { (2, 4) } else { (3, 3) };
        assert_eq!(server.connections(), connections);
        let asked = (
            format!("http://{}/grpc.health.v1.Health/Check", server.address),
            b"\0\0\0\0\x05\x0a\x03a.B".to_vec(),
        );
        assert_eq!(*server.requests.lock().unwrap(), vec![asked; requests]);
    }
}

#[tokio::test]
async fn over_tls_the_server_must_choose_http2_and_prove_itself() {
    let ca = Authority::new();
    let config = |alpn: &[&str]| {
        let mut config = ca.server(2020, 4000, false);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    };
    let tls = || Some(ca.settings());
    let web = |host: Option<&str>, tls: Option<TlsCheck>| {
        Http2Checker::new(&HttpCheck {
            host: host.map(str::to_owned),
            tls,
            ..HttpCheck::default()
        })
        .unwrap()
    };
    let good = Server::start(Some(config(&["http/1.1", "h2"])), (200, SERVING, "0")).await;
    web(None, tls()).check(good.address, PLENTY).await.unwrap();
    let call = grpc(|grpc| grpc.tls = tls());
    call.check(good.address, PLENTY).await.unwrap();
    // The host is also the name in the certificate where no other is set.
    let unnamed = TlsCheck {
        server_name: None,
        ..ca.settings()
    };
    let checker = web(Some("a.example:99"), Some(unnamed.clone()));
    checker.check(good.address, PLENTY).await.unwrap();
    let asked = good.requests.lock().unwrap().last().cloned().unwrap().0;
    assert_eq!(asked, "https://a.example:99/");
    let error = web(None, Some(unnamed)).check(good.address, PLENTY).await;
    let expected = format!(
        "certificate of {} is not for 127.0.0.1, but for a.example",
        good.address
    );
    assert_eq!(error.unwrap_err().to_string(), expected);

    for alpn in [&[][..], &["http/1.1"]] {
        let old = Server::start(Some(config(alpn)), (200, SERVING, "0")).await;
        assert_eq!(
            web(None, tls()).check(old.address, PLENTY).await,
            Err(CheckError::Protocol {
                target: old.address,
                offered: "h2".into()
            })
        );
    }
}
