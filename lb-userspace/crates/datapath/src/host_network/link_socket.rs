//! What packet sockets (packet(7)) have in common: addresses on a link, and receiving until a deadline.

use std::{
    io, mem,
    time::{Duration, Instant},
};

use socket2::{SockAddr, SockAddrStorage, Socket};

/// The family of packet sockets in an address.
#[expect(clippy::cast_possible_truncation, reason = "the kernel's number of it is 17")]
pub(super) const PACKET_FAMILY: u16 = libc::AF_PACKET as u16;

/// The address of a neighbour on a link; `mac` means nothing where a socket is bound.
pub(super) fn link_address(ifindex: u32, ethertype: u16, mac: [u8; 6]) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is larger than any address, aligned for all, and zero is a value of every field.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = PACKET_FAMILY;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = ifindex.cast_signed();
    address.sll_halen = 6;
    let [a, b, c, d, e, f] = mac;
    address.sll_addr = [a, b, c, d, e, f, 0, 0];
    #[expect(clippy::cast_possible_truncation, reason = "20 bytes")]
    let length = const { mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t };
    // SAFETY: the storage holds an address of that length.
    unsafe { SockAddr::new(storage, length) }
}

/// The next packet, cut to `most` bytes or a few more, and where it came from; `None` when the time is over.
///
/// # Errors
/// When the socket fails.
pub(super) fn receive(
    socket: &Socket,
    most: usize,
    deadline: Instant,
) -> io::Result<Option<(Vec<u8>, SockAddr)>> {
    let mut packet = Vec::with_capacity(most);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        // The kernel counts in microseconds, and waits without end for none.
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match socket.recv_from(packet.spare_capacity_mut()) {
            Ok((length, from)) => {
                // SAFETY: the kernel has written that many bytes, at most the capacity.
                unsafe { packet.set_len(length) };
                return Ok(Some((packet, from)));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}
