//! Health checks through the path (see [`lb_common::check`]): a program of its own, on an interface of the daemon's own,
//! where nothing but checks comes by. It makes a check's packet one that a client on this machine would send, and hands it
//! to the functions that send clients' packets; answers are those of a known flow to the balancer's program.
//!
//! It skips ring, health and guard, which decide whether the backend may take clients: checks are their input.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    addr::NetPort,
    backend::{Backend, BackendId, IN_USE},
    check::{self, PathCheck},
    flow::{FORWARD, NatFlow, PROVEN, REPLY, Tuple},
    reason::Reason,
    service::{Mode, Service, TCP, UDP},
};

use crate::{
    clock,
    family::Family,
    forward::{
        direct,
        rewrite::{self, TtlAction},
    },
    global::global,
    header::{Protocol, TcpFlags},
    lookup,
    maps::{checks, tables},
    nat::{
        new_flow, port, progress,
        track::{self, UNPROVEN},
    },
    next_hop,
    next_stage::NextStage,
    packet::Packet,
    scratch::{NewFlow, NextHop, Scratch},
    transport,
    verdict::Verdict,
};

/// Sends a check's packet to its backend; whether it was sent.
///
/// In two functions that the verifier checks once: the ways through the first would multiply those through the second, and
/// neither needs the other's stack.
#[inline(always)]
pub(crate) fn run<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> bool {
    scratch.keep(packet, 0);
    let ctx = packet.context();
    let flags = take(scratch, ctx);
    flags != NOT_DONE && hand_on(scratch, ctx, flags) != NOT_DONE
}

/// Result of a function that has refused the packet.
const NOT_DONE: u32 = 0;
/// Result of one that has done its work; [`take`] adds the flags to it.
const DONE: u32 = 1;

global! {
    /// [`accept`]: [`DONE`] and [`TcpFlags::to_word`].
    fn take(&mut Scratch, ctx: *mut xdp_md) -> u32 = take_v4, take_v6: taken
}

global! {
    /// [`send`], of a packet whose flags [`take`] has returned: [`DONE`].
    fn hand_on(&mut Scratch, ctx: *mut xdp_md, flags: u32) -> u32 = hand_on_v4, hand_on_v6: handed_on
}

#[inline(always)]
fn taken<A: Family>(scratch: &mut Scratch<A>, ctx: *mut xdp_md) -> u32 {
    // SAFETY: the caller's context.
    let packet = unsafe { Packet::resume(ctx, scratch.tags, scratch.frame_len) };
    accept(&packet, scratch).map_or(NOT_DONE, |flags| DONE + flags.to_word())
}

#[inline(always)]
fn handed_on<A: Family>(scratch: &mut Scratch<A>, ctx: *mut xdp_md, flags: u32) -> u32 {
    // SAFETY: the caller's context.
    let packet = unsafe { Packet::resume(ctx, scratch.tags, scratch.frame_len) };
    let sent = send(&packet, scratch, TcpFlags::from_word(flags.wrapping_sub(DONE)));
    sent.map_or(NOT_DONE, |_| DONE)
}

/// A check, and the backend that it is of.
#[derive(Clone, Copy)]
struct Target {
    check: &'static PathCheck,
    id: BackendId,
    backend: &'static Backend,
}

/// What a packet to this port checks.
#[inline(always)]
fn target(port: NetPort) -> Result<Target, Reason> {
    let number = port.get();
    let id = BackendId(number);
    Ok(Target {
        check: checks::path_check(number).ok_or(Reason::NotOurs)?,
        id,
        backend: tables::backend(id)?,
    })
}

/// Whether packets to a backend are translated.
#[inline(always)]
const fn translates(backend: &Backend) -> bool {
    backend.mode == Mode::Nat as u8 || backend.mode == Mode::Dnat as u8
}

/// Finds or begins the flow of a check's packet, and leaves it in the scratch, as the header.
#[inline(always)]
fn accept<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<TcpFlags, NextStage> {
    let ip = A::parse(packet)?;
    if A::is_fragment(packet, &ip) {
        return Err(Reason::Fragment.into());
    }
    let (protocol, flags) = match ip.protocol {
        Protocol::Tcp => (TCP, transport::tcp(packet, &ip)?),
        Protocol::Udp => {
            transport::udp::<A>(packet, &ip)?;
            (UDP, TcpFlags::NONE)
        }
        Protocol::Icmp => return Err(Reason::OtherProtocol.into()),
    };
    transport::tuple(packet, &ip, protocol, &mut scratch.tuple)?;
    scratch.ip = ip;
    let Target { check, id, backend } = target(scratch.tuple.dst_port)?;
    let is_v6 = check.flags & check::IPV6 != 0;
    if scratch.tuple.dst != A::FAR || is_v6 != A::IS_V6 {
        return Err(Reason::NotOurs.into());
    }
    if !backend.has(IN_USE) || backend.generation != check.generation {
        return Err(Reason::BackendMissing.into());
    }
    let translates = translates(backend);
    if translates && backend.has(lb_common::backend::IPV6) != A::IS_V6 {
        return Err(Reason::ModeMissing.into());
    }
    let to = if translates {
        (A::from_record(&backend.address), own_or(backend.port, check.port))
    } else {
        (A::from_record(&check.vip), check.port)
    };
    if !knows(packet, scratch, id, backend, to, flags.is_syn())? {
        begin(packet, scratch, id, backend, check, to)?;
    }
    Ok(flags)
}

/// Sends a packet that was accepted, as its flow in the scratch says.
#[inline(always)]
fn send<A: Family>(packet: &Packet, scratch: &mut Scratch<A>, flags: TcpFlags) -> Result<Verdict, NextStage> {
    let Scratch {
        ip,
        tuple,
        flow,
        peer_key: client,
        exit,
        fragments,
        ..
    } = scratch;
    let Target { check, backend, .. } = target(tuple.dst_port)?;
    let service = find_service(client, flow, check, tuple.protocol);
    let is_programmed = service.is_some() && service.id == backend.service;
    if !is_programmed {
        return Err(Reason::BackendMissing.into());
    }
    if let Some(entry) = track::find(tuple, flow) {
        // The daemon's own sockets forge nothing.
        entry.set_state(progress::state_after(flow.state, flags, PROVEN));
        entry.touch(flow);
    }
    if translates(backend) {
        exit.hop = NextHop::towards(packet, ip, backend, &flow.src, &flow.dst, exit)?;
        rewrite::translate(packet, ip, flow, fragments, TtlAction::Decrement)?;
        return Ok(exit.leave(packet)?);
    }
    rewrite::translate(packet, ip, flow, fragments, TtlAction::Keep)?;
    // As in `slow_path`: the verifier walks what follows once.
    compiler_fence(Ordering::SeqCst);
    let Target { backend, .. } = target(tuple.dst_port)?;
    direct::prepare::<A>(packet, ip, backend, A::hash(client), exit)?;
    Ok(exit.leave(packet)?)
}

#[inline(always)]
const fn own_or(port: NetPort, other: NetPort) -> NetPort {
    if port.0 == 0 { other } else { port }
}

/// The service that a client at the flow's source would reach, or an empty one; leaves the tuple of its packets in `client`.
#[inline(always)]
fn find_service<A: Family>(
    client: &mut Tuple<A>,
    flow: &NatFlow<A>,
    check: &PathCheck,
    protocol: u8,
) -> Service {
    *client = Tuple::new(
        flow.src,
        A::from_record(&check.vip),
        flow.src_port,
        check.port,
        protocol,
    );
    lookup::in_table(client)
}

/// Whether the packet's flow is known, and leads where the check does. It is left in the scratch.
#[inline(always)]
fn knows<A: Family>(
    packet: &Packet,
    scratch: &mut Scratch<A>,
    id: BackendId,
    backend: &Backend,
    to: (A, NetPort),
    is_syn: bool,
) -> Result<bool, Reason> {
    let Scratch {
        tuple, flow: known, ..
    } = scratch;
    if track::find(tuple, known).is_none() || known.direction != FORWARD {
        return Ok(false);
    }
    let same = known.backend == id && known.generation == backend.generation;
    let leads_there = (known.dst, known.dst_port) == to;
    // Flows of an earlier daemon's checks came by another interface.
    let stands = same && leads_there && next_hop::arrived_by(packet, &known.last_hop)?;
    Ok(stands && !(is_syn && track::closed_by_client(known)))
}

/// Sets a flow up for the check's packet: as [`new_flow`] does for a client's, but to the backend that is checked. It is left in
/// the scratch.
#[inline(always)]
fn begin<A: Family>(
    packet: &Packet,
    scratch: &mut Scratch<A>,
    id: BackendId,
    backend: &Backend,
    check: &PathCheck,
    to: (A, NetPort),
) -> Result<(), Reason> {
    let replaces = track::find(&scratch.tuple, &mut scratch.flow).is_some();
    let Scratch {
        tuple,
        new_flow: NewFlow { forward, reply, .. },
        ..
    } = &mut *scratch;
    let source = A::from_record(&check.source);
    // Field by field: a temporary would fill the stack.
    forward.check = A::tuple_check(tuple);
    forward.src = if source.is_unspecified() {
        A::from_record(&backend.source)
    } else {
        source
    };
    (forward.dst, forward.dst_port) = to;
    (forward.backend, forward.generation) = (id, backend.generation);
    forward.service = backend.service;
    (forward.direction, forward.state) = (FORWARD, UNPROVEN);
    forward.last_seen = clock::now_secs();
    next_hop::set_last_hop(packet, &mut forward.last_hop)?;
    (reply.src, reply.dst) = (tuple.dst, tuple.src);
    (reply.src_port, reply.dst_port) = (tuple.dst_port, tuple.src_port);
    // Answers are not counted: neither as the service's traffic, nor as signals about the backend.
    (reply.backend, reply.generation) = (check::NO_BACKEND, backend.generation);
    reply.service = check::NO_SERVICE;
    (reply.direction, reply.state) = (REPLY, UNPROVEN);
    reply.last_seen = forward.last_seen;
    reply.last_hop = forward.last_hop;
    (forward.handshake, reply.handshake) = (clock::now_millis(), 0);
    port::take(scratch)?;
    new_flow::record(scratch, replaces)?;
    track::find(&scratch.tuple, &mut scratch.flow).ok_or(Reason::Internal)?;
    Ok(())
}
