//! Checks with a program of the operator's.

mod starter;

use std::{
    io,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

use super::{Checker, TooMuch, connect::Budget, problem::ProbeError};
use crate::{
    error::{CheckError, Latency, LocalError, Stage},
    settings::ExecCheck,
};

/// The variables that a program gets besides its target's: the daemon's own may hold secrets, or change the program's
/// behaviour.
const ENVIRONMENT: [(&str, &str); 2] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("LANG", "C.UTF-8"),
];
/// Bytes of output that are kept; the rest is thrown away.
const MAX_OUTPUT: usize = 4096;
/// Bytes of output that are read: a program that prints without end costs this machine's time.
const MAX_PRINTED: usize = 2 * 1024 * 1024;
/// Characters of it that are shown.
const SHOWN: usize = 200;

/// Everything that makes `settings` no check.
pub(super) fn problems(settings: &ExecCheck) -> Vec<ProbeError> {
    let ExecCheck { command } = settings;
    let program = command
        .first()
        .is_some_and(|program| Path::new(program).is_absolute());
    if program && !command.iter().any(|word| word.contains('\0')) {
        Vec::new()
    } else {
        vec![ProbeError::Command]
    }
}

/// Runs a program, which succeeds with exit code 0.
///
/// It gets the target in `LB_ADDRESS` and `LB_PORT`, `PATH` and `LANG`, no other part of the daemon's environment and
/// none of its capabilities, and a process group of its own, which is killed at the timeout. Its output is bounded, and
/// shown when it fails.
#[derive(Clone, Debug)]
pub struct ExecChecker {
    command: Arc<[String]>,
}

impl ExecChecker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When they name no program.
    pub fn new(settings: &ExecCheck) -> Result<Self, ProbeError> {
        match problems(settings).into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(Self {
                command: settings.command.as_slice().into(),
            }),
        }
    }

    async fn start(&self, target: SocketAddr) -> io::Result<Group> {
        let (program, arguments) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(ENVIRONMENT)
            .env("LB_ADDRESS", target.ip().to_string())
            .env("LB_PORT", target.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        starter::start(command).await
    }
}

impl Checker for ExecChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        let started = budget.limit(|| Stage::Request, self.start(target)).await?;
        let mut group = started.map_err(|error| {
            let program = self.command.first().map_or("", String::as_str);
            let local = CheckError::from_io(target, Stage::Connect, &error);
            if local.is_local() && error.kind() != io::ErrorKind::PermissionDenied {
                return local;
            }
            CheckError::Local {
                target,
                error: LocalError::Settings(format!("{program}: {error}").into()),
            }
        })?;
        let failed = |reason: String| CheckError::Command {
            target,
            reason: reason.into(),
        };
        let (status, output) = match budget.spend(Stage::Request, group.finish()).await {
            Err(CheckError::Endless { limit, .. }) => {
                return Err(failed(format!("it printed over {limit} bytes")));
            }
            finished => finished?,
        };
        if status.success() {
            return Ok(Latency(budget.started.elapsed()));
        }
        let output = String::from_utf8_lossy(&output);
        let shown: String = output
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(SHOWN)
            .collect();
        Err(failed(format!("{status}: {}", shown.trim())))
    }
}

/// A program with everything it started.
struct Group(Child);

impl Group {
    /// Its exit status, and the beginning of its output.
    async fn finish(&mut self) -> io::Result<(ExitStatus, Vec<u8>)> {
        let (out, err) = (self.0.stdout.take(), self.0.stderr.take());
        let (out, err) = tokio::try_join!(drain(out), drain(err))?;
        let status = self.0.wait().await?;
        Ok((status, if err.is_empty() { out } else { err }))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // No id after the wait: the id may belong to another process then, so nothing is killed.
        let Some(group) = self.0.id().and_then(|id| libc::pid_t::try_from(id).ok()) else {
            return;
        };
        // SAFETY: plain system call without pointers. The group's leader has not been waited for, so its id is its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// Reads all, up to a bound, and keeps the beginning.
async fn drain(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let Some(mut pipe) = pipe else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::with_capacity(256);
    let mut piece = [0; 1024];
    let mut printed = 0;
    loop {
        let read = pipe.read(&mut piece).await?;
        printed += read;
        if printed > MAX_PRINTED {
            return Err(io::Error::other(TooMuch(MAX_PRINTED)));
        }
        if read == 0 {
            return Ok(kept);
        }
        let wanted = read.min(MAX_OUTPUT - kept.len());
        kept.extend_from_slice(piece.get(..wanted).unwrap_or_default());
    }
}
