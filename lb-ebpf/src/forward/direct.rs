//! The modes in which a backend gets the client's packet as it is, and answers the client itself.

use lb_common::{
    backend::{Backend, IPV6},
    reason::Reason,
    service::Mode,
    tunnel,
};

use super::tunnel as outer;
use crate::{
    family::Family,
    header::Ip,
    next_hop::fits,
    next_stage::NextStage,
    packet::Packet,
    scratch::{Exit, NextHop},
};

/// Prepares a packet for its backend in the backend's mode: [`Exit::leave`] sends it. A packet that does not fit is an error,
/// with the size that fits in `exit`.
#[inline(always)]
pub(crate) fn prepare<A: Family>(
    packet: &Packet,
    ip: &Ip,
    backend: &Backend,
    hash: u32,
    exit: &mut Exit,
) -> Result<(), NextStage> {
    let overhead = match Mode::from_u8(backend.mode) {
        Some(Mode::L2dsr) => 0,
        Some(Mode::Ipip) => tunnel::overhead(backend.has(IPV6), false),
        Some(Mode::Gue) => tunnel::overhead(backend.has(IPV6), true),
        Some(Mode::Nat | Mode::Dnat) | None => return Err(Reason::ModeMissing.into()),
    };
    fits(packet, ip, backend, overhead, exit)?;
    let overhead = exit.forget_overhead(overhead);
    exit.hop = NextHop::to_backend(packet, backend, exit)?;
    if overhead != 0 {
        let gue = backend.mode == Mode::Gue as u8;
        outer::put::<A>(packet, ip, backend, gue, hash)?;
    }
    Ok(())
}
