//! The admin API's sockets: mode 0660, one daemon at a time, a dead daemon's socket replaced.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::{author::group_id, parts::MissingPart};

use super::access::Role;

/// Mode of a socket: the daemon's user may use it, and one group.
pub const SOCKET_MODE: u32 = 0o660;

/// Why the socket cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers on it.
    #[error("{} is in use by a running daemon", .0.display())]
    InUse(PathBuf),
    /// Something else has its name.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// Its group does not exist.
    #[error("no group {group:?} for {}", path.display())]
    NoGroup {
        /// The group.
        group: String,
        /// The path.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// The failed operation.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl SocketError {
    /// The part of the daemon that is missing.
    pub fn missing(&self, role: Role) -> MissingPart {
        let what = match role {
            Role::Admin | Role::Operate => "no command reaches the daemon",
            Role::Read => "no command can read through `socket_read`",
        };
        MissingPart {
            message: format!("{what}: {self}"),
            hint: self.hint().to_owned(),
        }
    }

    /// Whether the start must fail: another daemon has this socket, or the path is some other file.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::InUse(_) | Self::NotASocket(_) => true,
            Self::NoGroup { .. } | Self::Io { .. } => false,
        }
    }

    /// The remedy.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::InUse(_) => {
                "stop that daemon, or give this one its own --socket, --state-dir and --pin-dir"
            }
            Self::NotASocket(_) => "remove it, or name another path with --socket",
            Self::NoGroup { .. } => "make it with `groupadd --system GROUP`, or name another one",
            Self::Io { .. } => "run as root, or name a path that you may write with --socket",
        }
    }
}

/// Where a socket is, and who may use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its path.
    pub path: PathBuf,
    /// Its group, by name or number; `None`: the daemon's own.
    pub group: Option<String>,
    /// What it is for.
    pub role: Role,
}

/// A listening socket whose file is removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Drop for Socket {
    /// Without the file, clients report "no such socket" at once.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Listens at `place`, and creates its directory if it is missing.
///
/// # Errors
/// [`SocketError`]
pub async fn listen(place: &Place) -> Result<(UnixListener, Socket), SocketError> {
    let path: &Path = &place.path;
    let failed = |what| {
        let path = path.to_owned();
        move |source| SocketError::Io { what, path, source }
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed("cannot make the directory of"))?;
    }
    let group = match &place.group {
        None => None,
        Some(group) => Some(group_id(group).ok_or_else(|| SocketError::NoGroup {
            group: group.clone(),
            path: path.to_owned(),
        })?),
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed("cannot replace"))?;
            }
            Err(error) => return Err(failed("cannot find the owner of")(error)),
            Ok(_) => return Err(SocketError::InUse(path.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("cannot look at")(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed("cannot listen on"))?;
    let socket = Socket {
        path: path.to_owned(),
    };
    // The group first: with the mode alone, another group could connect in between.
    if group.is_some() {
        chown(path, None, group).map_err(failed("cannot set the group of"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
        .map_err(failed("cannot set the mode of"))?;
    Ok((listener, socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &Path) -> Place {
        Place {
            path: path.to_owned(),
            group: None,
            role: Role::Admin,
        }
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/lb.sock");
        let (listener, socket) = listen(&place(&path)).await.unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            SOCKET_MODE
        );
        assert!(matches!(listen(&place(&path)).await, Err(SocketError::InUse(_))));

        // A killed daemon closes its socket but leaves the file.
        std::mem::forget(socket);
        drop(listener);
        assert!(path.exists());
        let (_listener, socket) = listen(&place(&path)).await.unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(
            listen(&place(&path)).await,
            Err(SocketError::NotASocket(_))
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[tokio::test]
    async fn a_group_that_does_not_exist_gets_no_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.sock");
        let unknown = Place {
            group: Some("no such group".into()),
            ..place(&path)
        };
        assert!(matches!(listen(&unknown).await, Err(SocketError::NoGroup { .. })));
        assert!(!path.exists());
    }
}
