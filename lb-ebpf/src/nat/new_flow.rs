//! A flow that begins: a backend, a source port of its own, an entry for each direction.

use core::sync::atomic::{Ordering, compiler_fence};

use lb_common::{
    flow::{FORWARD, PROVEN, REPLY},
    reason::Reason,
    service::TCP,
};

use super::{
    known, port, progress,
    track::{self, UNPROVEN},
};
use crate::{
    check_packet::Checked,
    clock,
    family::Family,
    global::{decode, encode, global},
    maps::{flows::InsertError, shares},
    next_hop,
    next_stage::NextStage,
    order,
    packet::Packet,
    scratch::{NewFlow, Scratch},
    select::{self, Choice},
    verdict::{self, Verdict},
};

/// Sets a flow up for the client's packet, if it may begin one, and sends the packet.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    scratch.drop_counts_for = scratch.service.id;
    verdict::next(forward(packet, scratch))
}

#[inline(always)]
fn forward<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<Verdict, NextStage> {
    set_up(packet, scratch)?;
    let owner = select::living_owner(&scratch.new_flow.forward).ok_or(Reason::NoBackend)?;
    known::forward(packet, scratch, owner, true, true)
}

/// Selects a backend, takes a source port, records both directions, and leaves the client's entry in the scratch. If another CPU
/// has just set a flow up for the same tuple, that one counts.
#[inline(always)]
fn set_up<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<(), NextStage> {
    let replaces = scratch.replaces != 0;
    let Scratch {
        ip, service, tuple, ..
    } = &*scratch;
    let mut checked = Checked::<_, false>::new(packet, ip, service, tuple, replaces);
    order::check_new_flow(&mut checked)?;
    let flags = checked.flags;
    // A flow that moves from a dead backend goes on as what it was.
    let proof = if replaces {
        scratch.flow.state & PROVEN
    } else {
        UNPROVEN
    };
    let state = progress::state_after(UNPROVEN, flags, proof);
    choose(packet, scratch, state)?;
    // As in `slow_path`: the verifier walks what follows once.
    compiler_fence(Ordering::SeqCst);
    let replaces = scratch.replaces != 0;
    let is_over = shares::is_over(scratch.service.id);
    if !is_over || port::take_over(scratch).is_err() {
        port::take(scratch)?;
    }
    let mut recorded = record(scratch, replaces);
    if recorded == Err(Reason::FlowTableFull) && port::take_over(scratch).is_ok() {
        // That has made room for two entries, of which it has filled one.
        recorded = record(scratch, replaces);
    }
    if recorded.is_ok() && !replaces {
        shares::count_opened(scratch.service.id);
    }
    Ok(recorded?)
}

/// Fills both entries but for what depends on the source port. The client's has the backend's own source address.
#[inline(always)]
fn choose<A: Family>(packet: &Packet, scratch: &mut Scratch<A>, state: u8) -> Result<(), NextStage> {
    let Scratch {
        cid_backend,
        service,
        tuple,
        new_flow: NewFlow { forward, reply, .. },
        ..
    } = scratch;
    let is_syn = tuple.protocol == TCP && state & PROVEN == 0;
    let Choice { id, backend } = select::select_backend(service, tuple, is_syn, *cid_backend)?;
    if !select::translates::<A>(backend) {
        return Err(Reason::ModeMissing.into());
    }
    // Field by field: a temporary would fill the stack.
    forward.check = A::tuple_check(tuple);
    forward.src = A::from_record(&backend.source);
    forward.dst = A::from_record(&backend.address);
    forward.dst_port = if backend.port.0 == 0 {
        tuple.dst_port
    } else {
        backend.port
    };
    forward.backend = id;
    forward.generation = backend.generation;
    forward.service = service.id;
    forward.direction = FORWARD;
    forward.state = state;
    forward.last_seen = clock::now_secs();
    forward.handshake = clock::now_millis();
    next_hop::set_last_hop(packet, &mut forward.last_hop)?;
    reply.src = tuple.dst;
    reply.dst = tuple.src;
    reply.src_port = tuple.dst_port;
    reply.dst_port = tuple.src_port;
    reply.backend = id;
    reply.generation = backend.generation;
    reply.service = service.id;
    reply.direction = REPLY;
    reply.state = UNPROVEN;
    reply.last_seen = forward.last_seen;
    reply.last_hop = forward.last_hop;
    reply.handshake = 0;
    Ok(())
}

/// Writes the client's entry. The backend's stands since the port was taken.
#[inline(always)]
pub(crate) fn record<A: Family>(scratch: &mut Scratch<A>, replaces: bool) -> Result<(), Reason> {
    decode(record_flow(scratch, replaces))
}

global! {
    /// [`record`].
    fn record_flow(&mut Scratch, replaces: bool) -> u32 = record_flow_v4, record_flow_v6: write_flow
}

#[inline(always)]
fn write_flow<A: Family>(scratch: &mut Scratch<A>, replaces: bool) -> u32 {
    encode(try_record(scratch, replaces))
}

#[inline(always)]
fn try_record<A: Family>(scratch: &mut Scratch<A>, replaces: bool) -> Result<(), Reason> {
    let Scratch {
        tuple,
        flow: known,
        new_flow: NewFlow {
            forward, reply_key, ..
        },
        peer_key,
        peer,
        ..
    } = scratch;
    let recorded = if replaces {
        // The port of the flow that has ended is free, unless it was taken again just now.
        *peer_key = known.peer(tuple.protocol);
        if peer_key != reply_key && track::find_reply(peer_key, peer, tuple) {
            A::remove(peer_key);
        }
        A::write(tuple, forward)
    } else {
        A::insert(tuple, forward)
    };
    if let Err(refused) = recorded {
        A::remove(reply_key);
        match refused {
            InsertError::Exists => {
                track::find(tuple, forward).ok_or(Reason::Internal)?;
            }
            InsertError::Full => return Err(Reason::FlowTableFull),
            InsertError::Unexpected => return Err(Reason::Internal),
        }
    }
    Ok(())
}
