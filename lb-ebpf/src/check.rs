//! Health checks through the path (see [`lb_common::check`]): a program of its own, on an interface of the daemon's own,
//! where nothing but checks comes by. It makes a check's packet one that a client on this machine would send, and hands it
//! to the functions that send clients' packets; answers are those of a known flow to the balancer's program.
//!
//! It passes over what says whether the backend may take clients (ring, health, guard): that is what checks decide about.

use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    backend::{Backend, BackendId, IN_USE},
    check::{self, PathCheck},
    flow::{FORWARD, NatFlow, PROVEN, REPLY, Tuple},
    reason::Reason,
    service::{Mode, Service, TCP, UDP},
};

use crate::{
    family::Family,
    forward::{
        direct,
        nat::{self, Hops},
    },
    maps::{self, Opening, Scratch},
    next_hop::{self, NextHop},
    open,
    packet::Packet,
    parse::{self, Network, Protocol, TcpFlags},
    progress, service,
    track::{self, UNPROVEN},
    verdict::{self, Verdict},
};

/// The way of a frame on the checks' interface. Only one that was sent leaves it.
#[inline(always)]
pub(crate) fn handle(frame: &Packet) -> Reason {
    match parse::ethernet(frame) {
        Ok(Network::V4) => send::<NetV4>(frame),
        Ok(Network::V6) => send::<NetV6>(frame),
        Err(reason) => reason,
    }
}

// Not inlined: each family has a stack of its own.
#[inline(never)]
fn send<A: Family>(packet: &Packet) -> Reason {
    verdict::reason(try_send::<A>(packet))
}

#[inline(always)]
fn try_send<A: Family>(packet: &Packet) -> Result<Verdict, Reason> {
    let ip = A::parse(packet)?;
    if A::is_fragment(packet, &ip) {
        return Err(Reason::Fragment);
    }
    let (protocol, flags) = match ip.protocol {
        Protocol::Tcp => (TCP, parse::tcp(packet, &ip)?),
        Protocol::Udp => {
            parse::udp::<A>(packet, &ip)?;
            (UDP, TcpFlags::NONE)
        }
        Protocol::Icmp => return Err(Reason::OtherProtocol),
    };
    let mut room = A::room()?;
    parse::tuple(packet, &ip, protocol, &mut room.tuple)?;
    let number = room.tuple.dst_port.get();
    let check = maps::path_check(number).ok_or(Reason::NotOurs)?;
    let id = BackendId(number);
    let backend = maps::backend(id)?;
    let is_v6 = check.flags & check::IPV6 != 0;
    if room.tuple.dst != A::FAR || is_v6 != A::IS_V6 {
        return Err(Reason::NotOurs);
    }
    if !backend.has(IN_USE) || backend.generation != check.generation {
        return Err(Reason::BackendMissing);
    }
    let translates = backend.mode == Mode::Nat as u8 || backend.mode == Mode::Dnat as u8;
    if translates && backend.has(lb_common::backend::IPV6) != A::IS_V6 {
        return Err(Reason::ModeMissing);
    }
    let to = if translates {
        (A::from_record(backend.address), own_or(backend.port, check.port))
    } else {
        (A::from_record(check.vip), check.port)
    };
    let opens = flags.opens();
    if !knows(packet, &mut *room, id, backend, to, opens)? {
        begin(packet, &mut *room, id, backend, check, to)?;
    }
    let Scratch {
        tuple,
        known: flow,
        spare_key: client,
        limit,
        ..
    } = &mut *room;
    let service = find_service(client, flow, check, protocol);
    let is_programmed = service.is_some() && service.id == backend.service;
    if !is_programmed {
        return Err(Reason::BackendMissing);
    }
    if let Some(entry) = track::find(tuple, flow) {
        // The daemon's own sockets forge nothing.
        entry.set_state(progress::state_after(flow.state, flags, PROVEN));
        entry.touch(flow);
    }
    if translates {
        let next_hop = NextHop::towards(packet, &ip, backend, &flow.src, &flow.dst, limit)?;
        return nat::translate(packet, &ip, flow, &next_hop);
    }
    nat::rewrite(packet, &ip, flow, Hops::Same)?;
    direct::send::<A>(packet, &ip, backend, A::hash(client), limit)
}

#[inline(always)]
const fn own_or(port: NetPort, other: NetPort) -> NetPort {
    if port.0 == 0 { other } else { port }
}

/// The service that a client at the flow's source would reach, or what is none; leaves the tuple of its packets in `client`.
#[inline(always)]
fn find_service<A: Family>(
    client: &mut Tuple<A>,
    flow: &NatFlow<A>,
    check: &PathCheck,
    protocol: u8,
) -> Service {
    *client = Tuple::new(
        flow.src,
        A::from_record(check.vip),
        flow.src_port,
        check.port,
        protocol,
    );
    service::in_table(client)
}

/// Whether the packet's flow is known, and leads where the check does. It is left in the room.
#[inline(always)]
fn knows<A: Family>(
    packet: &Packet,
    room: &mut Scratch<A>,
    id: BackendId,
    backend: &Backend,
    to: (A, NetPort),
    opens: bool,
) -> Result<bool, Reason> {
    let Scratch { tuple, known, .. } = room;
    if track::find(tuple, known).is_none() || known.direction != FORWARD {
        return Ok(false);
    }
    let same = known.backend == id && known.generation == backend.generation;
    let leads_there = (known.dst, known.dst_port) == to;
    // Flows of an earlier daemon's checks came by another interface.
    let stands = same && leads_there && next_hop::arrived_by(packet, &known.last_hop)?;
    Ok(stands && !(opens && track::closed_by_client(known)))
}

/// Opens a flow for the check's packet: as [`open::open_in`] does for a client's, but to the backend that is checked. It is
/// left in the room.
#[inline(always)]
fn begin<A: Family>(
    packet: &Packet,
    room: &mut Scratch<A>,
    id: BackendId,
    backend: &Backend,
    check: &PathCheck,
    to: (A, NetPort),
) -> Result<(), Reason> {
    let replaces = track::find(&room.tuple, &mut room.known).is_some();
    let Scratch { tuple, opening, .. } = room;
    let Opening { forward, reply, .. } = opening;
    let source = A::from_record(check.source);
    // Field by field: a temporary would fill the stack.
    forward.check = A::check(tuple);
    forward.src = if source.is_unspecified() {
        A::from_record(backend.source)
    } else {
        source
    };
    (forward.dst, forward.dst_port) = to;
    (forward.backend, forward.generation) = (id, backend.generation);
    forward.service = backend.service;
    (forward.direction, forward.state) = (FORWARD, UNPROVEN);
    forward.last_seen = track::now_secs();
    next_hop::set_last_hop(packet, &mut forward.last_hop)?;
    (reply.src, reply.dst) = (tuple.dst, tuple.src);
    (reply.src_port, reply.dst_port) = (tuple.dst_port, tuple.src_port);
    // Answers count for nobody: neither as the service's traffic, nor as what its flows tell about the backend.
    (reply.backend, reply.generation) = (check::NO_BACKEND, backend.generation);
    reply.service = check::NO_SERVICE;
    (reply.direction, reply.state) = (REPLY, UNPROVEN);
    reply.last_seen = forward.last_seen;
    reply.last_hop = forward.last_hop;
    (forward.handshake, reply.handshake) = (track::now_millis(), 0);
    open::take_port::<A>()?;
    open::record(room, replaces)?;
    track::find(&room.tuple, &mut room.known).ok_or(Reason::Internal)?;
    Ok(())
}
