//! Telling the service manager how the daemon is: the protocol of sd_notify(3), one datagram each.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// What the service manager is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    /// It forwards; start-up is over, or reloading is.
    Ready,
    /// It leaves.
    Stopping,
}

/// Sends a notice where a service manager wants one. Without one, and when it does not listen, nothing happens.
pub(super) fn notify(notice: Notice) {
    let state: &[u8] = match notice {
        Notice::Ready => b"READY=1\n",
        Notice::Stopping => b"STOPPING=1\n",
    };
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state, &address));
    if let Err(error) = sent {
        tracing::warn!(?path, %error, "cannot notify the service manager");
    }
}
