//! The flow table: looking flows up and keeping them fresh.

use core::{
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_ktime_get_coarse_ns};
use lb_common::{
    addr::{NetV4, NetV6},
    csum::Sum,
    flow::{FIN, NatFlow, REPLY, RST, Tuple},
    reason::Reason,
    vlan::Tags,
};

use crate::{
    family::Family,
    give_way,
    maps::{self, Room, Scratch},
    next_hop, open,
    packet::Packet,
};

/// CLOCK_MONOTONIC in whole seconds, a few milliseconds late at most.
#[inline(always)]
pub(crate) fn now_secs() -> u32 {
    const NANOS_PER_SEC: u64 = 1_000_000_000;
    #[expect(clippy::cast_possible_truncation, reason = "136 years")]
    let seconds = (coarse_nanos() / NANOS_PER_SEC) as u32;
    seconds
}

/// CLOCK_MONOTONIC in milliseconds modulo 2^32, a few late at most.
#[inline(always)]
pub(crate) fn now_millis() -> u32 {
    const NANOS_PER_MILLI: u64 = 1_000_000;
    #[expect(clippy::cast_possible_truncation, reason = "the modulus")]
    let millis = (coarse_nanos() / NANOS_PER_MILLI) as u32;
    millis
}

#[inline(always)]
fn coarse_nanos() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// State bits of a direction before its first packet.
pub(crate) const UNPROVEN: u8 = 0;

/// The place of a flow found in the table.
#[derive(Clone, Copy)]
pub(crate) struct Entry<A: 'static>(*mut NatFlow<A>);

/// Finds the flow whose packets arrive with this tuple, and copies what its entry holds to `flow`.
#[inline(always)]
pub(crate) fn find<A: Family>(tuple: &Tuple<A>, flow: &mut NatFlow<A>) -> Option<Entry<A>> {
    let entry = A::find(tuple)?;
    // SAFETY: from the map's look-up.
    unsafe { copy(entry, flow) };
    compiler_fence(Ordering::SeqCst);
    // SAFETY: as above. Read again after all else, see `NatFlow::check`.
    let check = unsafe { ptr::read_volatile(&raw const (*entry).check) };
    (check == A::check(tuple)).then_some(Entry(entry))
}

/// The place of the flow under this tuple, where one stands.
#[inline(always)]
pub(crate) fn entry<A: Family>(tuple: &Tuple<A>) -> Option<Entry<A>> {
    A::find(tuple).map(Entry)
}

/// Copies a table's entry word by word: as a whole it would be copied by memmove, byte by byte.
///
/// # Safety
///
/// `from` may be read.
#[inline(always)]
unsafe fn copy<A>(from: *const NatFlow<A>, to: &mut NatFlow<A>) {
    const { assert!(align_of::<NatFlow<A>>() == align_of::<u64>()) };
    let (from, to) = (from.cast::<u64>(), ptr::from_mut(to).cast::<u64>());
    for word in 0..size_of::<NatFlow<A>>() / size_of::<u64>() {
        // SAFETY: both have that many words. Volatile, since other CPUs may write the entry meanwhile.
        unsafe { to.add(word).write(ptr::read_volatile(from.add(word))) };
    }
}

impl<A: Family> Entry<A> {
    /// Records that a packet came, in the table and in `flow`, which is what the entry held. The table is written only
    /// where something changes, so that a busy flow's line stays shared.
    #[inline(always)]
    pub(crate) fn touch(self, flow: &mut NatFlow<A>) {
        let now = now_secs();
        // SAFETY: from the map's look-up; torn or lost writes cost a second of the time-out at most.
        unsafe {
            if flow.last_seen != now {
                flow.last_seen = now;
                (*self.0).last_seen = now;
            }
        }
    }

    /// Takes the entry from all packets, if it is as in `flow` still, and nobody else has taken it; whether that is so. Who
    /// takes it removes it.
    #[inline(always)]
    pub(crate) fn claim(self, flow: &NatFlow<A>) -> bool {
        const DIRECTION: u32 = 16;
        let at = const { give_way::word_at::<A>() };
        // SAFETY: within the entry, and within `flow`; aligned, as both are.
        unsafe {
            let seen = ptr::read_volatile(ptr::from_ref(flow).cast::<u8>().add(at).cast::<u64>());
            let taken = seen & !(0xff << DIRECTION);
            maps::compare_exchange(self.0.cast::<u8>().add(at).cast(), seen, taken)
        }
    }

    /// Sets the state bits.
    #[inline(always)]
    pub(crate) fn set_state(self, state: u8) {
        // SAFETY: as above.
        unsafe { (*self.0).state = state };
    }

    /// Sets what [`NatFlow::handshake`] is.
    #[inline(always)]
    pub(crate) fn set_handshake(self, handshake: u32) {
        // SAFETY: as above.
        unsafe { (*self.0).handshake = handshake };
    }

    /// Has a direction begin anew.
    #[inline(always)]
    pub(crate) fn begin_anew(self, handshake: u32) {
        self.set_state(UNPROVEN);
        self.set_handshake(handshake);
    }
}

/// Makes replies to the client's known flow in `room` go back the way its packet has just come, if that changed.
#[inline(always)]
pub(crate) fn follow_client<A: Family>(room: Room<A>, packet: &Packet) -> Result<(), Reason> {
    if next_hop::arrived_by(packet, &room.known.last_hop)? {
        return Ok(());
    }
    let turn = if A::IS_V6 { turn_v6 } else { turn_v4 };
    open::outcome(turn(packet.context(), packet.tags.0))
}

/// [`turn_replies`]. For the verifier a global function (see [`crate::open`]), as below.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn turn_v4(ctx: *mut xdp_md, tags: u64) -> u32 {
    open::status(turn_replies::<NetV4>(&Packet::untagged(ctx, Tags(tags))))
}

/// [`turn_replies`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn turn_v6(ctx: *mut xdp_md, tags: u64) -> u32 {
    open::status(turn_replies::<NetV6>(&Packet::untagged(ctx, Tags(tags))))
}

/// Whether the client has closed this flow of its.
#[inline(always)]
pub(crate) fn closed_by_client<A>(flow: &NatFlow<A>) -> bool {
    flow.state & (FIN | RST) != 0
}

/// Makes replies to the client's known flow in `room` go back the way `packet` has come. Entries are replaced as a
/// whole: a reply under way sees the old way or the new one. Failing that, the old way stays, and the client's next
/// packet tries again.
#[inline(always)]
fn turn_replies<A: Family>(packet: &Packet) -> Result<(), Reason> {
    let mut room = A::room()?;
    let Scratch {
        tuple,
        known,
        spare_key,
        spare,
        ..
    } = &mut *room;
    *spare_key = known.peer(tuple.protocol);
    if find_reply(spare_key, spare, tuple) {
        next_hop::set_last_hop(packet, &mut spare.last_hop)?;
        if A::replace(spare_key, spare).is_err() {
            return Ok(());
        }
    }
    next_hop::set_last_hop(packet, &mut known.last_hop)?;
    // The entry may be gone by now; then there is nothing to keep.
    let _ = A::replace(tuple, known);
    Ok(())
}

/// Whether the entry under `key`, which is copied to `reply`, is the reply entry of the flow of the client's `tuple`.
#[inline(always)]
pub(crate) fn find_reply<A: Family>(key: &Tuple<A>, reply: &mut NatFlow<A>, tuple: &Tuple<A>) -> bool {
    find(key, reply).is_some() && reply.direction == REPLY && reply.peer(tuple.protocol) == *tuple
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
