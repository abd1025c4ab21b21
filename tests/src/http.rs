//! A small HTTP/1.1 server that answers with its name, and the client side of one exchange.
//!
//! nginx ([`crate::nginx`]) stands for real servers; this one stands where a test must steer or count.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{netns::Netns, wait};

/// Longest wait for one answer: well over one retransmission, so that a packet lost once counts as slow, not failed.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Stack of a connection's thread, bytes; there may be hundreds.
const CONNECTION_STACK: usize = 128 * 1024;

/// Counts of a server.
#[derive(Default)]
struct State {
    name: String,
    stop: AtomicBool,
    health_status: AtomicU16,
    delay_millis: AtomicU64,
    /// The next answers to `/health`, before `health_status` counts again.
    health_script: Mutex<VecDeque<u16>>,
    requests: AtomicU64,
    connections: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl State {
    fn script(&self) -> MutexGuard<'_, VecDeque<u16>> {
        self.health_script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server. Dropping it closes its listener and all its connections.
pub struct HttpServer {
    state: Arc<State>,
    listeners: Vec<TcpListener>,
}

impl HttpServer {
    /// Starts a server in a namespace. It answers `/health` with a status that can be changed (200 at first) and
    /// everything else with 200, always with its name as the body.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub fn start(ns: &Netns, name: &str, addresses: &[SocketAddr]) -> Result<Self> {
        let state = Arc::new(State {
            name: name.to_owned(),
            health_status: AtomicU16::new(200),
            ..State::default()
        });
        let mut server = Self {
            state,
            listeners: Vec::new(),
        };
        for address in addresses {
            let listener = ns
                .enter(|| listen(*address))?
                .with_context(|| format!("listen on {address}"))?;
            let (accepting, state) = (listener.try_clone()?, Arc::clone(&server.state));
            thread::Builder::new().spawn(move || accept(&accepting, &state))?;
            server.listeners.push(listener);
        }
        Ok(server)
    }

    /// The status that `/health` answers from now on.
    pub fn set_health_status(&self, status: u16) {
        self.state.health_status.store(status, Ordering::Relaxed);
    }

    /// The time after which it answers from now on; zero at first.
    pub fn set_delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.state.delay_millis.store(millis, Ordering::Relaxed);
    }

    /// The statuses of the next answers to `/health`.
    pub fn script_health(&self, statuses: &[u16]) {
        self.state.script().extend(statuses);
    }

    /// How many of these answers are still to be given.
    pub fn scripted(&self) -> usize {
        self.state.script().len()
    }

    /// Requests answered, `/health` included.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Connections accepted.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // SAFETY: shutdown on an open descriptor; on a listening socket it makes accept return.
            unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        }
        for stream in self
            .state
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    while let Ok((stream, _)) = listener.accept() {
        if state.stop.load(Ordering::Relaxed) {
            return;
        }
        let id = state.connections.fetch_add(1, Ordering::Relaxed);
        if let Ok(handle) = stream.try_clone() {
            state
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(id, handle);
        }
        let state = Arc::clone(state);
        let serve_one = move || {
            // A client that leaves is no failure of the server.
            let _ = serve(&stream, &state);
            state
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
        };
        let _ = thread::Builder::new()
            .stack_size(CONNECTION_STACK)
            .spawn(serve_one);
    }
}

fn serve(stream: &TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1024, stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut close = false;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            close |= header.eq_ignore_ascii_case("connection: close\r\n");
            if header.trim().is_empty() {
                break;
            }
        }
        let delay = state.delay_millis.load(Ordering::Relaxed);
        if delay > 0 {
            wait::pace(Duration::from_millis(delay));
        }
        let path = request.split([' ', '?']).nth(1);
        let health = path == Some("/health");
        let status = if health {
            let scripted = state.script().pop_front();
            scripted.unwrap_or_else(|| state.health_status.load(Ordering::Relaxed))
        } else {
            200
        };
        let connection = if close { "Connection: close\r\n" } else { "" };
        let (name, length) = (&state.name, state.name.len());
        let answer =
            format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n{connection}\r\n{name}");
        // Counted before it is sent, so that the count includes every received answer.
        state.requests.fetch_add(1, Ordering::Relaxed);
        (&mut &*stream).write_all(answer.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

/// The answer to a request.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: String,
}

/// Sends one GET over a connection and reads the answer, which must end by its length, by chunks or with the connection.
///
/// # Errors
/// Any failure of the connection, its end, or an answer that is no HTTP.
pub fn exchange(stream: &mut TcpStream, path: &str, close: bool) -> io::Result<Answer> {
    let connection = if close { "close" } else { "keep-alive" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: lb\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let answer = read_answer(stream)?;
    if close {
        // The end that closes first cannot use its port for the same target again for a minute: let it be the server's.
        let _ = stream.read(&mut [0]);
    }
    Ok(answer)
}

fn read_answer(stream: &TcpStream) -> io::Result<Answer> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    // Answers do not overlap on a connection, so the reader never buffers bytes of the next one.
    let mut reader = BufReader::with_capacity(1024, stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| bad("no status line"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse::<usize>().ok();
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.trim() == "chunked";
        }
    }
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        None if chunked => read_chunks(&mut reader, &mut body)?,
        None => drop(reader.read_to_end(&mut body)?),
    }
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Reads a body in chunks (RFC 9112 section 7.1) to its end, without trailers.
fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        let start = body.len();
        // The line end after it, too.
        body.resize(start + size + 2, 0);
        reader.read_exact(&mut body[start..])?;
        body.truncate(start + size);
        if size == 0 {
            return Ok(());
        }
    }
}

/// Connects from inside the calling thread's namespace; `source_port` 0 leaves the choice to the kernel.
///
/// # Errors
/// When the connection is refused, reset or not answered in time.
pub fn connect(target: SocketAddr, source_port: u16) -> io::Result<TcpStream> {
    connect_within(target, source_port, ANSWER_TIMEOUT)
}

/// As [`connect`], with a limit of its own for the connection and each answer.
///
/// # Errors
/// As [`connect`].
pub fn connect_within(target: SocketAddr, source_port: u16, limit: Duration) -> io::Result<TcpStream> {
    let source = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], source_port).into(),
        SocketAddr::V6(_) => ([0u16; 8], source_port).into(),
    };
    connect_as(source, target, limit)
}

/// As [`connect`], from one of the namespace's own addresses.
///
/// # Errors
/// As [`connect`].
pub fn connect_from(source: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    connect_as(source, target, ANSWER_TIMEOUT)
}

/// As [`connect_within`], from one of the namespace's own addresses.
///
/// # Errors
/// As [`connect`].
pub fn connect_as(source: SocketAddr, target: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(target), socket2::Type::STREAM, None)?;
    if source.port() != 0 || !source.ip().is_unspecified() {
        // A port may still be in TIME_WAIT towards another server.
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    socket.connect_timeout(&target.into(), limit)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// One GET from a namespace on a connection of its own.
///
/// # Errors
/// As [`connect`] and [`exchange`].
pub fn get(ns: &Netns, target: SocketAddr, path: &str) -> Result<Answer> {
    let once = || connect(target, 0).and_then(|mut stream| exchange(&mut stream, path, true));
    ns.enter(once)?
        .with_context(|| format!("GET http://{target}{path}"))
}
