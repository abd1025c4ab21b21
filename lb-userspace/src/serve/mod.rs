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
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{connection::Connection, drive::drive};
pub use self::{
    limits::{Endless, Limits},
    metrics::{Ended, ListenerMetrics, ServerMetrics},
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
pub trait Listener: Send {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// The process behind a connection, which handlers get as an extension of its requests.
    fn peer(_: &Self::Io) -> Option<Peer> {
        None
    }

    /// Whether a client may connect; one that may not is refused and counted.
    fn admits(&self, _: &Self::Io) -> bool {
        true
    }
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn peer(stream: &UnixStream) -> Option<Peer> {
        Peer::of(stream)
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
        let mut reserve = Reserve::new(self.limits.reserve);
        loop {
            reserve.fill();
            let accepted = tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(io) if !listener.admits(&io) => self.refuse(io, Ended::Forbidden, &refusals, &tracker),
                Ok(io) => self.admit::<L>(io, &connections, &router, &refusals, &tracker),
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
    fn refuse(
        &self,
        mut io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        why: Ended,
        refusals: &Arc<Semaphore>,
        tracker: &TaskTracker,
    ) {
        self.metrics.count(why);
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
        io: L::Io,
        connections: &Arc<Connections>,
        router: &Router,
        refusals: &Arc<Semaphore>,
        tracker: &TaskTracker,
    ) {
        if connections.len() >= self.limits.connections && !connections.displace() {
            return self.refuse(io, Ended::Full, refusals, tracker);
        }
        let (connection, entry) = connections.enter(L::peer(&io));
        let (server, router) = (self.clone(), router.clone());
        let connections = Arc::clone(connections);
        tracker.spawn(async move {
            let _gauge = server.metrics.open();
            let ended = drive(io, router, connection, &server.limits, &server.cancel).await;
            if let Some(why) = ended {
                server.metrics.count(why);
            }
            if connections.leave(entry) {
                server.released.notify_one();
            }
        });
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

    fn enter(&self, peer: Option<Peer>) -> (Arc<Connection>, u64) {
        let connection = Arc::new(Connection::new(peer));
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
        | Ended::NoDescriptor => ("503 Service Unavailable", FULL),
    };
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
