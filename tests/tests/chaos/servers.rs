//! The server of a backend: it answers over TCP and UDP with its name, a zero, and what was sent.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
};

use anyhow::{Context, Result};
use lb_tests::netns::Netns;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
};

/// Largest message; a longer one is no client's.
const LARGEST: usize = 1 << 20;

/// A server that runs until it is dropped, which resets its connections.
pub(crate) struct Server {
    end: Arc<Notify>,
}

impl Server {
    /// Starts it on these addresses of a namespace.
    pub(crate) fn start(ns: &Netns, name: &str, addresses: &[SocketAddr]) -> Result<Self> {
        let bind = || -> Result<Vec<(TcpListener, UdpSocket)>> {
            let pairs = addresses.iter().map(|address| {
                let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
                let socket = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
                listener.set_nonblocking(true)?;
                socket.set_nonblocking(true)?;
                Ok((listener, socket))
            });
            pairs.collect()
        };
        let sockets = ns.enter(bind)??;
        let (end, name): (Arc<Notify>, Arc<str>) = (Arc::default(), name.into());
        let stopped = Arc::clone(&end);
        let serve = async move || -> Result<()> {
            let mut running = tokio::task::JoinSet::new();
            for (listener, socket) in sockets {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                running.spawn(accept(listener, Arc::clone(&name)));
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                running.spawn(echo(socket, Arc::clone(&name)));
            }
            stopped.notified().await;
            Ok(())
        };
        std::thread::Builder::new()
            .name(format!("server {}", ns.name()))
            .spawn(move || -> Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(serve())
            })?;
        Ok(Self { end })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.notify_one();
    }
}

async fn accept(listener: tokio::net::TcpListener, name: Arc<str>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&name)));
        }
    }
}

/// Until the client ends it.
async fn serve(mut stream: TcpStream, name: Arc<str>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let length = stream.read_u32().await? as usize;
        if length > LARGEST {
            return Ok(());
        }
        let mut message = vec![0; length];
        stream.read_exact(&mut message).await?;
        let answer = [name.as_bytes(), &[0], &message].concat();
        let length = u32::try_from(answer.len()).unwrap_or(u32::MAX);
        stream
            .write_all(&[&length.to_be_bytes()[..], &answer].concat())
            .await?;
    }
}

async fn echo(socket: tokio::net::UdpSocket, name: Arc<str>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = [name.as_bytes(), &[0], &buffer[..length]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    }
}
