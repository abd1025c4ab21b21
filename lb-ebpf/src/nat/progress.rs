//! Changes of the state of a known NAT flow by packets. Most packets change nothing, which two comparisons show; functions that
//! the verifier checks once handle the others.
//!
//! Forged packets with a flow's addresses and ports must not harm it once it is established (RFC 5961): no packet
//! clears [`PROVEN`], the next packet of the real end clears [`RST`], and a SYN begins a flow anew only after both ends
//! have ended it.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    backend::BackendId,
    flow::{self, FIN, NatFlow, PROVEN, RST},
    service::IN_TURN,
};
use network_types::tcp::TcpHdr;

use super::{
    signals,
    track::{self, UNPROVEN},
};
use crate::{
    clock::now_millis,
    family::Family,
    global::global,
    header::TcpFlags,
    order::{self, SynCourse},
    packet::Packet,
    scratch::Scratch,
    select,
};
use lb_wire::Frame as _;

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
    if !flags.is_syn() {
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

/// The effect of a client's packet on its flow.
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

/// Updates the state of the flow in the scratch for a client's packet.
#[inline(always)]
pub(crate) fn from_client<A: Family>(packet: &Packet, scratch: &mut Scratch<A>, flags: TcpFlags) -> Course {
    if is_plain(&scratch.flow, flags) {
        return Course::GoesOn;
    }
    match client_course(scratch, packet, flags, false) {
        // Rare, and a function beside the other one: together they would not fit the stack.
        Course::Replaces if keeps(scratch) => client_course(scratch, packet, flags, true),
        course @ (Course::GoesOn | Course::Reopens | Course::Replaces) => course,
    }
}

#[inline(always)]
fn client_course<A: Family>(
    scratch: &mut Scratch<A>,
    packet: &Packet,
    flags: TcpFlags,
    keeps: bool,
) -> Course {
    match client(scratch, packet.context(), flags.to_word(), keeps) {
        GOES_ON => Course::GoesOn,
        REOPENS => Course::Reopens,
        _ => Course::Replaces,
    }
}

/// As [`from_client`], of a backend's packet.
#[inline(always)]
pub(crate) fn from_backend<A: Family>(packet: &Packet, scratch: &mut Scratch<A>, flags: TcpFlags) {
    if !is_plain(&scratch.flow, flags) {
        backend(scratch, packet.context(), flags.to_word());
    }
}

global! {
    /// [`from_client`].
    fn client(&mut Scratch, ctx: *mut xdp_md, flags: u32, keeps: bool) -> u32 = client_v4, client_v6: of_client
}

global! {
    /// [`from_backend`].
    fn backend(&mut Scratch, ctx: *mut xdp_md, flags: u32) -> u32 = backend_v4, backend_v6: of_backend
}

global! {
    /// Whether a client that uses its port again keeps ours: where the ring agrees, since a backend that remembers the closed
    /// connection in TIME_WAIT takes a SYN of the same client, and refuses another client's as an old segment. Where flows take
    /// turns, no ring shows where this one would go.
    fn keeps(&mut Scratch) -> bool = keeps_v4, keeps_v6: keeps_port
}

#[inline(always)]
fn of_client<A: Family>(scratch: &mut Scratch<A>, ctx: *mut xdp_md, flags: u32, keeps: bool) -> u32 {
    // SAFETY: the caller's context.
    let packet = unsafe { Packet::resume(ctx, scratch.tags, scratch.frame_len) };
    course(&packet, scratch, TcpFlags::from_word(flags), keeps) as u32
}

#[inline(always)]
fn course<A: Family>(packet: &Packet, scratch: &mut Scratch<A>, flags: TcpFlags, keeps: bool) -> Course {
    let Scratch {
        tuple,
        ip,
        flow: known,
        peer_key,
        peer,
        ..
    } = scratch;
    *peer_key = known.peer(tuple.protocol);
    // Either may have been removed since.
    let (Some(entry), true) = (track::entry(tuple), track::find_reply(peer_key, peer, tuple)) else {
        return Course::GoesOn;
    };
    let mut course = Course::GoesOn;
    let mut proof = PROVEN;
    if flags.are_some() {
        if flags.is_syn() {
            match order::syn_course(known.state, peer.state) {
                SynCourse::Repeats => {
                    if (known.state | peer.state) & PROVEN == 0 {
                        signals::repeated(tuple, known, entry);
                    }
                }
                SynCourse::Reopens => course = Course::Reopens,
                SynCourse::Replaces if !keeps => return Course::Replaces,
                SynCourse::Replaces => {
                    course = Course::Reopens;
                    known.state = UNPROVEN;
                    entry.begin_anew(now_millis());
                    if let Some(reply) = track::entry(peer_key) {
                        reply.begin_anew(0);
                    }
                }
            }
        }
        let acknowledged = packet.word(ip.payload + ACKNOWLEDGED).map_or(0, u32::from_be);
        // A segment without ACK has an undefined number there.
        if !flags.ack() || peer.handshake == 0 || !flow::proves(acknowledged, peer.handshake) {
            proof = UNPROVEN;
        }
    }
    known.state = state_after(known.state, flags, proof);
    entry.set_state(known.state);
    course
}

#[inline(always)]
fn keeps_port<A: Family>(scratch: &mut Scratch<A>) -> bool {
    let Scratch {
        service, tuple, flow, ..
    } = scratch;
    !service.has(IN_TURN)
        && select::select_backend(service, tuple, true, BackendId::NONE)
            .is_ok_and(|choice| choice.id == flow.backend)
}

/// Returns 0.
#[inline(always)]
fn of_backend<A: Family>(scratch: &mut Scratch<A>, ctx: *mut xdp_md, flags: u32) -> u32 {
    let flags = TcpFlags::from_word(flags);
    // SAFETY: the caller's context.
    let packet = unsafe { Packet::resume(ctx, scratch.tags, scratch.frame_len) };
    let Scratch {
        tuple,
        ip,
        flow: known,
        ..
    } = scratch;
    if flags.rst() {
        signals::reset(known);
    }
    let Some(entry) = track::entry(tuple) else {
        return 0;
    };
    if flags.is_syn_ack()
        && let Some(sequence) = packet.word(ip.payload + SEQUENCE)
    {
        entry.set_handshake(u32::from_be(sequence).wrapping_add(1));
    }
    known.state = state_after(known.state, flags, PROVEN);
    entry.set_state(known.state);
    0
}
