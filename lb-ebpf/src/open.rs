//! Opening a flow: a backend, a source port of its own, an entry for each direction.
//!
//! The functions that are not generic are what the verifier calls global: it checks each on its own, once, whatever
//! the states it is called in. As parts of their callers they would be most of the time that a start takes. They
//! cannot take a reference to the room, so each looks it up for itself.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_get_prandom_u32};
use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    flow::{FORWARD, NatFlow, PROVEN, REPLY, Tuple},
    limits::{GIVING_WAY_TURNS, SNAT_PORT_DRAWS, SNAT_PORT_TURNS},
    reason::Reason,
    service::{Service, TCP},
    vlan::Tags,
};

use crate::{
    family::Family,
    give_way, guard,
    maps::{self, Opening, Refused, Scratch},
    next_hop,
    packet::Packet,
    parse::TcpFlags,
    pick::{self, Choice},
    progress,
    service::is_martian,
    track::{self, UNPROVEN},
};

/// What a global function returns instead of `Ok`, an error, a port that another flow has, and where the table is full.
const DONE: u32 = 0;
const FIRST_REASON: u32 = 1;
const TAKEN: u32 = u32::MAX;
const FULL: u32 = u32::MAX - 1;

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

/// [`insert_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn insert_port_v4() -> u32 {
    insert_port::<NetV4>()
}

/// [`insert_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn insert_port_v6() -> u32 {
    insert_port::<NetV6>()
}

/// [`take_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_port_v4() -> u32 {
    search_port::<NetV4>(try_port_v4, insert_port_v4)
}

/// [`take_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_port_v6() -> u32 {
    search_port::<NetV6>(try_port_v6, insert_port_v6)
}

/// [`take_over_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_over_port_v4() -> u32 {
    search_holder::<NetV4>(try_port_v4, insert_port_v4)
}

/// [`take_over_port`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_over_port_v6() -> u32 {
    search_holder::<NetV6>(try_port_v6, insert_port_v6)
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
    let is_over = maps::shares::is_over(service.id);
    if !is_over || take_over_port::<A>().is_err() {
        take_port::<A>()?;
    }
    let mut recorded = record(&mut *room, replaces);
    if recorded == Err(Reason::FlowTableFull) && take_over_port::<A>().is_ok() {
        // That has made room for two entries, of which it has filled one.
        recorded = record(&mut *room, replaces);
    }
    if recorded.is_ok() && !replaces {
        maps::shares::count_opened(service.id);
    }
    recorded
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

/// Finds a source port that is free, or that a half-open flow gives way for, and completes both entries with it.
#[inline(always)]
pub(crate) fn take_port<A: Family>() -> Result<(), Reason> {
    let take_port = if A::IS_V6 { take_port_v6 } else { take_port_v4 };
    outcome(take_port())
}

/// As [`take_port`], but only a port for which a half-open flow gives way.
#[inline(always)]
fn take_over_port<A: Family>() -> Result<(), Reason> {
    let take_over = if A::IS_V6 {
        take_over_port_v6
    } else {
        take_over_port_v4
    };
    outcome(take_over())
}

#[inline(always)]
fn search_port<A: Family>(try_port: extern "C" fn(u32) -> u32, insert: extern "C" fn() -> u32) -> u32 {
    let mut found = status(Err(Reason::SnatPortsExhausted));
    for tried in 0..SNAT_PORT_TURNS + SNAT_PORT_DRAWS {
        let port = try_port(tried);
        if port != DONE {
            return port;
        }
        match insert() {
            TAKEN => {}
            FULL => found = status(Err(Reason::FlowTableFull)),
            other => return other,
        }
        if give_way::end_holder::<A>(tried) {
            // Unless another CPU was faster.
            match insert() {
                TAKEN | FULL => {}
                other => return other,
            }
        }
    }
    found
}

#[inline(always)]
fn search_holder<A: Family>(try_port: extern "C" fn(u32) -> u32, insert: extern "C" fn() -> u32) -> u32 {
    for _ in 0..GIVING_WAY_TURNS {
        // In turn, and the oldest flow, however young it is.
        let port = try_port(give_way::ANY);
        if port != DONE {
            return port;
        }
        if give_way::end_holder::<A>(give_way::ANY) {
            match insert() {
                TAKEN | FULL => {}
                other => return other,
            }
        }
    }
    status(Err(Reason::FlowTableFull))
}

/// Completes both entries with the source port whose turn it is, or after so many that were `tried` with any one.
#[inline(always)]
fn try_port<A: Family>(tried: u32) -> u32 {
    status(set_port::<A>(tried))
}

/// Takes the port of both entries, if it is free: if this program can insert the reply entry.
#[inline(always)]
fn insert_port<A: Family>() -> u32 {
    let Ok(room) = A::room() else {
        return status(Err(Reason::Internal));
    };
    match A::insert(&room.opening.reply_key, &room.opening.reply) {
        Ok(()) => DONE,
        Err(Refused::Exists) => TAKEN,
        Err(Refused::Full) => FULL,
        Err(Refused::Unexpected) => status(Err(Reason::Internal)),
    }
}

#[inline(always)]
fn set_port<A: Family>(tried: u32) -> Result<(), Reason> {
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
    Ok(())
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
