//! Telling the service manager how the daemon is: the protocol of sd_notify(3), one datagram each.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// A notice for the service manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    /// It forwards; start-up is over, or reloading is.
    Ready,
    /// It leaves.
    Stopping,
    /// Its loops turn.
    Alive,
}

/// Sends a notice to the service manager, if there is one.
///
/// # Errors
/// It does not listen.
pub(super) fn notify(notice: Notice) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(socket) => send(&socket, notice),
        None => Ok(()),
    }
}

/// A name that begins with `@` is in the abstract namespace (unix(7)).
fn send(socket: &OsStr, notice: Notice) -> io::Result<()> {
    let state: &[u8] = match notice {
        Notice::Ready => b"READY=1\n",
        Notice::Stopping => b"STOPPING=1\n",
        Notice::Alive => b"WATCHDOG=1\n",
    };
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(socket),
    }?;
    UnixDatagram::unbound()?.send_to_addr(state, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_manager_is_notified_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let abstract_name = format!("lb-test-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (socket, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (
                UnixDatagram::bind_addr(&by_name).unwrap(),
                format!("@{abstract_name}").into(),
            ),
        ] {
            for (notice, text) in [
                (Notice::Ready, "READY=1\n"),
                (Notice::Stopping, "STOPPING=1\n"),
                (Notice::Alive, "WATCHDOG=1\n"),
            ] {
                send(&name, notice).unwrap();
                let mut buffer = [0; 64];
                let length = socket.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], text.as_bytes());
            }
        }
        assert!(send(OsStr::new("/no/such/socket"), Notice::Ready).is_err());
    }
}
