//! The slow path of packets that backends get as they are, or with another destination: all that the fast path does not do.
//! As long as the slot decides, it is the only look-up. A TCP flow begins with its SYN; other protocols show no beginning.

use core::sync::atomic::{Ordering, compiler_fence};

use lb_common::{
    backend::BackendId,
    ring_slot::Pick,
    service::{Mode, TRACKS_ALL},
};

use crate::{
    check_packet::Checked,
    family::Family,
    follow,
    forward::direct,
    fragment::record,
    header::Protocol,
    maps::counters,
    next_stage::NextStage,
    order::{self, Checks as _},
    packet::Packet,
    scratch::{Scratch, Selected},
    select::{self, Choice},
    verdict::{self, Verdict},
};

/// Sends a packet whose service is in the scratch.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    scratch.drop_counts_for = scratch.service.id;
    // Else the fast path has selected it.
    if scratch.selected.backend == BackendId::NONE
        && let Err(next) = select(packet, scratch)
    {
        return next;
    }
    // All that is known goes through memory, of which the verifier knows nothing: so it walks what follows once.
    compiler_fence(Ordering::SeqCst);
    // The length, too: selecting bounds it, and without these bounds the verifier would walk the rest once more.
    // SAFETY: the same context.
    let packet = &unsafe { Packet::resume(packet.context(), scratch.tags, scratch.frame_len) };
    verdict::next(send(packet, scratch))
}

/// Selects the backend, and leaves it in the scratch with what else sending asks for.
#[inline(always)]
fn select<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<(), NextStage> {
    let Scratch {
        tuple,
        ip,
        service,
        cid_backend,
        selected,
        hash: kept_hash,
        ..
    } = scratch;
    let mut checked = Checked::<_, true>::new(packet, ip, service, tuple, false);
    order::check_slow_path(&mut checked)?;
    let is_syn = checked.is_syn();
    let hash = A::hash(tuple);
    *kept_hash = hash;
    selected.is_syn = u16::from(is_syn);
    selected.backend = if *cid_backend == BackendId::NONE {
        let slot = select::slot(service, tuple, hash)?;
        match slot.pick() {
            Pick::Owner(owner) if !service.has(TRACKS_ALL) => owner,
            // An error only asks about the flow.
            Pick::Owner(_) | Pick::LookUp if ip.protocol == Protocol::Icmp => {
                follow::recorded_owner(tuple, slot, false)
            }
            Pick::Owner(_) | Pick::LookUp => follow::owner(tuple, service, slot, is_syn),
        }
    } else {
        *cid_backend
    };
    Ok(())
}

#[inline(always)]
fn send<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<Verdict, NextStage> {
    let Scratch {
        ip,
        service,
        selected,
        hash,
        exit,
        fragments,
        ..
    } = scratch;
    let Selected {
        backend: owner,
        is_syn,
    } = *selected;
    let Choice { id, backend } = select::usable(service, owner)?;
    if backend.mode == Mode::Dnat as u8 {
        return Err(NextStage::Dnat);
    }
    if A::is_fragment(packet, ip) {
        record::as_is(packet, fragments, service.id, id, backend, *hash);
    }
    direct::prepare::<A>(packet, ip, backend, *hash, exit)?;
    counters::count_forward(service.id, id, u64::from(packet.frame_len), is_syn != 0);
    Ok(exit.leave(packet)?)
}
