//! Checks through the VIP. Their sockets connect to the entrance of the forwarding path, in any protocol. A task-local
//! variable holds the entrance while the check runs.

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

    /// Makes `check` of the service's address, through the path. `port` comes from the settings.
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

    /// Names the path in an error about the backend.
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
