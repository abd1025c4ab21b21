//! Opening a flow: a backend, a source port of its own, an entry for each direction.
//!
//! The functions that are not generic are what the verifier calls global: it checks each on its own, once, whatever
//! the states it is called in. As parts of their callers they would be most of the time that a start takes. They
//! cannot take a reference to the room, so each looks it up for itself.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_get_prandom_u32};
use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    flow::{FORWARD, NatFlow, PROVEN, REPLY, Tuple},
    limits::{SNAT_PORT_DRAWS, SNAT_PORT_TURNS},
    reason::Reason,
    service::{Service, TCP},
    vlan::Tags,
};

use crate::{
    family::Family,
    guard,
    maps::{self, Opening, Refused, Scratch},
    next_hop,
    packet::Packet,
    parse::TcpFlags,
    pick::{self, Choice},
    progress,
    service::is_martian,
    track::{self, UNPROVEN},
};

/// What a global function returns instead of `Ok`, an error, and a port that another flow has.
const DONE: u32 = 0;
const FIRST_REASON: u32 = 1;
const TAKEN: u32 = u32::MAX;

/// What a global function returns for an outcome.
#[inline(always)]
pub(crate) fn status(result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => DONE,
        Err(reason) => FIRST_REASON + reason as u32,
    }
}

/// The outcome that a global function has returned.
#[inline(always)]
pub(crate) fn outcome(status: u32) -> Result<(), Reason> {
    // The verifier knows nothing about what a global function returns, so the compiler must not either.
    match core::hint::black_box(status) {
        DONE => Ok(()),
        reason => Err(Reason::from_number(reason - FIRST_REASON).unwrap_or(Reason::Internal)),
    }
}

/// [`open_in`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open_v4(
    ctx: *mut xdp_md,
    tags: u64,
    service: *const Service,
    flags: u32,
    replaces: bool,
) -> u32 {
    let packet = Packet::untagged(ctx, Tags(tags));
    status(open::<NetV4>(
        &packet,
        service,
        TcpFlags::from_word(flags),
        replaces,
    ))
}

/// [`open_in`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open_v6(
    ctx: *mut xdp_md,
    tags: u64,
    service: *const Service,
    flags: u32,
    replaces: bool,
) -> u32 {
    let packet = Packet::untagged(ctx, Tags(tags));
    status(open::<NetV6>(
        &packet,
        service,
        TcpFlags::from_word(flags),
        replaces,
    ))
}

/// [`try_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn try_port_v4(tried: u32) -> u32 {
    try_port::<NetV4>(tried)
}

/// [`try_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn try_port_v6(tried: u32) -> u32 {
    try_port::<NetV6>(tried)
}

/// [`take_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_port_v4() -> u32 {
    search_port(try_port_v4)
}

/// [`take_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_port_v6() -> u32 {
    search_port(try_port_v6)
}

/// Opens a flow for the client's packet, if it may open one: picks a backend, takes a source port, records both directions.
/// `replaces` says that a flow stands under this tuple that has ended.
///
/// Takes the tuple from the room and leaves the client's entry in it. If another CPU has just opened a flow for the
/// same tuple, that one counts.
#[inline(always)]
pub(crate) fn open_in<A: Family>(
    packet: &Packet,
    service: &Service,
    flags: TcpFlags,
    replaces: bool,
) -> Result<(), Reason> {
    let open = if A::IS_V6 { open_v6 } else { open_v4 };
    let flags = flags.to_word();
    outcome(open(packet.context(), packet.tags.0, service, flags, replaces))
}

#[inline(always)]
fn open<A: Family>(
    packet: &Packet,
    service: *const Service,
    flags: TcpFlags,
    replaces: bool,
) -> Result<(), Reason> {
    // SAFETY: the verifier sees to it that callers pass a whole record, or nothing.
    let service = unsafe { service.as_ref() }.ok_or(Reason::Internal)?;
    let mut room = A::room()?;
    if is_martian(&room.tuple) {
        return Err(Reason::MartianSource);
    }
    if flags.are_some() && (flags.rst() || !(flags.opens() || replaces)) {
        return Err(Reason::NoFlow);
    }
    // Whatever would open a flow, not its first packet alone: each asks for room.
    guard::admit_flow(service, room.tuple.src)?;
    // A flow that moves from a dead backend goes on as what it was.
    let proof = if replaces {
        room.known.state & PROVEN
    } else {
        UNPROVEN
    };
    let state = progress::state_after(UNPROVEN, flags, proof);
    // Steps that are not inlined: one after the other they share a stack.
    choose(packet, &mut *room, service, state)?;
    take_port::<A>()?;
    record(&mut *room, replaces)
}

/// Fills both entries but for what depends on the source port. The client's has the backend's own source address.
#[inline(never)]
fn choose<A: Family>(
    packet: &Packet,
    room: &mut Scratch<A>,
    service: &Service,
    state: u8,
) -> Result<(), Reason> {
    let Scratch {
        named,
        tuple,
        opening,
        ..
    } = room;
    let Opening { forward, reply, .. } = opening;
    let Choice { id, backend } = pick::pick(
        service,
        tuple,
        tuple.protocol == TCP && state & PROVEN == 0,
        *named,
    )?;
    if !pick::translates::<A>(backend) {
        return Err(Reason::ModeMissing);
    }
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
    forward.last_seen = track::now_secs();
    forward.handshake = track::now_millis();
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

/// Finds a free source port and completes both entries with it.
#[inline(always)]
pub(crate) fn take_port<A: Family>() -> Result<(), Reason> {
    let take_port = if A::IS_V6 { take_port_v6 } else { take_port_v4 };
    outcome(take_port())
}

#[inline(always)]
fn search_port(try_port: extern "C" fn(u32) -> u32) -> u32 {
    for tried in 0..SNAT_PORT_TURNS + SNAT_PORT_DRAWS {
        match try_port(tried) {
            TAKEN => {}
            other => return other,
        }
    }
    status(Err(Reason::SnatPortsExhausted))
}

/// Takes the source port whose turn it is, or after so many that were `tried` any one, if it is free: if this program can
/// insert the reply entry. Completes both entries with it.
#[inline(always)]
fn try_port<A: Family>(tried: u32) -> u32 {
    match take::<A>(tried) {
        Ok(true) => DONE,
        Ok(false) => TAKEN,
        Err(reason) => status(Err(reason)),
    }
}

/// Whether the port was free.
#[inline(always)]
fn take<A: Family>(tried: u32) -> Result<bool, Reason> {
    let mut room = A::room()?;
    let Scratch { tuple, opening, .. } = &mut *room;
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
    let turn = if tried < SNAT_PORT_TURNS {
        maps::port_turn(forward.backend)?
    } else {
        // SAFETY: takes no arguments.
        u64::from(unsafe { bpf_get_prandom_u32() })
    };
    #[expect(clippy::cast_possible_truncation, reason = "less than `slots`")]
    let slot = (turn % u64::from(slots)) as u32;
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
        Ok(()) => Ok(true),
        Err(Refused::Exists) => Ok(false),
        Err(Refused::Full) => Err(Reason::FlowTableFull),
        Err(Refused::Unexpected) => Err(Reason::Internal),
    }
}

/// Writes the client's entry. The backend's stands since the port was taken.
#[inline(never)]
pub(crate) fn record<A: Family>(room: &mut Scratch<A>, replaces: bool) -> Result<(), Reason> {
    let Scratch {
        tuple,
        known,
        opening,
        spare_key,
        spare,
        ..
    } = room;
    let Opening {
        forward, reply_key, ..
    } = opening;
    let recorded = if replaces {
        // The port of the flow that has ended is free, unless it was taken again just now.
        *spare_key = known.peer(tuple.protocol);
        if spare_key != reply_key && track::find_reply(spare_key, spare, tuple) {
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
                track::find(tuple, forward).ok_or(Reason::Internal)?;
            }
            Refused::Full => return Err(Reason::FlowTableFull),
            Refused::Unexpected => return Err(Reason::Internal),
        }
    }
    Ok(())
}

/// What the translation from `tuple` to `flow` adds to checksums.
#[inline(always)]
pub(crate) fn set_deltas<A: Family>(tuple: &Tuple<A>, flow: &mut NatFlow<A>) {
    let addresses = track::address_change(tuple, flow);
    flow.ip_delta = A::header_delta(addresses);
    flow.l4_delta = track::port_change(addresses, tuple, flow).fold();
}
