//! The way of a check's packets out of this machine.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
};

use socket2::SockRef;

use crate::{error::LocalError, settings::ProxyVersion};

/// Which way the packets of a check leave this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// Their source address; the kernel's choice where absent.
    pub source: Option<IpAddr>,
    /// Their mark (`SO_MARK`, needs CAP_NET_ADMIN), for routing rules and packet filters.
    pub mark: Option<u32>,
    /// PROXY header that connections begin with; none where absent.
    pub proxy: Option<ProxyVersion>,
}

impl Route {
    /// The source address of a socket to `target`, if one is set.
    pub(super) fn source_for(self, target: SocketAddr) -> io::Result<Option<IpAddr>> {
        match self.source {
            Some(source) if source.is_ipv4() != target.is_ipv4() => {
                Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
            }
            source => Ok(source),
        }
    }

    /// Gives a socket the mark.
    pub(super) fn mark(self, socket: &impl AsFd) -> io::Result<()> {
        let Some(mark) = self.mark else { return Ok(()) };
        let set = SockRef::from(socket).set_mark(mark);
        set.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => io::Error::other(LocalError::Mark),
            _ => error,
        })
    }
}

/// Sets a socket option that is on or off, and that the libraries in use do not have.
pub(super) fn set_on(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open as long as `socket`; the value is an int that outlives the call, and its size is
    // given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of_val(&on).try_into().unwrap_or(4),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
