//! One exchange with a backend, and why it failed.

use std::{fmt, io, net::SocketAddr, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

/// Longest wait for an answer over TCP: longer than any fault, and a sender's last pause after it.
const TCP_PATIENCE: Duration = Duration::from_secs(60);

/// Why an exchange failed.
pub(crate) enum Failure {
    /// Something that may never be.
    Wrong(String),
    /// No answer, or no connection.
    Lost(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) | Self::Lost(what) => f.write_str(what),
        }
    }
}

/// Connects from this port, or from any where it is 0.
pub(crate) async fn connect(target: SocketAddr, port: u16) -> Result<TcpStream, Failure> {
    let lost = |e: io::Error| Failure::Lost(format!("open a socket: {e}"));
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(lost)?;
    if port != 0 {
        // Connections to other services may have the same.
        socket.set_reuseaddr(true).map_err(lost)?;
        socket.bind(any(target, port)).map_err(lost)?;
    }
    let stream = timeout(TCP_PATIENCE, socket.connect(target)).await;
    let stream = stream.map_err(|_| Failure::Lost(format!("no connection within {TCP_PATIENCE:?}")))?;
    let stream = stream.map_err(|e| Failure::Lost(format!("connect: {e}")))?;
    stream
        .set_nodelay(true)
        .map_err(|e| Failure::Lost(e.to_string()))?;
    Ok(stream)
}

/// A socket for datagrams to `target` from this port, or from any where it is 0.
pub(crate) async fn open(target: SocketAddr, port: u16) -> Result<UdpSocket, Failure> {
    let lost = |e: io::Error| Failure::Lost(format!("open a socket: {e}"));
    let kind = socket2::Socket::new(socket2::Domain::for_address(target), socket2::Type::DGRAM, None);
    let socket = kind.map_err(lost)?;
    socket.set_reuse_address(true).map_err(lost)?;
    socket.set_nonblocking(true).map_err(lost)?;
    socket.bind(&any(target, port).into()).map_err(lost)?;
    let socket = UdpSocket::from_std(socket.into()).map_err(lost)?;
    socket.connect(target).await.map_err(lost)?;
    Ok(socket)
}

/// Any address of the family of `target`, and this port.
fn any(target: SocketAddr, port: u16) -> SocketAddr {
    match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], port).into(),
        SocketAddr::V6(_) => ([0_u16; 8], port).into(),
    }
}

/// Sends a message, and gives the name of the backend that repeats it.
pub(crate) async fn exchange(stream: &mut TcpStream, payload: &[u8]) -> Result<String, Failure> {
    let whole = async {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        stream
            .write_all(&[&length.to_be_bytes()[..], payload].concat())
            .await?;
        let mut answer = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(TCP_PATIENCE, whole).await;
    let answer = answer.map_err(|_| Failure::Lost(format!("no answer within {TCP_PATIENCE:?}")))?;
    let answer = answer.map_err(|e| Failure::Lost(e.to_string()))?;
    let (name, echoed) = named(&answer)?;
    if echoed == payload {
        Ok(name)
    } else {
        Err(Failure::Wrong(format!("{name} repeats other bytes")))
    }
}

/// The parts of an answer: a name, a zero, and what was sent.
pub(crate) fn named(answer: &[u8]) -> Result<(String, &[u8]), Failure> {
    let at = answer.iter().position(|byte| *byte == 0);
    let at = at.ok_or_else(|| Failure::Wrong("an answer without a name".to_owned()))?;
    let (name, rest) = answer.split_at(at);
    Ok((String::from_utf8_lossy(name).into_owned(), &rest[1..]))
}
