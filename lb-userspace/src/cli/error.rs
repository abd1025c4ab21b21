//! How a command ends: exit codes, and errors as `error: what: why` with a hint.

use std::{
    fmt,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use tracing::Level;

use crate::{
    api::requests::{ErrorBody, ErrorCode, PlacedError},
    app::telemetry,
    config::ConfigError,
};

/// Exit codes of `lb`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// No such service or backend.
    NotFound = 3,
    /// It exists with other content, or the revision moved on.
    Conflict = 4,
    /// The daemon is not reachable.
    Unreachable = 5,
    /// Waiting took longer than `--timeout`.
    TimedOut = 6,
    /// Warnings were found, but no failures; or, with `--exit-code`, differences.
    Warnings = 10,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub struct CliError {
    /// The exit code of the process.
    pub exit: Exit,
    /// `what: why`.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
    /// Every error of a file.
    pub details: Vec<PlacedError>,
    /// The kind of failure, if the daemon answered it.
    pub code: Option<ErrorCode>,
    /// Whether a service manager runs the command, and reads its output.
    pub by_daemon: bool,
}

impl CliError {
    /// A failure with its message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
            details: Vec::new(),
            code: None,
            by_daemon: false,
        }
    }

    /// A result that was shown already, and ends the process with this code.
    pub fn shown(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// The same, from a command that a service manager runs.
    pub fn by_daemon(self) -> Self {
        Self {
            by_daemon: true,
            ..self
        }
    }

    /// The same with a hint.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The same with every error of a file.
    pub fn listing(self, errors: Vec<ConfigError>) -> Self {
        Self {
            details: errors.into_iter().map(PlacedError::from).collect(),
            ..self
        }
    }

    /// The error that the daemon answered.
    pub fn answered(body: ErrorBody) -> Self {
        let error = body.error;
        let exit = match error.code {
            ErrorCode::Invalid
            | ErrorCode::Failed
            | ErrorCode::Forbidden
            | ErrorCode::Unconfirmed
            | ErrorCode::TooLarge => Exit::Failed,
            ErrorCode::NotFound => Exit::NotFound,
            ErrorCode::Conflict => Exit::Conflict,
            ErrorCode::Unavailable => Exit::Unreachable,
        };
        Self {
            exit,
            message: error.message,
            hint: error.hint,
            details: error.details,
            code: Some(error.code),
            by_daemon: false,
        }
    }

    /// The daemon's socket could not be connected to.
    pub fn unreachable(socket: &Path, error: &io::Error) -> Self {
        let kind = error.kind();
        let (why, hint) = if kind == io::ErrorKind::NotFound {
            (
                "no such socket".to_owned(),
                "start the daemon with `systemctl start lb` or `lb run --iface IFACE`, or name its socket with --socket or LB_SOCKET",
            )
        } else if kind == io::ErrorKind::ConnectionRefused {
            (
                "no daemon listens".to_owned(),
                "the daemon of this socket has ended; start one with `systemctl start lb` or `lb run --iface IFACE`",
            )
        } else if kind == io::ErrorKind::PermissionDenied {
            (
                "permission denied".to_owned(),
                "run as root, join the group that owns the socket (`socket_group`), or read through `socket_read` with --socket",
            )
        } else {
            (
                error.to_string(),
                "see whether the daemon runs, and whether --socket or LB_SOCKET names its socket",
            )
        };
        Self::new(
            Exit::Unreachable,
            format!("cannot reach the daemon at {}: {why}", socket.display()),
        )
        .hint(hint)
    }
}

impl CliError {
    /// Writes it to stderr, and ignores a closed stderr. From a daemon, the journal gets its priority.
    pub fn print(&self) {
        if self.message.is_empty() {
            return;
        }
        let text = if self.by_daemon && telemetry::to_journal() {
            telemetry::with_priority(Level::ERROR, &self.to_string())
        } else {
            format!("{self}\n")
        };
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// All lines for stderr, with the closing line feed left to the caller.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PlacedError {
            file,
            line,
            column,
            message,
            hint,
        } in &self.details
        {
            writeln!(f, "error: {file}:{line}:{column}: {message}")?;
            if let Some(hint) = hint {
                writeln!(f, "hint: {hint}")?;
            }
        }
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::requests::ErrorDetail;

    #[test]
    fn every_answer_has_its_exit_code() {
        for (code, exit) in [
            (ErrorCode::Invalid, 1),
            (ErrorCode::Failed, 1),
            (ErrorCode::Unconfirmed, 1),
            (ErrorCode::NotFound, 3),
            (ErrorCode::Conflict, 4),
            (ErrorCode::Unavailable, 5),
        ] {
            let error = ErrorDetail {
                code,
                message: "service \"web\": no such service".into(),
                hint: None,
                details: Vec::new(),
            };
            let error = CliError::answered(ErrorBody { error });
            assert_eq!(error.exit as u8, exit);
            assert_eq!(error.to_string(), "error: service \"web\": no such service");
        }
    }

    #[test]
    fn a_bad_file_shows_each_error_with_place_and_hint() {
        let placed = PlacedError {
            file: "lb.toml".into(),
            line: 3,
            column: 9,
            message: "port 99999 is over 65535".into(),
            hint: Some("use 1 to 65535".into()),
        };
        let error = ErrorDetail {
            code: ErrorCode::Invalid,
            message: "lb.toml: 1 error".into(),
            hint: None,
            details: vec![placed],
        };
        assert_eq!(
            CliError::answered(ErrorBody { error }).to_string(),
            "error: lb.toml:3:9: port 99999 is over 65535\nhint: use 1 to 65535\nerror: lb.toml: 1 error"
        );
    }

    #[test]
    fn a_daemon_that_is_not_there_is_exit_5_with_a_way_out() {
        for kind in [
            io::ErrorKind::NotFound,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::PermissionDenied,
        ] {
            let error = CliError::unreachable(Path::new("/run/lb/lb.sock"), &kind.into());
            assert_eq!(error.exit, Exit::Unreachable);
            assert!(error.hint.is_some());
            assert!(error.message.contains("/run/lb/lb.sock"));
        }
    }
}
