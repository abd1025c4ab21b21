//! HTTP/1.1 for clients that may be slow, idle or hostile: every wait has a time-out, connections are bounded, and each
//! connection that is refused or ended is counted.
//!
//! At the bound, the connection that has been idle longest gives way to a new one, so that a client with a request is
//! served beside any number of idle connections.

mod body;
mod connection;
mod drive;
mod limits;
mod metrics;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::BTreeMap,
    fs::File,
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, Semaphore},
    time,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{connection::Connection, drive::drive};
pub use self::{
    limits::{Endless, Limits},
    metrics::{Ended, ListenerMetrics, ServerMetrics},
    tls::{Loaded, Stamps, Tls, TlsError, TlsFiles},
};
use crate::{author::Peer, state::guard::Prefix};

/// Pause after a failed `accept`, so that a lasting failure does not keep a thread busy.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Time that a client which is refused has to take the answer.
const REFUSAL: Duration = Duration::from_secs(1);
/// Clients that are being refused in words at once; further ones are closed.
const REFUSALS: usize = 16;
/// Connections that were open at once from which on their memory is worth giving back.
const MANY: usize = 16;

/// The answer when every connection is busy, in the form of the API's errors.
const FULL: &str =
    r#"{"error":{"code":"unavailable","message":"every connection of the daemon is busy: try again later"}}"#;

/// The answer to a client whose address may not connect.
const FORBIDDEN: &str = r#"{"error":{"code":"forbidden","message":"this address may not connect: metrics_access of [lb] lists those that may"}}"#;

/// A listening socket.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The same when its handshake is done.
    type Open: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Whether a client that is refused can read why.
    const REFUSES_IN_WORDS: bool = true;

    /// The next connection. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// Makes the handshake of a connection. Gives it with who is at its other end, which handlers get as an extension of its requests.
    fn open(&self, io: Self::Io) -> impl Future<Output = io::Result<(Self::Open, Option<Peer>)>> + Send;

    /// Whether a client may connect; one that may not is refused and counted.
    fn admits(&self, _: &Self::Io) -> bool {
        true
    }
}

impl Listener for TcpListener {
    type Io = TcpStream;
    type Open = TcpStream;

    async fn open(&self, io: TcpStream) -> io::Result<(TcpStream, Option<Peer>)> {
        Ok((io, None))
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Io = UnixStream;
    type Open = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    async fn open(&self, io: UnixStream) -> io::Result<(UnixStream, Option<Peer>)> {
        let peer = Peer::of(&io);
        Ok((io, peer))
    }
}

/// A TCP socket for the clients of some prefixes alone.
#[derive(Debug)]
pub struct Restricted {
    /// The socket.
    pub listener: TcpListener,
    /// Prefixes of clients that may connect; empty: all may.
    pub access: Vec<Prefix>,
}

impl Listener for Restricted {
    type Io = TcpStream;
    type Open = TcpStream;

    async fn open(&self, io: TcpStream) -> io::Result<(TcpStream, Option<Peer>)> {
        Ok((io, None))
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        Listener::accept(&self.listener).await
    }

    fn admits(&self, stream: &TcpStream) -> bool {
        self.access.is_empty()
            || stream.peer_addr().is_ok_and(|peer| {
                // A socket for both families names IPv4 clients as IPv6 addresses.
                let client = peer.ip().to_canonical();
                self.access.iter().any(|prefix| prefix.contains(client))
            })
    }
}

impl Listener for Tls {
    type Io = TcpStream;
    type Open = TlsStream<TcpStream>;
    // A client that waits for a handshake cannot read HTTP.
    const REFUSES_IN_WORDS: bool = false;

    async fn accept(&self) -> io::Result<TcpStream> {
        Listener::accept(&self.listener).await
    }

    async fn open(&self, io: TcpStream) -> io::Result<(Self::Open, Option<Peer>)> {
        Self::open(self, io).await
    }
}

/// Everything that serving needs besides a socket and a router.
#[derive(Clone, Debug)]
pub struct Server {
    /// Limits of the clients.
    pub limits: Limits,
    /// Counts them.
    pub metrics: ListenerMetrics,
    /// Notified when much memory is free again.
    pub released: Arc<Notify>,
    /// Ends serving; requests under way are answered first.
    pub cancel: CancellationToken,
}

impl Server {
    /// Serves until cancelled. Cancel-safe.
    pub async fn run<L: Listener>(self, listener: L, router: Router) {
        // Handlers get their state once, not with each connection.
        let metrics = self.metrics.clone();
        let count = middleware::from_fn(move |request: Request, next: Next| {
            let metrics = metrics.clone();
            async move {
                let method = request.method().clone();
                let response = next.run(request).await;
                metrics.answered(&method, response.status());
                response
            }
        });
        let router = router.layer(count).with_state(());
        let connections = Arc::new(Connections::default());
        let tracker = TaskTracker::new();
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        let listener = Arc::new(listener);
        let mut reserve = Reserve::new(self.limits.reserve);
        loop {
            reserve.fill();
            let accepted = tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(io) if !listener.admits(&io) => {
                    self.refuse::<L>(io, Ended::Forbidden, &refusals, &tracker)
                }
                Ok(io) => self.admit(&listener, io, &connections, &router, &refusals, &tracker),
                Err(error) if is_client_gone(&error) => {}
                Err(error) if is_exhausted(&error) => {
                    self.metrics.count(Ended::NoDescriptor);
                    let freed = reserve.release() | connections.displace();
                    if !freed {
                        time::sleep(ACCEPT_RETRY).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, listener = self.metrics.name(), "cannot accept a connection, retrying");
                    time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        drop(listener);
        tracker.close();
        tracker.wait().await;
    }

    /// Refuses a connection: in words, unless many clients are being refused already.
    fn refuse<L: Listener>(
        &self,
        mut io: L::Io,
        why: Ended,
        refusals: &Arc<Semaphore>,
        tracker: &TaskTracker,
    ) {
        self.metrics.count(why);
        if !L::REFUSES_IN_WORDS {
            return;
        }
        let Ok(permit) = Arc::clone(refusals).try_acquire_owned() else {
            return;
        };
        tracker.spawn(async move {
            let _permit = permit;
            let refuse = async {
                io.write_all(refusal(why).as_bytes()).await?;
                io.shutdown().await?;
                // Closing with a request unread would reset the connection, and the client would lose the answer.
                let mut unread = [0; 1024];
                while io.read(&mut unread).await? > 0 {}
                io::Result::Ok(())
            };
            // A client that does not take it learns the same from the end of the connection.
            let _ = time::timeout(REFUSAL, refuse).await;
        });
    }

    /// Serves a connection, in the place of an idle one where all are taken; refuses it where none is idle.
    fn admit<L: Listener>(
        &self,
        listener: &Arc<L>,
        io: L::Io,
        connections: &Arc<Connections>,
        router: &Router,
        refusals: &Arc<Semaphore>,
        tracker: &TaskTracker,
    ) {
        if connections.len() >= self.limits.connections && !connections.displace() {
            return self.refuse::<L>(io, Ended::Full, refusals, tracker);
        }
        let (connection, entry) = connections.enter();
        let (server, router, listener) = (self.clone(), router.clone(), Arc::clone(listener));
        let connections = Arc::clone(connections);
        tracker.spawn(async move {
            let _gauge = server.metrics.open();
            let ended = match server.open(listener, io, &connection).await {
                Ok(io) => drive(io, router, connection, &server.limits, &server.cancel).await,
                Err(ended) => Some(ended),
            };
            if let Some(why) = ended {
                server.metrics.count(why);
            }
            if connections.leave(entry) {
                server.released.notify_one();
            }
        });
    }

    /// Makes the handshake of a connection, within the time for the head of a request.
    async fn open<L: Listener>(
        &self,
        listener: Arc<L>,
        io: L::Io,
        connection: &Connection,
    ) -> Result<L::Open, Ended> {
        let opened = tokio::select! {
            opened = time::timeout(self.limits.head, listener.open(io)) => opened,
            () = connection.displaced.cancelled() => return Err(Ended::Displaced),
            () = self.cancel.cancelled() => return Err(Ended::Idle),
        };
        let (io, peer) = opened
            .map_err(|_| Ended::SlowRequest)?
            .map_err(|_| Ended::Handshake)?;
        if let Some(peer) = peer {
            // It has none before.
            let _ = connection.peer.set(peer);
        }
        Ok(io)
    }
}

/// The connections of a listener.
#[derive(Default)]
struct Connections(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    /// Most that were open at once since memory was given back.
    peak: usize,
    open: BTreeMap<u64, Arc<Connection>>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.lock().open.len()
    }

    fn enter(&self) -> (Arc<Connection>, u64) {
        let connection = Arc::new(Connection::new());
        let mut table = self.lock();
        table.next += 1;
        let entry = table.next;
        table.open.insert(entry, Arc::clone(&connection));
        table.peak = table.peak.max(table.open.len());
        (connection, entry)
    }

    /// Whether most of many connections have ended by now.
    fn leave(&self, entry: u64) -> bool {
        let mut table = self.lock();
        table.open.remove(&entry);
        let many_left = table.peak >= MANY && table.open.len() * 2 <= table.peak;
        if many_left {
            table.peak = table.open.len();
        }
        many_left
    }

    /// Ends the connection that has waited longest for a request; false where all are busy.
    fn displace(&self) -> bool {
        let mut table = self.lock();
        let idle = table.open.iter().filter_map(|(entry, connection)| {
            let since = connection.waiting_since()?;
            Some((since, *entry))
        });
        let Some((_, entry)) = idle.min() else {
            return false;
        };
        if let Some(connection) = table.open.remove(&entry) {
            connection.displace();
        }
        true
    }
}

/// Descriptors that are given up when `accept` finds none.
struct Reserve {
    size: usize,
    held: Vec<File>,
}

impl Reserve {
    fn new(size: usize) -> Self {
        Self {
            size,
            held: Vec::with_capacity(size),
        }
    }

    /// Refills the reserve; descriptors that are not available now are tried again with the next connection.
    fn fill(&mut self) {
        while self.held.len() < self.size {
            match File::open("/dev/null") {
                Ok(file) => self.held.push(file),
                Err(_) => return,
            }
        }
    }

    /// Releases the reserve; false if it was empty.
    fn release(&mut self) -> bool {
        let some = !self.held.is_empty();
        self.held.clear();
        some
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// The client left before it was accepted.
fn is_client_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNABORTED | libc::ECONNRESET | libc::EPERM | libc::EPROTO)
    )
}

/// The answer to a client that is refused.
fn refusal(why: Ended) -> String {
    let (status, body) = match why {
        Ended::Forbidden => ("403 Forbidden", FORBIDDEN),
        Ended::Full
        | Ended::Displaced
        | Ended::Idle
        | Ended::SlowRequest
        | Ended::SlowReader
        | Ended::Handshake
        | Ended::NoDescriptor => ("503 Service Unavailable", FULL),
    };
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
