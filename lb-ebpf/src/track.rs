//! The flow table: looking flows up, opening them with a source port of their own, keeping them fresh.

use core::{
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns};
use lb_common::{
    addr::NetPort,
    csum::Sum,
    flow::{FIN, FORWARD, LastHop, NatFlow, PROVEN, REPLY, RST, Tuple},
    limits::SNAT_PORT_TRIES,
    reason::Reason,
    service::Service,
};

use crate::{
    family::Family,
    maps::{self, Opening, Refused, Scratch},
    next_hop,
    packet::Packet,
    parse::TcpFlags,
    pick::{self, Choice},
};

/// CLOCK_MONOTONIC in whole seconds, a few milliseconds late at most.
#[inline(always)]
pub(crate) fn now_secs() -> u32 {
    const NANOS_PER_SEC: u64 = 1_000_000_000;
    // SAFETY: takes no arguments.
    let nanos = unsafe { bpf_ktime_get_coarse_ns() };
    #[expect(clippy::cast_possible_truncation, reason = "136 years")]
    let seconds = (nanos / NANOS_PER_SEC) as u32;
    seconds
}

/// State bits of a direction before its first packet.
pub(crate) const UNPROVEN: u8 = 0;

/// State bits of a direction after a packet; `flags` of TCP only.
#[inline(always)]
pub(crate) fn state_after(state: u8, flags: Option<TcpFlags>) -> u8 {
    let Some(flags) = flags else { return state | PROVEN };
    // A SYN begins the direction anew. Alone, however often it comes, it proves nothing about the client.
    let mut state = if flags.syn { UNPROVEN } else { state };
    if !flags.syn || flags.ack {
        state |= PROVEN;
    }
    if flags.fin {
        state |= FIN;
    }
    if flags.rst {
        state |= RST;
    }
    state
}

/// The place of a flow found in the table.
#[derive(Clone, Copy)]
pub(crate) struct Entry<A: 'static>(*mut NatFlow<A>);

/// Finds the flow whose packets arrive with this tuple, and copies what its entry holds to `flow`.
#[inline(always)]
pub(crate) fn find<A: Family>(tuple: &Tuple<A>, flow: &mut NatFlow<A>) -> Option<Entry<A>> {
    let entry = A::find(tuple)?;
    // SAFETY: from the map's look-up.
    *flow = unsafe { *entry };
    compiler_fence(Ordering::SeqCst);
    // SAFETY: as above. Read again after all else, see `NatFlow::check`.
    let check = unsafe { ptr::read_volatile(&raw const (*entry).check) };
    (check == A::check(tuple)).then_some(Entry(entry))
}

impl<A: Family> Entry<A> {
    /// Records that a packet came. `flow` is what the entry held; written only where something changes, so that a busy
    /// flow's line stays shared.
    #[inline(always)]
    pub(crate) fn touch(self, flow: &NatFlow<A>, flags: Option<TcpFlags>) {
        let now = now_secs();
        let state = state_after(flow.state, flags);
        // SAFETY: from the map's look-up; torn or lost writes cost a second of the time-out at most.
        unsafe {
            if flow.last_seen != now {
                (*self.0).last_seen = now;
            }
            if flow.state != state {
                (*self.0).state = state;
            }
        }
    }
}

/// Makes replies to the client's known flow in `room` go back the way its packet has just come, if that changed.
#[inline(always)]
pub(crate) fn follow_client<A: Family>(room: &mut Scratch<A>, packet: &Packet) -> Result<(), Reason> {
    if same(&room.known.last_hop, &next_hop::last_hop(packet)?) {
        return Ok(());
    }
    turn_replies(room, packet)
}

/// Whether the client has closed this flow of its. Its next SYN opens another one.
#[inline(always)]
pub(crate) fn closed_by_client<A>(flow: &NatFlow<A>) -> bool {
    flow.state & (FIN | RST) != 0
}

#[inline(always)]
fn same(a: &LastHop, b: &LastHop) -> bool {
    // SAFETY: 16 bytes without padding.
    let [a, b] = [a, b].map(|hop| unsafe { core::mem::transmute::<LastHop, [u64; 2]>(*hop) });
    a[0] == b[0] && a[1] == b[1]
}

/// Makes replies to the client's known flow in `room` go back the way `packet` has come. Entries are replaced as a
/// whole: a reply under way sees the old way or the new one. Failing that, the old way stays, and the client's next
/// packet tries again.
// Not inlined: a rare case.
#[inline(never)]
fn turn_replies<A: Family>(room: &mut Scratch<A>, packet: &Packet) -> Result<(), Reason> {
    let last_hop = next_hop::last_hop(packet)?;
    let Scratch {
        tuple,
        known,
        spare_key,
        spare,
        ..
    } = room;
    *spare_key = known.peer(tuple.protocol);
    if find_reply(spare_key, spare, tuple) {
        spare.last_hop = last_hop;
        if A::replace(spare_key, spare).is_err() {
            return Ok(());
        }
    }
    known.last_hop = last_hop;
    // The entry may be gone by now; then there is nothing to keep.
    let _ = A::replace(tuple, known);
    Ok(())
}

/// Whether the entry under `key`, which is copied to `reply`, is the reply entry of the flow of the client's `tuple`.
#[inline(always)]
fn find_reply<A: Family>(key: &Tuple<A>, reply: &mut NatFlow<A>, tuple: &Tuple<A>) -> bool {
    find(key, reply).is_some() && reply.direction == REPLY && reply.peer(tuple.protocol) == *tuple
}

/// Opens a flow for the client's packet: picks a backend, takes a source port, records both directions. `state` is
/// the client's after this packet; `replaces` says that a flow stands under this tuple that has ended.
///
/// Takes the tuple from `room` and leaves the client's entry in it. If another CPU has just opened a flow for the same
/// tuple, that one counts.
#[inline(always)]
pub(crate) fn open<A: Family>(
    packet: &Packet,
    room: &mut Scratch<A>,
    service: &Service,
    state: u8,
    replaces: bool,
) -> Result<(), Reason> {
    // Three steps that are not inlined: one after the other they share a stack.
    choose(packet, room, service, state)?;
    take_port(room)?;
    record(room, replaces)
}

/// Fills both entries but for what depends on the source port. The client's has the backend's own source address.
#[inline(never)]
fn choose<A: Family>(
    packet: &Packet,
    room: &mut Scratch<A>,
    service: &Service,
    state: u8,
) -> Result<(), Reason> {
    let Scratch { tuple, opening, .. } = room;
    let Opening { forward, reply, .. } = opening;
    let Choice { id, backend } = pick::pick(service, tuple)?;
    // Field by field: a temporary would fill the stack.
    forward.check = A::check(tuple);
    forward.src = A::from_record(backend.source);
    forward.dst = A::from_record(backend.address);
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
    forward.last_seen = now_secs();
    forward.last_hop = next_hop::last_hop(packet)?;
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
    Ok(())
}

/// Writes the client's entry. The backend's stands since the port was taken.
#[inline(never)]
fn record<A: Family>(room: &mut Scratch<A>, replaces: bool) -> Result<(), Reason> {
    let Scratch {
        tuple,
        known,
        opening,
        spare_key,
        spare,
    } = room;
    let Opening {
        forward, reply_key, ..
    } = opening;
    let recorded = if replaces {
        // The port of the flow that has ended is free, unless it was taken again just now.
        *spare_key = known.peer(tuple.protocol);
        if spare_key != reply_key && find_reply(spare_key, spare, tuple) {
            A::remove(spare_key);
        }
        A::write(tuple, forward)
    } else {
        A::insert(tuple, forward)
    };
    if let Err(refused) = recorded {
        A::remove(reply_key);
        match refused {
            Refused::Exists => {
                find(tuple, forward).ok_or(Reason::Internal)?;
            }
            Refused::Full => return Err(Reason::FlowTableFull),
            Refused::Unexpected => return Err(Reason::Internal),
        }
    }
    Ok(())
}

/// Finds a free source port: the one whose reply entry this program could insert. Completes both entries with it.
#[inline(never)]
fn take_port<A: Family>(room: &mut Scratch<A>) -> Result<(), Reason> {
    let Scratch { tuple, opening, .. } = room;
    let Opening {
        forward,
        reply,
        reply_key,
    } = opening;
    let settings = maps::settings()?;
    let addresses = A::snat_count(settings);
    let ports = u32::from(settings.snat_port_count);
    let slots = ports * addresses.max(1);
    if slots == 0 {
        return Err(Reason::SnatPortsExhausted);
    }
    // SAFETY: takes no arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    let mut slot = random % slots;
    // Double hashing: with a stride of one, taken ports would clump and searches fail long before the range is full.
    // A range no larger than the search is searched without gaps.
    let stride = if slots > SNAT_PORT_TRIES {
        1 + (random >> 8) % (slots - 1)
    } else {
        1
    };
    for _ in 0..SNAT_PORT_TRIES {
        if addresses != 0 {
            forward.src = A::from_record(maps::snat_address(A::SNAT_BASE + slot / ports)?);
        }
        if forward.src.is_unspecified() {
            return Err(Reason::NoSnatAddress);
        }
        let port = u32::from(settings.snat_port_first) + slot % ports;
        #[expect(clippy::cast_possible_truncation, reason = "the range is one of ports")]
        let port = port as u16;
        forward.src_port = NetPort::new(port);
        set_deltas(tuple, forward);
        *reply_key = forward.peer(tuple.protocol);
        reply.check = A::check(reply_key);
        reply.ip_delta = !forward.ip_delta;
        reply.l4_delta = !forward.l4_delta;
        match A::insert(reply_key, reply) {
            Ok(()) => return Ok(()),
            Err(Refused::Exists) => {}
            Err(Refused::Full) => return Err(Reason::FlowTableFull),
            Err(Refused::Unexpected) => return Err(Reason::Internal),
        }
        // Without a branch: each would double what the verifier has to walk.
        slot = (slot + stride) % slots;
    }
    Err(Reason::SnatPortsExhausted)
}

/// What the translation from `tuple` to `flow` adds to checksums.
#[inline(always)]
fn set_deltas<A: Family>(tuple: &Tuple<A>, flow: &mut NatFlow<A>) {
    let addresses = address_change(tuple, flow);
    flow.ip_delta = A::header_delta(addresses);
    flow.l4_delta = port_change(addresses, tuple, flow).fold();
}

/// The sum by which addresses change from `tuple` to `flow`.
#[inline(always)]
pub(crate) fn address_change<A: Family>(tuple: &Tuple<A>, flow: &NatFlow<A>) -> Sum {
    let sum = tuple.dst.take_from(tuple.src.take_from(Sum::ZERO));
    flow.dst.add_to(flow.src.add_to(sum))
}

/// `sum`, and by how much ports change from `tuple` to `flow`.
#[inline(always)]
pub(crate) fn port_change<A>(sum: Sum, tuple: &Tuple<A>, flow: &NatFlow<A>) -> Sum {
    sum.sub(tuple.src_port.0)
        .sub(tuple.dst_port.0)
        .add(flow.src_port.0)
        .add(flow.dst_port.0)
}
