//! Servers for the tests of the load tool, each on a thread of its own.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time,
};
use tokio_rustls::TlsAcceptor;

/// How an HTTP/1.1 server answers.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// With these bytes.
    Bytes(&'static str),
    /// With these bytes, then it closes the connection.
    Last(&'static str),
    /// Never.
    Never,
    /// At once, but from the hundredth request on nothing for one second, once.
    StallsOnce,
}

/// An answer without an error.
pub(crate) const OK: Answer = Answer::Bytes("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

/// How long a server stalls that does.
pub(crate) const STALL: Duration = Duration::from_secs(1);
/// The request with which the stall begins.
const STALLS_AT: u32 = 100;

/// Runs a future on a thread of its own, as long as the process lives.
fn run(server: impl Future<Output = io::Result<()>> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    thread::spawn(move || runtime.block_on(server));
}

/// Hands each connection to `serve`.
fn listen<F: Future<Output = io::Result<()>> + Send + 'static>(
    mut serve: impl FnMut(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    run(async move {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A server of HTTP/1.1.
pub(crate) fn http(answer: Answer) -> SocketAddr {
    let stall = Stall::default();
    listen(move |stream| serve_http(stream, answer, stall.clone()))
}

/// The requests of all connections, and whether the stall is over.
#[derive(Clone)]
struct Stall {
    requests: Arc<AtomicU32>,
    over: Arc<watch::Sender<bool>>,
}

impl Default for Stall {
    fn default() -> Self {
        Self {
            requests: Arc::default(),
            over: Arc::new(watch::channel(false).0),
        }
    }
}

impl Stall {
    /// Waits while the server stalls.
    async fn pass(&self) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if number == STALLS_AT {
            time::sleep(STALL).await;
            self.over.send_replace(true);
        } else if number > STALLS_AT {
            let _ = self.over.subscribe().wait_for(|over| *over).await;
        }
    }
}

async fn serve_http(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: Answer,
    stall: Stall,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut seen = Vec::new();
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&buffer[..length]);
        if !seen.windows(4).any(|window| window == b"\r\n\r\n") {
            continue;
        }
        let closes = seen.windows(17).any(|window| window == b"Connection: close");
        seen.clear();
        match answer {
            Answer::Bytes(text) => stream.write_all(text.as_bytes()).await?,
            Answer::Last(text) => {
                stream.write_all(text.as_bytes()).await?;
                return Ok(());
            }
            Answer::Never => {}
            Answer::StallsOnce => {
                stall.pass().await;
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
            }
        }
        if closes {
            return stream.shutdown().await;
        }
    }
}

/// A server of HTTP/1.1 that awaits this many connections. Gives the most of them that had not asked yet when another one asked for the
/// fourth time.
pub(crate) fn counting(connections: u32) -> (SocketAddr, Arc<AtomicU32>) {
    let (asked, behind) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let result = Arc::clone(&behind);
    let address = listen(move |mut stream| {
        let (asked, behind) = (Arc::clone(&asked), Arc::clone(&behind));
        async move {
            let mut buffer = [0; 4096];
            for request in 1_u32.. {
                // A request is one segment.
                if stream.read(&mut buffer).await? == 0 {
                    break;
                }
                if request == 1 {
                    asked.fetch_add(1, Ordering::Relaxed);
                } else if request == 4 {
                    let missing = connections - asked.load(Ordering::Relaxed);
                    behind.fetch_max(missing, Ordering::Relaxed);
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
            }
            Ok(())
        }
    });
    (address, result)
}

/// A server that speaks first, and not TLS.
pub(crate) fn greeting() -> SocketAddr {
    listen(|mut stream| async move {
        stream.write_all(b"220 mail.test ESMTP\r\n").await?;
        stream.read(&mut [0]).await.map(drop)
    })
}

/// A TLS server for the name `lb.test` that speaks HTTP/1.1 or HTTP/2, whichever it is asked for, and its certificate.
pub(crate) fn tls() -> (SocketAddr, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["lb.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(signing_key.serialize_pem().as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = acceptor.accept(stream).await?;
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                serve_http2(stream).await
            } else {
                serve_http(stream, OK, Stall::default()).await
            }
        }
    });
    (address, cert.pem())
}

/// A server of HTTP/2 without TLS.
pub(crate) fn http2() -> SocketAddr {
    listen(serve_http2)
}

/// Answers each request with its body, in two parts.
async fn serve_http2(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut connection = h2::server::handshake(stream).await.map_err(io::Error::other)?;
    while let Some(request) = connection.accept().await {
        let (_, mut answer) = request.map_err(io::Error::other)?;
        let mut body = answer
            .send_response(http::Response::new(()), false)
            .map_err(io::Error::other)?;
        for (part, is_last) in [("o", false), ("k", true)] {
            body.send_data(Bytes::from_static(part.as_bytes()), is_last)
                .map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// An echo server over TCP; with `fault`, the first byte of each part that it receives comes back changed.
pub(crate) fn tcp_echo(fault: bool) -> SocketAddr {
    listen(move |mut stream| async move {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = stream.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            buffer[0] ^= u8::from(fault);
            stream.write_all(&buffer[..length]).await?;
        }
    })
}

/// What a UDP echo server does.
#[derive(Clone, Copy)]
pub(crate) enum Echoes {
    /// One echo of each datagram.
    Right,
    /// Two of each.
    Twice,
    /// A changed one.
    Wrong,
    /// None of the first, one of each later one.
    LosesFirst,
}

/// An echo server over UDP.
pub(crate) fn udp_echo(echoes: Echoes) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        for number in 0.. {
            let (length, from) = socket.recv_from(&mut buffer)?;
            let times = match echoes {
                Echoes::Right | Echoes::Wrong => 1,
                Echoes::Twice => 2,
                Echoes::LosesFirst => usize::from(number > 0),
            };
            buffer[0] ^= u8::from(matches!(echoes, Echoes::Wrong));
            for _ in 0..times {
                socket.send_to(&buffer[..length], from)?;
            }
        }
        io::Result::Ok(())
    });
    address
}
