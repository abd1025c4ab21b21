//! UDP echo: a server that answers with its name, and clients whose flows are counted.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    client::{Report, run_many},
    netns::Netns,
    wait,
};

/// Longest wait for an echo; no datagram is repeated, so a lost one is a failure.
pub const ECHO_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a port to be free.
const PORT_FREE: Duration = Duration::from_secs(5);

/// Bytes of a datagram at most.
const LARGEST: usize = 1 << 16;

/// Times that a large datagram is sent: the first ones may be lost to learning the path's MTU.
const LARGE_TRIES: u32 = 5;
/// Longest wait for the echo of one of them.
const LARGE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a server looks whether it should stop.
const STOP_POLL: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    stop: AtomicBool,
    datagrams: AtomicU64,
}

/// A running server: it answers each datagram with its name, a space and the datagram.
pub struct UdpEcho {
    state: Arc<State>,
}

impl UdpEcho {
    /// Starts a server in a namespace.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub fn start(ns: &Netns, name: &str, addresses: &[SocketAddr]) -> Result<Self> {
        let server = Self {
            state: Arc::default(),
        };
        for address in addresses {
            let socket = ns
                .enter(|| UdpSocket::bind(address))?
                .with_context(|| format!("bind {address}"))?;
            socket.set_read_timeout(Some(STOP_POLL))?;
            let (state, name) = (Arc::clone(&server.state), name.to_owned());
            thread::Builder::new().spawn(move || echo(&socket, &name, &state))?;
        }
        Ok(server)
    }

    /// Datagrams received.
    pub fn datagrams(&self) -> u64 {
        self.state.datagrams.load(Ordering::Relaxed)
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
    }
}

fn echo(socket: &UdpSocket, name: &str, state: &State) {
    let mut buffer = vec![0; LARGEST];
    while !state.stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        state.datagrams.fetch_add(1, Ordering::Relaxed);
        let mut answer = format!("{name} ").into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, from);
    }
}

/// Sends one datagram on each of `count` flows (source ports from `first_port` up), `concurrency` at a time, and
/// takes the echo.
///
/// # Errors
/// As [`run_many`].
pub fn udp_flows(
    ns: &Netns,
    target: SocketAddr,
    first_port: u16,
    count: u16,
    concurrency: u32,
) -> Result<Report> {
    run_many(ns, count.into(), concurrency, |i| {
        let port = u16::try_from(u32::from(first_port) + i).map_err(|_| io::ErrorKind::InvalidInput)?;
        echo_once(&open(target, port)?, i)
    })
}

/// A socket of the calling thread's namespace, connected to `target`; port 0 leaves the choice to the kernel.
///
/// # Errors
/// When the port is taken.
pub fn open(target: SocketAddr, source_port: u16) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], source_port).into(),
        SocketAddr::V6(_) => ([0u16; 8], source_port).into(),
    };
    let socket = bind(any).map_err(io::Error::other)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(ECHO_TIMEOUT))?;
    Ok(socket)
}

/// A socket on this address. A program that another test starts holds copies of sockets that are closed here, until it runs.
fn bind(address: SocketAddr) -> Result<UdpSocket> {
    wait::until(
        &format!("{address} is free"),
        PORT_FREE,
        || match UdpSocket::bind(address) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error.into()),
        },
    )
}

/// Sends one datagram and returns the name of the server that echoed it.
///
/// # Errors
/// When no answer or a wrong one comes.
pub fn echo_once(socket: &UdpSocket, number: u32) -> io::Result<String> {
    let payload = format!("datagram {number}");
    socket.send(payload.as_bytes())?;
    let mut buffer = vec![0; LARGEST];
    let length = wait::uninterrupted(|| socket.recv(&mut buffer))?;
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    match answer.split_once(' ') {
        Some((name, echoed)) if echoed == payload => Ok(name.to_owned()),
        _ => Err(io::Error::other(format!("sent {payload:?}, got {answer:?}"))),
    }
}

/// Sends a datagram of `bytes` bytes, which takes several packets, until its echo comes back whole. Returns the name of
/// the server.
///
/// # Errors
/// When none comes, or a wrong one.
pub fn echo_large(target: SocketAddr, source_port: u16, bytes: usize) -> Result<String> {
    let socket = open(target, source_port)?;
    socket.set_read_timeout(Some(LARGE_TIMEOUT))?;
    let payload: Vec<u8> = (b'a'..=b'z').cycle().take(bytes).collect();
    let mut buffer = vec![0; LARGEST];
    for _ in 0..LARGE_TRIES {
        socket.send(&payload)?;
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        let answer = &buffer[..length];
        let name = answer.strip_suffix(payload.as_slice()).context("another echo")?;
        return Ok(String::from_utf8_lossy(name).trim_end().to_owned());
    }
    anyhow::bail!("no echo of {bytes} bytes from {target}")
}
