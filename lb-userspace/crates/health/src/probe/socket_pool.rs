//! Sockets that TCP checks reuse: making and closing one costs about half as much as the connection itself. `connect`
//! to no address (AF_UNSPEC) resets the connection and makes the socket usable again (connect(2)). The sockets of a
//! thread stay with it: no lock, and none is used in another network namespace than its own.

use std::{
    cell::RefCell,
    io, mem,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::through;
use crate::{
    probe::route::{Route, set_on},
    source_ports,
};

/// Sockets that a thread keeps at most: more are only in use at once where a burst of checks waits for far targets.
const MAX_SPARE: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

/// A used socket, and its properties.
struct Spare {
    socket: Socket,
    domain: Domain,
    route: Route,
}

/// A socket that is not connected, and does not block: a used one if there is one of the family and `route`.
///
/// # Errors
/// As [`open`].
pub(super) fn take(target: SocketAddr, route: Route) -> io::Result<Socket> {
    // A socket of a check through the VIP cannot be reused for others.
    if through::is_led() {
        return open(target, route);
    }
    let domain = Domain::for_address(target);
    let found = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        let place = spare
            .iter()
            .rposition(|spare| spare.domain == domain && spare.route == route)?;
        Some(spare.swap_remove(place).socket)
    });
    // A thread that ends has none.
    let Some(socket) = found.ok().flatten() else {
        return open(target, route);
    };
    source_ports::apply(&socket)?;
    Ok(socket)
}

/// Keeps a socket that [`take`] gave for `target` and `route`, and that is not connected.
pub(super) fn put_back(socket: Socket, target: SocketAddr, route: Route) {
    if through::is_led() {
        return;
    }
    let spare = Spare {
        socket,
        domain: Domain::for_address(target),
        route,
    };
    let _ = SPARE.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.len() < MAX_SPARE {
            kept.push(spare);
        }
    });
}

/// A new socket that does not block. Its connections close by reset, so that no check leaves a port in TIME_WAIT behind.
///
/// # Errors
/// When this machine has no more sockets, or does not let this one take `route`.
pub(super) fn open(target: SocketAddr, route: Route) -> io::Result<Socket> {
    let domain = Domain::for_address(target);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_linger(Some(std::time::Duration::ZERO))?;
    route.mark(&socket)?;
    source_ports::apply(&socket)?;
    if let Some(source) = route.source_for(target)? {
        // The port is chosen at connect, when the target is known: one source port serves many targets. That is Linux's
        // IP_BIND_ADDRESS_NO_PORT (ip(7)), for both families.
        set_on(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

/// Has the kernel hold back the third packet of the handshake: it then hopes to send the acknowledgement together with
/// data (tcp_rcv_synsent_state_process). Holds for the next connection only.
pub(super) fn hold_acknowledgement(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_quickack(false)
}

/// Ends the connection of a socket by a reset.
pub(super) fn hang_up(socket: &Socket) -> io::Result<()> {
    // SAFETY: all of it may be zero, which is the family AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere)).unwrap_or_default();
    // SAFETY: the descriptor is open as long as `socket`; the address outlives the call, and its size is given.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
