//! The sockets of the admin API: for operators, and for readers where one is configured.

use tokio::net::UnixListener;

use super::error::RunError;
use crate::{
    api::{
        access::Role,
        socket::{self, Place, Socket},
    },
    config::DaemonSettings,
    parts::{MissingPart, Part},
};

/// A socket that listens, or why it does not yet.
pub(super) type Listening = Result<(UnixListener, Socket), MissingPart>;

/// Listens on each configured socket.
///
/// # Errors
/// Another daemon has one, or another file has its path.
pub(super) async fn listen(settings: &DaemonSettings) -> Result<Vec<(Place, Listening)>, RunError> {
    let operate = Place {
        path: settings.socket.clone(),
        group: settings.socket_group.clone(),
        role: Role::Admin,
    };
    let read = settings.socket_read.as_ref().map(|path| Place {
        path: path.clone(),
        group: settings.socket_read_group.clone(),
        role: Role::Read,
    });
    let mut sockets = Vec::new();
    for place in [operate].into_iter().chain(read) {
        let listening = match socket::listen(&place).await {
            Err(error) if error.is_final() => return Err(error.into()),
            listening => listening.map_err(|error| error.missing(place.role)),
        };
        sockets.push((place, listening));
    }
    Ok(sockets)
}

/// The part of the daemon that a socket is.
pub(super) const fn part(role: Role) -> Part {
    match role {
        Role::Admin | Role::Operate => Part::AdminSocket,
        Role::Read => Part::ReadSocket,
    }
}
