//! Connections of checks, and the time they may take.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use socket2::SockRef;

use tokio::{
    net::{TcpSocket, TcpStream},
    time::{self, Instant},
};

use crate::health::{
    error::{CheckError, LocalError, Stage},
    machine::MAX_INTERVAL,
};

/// How late a time-out may be noticed and still count: later, this machine was busy and not the target slow.
pub(super) const LAG_ALLOWANCE: Duration = Duration::from_millis(100);

/// Which way the packets of a check leave this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// Their source address; the kernel's choice where absent.
    pub source: Option<IpAddr>,
    /// Their mark (`SO_MARK`, needs CAP_NET_ADMIN), for routing rules and packet filters.
    pub mark: Option<u32>,
}

impl Route {
    /// The source address of a socket to `target`, if one is set.
    pub(super) fn source_for(self, target: SocketAddr) -> io::Result<Option<IpAddr>> {
        match self.source {
            Some(source) if source.is_ipv4() != target.is_ipv4() => {
                Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
            }
            source => Ok(source),
        }
    }

    /// Gives a socket the mark.
    pub(super) fn mark(self, socket: &impl AsFd) -> io::Result<()> {
        let Some(mark) = self.mark else { return Ok(()) };
        let set = SockRef::from(socket).set_mark(mark);
        set.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => io::Error::other(LocalError::Mark),
            _ => error,
        })
    }
}

/// The time that one check may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) target: SocketAddr,
    pub(super) started: Instant,
    timeout: Duration,
}

impl Budget {
    pub(super) fn start(target: SocketAddr, timeout: Duration) -> Self {
        Self {
            target,
            started: Instant::now(),
            timeout: timeout.min(MAX_INTERVAL),
        }
    }

    /// Does `work`, which belongs to `stage`, in the time that is left.
    pub(super) async fn spend<T>(
        &self,
        stage: Stage,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, CheckError> {
        let result = self.limit(|| stage, work).await?;
        result.map_err(|error| CheckError::from_io(self.target, stage, &error))
    }

    /// Does `work` in the time that is left; `stage` says what it was at when the time was over.
    pub(super) async fn limit<T>(
        &self,
        stage: impl FnOnce() -> Stage,
        work: impl Future<Output = T>,
    ) -> Result<T, CheckError> {
        let deadline = self.started + self.timeout;
        if let Ok(value) = time::timeout_at(deadline, work).await {
            return Ok(value);
        }
        let late = Instant::now().saturating_duration_since(deadline);
        if late > LAG_ALLOWANCE {
            return Err(CheckError::Local {
                target: self.target,
                error: LocalError::Late(late),
            });
        }
        Err(CheckError::TimedOut {
            target: self.target,
            stage: stage(),
            after: self.timeout,
        })
    }

    /// Connects by `route`. The connection closes by reset, so that no check leaves a port in TIME_WAIT behind.
    pub(super) async fn connect(&self, route: Route) -> Result<TcpStream, CheckError> {
        self.dial(route, false).await
    }

    /// Connects by `route` as far as needed to see that someone listens: the third packet of the handshake is held
    /// back, and the reset that closes the connection takes its place.
    pub(super) async fn connect_half(&self, route: Route) -> Result<(), CheckError> {
        self.dial(route, true).await.map(drop)
    }

    async fn dial(&self, route: Route, half: bool) -> Result<TcpStream, CheckError> {
        let stream = self
            .spend(Stage::Connect, connect(self.target, route, half))
            .await?;
        // A port on this machine that nobody listens on can be drawn as the connection's own source port, and TCP
        // then connects it to itself (RFC 9293, simultaneous open).
        if stream.local_addr().is_ok_and(|local| local == self.target) {
            return Err(CheckError::Refused(self.target));
        }
        Ok(stream)
    }
}

async fn connect(target: SocketAddr, route: Route, half: bool) -> io::Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_zero_linger()?;
    socket.set_nodelay(true)?;
    route.mark(&socket)?;
    if let Some(source) = route.source_for(target)? {
        // The port is chosen at connect, when the target is known: one source port serves many targets.
        late_port(&socket)?;
        socket.bind((source, 0).into())?;
    }
    if half {
        // The kernel then hopes to send the acknowledgement together with data (tcp_rcv_synsent_state_process).
        SockRef::from(&socket).set_tcp_quickack(false)?;
    }
    socket.connect(target).await
}

/// Lets `connect` choose the source port instead of `bind`. That is Linux's `IP_BIND_ADDRESS_NO_PORT` (ip(7)), for both
/// families.
fn late_port(socket: &TcpSocket) -> io::Result<()> {
    set_on(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

/// Sets a socket option that is on or off, and that the libraries in use do not have.
pub(super) fn set_on(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open as long as `socket`; the value is an int that outlives the call, and its size is
    // given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of_val(&on).try_into().unwrap_or(4),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
