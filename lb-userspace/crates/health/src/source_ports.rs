//! Ports that connections of checks leave from, where they may not have all that the kernel would choose from.

use std::{
    io,
    ops::RangeInclusive,
    os::fd::AsRawFd,
    sync::atomic::{AtomicU32, Ordering},
};

/// `IP_LOCAL_PORT_RANGE` of linux/in.h, since Linux 6.3; for both families.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
/// No limit, and the kernel's own word for that.
const ALL: u32 = 0;

/// The limit of this process, as the kernel wants it: the first port in the low half, the last one in the high half.
static LIMIT: AtomicU32 = AtomicU32::new(ALL);

/// Limits the source ports of later checks to these; without ports there is no limit. Kernels before 6.3 do not support
/// the limit, and use all ports.
pub fn limit_to(ports: Option<&RangeInclusive<u16>>) {
    let limit = ports.map_or(ALL, |ports| {
        u32::from(*ports.end()) << u16::BITS | u32::from(*ports.start())
    });
    LIMIT.store(limit, Ordering::Relaxed);
}

/// Applies the limit to a socket without a source port yet.
pub(super) fn apply(socket: &impl AsRawFd) -> io::Result<()> {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == ALL {
        return Ok(());
    }
    // SAFETY: the descriptor is open as long as `socket`; the value outlives the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw const limit).cast(),
            size_of_val(&limit).try_into().unwrap_or(4),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => Ok(()),
        _ => Err(error),
    }
}
