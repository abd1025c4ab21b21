//! Fragments. The first one of a datagram has the ports, so it takes the way of any packet, and is recorded; the others
//! follow it. Where one comes before its first, nobody knows where to.
//!
//! The functions that are not generic are what the verifier calls global, as in [`crate::open`].

use core::{cell::Cell, mem::offset_of};

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_get_prandom_u32};
use lb_common::{
    addr::{NetV4, NetV6},
    backend::{ALIVE, Backend, BackendId, IN_USE},
    csum::{self, Sum},
    flow::{self, NatFlow},
    fragment::{AS_IS, Datagram, FORWARD, NOT_OURS, REPLY, ROUTED, Went},
    limits::FRAGMENT_SECS,
    reason::Reason,
    service::ServiceId,
    vlan::Tags,
};
use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    family::Family,
    forward::{
        direct, dnat,
        nat::{self, Hops},
    },
    maps::{self, Scratch},
    next_hop::{NextHop, Route},
    packet::Packet,
    parse::{self, Fragments, Ip, Protocol},
    service,
    track::now_secs,
    verdict::{self, Verdict},
};

/// A fragment, as far as its way depends on it. In the room: returned by a function, it would have words that are not set.
pub(crate) struct Part {
    /// Its header. What it carries is known of the first one only.
    ip: Ip,
    /// Whether it is the first.
    first: bool,
    /// Where the identification stands: 16 bits in IPv4, 32 in IPv6.
    id_at: usize,
    /// As in [`Datagram`].
    id: u32,
    /// As in [`Datagram`].
    protocol: u32,
    /// What it carries, by the number in this fragment's header: in IPv6 perhaps an extension header.
    carries: u8,
}

/// What differs between IPv4 and IPv6.
pub(crate) trait Fragmented: Family {
    /// Reads the packet's headers, if it may be a fragment of TCP or UDP.
    fn read(packet: &Packet, part: &mut Part) -> Result<(), Reason>;
    /// A new identification.
    fn new_id() -> u32;
    /// Writes an identification, and keeps the header's checksum right.
    fn set_id(packet: &Packet, part: &Part, id: u32) -> Option<()>;
}

/// Whether a packet with extension headers, which IPv6 packets seldom have, is a fragment.
#[inline(always)]
pub(crate) fn has_header(packet: &Packet) -> bool {
    // As in `open::outcome`.
    core::hint::black_box(has_fragment_header(packet.context())) != 0
}

/// [`has_header`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn has_fragment_header(ctx: *mut xdp_md) -> u32 {
    const OFFSET_AND_MORE: u16 = 0xfff9;
    let packet = &Packet::new(ctx);
    let at = parse::fragment_header(packet);
    let header = packet.read::<[u8; 4]>(at).filter(|_| at != 0);
    header.map_or(0, |[_, _, high, low]| {
        u32::from(u16::from_be_bytes([high, low]) & OFFSET_AND_MORE != 0)
    })
}

/// Sends a fragment where the first one of its datagram went; one that is for nobody here passes. Tells what became of it.
#[inline(always)]
pub(crate) fn follow<A: Family>(packet: &Packet) -> Reason {
    let follow = if A::IS_V6 { fragment_v6 } else { fragment_v4 };
    // As in `open::outcome`.
    let reason = core::hint::black_box(follow(packet.context(), packet.tags.0));
    Reason::from_number(reason).unwrap_or(Reason::Internal)
}

/// Records that a first fragment goes to a backend as it is. Hash and service are those of the packet in the room.
#[inline(always)]
pub(crate) fn record_as_is<A: Family>(packet: &Packet, backend: BackendId, hash: u32) {
    let record = if A::IS_V6 { as_is_v6 } else { as_is_v4 };
    record(packet.context(), u32::from(backend.0), hash);
}

/// Records that a first fragment is translated as its flow says, and gives it a new identification.
#[inline(always)]
pub(crate) fn record_translated<A: Family>(packet: &Packet, flow: &NatFlow<A>) {
    // The addresses of a flow are those of its family.
    let flow = core::ptr::from_ref(flow);
    if A::IS_V6 {
        translated_v6(packet.context(), flow.cast());
    } else {
        translated_v4(packet.context(), flow.cast());
    }
}

/// [`follow`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fragment_v4(ctx: *mut xdp_md, tags: u64) -> u32 {
    verdict::reason(try_follow::<NetV4>(&Packet::untagged(ctx, Tags(tags)))) as u32
}

/// [`follow`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fragment_v6(ctx: *mut xdp_md, tags: u64) -> u32 {
    verdict::reason(try_follow::<NetV6>(&Packet::untagged(ctx, Tags(tags)))) as u32
}

/// [`record_as_is`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn as_is_v4(ctx: *mut xdp_md, backend: u32, hash: u32) -> u32 {
    as_is::<NetV4>(&Packet::new(ctx), backend, hash)
}

/// [`record_as_is`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn as_is_v6(ctx: *mut xdp_md, backend: u32, hash: u32) -> u32 {
    as_is::<NetV6>(&Packet::new(ctx), backend, hash)
}

/// [`record_translated`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn translated_v4(ctx: *mut xdp_md, flow: *const NatFlow<NetV4>) -> u32 {
    translated(&Packet::new(ctx), flow)
}

/// [`record_translated`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn translated_v6(ctx: *mut xdp_md, flow: *const NatFlow<NetV6>) -> u32 {
    translated(&Packet::new(ctx), flow)
}

/// What the functions return that record something: nobody asks, since a table that forgets its oldest is never full.
const RECORDED: u32 = 0;

#[inline(always)]
fn as_is<A: Fragmented>(packet: &Packet, backend: u32, hash: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a backend's number")]
    let id = BackendId(backend as u16);
    let (Ok(mut room), Ok(backend)) = (A::room(), maps::backend(id)) else {
        return RECORDED;
    };
    let service = room.service.id;
    let Scratch {
        part, datagram, went, ..
    } = &mut *room;
    if A::read(packet, part).is_ok() {
        begin(packet, part, datagram, went, AS_IS);
        (went.backend, went.generation, went.hash) = (id, backend.generation, hash);
        went.service = service;
        A::write_fragment(datagram, went);
    }
    RECORDED
}

#[inline(always)]
fn translated<A: Fragmented>(packet: &Packet, flow: *const NatFlow<A>) -> u32 {
    // SAFETY: the verifier sees to it that callers pass a whole record, or nothing.
    let (Some(flow), Ok(mut room)) = (unsafe { flow.as_ref() }, A::room()) else {
        return RECORDED;
    };
    let Scratch {
        part, datagram, went, ..
    } = &mut *room;
    if A::read(packet, part).is_ok() {
        let kind = match flow.direction {
            flow::REPLY => REPLY,
            flow::ROUTED => ROUTED,
            _ => FORWARD,
        };
        begin(packet, part, datagram, went, kind);
        (went.src, went.dst) = (flow.src, flow.dst);
        (went.backend, went.generation, went.service) = (flow.backend, flow.generation, flow.service);
        went.last_hop = flow.last_hop;
        went.id = A::new_id();
        if A::set_id(packet, part, went.id).is_some() {
            A::write_fragment(datagram, went);
        }
    }
    RECORDED
}

/// Fills in what does not depend on the way.
#[inline(always)]
fn begin<A: Fragmented>(packet: &Packet, part: &Part, key: &mut Datagram<A>, went: &mut Went<A>, kind: u8) {
    // A failure leaves the addresses of another packet, which the first fragment's own way would have noticed.
    let _ = set_key(packet, part, key);
    went.kind = kind;
    went.seen = now_secs();
    (went.pad, went.pad_end) = (0, [0; 2]);
}

#[inline(always)]
fn set_key<A: Fragmented>(packet: &Packet, part: &Part, key: &mut Datagram<A>) -> Option<()> {
    A::addresses(packet, part.ip.header, &mut key.src, &mut key.dst)?;
    (key.id, key.protocol) = (part.id, part.protocol);
    Some(())
}

#[inline(always)]
fn try_follow<A: Fragmented>(packet: &Packet) -> Result<Verdict, Reason> {
    let mut room = A::room()?;
    let Scratch {
        part,
        datagram,
        went,
        limit,
        route,
        ..
    } = &mut *room;
    A::read(packet, part)?;
    set_key(packet, part, datagram).ok_or(Reason::Internal)?;
    if part.first {
        // Not for a service. On an address of one, those that follow would be taken for lost.
        if service_on(part, datagram).is_some() {
            begin(packet, part, datagram, went, NOT_OURS);
            A::write_fragment(datagram, went);
        }
        return Err(Reason::Fragment);
    }
    if !A::find_fragment(datagram, went) || now_secs().wrapping_sub(went.seen) > FRAGMENT_SECS {
        let service = service_on(part, datagram).ok_or(Reason::Fragment)?;
        return dropped(service, Reason::FragmentAlone);
    }
    let sent = match went.kind {
        AS_IS => pass_on(packet, part, went, limit),
        ROUTED => reply(packet, part, datagram, went, route),
        FORWARD | REPLY => translate(packet, part, datagram, went, limit),
        _ => return Err(Reason::Fragment),
    };
    sent.or_else(|reason| dropped(went.service, reason))
}

/// The service that a fragment may be for: one of its destination and its protocol. What follows extension headers in IPv6 is
/// known of the first fragment alone, so it may be for any.
#[inline(always)]
fn service_on<A: Fragmented>(part: &Part, datagram: &Datagram<A>) -> Option<ServiceId> {
    let services = maps::services_on(&datagram.dst.to_record())?;
    if A::IS_V6 && part.carries == IpProto::Ipv6Opts as u8 {
        return services.any();
    }
    services.of(part.carries)
}

#[inline(always)]
fn pass_on<A: Fragmented>(
    packet: &Packet,
    part: &Part,
    went: &Went<A>,
    limit: &Cell<u32>,
) -> Result<Verdict, Reason> {
    let verdict = direct::send::<A>(packet, &part.ip, owner(went)?, went.hash, limit)?;
    maps::count_forward(went.service, went.backend, u64::from(packet.frame_len), false);
    Ok(verdict)
}

#[inline(always)]
fn dropped(service: ServiceId, reason: Reason) -> Result<Verdict, Reason> {
    service::count_drop(service, reason);
    Err(reason)
}

/// The backend that the first fragment went to, unless it is dead since, or its number is in other hands.
#[inline(always)]
fn owner<A>(went: &Went<A>) -> Result<&'static Backend, Reason> {
    match maps::backend(went.backend)? {
        owner if owner.has(IN_USE | ALIVE) && owner.generation == went.generation => Ok(owner),
        _ => Err(Reason::NoBackend),
    }
}

#[inline(always)]
fn translate<A: Fragmented>(
    packet: &Packet,
    part: &Part,
    from: &Datagram<A>,
    went: &Went<A>,
    limit: &Cell<u32>,
) -> Result<Verdict, Reason> {
    nat::may_route(&part.ip)?;
    let bytes = u64::from(packet.frame_len);
    let next_hop = if went.kind == FORWARD {
        let next_hop = NextHop::towards(packet, &part.ip, owner(went)?, &went.src, &went.dst, limit)?;
        maps::count_forward(went.service, went.backend, bytes, false);
        next_hop
    } else {
        maps::count_reply(went.service, went.backend, bytes);
        NextHop::back(&went.last_hop)
    };
    rewrite(packet, part, from, went, Hops::OneLess)?;
    next_hop.send(packet)
}

/// A reply in mode `dnat`, as [`crate::forward::dnat`] sends them.
#[inline(always)]
fn reply<A: Fragmented>(
    packet: &Packet,
    part: &Part,
    from: &Datagram<A>,
    went: &Went<A>,
    route: &mut Route,
) -> Result<Verdict, Reason> {
    let by_kernel = dnat::leaves_by_kernel(route, packet, &part.ip, &went.src, &went.dst)?;
    nat::may_route(&part.ip)?;
    maps::count_reply(went.service, went.backend, u64::from(packet.frame_len));
    if by_kernel {
        rewrite(packet, part, from, went, Hops::Same)?;
        return Err(Reason::ReplyByKernel);
    }
    rewrite(packet, part, from, went, Hops::OneLess)?;
    route.next_hop(packet).send(packet)
}

/// Writes the addresses and the identification of the first one.
#[inline(always)]
fn rewrite<A: Fragmented>(
    packet: &Packet,
    part: &Part,
    from: &Datagram<A>,
    went: &Went<A>,
    hops: Hops,
) -> Result<(), Reason> {
    A::set_id(packet, part, went.id).ok_or(Reason::Internal)?;
    let sum = from.dst.take_from(from.src.take_from(Sum::ZERO));
    let delta = A::header_delta(went.dst.add_to(went.src.add_to(sum)));
    let header = A::header(packet, part.ip.header).ok_or(Reason::Internal)?;
    nat::set_addresses(header, went.src, went.dst, delta, hops);
    Ok(())
}

impl Fragmented for NetV4 {
    #[inline(always)]
    fn read(packet: &Packet, part: &mut Part) -> Result<(), Reason> {
        const OFFSET: u16 = 0x1fff;
        part.ip = parse::ipv4_header(packet, EthHdr::LEN, Fragments::All)?;
        if part.ip.end > packet.frame_len as usize {
            return Err(Reason::Truncated);
        }
        if part.ip.protocol == Protocol::Icmp {
            return Err(Reason::OtherProtocol);
        }
        let header: &Ipv4Hdr = packet.at(EthHdr::LEN).ok_or(Reason::Internal)?;
        part.first = u16::from_be_bytes(header.frags) & OFFSET == 0;
        part.id_at = EthHdr::LEN + offset_of!(Ipv4Hdr, id);
        part.id = u32::from(u16::from_ne_bytes(header.id));
        part.protocol = u32::from(header.proto);
        part.carries = header.proto;
        Ok(())
    }

    #[inline(always)]
    fn new_id() -> u32 {
        // SAFETY: takes no arguments.
        unsafe { bpf_get_prandom_u32() & 0xffff }
    }

    #[inline(always)]
    fn set_id(packet: &Packet, part: &Part, id: u32) -> Option<()> {
        #[expect(clippy::cast_possible_truncation, reason = "16 bits")]
        let id = id as u16;
        let header: &mut Ipv4Hdr = packet.at(part.ip.header)?;
        let delta = Sum::ZERO.sub(u16::from_ne_bytes(header.id)).add(id).fold();
        header.id = id.to_ne_bytes();
        header.check = csum::update(u16::from_ne_bytes(header.check), delta).to_ne_bytes();
        Some(())
    }
}

impl Fragmented for NetV6 {
    #[inline(always)]
    fn read(packet: &Packet, part: &mut Part) -> Result<(), Reason> {
        const OFFSET: u16 = 0xfff8;
        /// Where the identification stands in a fragment header.
        const ID: usize = 4;
        let at = parse::fragment_header(packet);
        if at == 0 {
            return Err(Reason::OtherProtocol);
        }
        let [carries, _, high, low, a, b, c, d]: [u8; 8] = packet.read(at).ok_or(Reason::Truncated)?;
        let header: &Ipv6Hdr = packet.at(EthHdr::LEN).ok_or(Reason::Internal)?;
        // Known of the first alone, and nobody asks.
        part.ip.protocol = Protocol::Udp;
        part.ip.hop_limit = header.hop_limit;
        part.ip.header = EthHdr::LEN;
        part.ip.payload = at + 8;
        part.ip.end = EthHdr::LEN + Ipv6Hdr::LEN + header.payload_len() as usize;
        if part.ip.end > packet.frame_len as usize || part.ip.end < part.ip.payload {
            return Err(Reason::Truncated);
        }
        part.first = u16::from_be_bytes([high, low]) & OFFSET == 0;
        part.id_at = at + ID;
        part.id = u32::from_ne_bytes([a, b, c, d]);
        part.protocol = 0;
        part.carries = carries;
        Ok(())
    }

    #[inline(always)]
    fn new_id() -> u32 {
        // SAFETY: takes no arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn set_id(packet: &Packet, part: &Part, id: u32) -> Option<()> {
        *packet.at::<[u8; 4]>(part.id_at)? = id.to_ne_bytes();
        Some(())
    }
}
