//! The way of a check through the forwarding path.
//!
//! Its sockets go another way than those of other checks, whatever they speak: they connect to where the path begins. That
//! is known to the task that makes the check, for as long as it does.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
};

use socket2::SockRef;
use tokio::task_local;

use crate::{
    error::{CheckError, LocalError},
    probe_route::{CheckPath, Paths, ProbeRoute},
};

task_local! {
    /// Where the check of this task enters the path.
    static ENTRANCE: ProbeRoute;
}

/// Leads one check through the path.
#[derive(Debug)]
pub(super) struct Through {
    paths: Arc<dyn Paths>,
    path: CheckPath,
    source: Option<IpAddr>,
}

impl Through {
    /// Of checks that leave with `source`, if one is set.
    pub(super) fn new(paths: Arc<dyn Paths>, path: CheckPath, source: Option<IpAddr>) -> Self {
        Self { paths, path, source }
    }

    /// Makes `check` of the address that clients know, through the path. `port` is that of the settings.
    pub(super) async fn lead<T, F>(
        &self,
        port: Option<u16>,
        check: impl FnOnce(SocketAddr) -> F,
    ) -> Result<T, CheckError>
    where
        F: Future<Output = Result<T, CheckError>>,
    {
        let target = self.path.target(port);
        let opened = self.paths.open(&self.path, target.port(), self.source).await;
        let entrance = opened.map_err(|why| CheckError::Local {
            target,
            error: LocalError::Path(why.into()),
        })?;
        let outcome = ENTRANCE.scope(entrance, check(target)).await;
        outcome.map_err(|error| self.blame(error))
    }

    /// Names the path in what is said about the backend.
    fn blame(&self, error: CheckError) -> CheckError {
        if error.is_local() {
            return error;
        }
        CheckError::Through {
            path: self.path,
            error: Box::new(error),
        }
    }
}

/// Whether the check of this task goes through the path.
pub(super) fn is_led() -> bool {
    ENTRANCE.try_with(|_| ()).is_ok()
}

/// Where a new socket to `target` connects to: there, or where the path begins. Then it leaves by that.
pub(super) fn enter(socket: &impl AsFd, target: SocketAddr) -> io::Result<SocketAddr> {
    let Ok(ProbeRoute { address, device }) = ENTRANCE.try_with(ProbeRoute::clone) else {
        return Ok(target);
    };
    SockRef::from(socket).bind_device(Some(device.as_bytes()))?;
    Ok(address)
}
