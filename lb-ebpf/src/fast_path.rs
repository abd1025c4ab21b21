//! The fast path of most packets that a backend gets as they are: the service asks for nothing but the hash, the slot is
//! stable, and the daemon knows the way to the backend. It is a part of the entry program, and of the stage of prefixes. What is
//! not so goes the slow path, from its beginning.

use lb_common::{
    backend::{ALIVE, Backend, IN_USE, IPV6, RESOLVED},
    ring_slot::{self, Pick},
    service::{FORWARDS, Mode, Service},
    tunnel,
    vlan::Vlans,
};

use crate::{
    family::Family,
    forward::tunnel as outer,
    header::Ip,
    maps::{counters, tables},
    next_stage::NextStage,
    packet::Packet,
    scratch::{NextHop, Scratch, Selected},
    transport, verdict,
};

/// Sends a packet to its backend, and counts it. A packet to a backend of mode `dnat`, or into a tunnel that this path does not make,
/// goes to the stage that sends there, which need not select again. `None` if the packet has to go the slow path from its beginning:
/// nothing was done to it. Not for fragments, which have to be recorded.
#[inline(always)]
pub(crate) fn forward<A: Family>(packet: &Packet, ip: &Ip, scratch: &mut Scratch<A>) -> Option<NextStage> {
    let Scratch {
        tuple,
        service,
        hash: kept_hash,
        selected,
        ip: kept_ip,
        ..
    } = scratch;
    if !may_serve(service) {
        return None;
    }
    // Here, and not where it is used: a long chain of multiplications, beside which all else is done.
    let hash = now(A::hash(tuple));
    let flags = transport::check::<A>(packet, ip).ok()?;
    let slot = tables::ring_slot(service.ring, ring_slot::index(hash, service.ring_size)).ok()?;
    let Pick::Owner(owner) = slot.pick() else {
        return None;
    };
    let backend = tables::backend(owner).ok()?;
    if !backend.has(IN_USE | ALIVE) || !A::is_surely_valid(tuple) || backend.service != service.id {
        return None;
    }
    let Some(overhead) = overhead::<A>(backend) else {
        *selected = Selected {
            backend: owner,
            is_syn: flags.is_syn().into(),
        };
        *kept_ip = *ip;
        *kept_hash = hash;
        return Some(if backend.mode == Mode::Dnat as u8 {
            NextStage::Dnat
        } else {
            NextStage::SlowPath
        });
    };
    let ready = backend.has(RESOLVED) && backend.vlans == Vlans::NONE;
    // An aggregate that does not fit as a whole, and an MTU that is not known, are left to the slow path.
    if !ready || ip.packet_len() + overhead > usize::from(backend.mtu) {
        return None;
    }
    let sent = if overhead == 0 {
        NextHop::resolved(backend).send_untagged(packet)
    } else {
        outer::send_plain::<A>(packet, ip, backend, is_gue(backend), hash)
    };
    if let Err(reason) = sent {
        counters::count_drop(service.id, reason);
    } else {
        let is_syn = flags.is_syn();
        counters::count_forward(service.id, owner, u64::from(packet.frame_len), is_syn);
    }
    Some(verdict::reason(sent).into())
}

/// A value that is computed where this stands.
#[inline(always)]
fn now(mut value: u32) -> u32 {
    // SAFETY: no instruction.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Whether packets of the service may go this way. What the ring says about one without backends, or for another mode,
/// counts for nothing.
#[inline(always)]
fn may_serve(service: &Service) -> bool {
    // Numbers of modes follow each other.
    let modes = Mode::Dnat as u8..=Mode::Gue as u8;
    service.flags == FORWARDS && modes.contains(&service.mode) && service.ring_size != 0
}

/// Bytes that stand before the packet on its way to the backend, if it can go this way. Tunnels of the other family cannot.
#[inline(always)]
fn overhead<A: Family>(backend: &Backend) -> Option<usize> {
    let own_family = backend.has(IPV6) == A::IS_V6;
    if backend.mode == Mode::L2dsr as u8 {
        Some(0)
    } else if own_family && backend.mode == Mode::Ipip as u8 {
        Some(tunnel::overhead(A::IS_V6, false))
    } else if own_family && is_gue(backend) {
        Some(tunnel::overhead(A::IS_V6, true))
    } else {
        None
    }
}

#[inline(always)]
const fn is_gue(backend: &Backend) -> bool {
    backend.mode == Mode::Gue as u8
}
