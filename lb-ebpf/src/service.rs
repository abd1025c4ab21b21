//! From a packet to its service or its flow, and on to the backend or back to the client.

use core::{
    cell::Cell,
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    backend::{Backend, BackendId},
    flow::{NatFlow, REPLY, Tuple},
    reason::{Action, Reason},
    ring_slot::Pick,
    service::{FORWARDS, Mode, QUIC, Service, ServiceId, TCP, TRACKS_ALL, TRANSLATES, UDP},
    settings::HAS_WILDCARD,
};

use crate::{
    family::Family,
    follow,
    forward::{
        direct,
        dnat::{self, Chosen},
        nat,
    },
    fragment, guard, host_socket,
    maps::{self, Found, Room, Scratch},
    next_hop::NextHop,
    open,
    packet::{Packet, load64, store64},
    parse::{self, Ip, Protocol, TcpFlags},
    pick::{self, Choice},
    progress::{self, Course},
    quic, reset, short,
    track::{self, Entry},
    verdict::{self, Verdict},
};

/// Where a packet's way goes on.
pub(crate) enum Way {
    /// Nowhere: this has become of it.
    Ends(Reason),
    /// [`crate::icmp::handle`].
    Icmp,
    /// [`handle`], with packet and service in the room.
    Flow,
    /// [`forward_as_is`], with packet and service in the room.
    AsIs,
    /// [`dnat::reply`], with the packet in the room: it is for nobody, unless it is a reply.
    Reply,
    /// [`refuse_unknown`], with packet and service in the room.
    NoFlow,
}

/// Finds out whose packet it is. Whoever has a function of his own for it finds it in the room: ahead of those, the
/// packets of nobody end here.
#[inline(always)]
pub(crate) fn begin<A: Family>(packet: &Packet) -> Way {
    match try_begin::<A>(packet) {
        Ok(way) => way,
        Err(reason) => Way::Ends(reason),
    }
}

#[inline(always)]
fn try_begin<A: Family>(packet: &Packet) -> Result<Way, Reason> {
    let ip = A::parse(packet)?;
    let protocol = match ip.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Icmp => return Ok(Way::Icmp),
    };
    let mut room = A::room()?;
    parse::tuple(packet, &ip, protocol, &mut room.tuple)?;
    find(room);
    if let Some(reason) = short::forward(packet, &ip, room) {
        return Ok(Way::Ends(reason));
    }
    if host_socket::expects::<A>(packet, &room.service) {
        return Err(host_socket::reason::<A>(packet, &ip));
    }
    let is_service = room.service.is_some();
    if !is_service && !is_snat_port(room.tuple.dst_port)? && !dnat::may_be_reply() {
        return Err(not_ours::<A>(packet, &ip));
    }
    room.ip = ip;
    room.named = if room.service.has(QUIC) {
        quic::owner(packet, &ip, room.service.id)
    } else {
        BackendId::NONE
    };
    if !is_service || room.service.has(TRANSLATES) {
        return Ok(Way::Flow);
    }
    Ok(Way::AsIs)
}

/// Decides about a TCP or UDP packet whose flow may be known, with packet and service in the room.
// Not inlined: each family has a stack of its own.
#[inline(never)]
pub(crate) fn handle<A: Family>(packet: &Packet) -> Way {
    match try_handle::<A>(packet) {
        Ok(way) => way,
        Err(reason) => Way::Ends(reason),
    }
}

#[inline(always)]
fn try_handle<A: Family>(packet: &Packet) -> Result<Way, Reason> {
    let mut room = A::room()?;
    let (ip, service) = (room.ip, room.service);
    let is_service = service.is_some();
    if !is_service && !is_snat_port(room.tuple.dst_port)? {
        return foreign::<A>(packet, &ip);
    }
    let Scratch { tuple, known, .. } = &mut *room;
    let entry = track::find(tuple, known);
    // Also where a service stands on a source NAT address: a recorded answer goes before.
    if let Some(entry) = entry
        && room.known.direction == REPLY
    {
        let sent = from_backend(packet, &ip, entry, &mut room.known);
        return Ok(ends(room.known.service, sent));
    }
    if !is_service {
        return foreign::<A>(packet, &ip);
    }
    // A flow stands under the tuple, whether it is this packet's or not.
    let replaces = entry.is_some();
    let entry = entry.filter(|_| !(service.has(QUIC) && quic::leaves(&room)));
    if entry.is_none() && service.has(FORWARDS) {
        let opens = check_ours::<A>(packet, &ip)?.opens();
        if let Err(refused) = guard::admit_client(&service, room.tuple.src) {
            return Ok(ends(service.id, Err(refused)));
        }
        let choice = pick::pick::<A>(&service, &room.tuple, opens, room.named)?;
        if !pick::translates::<A>(choice.backend) {
            return Ok(Way::AsIs);
        }
    }
    match from_client(packet, &ip, room, &service, entry, replaces) {
        Err(Reason::NoFlow) => Ok(Way::NoFlow),
        outcome => Ok(ends(service.id, outcome)),
    }
}

/// Answers a segment that belongs to no flow, and counts it for its service.
// Called from the entry, so that the stack of `handle` is not below it.
#[inline(always)]
pub(crate) fn refuse_unknown<A: Family>(packet: &Packet) -> Reason {
    let refused = reset::no_flow::<A>(packet);
    match A::room() {
        Ok(room) => verdict::reason(counted(room.service.id, Err(refused))),
        Err(reason) => reason,
    }
}

/// A packet for nobody; where there are replies without a flow, perhaps one of them.
#[inline(always)]
fn foreign<A: Family>(packet: &Packet, ip: &Ip) -> Result<Way, Reason> {
    if !dnat::may_be_reply() {
        return Err(not_ours::<A>(packet, ip));
    }
    Ok(Way::Reply)
}

/// A TCP or UDP packet that is for nobody here. [`crate::fragment::follow`] remembers that of a first fragment.
#[inline(always)]
pub(crate) fn not_ours<A: Family>(packet: &Packet, ip: &Ip) -> Reason {
    if A::is_fragment(packet, ip) {
        Reason::Fragment
    } else {
        Reason::NotOurs
    }
}

/// The end of a packet's way, counted for its service.
#[inline(always)]
fn ends(service: ServiceId, outcome: Result<Verdict, Reason>) -> Way {
    Way::Ends(verdict::reason(counted(service, outcome)))
}

/// Whether answers may come to this port. Cheap, and where most packets end that are not ours.
#[inline(always)]
fn is_snat_port(port: NetPort) -> Result<bool, Reason> {
    let settings = maps::settings()?;
    Ok(port.get().wrapping_sub(settings.reply_port_first) < settings.reply_port_count)
}

/// Copies the service that the tuple in the room is addressed to, by its port, else the wildcard; or what is none.
#[inline(always)]
pub(crate) fn find<A: Family>(room: Room<A>) {
    find_on(room, room.tuple.dst_port);
    if !room.service.is_some() && has_wildcard() {
        find_on(room, NetPort(0));
    }
    // Or the compiler makes a program of its own of each way to get here, and the verifier walks them all.
    compiler_fence(Ordering::SeqCst);
}

#[inline(always)]
fn find_on<A: Family>(mut room: Room<A>, port: NetPort) {
    let Scratch { tuple, service, .. } = &mut *room;
    match A::find_service(tuple, port) {
        Found::None => set(service, [0; 2]),
        Found::Record(record) => {
            let from = (&raw const record.service).cast();
            // SAFETY: 16 bytes.
            set(service, unsafe { [load64::<0>(from), load64::<8>(from)] });
        }
        Found::Table if A::IS_V6 => _ = shared_v6(port.0),
        Found::Table => _ = shared_v4(port.0),
    }
}

/// Writes a record in words: as a whole, it is copied by a call of memmove, byte by byte.
#[inline(always)]
fn set(service: &mut Service, [first, second]: [u64; 2]) {
    const { assert!(size_of::<Service>() == 16) };
    let to = ptr::from_mut(service).cast();
    // SAFETY: 16 bytes.
    unsafe {
        store64::<0>(to, first);
        store64::<8>(to, second);
    }
}

/// [`find_on`] the table by key.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn shared_v4(port: u16) -> u32 {
    by_key::<NetV4>(port)
}

/// [`find_on`] the table by key.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn shared_v6(port: u16) -> u32 {
    by_key::<NetV6>(port)
}

#[inline(always)]
fn by_key<A: Family>(port: u16) -> u32 {
    if let Ok(mut room) = A::room() {
        room.service = A::service(&room.tuple, NetPort(port));
    }
    0
}

/// As [`find`], of any tuple, by the tables by key: for what is rare.
#[inline(always)]
pub(crate) fn in_table<A: Family>(tuple: &Tuple<A>) -> Service {
    let exact = A::service(tuple, tuple.dst_port);
    if exact.is_some() || !has_wildcard() {
        return exact;
    }
    A::service(tuple, NetPort(0))
}

/// Whether port 0 of some address stands for all its ports.
#[inline(always)]
pub(crate) fn has_wildcard() -> bool {
    maps::settings().is_ok_and(|settings| settings.flags & HAS_WILDCARD != 0)
}

/// Counts a drop for the service too.
#[inline(always)]
fn counted(service: ServiceId, outcome: Result<Verdict, Reason>) -> Result<Verdict, Reason> {
    if let Err(reason) = outcome {
        count_end(service, reason);
    }
    outcome
}

/// As [`count_drop`], but for what [`crate::reply`] has yet to do something about, and counts then.
#[inline(always)]
pub(crate) fn count_end(service: ServiceId, reason: Reason) {
    if reason != Reason::TooBig {
        count_drop(service, reason);
    }
}

/// Counts a drop for the service, if it is one.
#[inline(always)]
pub(crate) fn count_drop(service: ServiceId, reason: Reason) {
    match reason.action() {
        Action::Drop | Action::Aborted => maps::count_service_drop(service, reason),
        Action::Tx | Action::Redirect | Action::Pass => {}
    }
}

/// Checks what only matters once a packet is ours, and reads what a flow's state depends on.
#[inline(always)]
pub(crate) fn check_ours<A: Family>(packet: &Packet, ip: &Ip) -> Result<TcpFlags, Reason> {
    let flags = match ip.protocol {
        Protocol::Tcp => parse::tcp(packet, ip)?,
        Protocol::Udp | Protocol::Icmp => {
            parse::udp::<A>(packet, ip)?;
            TcpFlags::NONE
        }
    };
    Ok(flags)
}

/// A client's packet to a backend that gets it as it is: nothing is looked up but its slot, as long as that says all. A
/// flow begins with its SYN; of other protocols nobody knows.
// Not inlined: a stack of its own.
#[inline(never)]
pub(crate) fn forward_as_is<A: Family>(packet: &Packet) -> Reason {
    verdict::reason(try_forward_as_is::<A>(packet))
}

#[inline(always)]
fn try_forward_as_is<A: Family>(packet: &Packet) -> Result<Verdict, Reason> {
    let room = A::room()?;
    let Scratch {
        tuple,
        ip,
        service,
        named,
        ..
    } = &*room;
    let flags = match ip.protocol {
        // An error about a packet of the backend's, which is quoted under the tuple.
        Protocol::Icmp => Ok(TcpFlags::NONE),
        Protocol::Tcp | Protocol::Udp => check_ours::<A>(packet, ip),
    };
    let sent = flags.and_then(|flags| {
        guard::admit_client(service, tuple.src)?;
        if is_martian(tuple) {
            return Err(Reason::MartianSource);
        }
        let hash = A::hash(tuple);
        let opens = flags.opens();
        if opens {
            guard::admit_flow(service, tuple.src)?;
        }
        let owner = if *named == BackendId::NONE {
            let slot = pick::slot(service, tuple, hash)?;
            match slot.pick() {
                Pick::Owner(owner) if !service.has(TRACKS_ALL) => owner,
                // An error only asks about the flow.
                Pick::Owner(_) | Pick::LookUp if ip.protocol == Protocol::Icmp => {
                    follow::asked_in::<A>(slot, false)
                }
                Pick::Owner(_) | Pick::LookUp => follow::owner_in::<A>(service, slot, opens),
            }
        } else {
            *named
        };
        let Choice { id, backend } = pick::choice(service, owner)?;
        if backend.mode == Mode::Dnat as u8 {
            return Err(choose(A::room()?, id, opens));
        }
        if A::is_fragment(packet, ip) {
            fragment::record_as_is::<A>(packet, id, hash);
        }
        let verdict = direct::send::<A>(packet, ip, backend, hash, &room.limit)?;
        maps::count_forward(service.id, id, u64::from(packet.frame_len), opens);
        Ok(verdict)
    });
    counted(service.id, sent)
}

/// Leaves a packet to [`dnat::send`].
#[inline(always)]
fn choose<A: Family>(mut room: Room<A>, backend: BackendId, opens: bool) -> Reason {
    room.chosen = Chosen {
        backend,
        opens: u16::from(opens),
    };
    dnat::CHOSEN
}

/// A packet to a service: to its flow's backend, or to the one that takes the new flow. `replaces`: that one takes the
/// place of another.
#[inline(always)]
fn from_client<A: Family>(
    packet: &Packet,
    ip: &Ip,
    mut room: Room<A>,
    service: &Service,
    entry: Option<Entry<A>>,
    replaces: bool,
) -> Result<Verdict, Reason> {
    let flags = check_ours::<A>(packet, ip)?;
    guard::admit_client(service, room.tuple.src)?;
    nat::may_route(ip)?;
    if let Some(entry) = entry
        && let Some(owner) = pick::living_owner(&room.known)
    {
        let course = progress::from_client(packet, &room.known, service, flags);
        if course != Course::Replaces {
            let reopens = course == Course::Reopens;
            if reopens {
                guard::admit_flow(service, room.tuple.src)?;
            }
            entry.touch(&mut room.known);
            track::follow_client(room, packet)?;
            return forward(packet, ip, &room.known, owner, reopens, &room.limit);
        }
    }
    open::open_in::<A>(packet, service, flags, replaces)?;
    let flow = &room.opening.forward;
    let owner = pick::living_owner(flow).ok_or(Reason::NoBackend)?;
    forward(packet, ip, flow, owner, true, &room.limit)
}

/// Whether a packet comes from an address that none may come from, or from the service itself.
#[inline(always)]
pub(crate) fn is_martian<A: Family>(tuple: &Tuple<A>) -> bool {
    tuple.src.is_martian() || tuple.src == tuple.dst
}

/// Counts and sends a client's packet to its flow's backend.
#[inline(always)]
fn forward<A: Family>(
    packet: &Packet,
    ip: &Ip,
    flow: &NatFlow<A>,
    backend: &Backend,
    new_flow: bool,
    limit: &Cell<u32>,
) -> Result<Verdict, Reason> {
    let next_hop = NextHop::towards(packet, ip, backend, &flow.src, &flow.dst, limit)?;
    maps::count_forward(flow.service, flow.backend, u64::from(packet.frame_len), new_flow);
    nat::translate(packet, ip, flow, &next_hop)
}

/// A backend's answer: back to the client, the way the client's packets come.
#[inline(always)]
fn from_backend<A: Family>(
    packet: &Packet,
    ip: &Ip,
    entry: Entry<A>,
    flow: &mut NatFlow<A>,
) -> Result<Verdict, Reason> {
    let flags = check_ours::<A>(packet, ip)?;
    nat::may_route(ip)?;
    progress::from_backend(packet, flow, flags);
    entry.touch(flow);
    maps::count_reply(flow.service, flow.backend, u64::from(packet.frame_len));
    nat::translate(packet, ip, flow, &NextHop::back(&flow.last_hop))
}
