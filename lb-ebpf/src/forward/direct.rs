//! The modes in which a backend gets the client's packet as it is, and answers the client itself.

use core::cell::Cell;

use lb_common::{
    backend::{Backend, IPV6},
    reason::Reason,
    service::Mode,
    tunnel,
};

use crate::{
    family::Family, forward::tunnel as outer, next_hop::NextHop, packet::Packet, parse::Ip, verdict::Verdict,
};

/// Sends a packet to its backend in the backend's mode. Refuses one that does not fit, with the size that does in `limit`.
#[inline(always)]
pub(crate) fn send<A: Family>(
    packet: &Packet,
    ip: &Ip,
    backend: &Backend,
    hash: u32,
    limit: &Cell<u32>,
) -> Result<Verdict, Reason> {
    match Mode::from_u8(backend.mode) {
        Some(Mode::L2dsr) => {
            fits(packet, ip, backend, 0, limit)?;
            NextHop::to_backend(packet, backend)?.send(packet)
        }
        Some(Mode::Ipip) => {
            fits(
                packet,
                ip,
                backend,
                tunnel::overhead(backend.has(IPV6), false),
                limit,
            )?;
            outer::send::<A>(packet, ip, backend, false, hash)
        }
        Some(Mode::Gue) => {
            fits(
                packet,
                ip,
                backend,
                tunnel::overhead(backend.has(IPV6), true),
                limit,
            )?;
            outer::send::<A>(packet, ip, backend, true, hash)
        }
        Some(Mode::Nat | Mode::Dnat) | None => Err(Reason::ModeMissing),
    }
}

/// Whether the packet and what is put before it fit the way to the backend.
#[inline(always)]
pub(crate) fn fits(
    packet: &Packet,
    ip: &Ip,
    backend: &Backend,
    overhead: usize,
    limit: &Cell<u32>,
) -> Result<(), Reason> {
    let mtu = usize::from(backend.mtu);
    // A frame of several buffers may be an aggregate of segments that each fit.
    if mtu != 0 && ip.len() + overhead > mtu && packet.is_linear() {
        #[expect(clippy::cast_possible_truncation, reason = "an MTU")]
        limit.set(mtu.saturating_sub(overhead) as u32);
        return Err(Reason::TooBig);
    }
    Ok(())
}
