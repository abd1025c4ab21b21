//! What packets change about the state of a known NAT flow. Most change nothing, which two comparisons tell; the others are
//! left to functions that the verifier checks once ([`crate::open`]).
//!
//! An established flow must not suffer from what anybody can forge who knows its addresses and ports (RFC 5961): no packet
//! takes [`PROVEN`] back, what the real end sends next clears [`RST`], and a SYN begins a flow anew only after both ends
//! have ended it.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    addr::{NetV4, NetV6},
    backend::BackendId,
    flow::{self, FIN, NatFlow, PROVEN, RST, is_closed},
    service::{IN_TURN, Service},
};
use network_types::tcp::TcpHdr;

use crate::{
    family::Family,
    maps::Scratch,
    packet::Packet,
    parse::TcpFlags,
    pick, signals,
    track::{self, UNPROVEN},
};

/// Where the sequence number stands in a TCP header, and the acknowledged one.
const SEQUENCE: usize = core::mem::offset_of!(TcpHdr, seq);
const ACKNOWLEDGED: usize = core::mem::offset_of!(TcpHdr, ack_seq);

/// State bits of a direction after a packet. `proof` is [`PROVEN`] where a packet proves that its
/// sender is there, else [`UNPROVEN`]; SYN and RST alone never do.
#[inline(always)]
pub(crate) fn state_after(state: u8, flags: TcpFlags, proof: u8) -> u8 {
    if flags.rst() {
        return state | RST;
    }
    // Its end goes on, so a RST before it was forged, or another connection's.
    let mut state = state & !RST;
    if flags.syn() {
        state &= !FIN;
    }
    if !flags.opens() {
        state |= proof;
    }
    if flags.fin() {
        state |= FIN;
    }
    state
}

/// Whether a packet leaves the state of its direction as it is.
#[inline(always)]
fn is_plain<A>(flow: &NatFlow<A>, flags: TcpFlags) -> bool {
    flow.state & (PROVEN | RST) == PROVEN && flags.is_plain()
}

/// What a client's packet does to its flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// The flow goes on.
    GoesOn,
    /// The flow carries another connection.
    Reopens,
    /// Another flow takes its place.
    Replaces,
}

const GOES_ON: u32 = Course::GoesOn as u32;
const REOPENS: u32 = Course::Reopens as u32;

/// Takes note of a client's packet of the flow `known`, which is in the room with the packet's header.
#[inline(always)]
pub(crate) fn from_client<A: Family>(
    packet: &Packet,
    known: &NatFlow<A>,
    service: &Service,
    flags: TcpFlags,
) -> Course {
    if is_plain(known, flags) {
        return Course::GoesOn;
    }
    let noted = if A::IS_V6 { client_v6 } else { client_v4 };
    let keeps = if A::IS_V6 { keeps_v6 } else { keeps_v4 };
    let course = |kept| {
        // As in `open::outcome`.
        match core::hint::black_box(noted(packet.context(), flags.to_word(), kept)) {
            GOES_ON => Course::GoesOn,
            REOPENS => Course::Reopens,
            _ => Course::Replaces,
        }
    };
    // Rare, and a function beside the other one: together they would not fit the stack.
    match course(false) {
        Course::Replaces if core::hint::black_box(keeps(service)) => course(true),
        course @ (Course::GoesOn | Course::Reopens | Course::Replaces) => course,
    }
}

/// As [`from_client`], of a backend's packet.
#[inline(always)]
pub(crate) fn from_backend<A: Family>(packet: &Packet, known: &NatFlow<A>, flags: TcpFlags) {
    if !is_plain(known, flags) {
        let noted = if A::IS_V6 { backend_v6 } else { backend_v4 };
        noted(packet.context(), flags.to_word());
    }
}

/// [`from_client`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn client_v4(ctx: *mut xdp_md, flags: u32, kept: bool) -> u32 {
    of_client::<NetV4>(&Packet::linear(ctx), TcpFlags::from_word(flags), kept) as u32
}

/// [`from_client`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn client_v6(ctx: *mut xdp_md, flags: u32, kept: bool) -> u32 {
    of_client::<NetV6>(&Packet::linear(ctx), TcpFlags::from_word(flags), kept) as u32
}

/// [`keeps`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn keeps_v4(service: *const Service) -> bool {
    keeps::<NetV4>(service)
}

/// [`keeps`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn keeps_v6(service: *const Service) -> bool {
    keeps::<NetV6>(service)
}

/// [`from_backend`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn backend_v4(ctx: *mut xdp_md, flags: u32) -> u32 {
    of_backend::<NetV4>(&Packet::linear(ctx), TcpFlags::from_word(flags))
}

/// [`from_backend`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn backend_v6(ctx: *mut xdp_md, flags: u32) -> u32 {
    of_backend::<NetV6>(&Packet::linear(ctx), TcpFlags::from_word(flags))
}

#[inline(always)]
fn of_client<A: Family>(packet: &Packet, flags: TcpFlags, kept: bool) -> Course {
    let Ok(mut room) = A::room() else {
        return Course::GoesOn;
    };
    let Scratch {
        tuple,
        ip,
        known,
        spare_key,
        spare,
        ..
    } = &mut *room;
    *spare_key = known.peer(tuple.protocol);
    // Either may have been removed since.
    let (Some(entry), true) = (track::entry(tuple), track::find_reply(spare_key, spare, tuple)) else {
        return Course::GoesOn;
    };
    let mut course = Course::GoesOn;
    let mut proof = PROVEN;
    if flags.are_some() {
        if flags.opens() {
            if known.state & (FIN | RST) == 0 {
                if (known.state | spare.state) & PROVEN == 0 {
                    signals::repeated(tuple, known, entry);
                }
            } else if !is_closed(known.state, spare.state) {
                // The backend knows whether it is true that the client has ended its connection.
                course = Course::Reopens;
            } else if !kept {
                return Course::Replaces;
            } else {
                course = Course::Reopens;
                known.state = UNPROVEN;
                entry.begin_anew(track::now_millis());
                if let Some(reply) = track::entry(spare_key) {
                    reply.begin_anew(0);
                }
            }
        }
        let acknowledged = packet.word(ip.payload + ACKNOWLEDGED).map_or(0, u32::from_be);
        // What acknowledges nothing has 0 there, or anything.
        if !flags.ack() || spare.handshake == 0 || !flow::proves(acknowledged, spare.handshake) {
            proof = UNPROVEN;
        }
    }
    known.state = state_after(known.state, flags, proof);
    entry.set_state(known.state);
    course
}

/// Whether a client that uses its port again keeps ours, with its packet and flow in the room: where the ring agrees, since a backend that remembers the closed
/// connection in TIME_WAIT takes a SYN of the same client, and refuses another client's as an old segment. Where flows take
/// turns, no ring says where this one would go.
#[inline(always)]
fn keeps<A: Family>(service: *const Service) -> bool {
    // SAFETY: the verifier sees to it that callers pass a whole record, or nothing.
    let (Some(service), Ok(room)) = (unsafe { service.as_ref() }, A::room()) else {
        return false;
    };
    !service.has(IN_TURN)
        && pick::pick(service, &room.tuple, true, BackendId::NONE)
            .is_ok_and(|choice| choice.id == room.known.backend)
}

/// Returns 0.
#[inline(always)]
fn of_backend<A: Family>(packet: &Packet, flags: TcpFlags) -> u32 {
    let Ok(mut room) = A::room() else { return 0 };
    let Scratch { tuple, ip, known, .. } = &mut *room;
    if flags.rst() {
        signals::reset(known);
    }
    let Some(entry) = track::entry(tuple) else {
        return 0;
    };
    if flags.answers()
        && let Some(sequence) = packet.word(ip.payload + SEQUENCE)
    {
        entry.set_handshake(u32::from_be(sequence).wrapping_add(1));
    }
    known.state = state_after(known.state, flags, PROVEN);
    entry.set_state(known.state);
    0
}
