//! Checks with a program of the operator's.

mod group;
mod starter;

use std::{io, net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use tokio::process::Command;

use super::{connect::Budget, problem::ProbeError};
use crate::{
    error::{CheckError, Latency, LocalError, Stage},
    probe::{checker::Checker, exec::group::Group},
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
