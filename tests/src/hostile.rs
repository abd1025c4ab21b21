//! Clients of an HTTP listener that load it: requests at a rate, and connections that only cost.
#![expect(
    clippy::disallowed_methods,
    reason = "the clients pause between connections; no test waits for them"
)]

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    time::{self, MissedTickBehavior},
};

/// Connections that requests at a rate share.
const CONNECTIONS: u32 = 16;
/// Requests of a connection.
const REQUESTS: u32 = 20;
/// Pause before a connection that was refused or ended is opened again.
const AGAIN: Duration = Duration::from_millis(500);
/// The same of a connection that was only held: the listener takes fewer than there are.
const HELD_AGAIN: Duration = Duration::from_secs(10);
/// Time for which a client holds an answer that it does not read.
const HELD: Duration = Duration::from_secs(20);
/// Bytes of a request that is too large.
const HUGE: usize = 100 << 20;

/// Where a listener is.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send;

    /// Connects.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Dial for PathBuf {
    type Io = UnixStream;

    async fn dial(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self).await
    }
}

impl Dial for SocketAddr {
    type Io = TcpStream;

    async fn dial(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self).await
    }
}

/// What clients did.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Requests that were answered with a status of 2xx.
    pub answered: Arc<AtomicU64>,
    /// Requests that were answered with another status, or not at all.
    pub failed: Arc<AtomicU64>,
}

impl Load {
    /// Sends `rate` requests a second, in turn those of `requests`, over connections that are opened anew now and then. For ever.
    pub async fn requests(&self, to: impl Dial, rate: u32, requests: &'static [&'static str]) {
        let workers = (0..CONNECTIONS).map(|number| self.clone().worker(to.clone(), rate, requests, number));
        all(workers).await;
    }

    async fn worker(self, to: impl Dial, rate: u32, requests: &'static [&'static str], first: u32) {
        let mut ticks = time::interval(Duration::from_secs(1) * CONNECTIONS / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut next = requests.iter().cycle().skip(first as usize);
        loop {
            let connection = to.dial().await;
            let Ok(mut io) = connection else {
                self.failed.fetch_add(1, Relaxed);
                time::sleep(AGAIN).await;
                continue;
            };
            for _ in 0..REQUESTS {
                ticks.tick().await;
                let request = next.next().copied().unwrap_or_default();
                match exchange(&mut io, request).await {
                    Ok(200..300) => self.answered.fetch_add(1, Relaxed),
                    Ok(_) => self.failed.fetch_add(1, Relaxed),
                    Err(_) => {
                        self.failed.fetch_add(1, Relaxed);
                        break;
                    }
                };
            }
        }
    }
}

/// Sends a request and reads its answer. Gives the status.
///
/// # Errors
/// The connection ends before.
pub async fn exchange(io: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> io::Result<u16> {
    io.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    let mut head = None;
    loop {
        let read = io.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if head.is_none() {
            head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        }
        let Some(end) = head else { continue };
        let text = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.parse::<usize>().ok());
        let is_whole = match length {
            Some(length) => answer.len() >= end + 4 + length,
            None => answer.ends_with(b"0\r\n\r\n"),
        };
        if is_whole {
            let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
            return status.ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
    }
}

/// Holds `count` connections on which `begin` was sent, and no more; opens those again that are ended. For ever.
pub async fn hold(to: impl Dial, count: usize, begin: &'static str) {
    let clients = (0..count).map(|_| {
        let to = to.clone();
        async move {
            loop {
                if let Ok(mut io) = to.dial().await
                    && io.write_all(begin.as_bytes()).await.is_ok()
                {
                    // Until the listener ends it.
                    let _ = io.read(&mut [0; 1024]).await;
                }
                time::sleep(HELD_AGAIN).await;
            }
        }
    });
    all(clients).await;
}

/// Sends `request` on `count` connections, and reads no answer. For ever.
pub async fn read_nothing(to: impl Dial, count: usize, request: &'static str) {
    let clients = (0..count).map(|_| {
        let to = to.clone();
        async move {
            loop {
                if let Ok(mut io) = to.dial().await
                    && io.write_all(request.as_bytes()).await.is_ok()
                {
                    time::sleep(HELD).await;
                }
                time::sleep(AGAIN).await;
            }
        }
    });
    all(clients).await;
}

/// Sends requests of 100 MB one after the other, with and without their length. For ever.
pub async fn send_huge(to: impl Dial) {
    let piece = vec![b'x'; 64 << 10];
    for is_chunked in [false, true].into_iter().cycle() {
        // An answer or the end of the connection may come at any time.
        let _ = huge(&to, &piece, is_chunked).await;
        time::sleep(AGAIN).await;
    }
}

async fn huge(to: &impl Dial, piece: &[u8], is_chunked: bool) -> io::Result<()> {
    let mut io = to.dial().await?;
    let length = if is_chunked {
        "transfer-encoding: chunked".to_owned()
    } else {
        format!("content-length: {HUGE}")
    };
    let head =
        format!("POST /v1/apply HTTP/1.1\r\nhost: lb\r\ncontent-type: application/json\r\n{length}\r\n\r\n");
    io.write_all(head.as_bytes()).await?;
    for _ in 0..HUGE / piece.len() {
        if is_chunked {
            io.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        }
        io.write_all(piece).await?;
        if is_chunked {
            io.write_all(b"\r\n").await?;
        }
    }
    if is_chunked {
        io.write_all(b"0\r\n\r\n").await?;
    }
    io.read(&mut [0; 1024]).await.map(drop)
}

/// Runs clients side by side on this thread or others.
async fn all<F: Future<Output = ()> + Send + 'static>(clients: impl Iterator<Item = F>) {
    let mut running = tokio::task::JoinSet::new();
    for client in clients {
        running.spawn(client);
    }
    while running.join_next().await.is_some() {}
}
