//! Why the daemon did not start, or ended.

use std::io;

use crate::{
    api::socket::SocketError,
    config_file::FileError,
    control::ControlError,
    datapath::{DatapathError, ProgramError},
    health::SpawnError,
    state::store::StoreError,
};

/// Why `lb run` failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No interface anywhere.
    #[error("no interface: nothing to attach to")]
    NoInterface,
    /// The threads of the daemon and their runtime.
    #[error("cannot start the daemon's threads")]
    Threads(#[source] io::Error),
    /// A signal handler.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// The admin API's socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory's content together with the file's.
    #[error(transparent)]
    Desired(ControlError),
    /// Two metrics of one name.
    #[error("cannot register metrics")]
    Registry(#[from] prometheus::Error),
    /// The data plane.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The health checks.
    #[error(transparent)]
    Health(#[from] SpawnError),
    /// The desired state cannot be programmed.
    #[error("cannot program the data plane")]
    Program(#[from] ProgramError),
    /// A part of the daemon ended on its own; the kernel forwards on.
    #[error("the {0} task ended unexpectedly; the kernel forwards on without the daemon")]
    Died(&'static str),
    /// The data plane was not left in time; the kernel may forward on.
    #[error("the stop could not wait for the data plane any longer; the kernel may forward on")]
    Unfinished,
}

impl RunError {
    /// The remedy.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(FileError::Read { .. } | FileError::NoFile { .. }) => {
                Some("name a file that exists with --config".into())
            }
            Self::File(FileError::Content { .. }) => None,
            Self::NoInterface => Some(
                "name one with --iface, or with `interfaces` in [lb] of the file; `ip link` lists them"
                    .into(),
            ),
            Self::Socket(error) => Some(error.hint().into()),
            Self::Store(error) => Some(error.hint()),
            Self::Desired(error) => error.hint(),
            Self::Died(_) => Some("start it again: it takes over without losing a packet".into()),
            Self::Unfinished => Some("`lb status` shows what forwards on, `lb detach` ends it".into()),
            Self::Datapath(error) => error.hint(),
            Self::Threads(_) => Some(
                "raise the limit of tasks: TasksMax of the unit, pids.max of the cgroup, or `ulimit -u`"
                    .into(),
            ),
            Self::Signals(_) | Self::Registry(_) | Self::Health(_) | Self::Program(_) => None,
        }
    }
}
