//! Connections of checks, and the time they may take.

use std::{future::Future, io, net::SocketAddr, time::Duration};

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
        let deadline = self.started + self.timeout;
        match time::timeout_at(deadline, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(CheckError::from_io(self.target, stage, &error)),
            Err(_) => {
                let late = Instant::now().saturating_duration_since(deadline);
                if late > LAG_ALLOWANCE {
                    return Err(CheckError::Local {
                        target: self.target,
                        error: LocalError::Late(late),
                    });
                }
                Err(CheckError::TimedOut {
                    target: self.target,
                    stage,
                    after: self.timeout,
                })
            }
        }
    }

    /// Connects. The connection closes by reset, so that no check leaves a port in TIME_WAIT behind.
    pub(super) async fn connect(&self) -> Result<TcpStream, CheckError> {
        let stream = self.spend(Stage::Connect, connect(self.target)).await?;
        // A port on this machine that nobody listens on can be drawn as the connection's own source port, and TCP
        // then connects it to itself (RFC 9293, simultaneous open).
        if stream.local_addr().is_ok_and(|local| local == self.target) {
            return Err(CheckError::Refused(self.target));
        }
        Ok(stream)
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_zero_linger()?;
    socket.set_nodelay(true)?;
    socket.connect(target).await
}
