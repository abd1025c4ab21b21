//! Connections of checks, and the time they may take.

use std::{future::Future, io, net::SocketAddr, pin::pin, time::Duration};

use socket2::{SockAddr, SockRef, Socket};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{self, Instant},
};

use super::{connection::Connection, proxy, route::Route, socket_pool, through};
use crate::{
    error::{CheckError, LocalError, Stage},
    machine::MAX_INTERVAL,
};

/// How late a time-out may be noticed and still count: later, this machine was busy and not the target slow.
pub(super) const LAG_ALLOWANCE: Duration = Duration::from_millis(100);

/// The time that one check may take: one deadline for all that it does.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(super) target: SocketAddr,
    pub(super) started: Instant,
    timeout: Duration,
    deadline: Instant,
    /// Whether time that a stall of this machine took was given once more.
    extended: bool,
}

impl Budget {
    pub(crate) fn start(target: SocketAddr, timeout: Duration) -> Self {
        let (started, timeout) = (Instant::now(), timeout.min(MAX_INTERVAL));
        Self {
            target,
            started,
            timeout,
            deadline: started + timeout,
            extended: false,
        }
    }

    /// The time that is left.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Does `work`, which belongs to `stage`, in the time that is left.
    pub(crate) async fn spend<T>(
        &mut self,
        stage: Stage,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, CheckError> {
        let result = self.limit(|| stage, work).await?;
        result.map_err(|error| CheckError::from_io(self.target, stage, &error))
    }

    /// Does `work` in the remaining time; `stage` names its stage at the timeout. If this machine was too busy to look
    /// in time, the target gets the lost time again, once in a check, so that it does not fail for a busy machine.
    pub(super) async fn limit<T>(
        &mut self,
        stage: impl FnOnce() -> Stage,
        work: impl Future<Output = T>,
    ) -> Result<T, CheckError> {
        let mut work = pin!(work);
        loop {
            // A peer that never stops sending has each read ready at once, and no timer would be looked at.
            if Instant::now() < self.deadline
                && let Ok(value) = time::timeout_at(self.deadline, &mut work).await
            {
                return Ok(value);
            }
            let now = Instant::now();
            let late = now.saturating_duration_since(self.deadline);
            if late <= LAG_ALLOWANCE {
                return Err(CheckError::TimedOut {
                    target: self.target,
                    stage: stage(),
                    after: self.timeout,
                });
            }
            if self.extended {
                return Err(CheckError::Local {
                    target: self.target,
                    error: LocalError::Late(late),
                });
            }
            self.extended = true;
            self.deadline = now + late.min(self.timeout);
        }
    }

    /// Connects by `route`, and sends its PROXY header. The connection closes by reset, so that no check leaves a port
    /// in TIME_WAIT.
    pub(crate) async fn connect(&mut self, route: Route) -> Result<Connection, CheckError> {
        let dialed = socket_pool::open(self.target, route).and_then(|socket| {
            socket.set_tcp_nodelay(true)?;
            let address = through::enter(&socket, self.target)?.into();
            Ok((begin(&socket, &address)?, socket, address))
        });
        let (connected, socket, address) = dialed.map_err(|error| self.cannot_connect(&error))?;
        let connection = self.spend(Stage::Connect, settle(socket, &address, connected));
        let mut stream = connection.await?;
        self.is_not_ours(SockRef::from(&stream).local_addr())?;
        if let Some(version) = route.proxy {
            let header = proxy::send(version, self.target, &mut stream);
            self.spend(Stage::Request, header).await?;
        }
        Ok(Connection::new(stream))
    }

    /// Tests whether the port is open, by `route`, without its PROXY header. With `half` the third packet of the
    /// handshake is held back, and the reset that ends the connection replaces it.
    pub(super) async fn knock(&mut self, route: Route, half: bool) -> Result<(), CheckError> {
        let taken = socket_pool::take(self.target, route).and_then(|socket| {
            if half {
                socket_pool::hold_acknowledgement(&socket)?;
            }
            let address = through::enter(&socket, self.target)?.into();
            Ok((socket, address))
        });
        let (mut socket, address) = taken.map_err(|error| self.cannot_connect(&error))?;
        match begin(&socket, &address) {
            Ok(true) => {}
            Ok(false) => {
                let connection = self.spend(Stage::Connect, settle(socket, &address, false));
                let stream = connection.await?.into_std();
                socket = stream.map_err(|error| self.cannot_connect(&error))?.into();
            }
            Err(error) => {
                if error.raw_os_error() == Some(libc::ECONNREFUSED) {
                    socket_pool::put_back(socket, self.target, route);
                }
                return Err(self.cannot_connect(&error));
            }
        }
        let ours = self.is_not_ours(socket.local_addr());
        if socket_pool::hang_up(&socket).is_ok() {
            socket_pool::put_back(socket, self.target, route);
        }
        ours
    }

    fn cannot_connect(&self, error: &io::Error) -> CheckError {
        CheckError::from_io(self.target, Stage::Connect, error)
    }

    /// The kernel can pick a closed port of this machine as the connection's own source port, and TCP then connects it
    /// to itself (RFC 9293, simultaneous open): no server accepted that.
    fn is_not_ours(&self, local: io::Result<SockAddr>) -> Result<(), CheckError> {
        match local.ok().and_then(|local| local.as_socket()) {
            Some(local) if local == self.target => Err(CheckError::Refused(self.target)),
            Some(_) | None => Ok(()),
        }
    }
}

/// Starts to connect. Returns whether that is done.
fn begin(socket: &Socket, address: &SockAddr) -> io::Result<bool> {
    match socket.connect(address) {
        // A target on this machine or in a container of it has answered by now: no need to wait.
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => proceed(socket, address),
        result => result.map(|()| true),
    }
}

/// Asks the kernel for the state of a connection in progress, by calling `connect` again. Returns whether it is
/// established.
fn proceed(socket: &Socket, address: &SockAddr) -> io::Result<bool> {
    match socket.connect(address) {
        Err(error) if error.raw_os_error() == Some(libc::EALREADY) => Ok(false),
        result => result.map(|()| true),
    }
}

/// Hands a socket to the event loop and waits until it is `connected`.
async fn settle(socket: Socket, address: &SockAddr, connected: bool) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(socket.into())?;
    if !connected {
        let look = || match proceed(&SockRef::from(&stream), address)? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        stream.async_io(Interest::WRITABLE, look).await?;
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that never stops sending must not have more time than a silent one.
    #[tokio::test(start_paused = true)]
    async fn work_that_is_always_ready_ends_at_the_deadline() {
        const TIMEOUT: Duration = Duration::from_secs(1);
        const STEP: Duration = Duration::from_millis(10);
        let target: SocketAddr = "10.0.0.11:80".parse().unwrap();
        let mut budget = Budget::start(target, TIMEOUT);
        let mut reads = 0;
        let error = loop {
            time::advance(STEP).await;
            reads += 1;
            if let Err(error) = budget.limit(|| Stage::Head, async {}).await {
                break error;
            }
            assert!(reads < 1000, "it never ends");
        };
        let timed_out = CheckError::TimedOut {
            target,
            stage: Stage::Head,
            after: TIMEOUT,
        };
        assert_eq!(error, timed_out);
        assert!(budget.started.elapsed() <= TIMEOUT + STEP);
    }

    /// Nor may stalls give it more time again and again.
    #[tokio::test(start_paused = true)]
    async fn time_is_given_once_in_a_check() {
        const TIMEOUT: Duration = Duration::from_secs(1);
        let mut budget = Budget::start("10.0.0.11:80".parse().unwrap(), TIMEOUT);
        for ready in [true, false, false] {
            time::advance(4 * TIMEOUT).await;
            let outcome = budget.limit(|| Stage::Body, async {}).await;
            assert_eq!(outcome.is_ok(), ready, "{outcome:?}");
        }
    }

    /// A backend must neither go down because the balancer was stopped for a while, nor stay up because of that.
    #[tokio::test(start_paused = true)]
    async fn time_lost_by_a_stall_is_given_once_more() {
        const TIMEOUT: Duration = Duration::from_secs(1);
        let target: SocketAddr = "10.0.0.11:80".parse().unwrap();
        let timed_out = || {
            Err(CheckError::TimedOut {
                target,
                stage: Stage::Request,
                after: TIMEOUT,
            })
        };
        let late = |seconds| {
            Err(CheckError::Local {
                target,
                error: LocalError::Late(Duration::from_secs(seconds)),
            })
        };
        // Seconds of each stall, and seconds until the answer.
        for (stalls, answer, expected) in [
            ([0, 0], 0.5, Ok(())),
            ([0, 0], 1.5, timed_out()),
            ([4, 0], 4.5, Ok(())),
            ([4, 0], 5.5, timed_out()),
            ([4, 5], 9.5, late(4)),
        ] {
            let mut budget = Budget::start(target, TIMEOUT);
            let check = tokio::spawn(async move {
                let work = time::sleep(Duration::from_secs_f32(answer));
                budget.limit(|| Stage::Request, work).await
            });
            for stall in stalls.into_iter().filter(|stall| *stall > 0) {
                tokio::task::yield_now().await;
                time::advance(Duration::from_secs(stall)).await;
            }
            assert_eq!(check.await.unwrap(), expected, "{stalls:?} {answer}");
        }
    }
}
