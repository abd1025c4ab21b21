//! The flow table: looking flows up and keeping them fresh.

use core::{
    mem::offset_of,
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    csum::Sum,
    flow::{FIN, NatFlow, REPLY, RST, Tuple},
    reason::Reason,
};

use crate::{
    clock::now_secs,
    family::Family,
    global::{self, global},
    maps::atomic::compare_exchange,
    next_hop,
    packet::Packet,
    scratch::Scratch,
};

/// State bits of a direction before its first packet.
pub(crate) const UNPROVEN: u8 = 0;

/// The place of a flow found in the table.
#[derive(Clone, Copy)]
pub(crate) struct Entry<A: 'static>(*mut NatFlow<A>);

/// Finds the flow whose packets arrive with this tuple, and copies its entry to `flow`.
#[inline(always)]
pub(crate) fn find<A: Family>(tuple: &Tuple<A>, flow: &mut NatFlow<A>) -> Option<Entry<A>> {
    let entry = A::find(tuple)?;
    // SAFETY: from the map's look-up.
    unsafe { copy(entry, flow) };
    compiler_fence(Ordering::SeqCst);
    // SAFETY: from the map's look-up. Read again after all else, see `NatFlow::check`.
    let check = unsafe { ptr::read_volatile(&raw const (*entry).check) };
    (check == A::tuple_check(tuple)).then_some(Entry(entry))
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

    /// Claims the entry, so that no other packet uses it, if it is still as in `flow` and unclaimed; returns whether it did. The
    /// claimant removes it.
    #[inline(always)]
    pub(crate) fn claim(self, flow: &NatFlow<A>) -> bool {
        const DIRECTION: u32 = 16;
        let at = const { word_at::<A>() };
        // SAFETY: within the entry, and within `flow`; aligned, as both are.
        unsafe {
            let seen = ptr::read_volatile(ptr::from_ref(flow).cast::<u8>().add(at).cast::<u64>());
            let taken = seen & !(0xff << DIRECTION);
            compare_exchange(self.0.cast::<u8>().add(at).cast(), seen, taken)
        }
    }

    /// Sets the state bits.
    #[inline(always)]
    pub(crate) fn set_state(self, state: u8) {
        // SAFETY: from the map's look-up; one byte, which is never torn.
        unsafe { (*self.0).state = state };
    }

    /// Sets what [`NatFlow::handshake`] is.
    #[inline(always)]
    pub(crate) fn set_handshake(self, handshake: u32) {
        // SAFETY: from the map's look-up; one aligned word, which is never torn.
        unsafe { (*self.0).handshake = handshake };
    }

    /// Has a direction begin anew.
    #[inline(always)]
    pub(crate) fn begin_anew(self, handshake: u32) {
        self.set_state(UNPROVEN);
        self.set_handshake(handshake);
    }
}

/// Makes replies to the client's flow in the scratch go back the way its packet has just come, if that changed.
#[inline(always)]
pub(crate) fn follow_client<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<(), Reason> {
    if next_hop::arrived_by(packet, &scratch.flow.last_hop)? {
        return Ok(());
    }
    global::decode(turn(scratch, packet.context()))
}

global! {
    /// [`turn_replies`].
    fn turn(&mut Scratch, ctx: *mut xdp_md) -> u32 = turn_v4, turn_v6: turned
}

#[inline(always)]
fn turned<A: Family>(scratch: &mut Scratch<A>, ctx: *mut xdp_md) -> u32 {
    // SAFETY: the caller's context.
    let packet = unsafe { Packet::resume(ctx, scratch.tags, scratch.frame_len) };
    global::encode(turn_replies(&packet, scratch))
}

/// Whether the client has closed this flow of its.
#[inline(always)]
pub(crate) fn closed_by_client<A>(flow: &NatFlow<A>) -> bool {
    flow.state & (FIN | RST) != 0
}

/// Makes replies to the client's flow in the scratch go back the way `packet` has come. Entries are replaced as a
/// whole: a reply under way sees the old way or the new one. Failing that, the old way stays, and the client's next
/// packet tries again.
#[inline(always)]
fn turn_replies<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<(), Reason> {
    let Scratch {
        tuple,
        flow: known,
        peer_key,
        peer,
        ..
    } = scratch;
    *peer_key = known.peer(tuple.protocol);
    if find_reply(peer_key, peer, tuple) {
        next_hop::set_last_hop(packet, &mut peer.last_hop)?;
        if A::replace(peer_key, peer).is_err() {
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

/// Offset of the word of an entry that changes with each packet and with a claim.
const fn word_at<A>() -> usize {
    let at = offset_of!(NatFlow<A>, service);
    assert!(
        at.is_multiple_of(8)
            && offset_of!(NatFlow<A>, direction) == at + 2
            && offset_of!(NatFlow<A>, state) == at + 3
            && offset_of!(NatFlow<A>, last_seen) == at + 4,
        "one word is compared and swapped"
    );
    at
}

/// The change of checksums by the translation from `tuple` to `flow`.
#[inline(always)]
pub(crate) fn set_deltas<A: Family>(tuple: &Tuple<A>, flow: &mut NatFlow<A>) {
    let addresses = address_change(tuple, flow);
    flow.ip_delta = A::header_delta(addresses);
    flow.l4_delta = port_change(addresses, tuple, flow).fold();
}
