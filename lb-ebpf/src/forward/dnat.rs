//! Destination NAT: the client's packets get the backend's address and port, and keep their source. Nothing is remembered
//! about that: a reply is told by the endpoint that it comes from, and gets the service's address and port again.
//!
//! Replies go where the kernel's routes lead. What those lead to the machine itself is none: a backend answers the
//! machine's own checks from the same endpoint.
//!
//! The functions at work are what the verifier calls global (see [`crate::open`]).
use network_types::ip::Ipv4Hdr;

use crate::{
    family::Family,
    forward::nat::{self, Hops},
    maps::{self, Scratch},
    next_hop::{NextHop, Route},
    open,
    packet::Packet,
    parse::{Ip, Protocol},
    quote, service,
    verdict::{self, Verdict},
};
use core::mem::offset_of;

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNSUPP_LWT, xdp_md,
};
use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    backend::{BackendId, IPV6},
    flow::{FORWARD, NatFlow, ROUTED, Tuple},
    reason::Reason,
    reply::ReplyAs,
    settings::HAS_DNAT,
    vlan::Tags,
};

/// A backend that was chosen for a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Chosen {
    /// Its number.
    pub(crate) backend: BackendId,
    /// Whether the packet is a TCP SYN without ACK.
    pub(crate) opens: u16,
}

/// Whether any packet may be a reply. Cheap: it is asked for each one that is for nobody.
#[inline(always)]
pub(crate) fn may_be_reply() -> bool {
    maps::settings().is_ok_and(|settings| settings.flags & HAS_DNAT != 0)
}

/// Stands for a packet whose backend is of mode `dnat`, until [`send`] has done so. Nothing counts a drop for it.
pub(crate) const CHOSEN: Reason = Reason::RejectedUnreachable;

/// Sends a client's packet, or an ICMP error about a packet to it, to the backend that was chosen, and counts it. Takes all
/// but the packet from the room.
#[inline(always)]
pub(crate) fn send<A: Family>(packet: &Packet) -> Reason {
    let send = if A::IS_V6 { dnat_v6 } else { dnat_v4 };
    reason(send(packet.context(), packet.tags.0))
}

/// [`send`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dnat_v4(ctx: *mut xdp_md, tags: u64) -> u32 {
    sent::<NetV4>(&Packet::untagged(ctx, Tags(tags))) as u32
}

/// [`send`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dnat_v6(ctx: *mut xdp_md, tags: u64) -> u32 {
    sent::<NetV6>(&Packet::untagged(ctx, Tags(tags))) as u32
}

#[inline(always)]
fn sent<A: Family>(packet: &Packet) -> Reason {
    let mut room = match A::room() {
        Ok(room) => room,
        Err(reason) => return reason,
    };
    let id = room.service.id;
    let reason = verdict::reason(try_send(packet, &mut *room));
    service::count_end(id, reason);
    reason
}

#[inline(always)]
fn try_send<A: Family>(packet: &Packet, room: &mut Scratch<A>) -> Result<Verdict, Reason> {
    let Scratch {
        tuple,
        ip,
        service,
        chosen,
        known: flow,
        limit,
        ..
    } = room;
    let backend = maps::backend(chosen.backend)?;
    if backend.has(IPV6) != A::IS_V6 {
        return Err(Reason::ModeMissing);
    }
    nat::may_route(ip)?;
    flow.src = tuple.src;
    flow.dst = A::from_record(backend.address);
    flow.src_port = tuple.src_port;
    flow.dst_port = port(backend.port, tuple.dst_port);
    (flow.service, flow.direction) = (service.id, FORWARD);
    (flow.backend, flow.generation) = (chosen.backend, backend.generation);
    open::set_deltas(tuple, flow);
    let next_hop = NextHop::towards(packet, ip, backend, &flow.src, &flow.dst, limit)?;
    let opens = chosen.opens != 0;
    maps::count_forward(service.id, chosen.backend, u64::from(packet.frame_len), opens);
    if ip.protocol == Protocol::Icmp {
        // Whoever sent it: a backend sees the clients' side of the network as it is.
        quote::translate::<A>(packet, true, Hops::OneLess)?;
        return next_hop.send(packet);
    }
    nat::translate(packet, ip, flow, &next_hop)
}

/// Sends a reply on to its client, or an ICMP error about a client's packet, which has the reply's tuple; tells what has
/// become of it. Takes tuple and header from the room.
#[inline(always)]
pub(crate) fn reply<A: Family>(packet: &Packet) -> Reason {
    let reply = if A::IS_V6 { reply_v6 } else { reply_v4 };
    reason(reply(packet.context(), packet.tags.0))
}

/// [`reply`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reply_v4(ctx: *mut xdp_md, tags: u64) -> u32 {
    replied::<NetV4>(&Packet::untagged(ctx, Tags(tags))) as u32
}

/// [`reply`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reply_v6(ctx: *mut xdp_md, tags: u64) -> u32 {
    replied::<NetV6>(&Packet::untagged(ctx, Tags(tags))) as u32
}

#[inline(always)]
fn replied<A: Family>(packet: &Packet) -> Reason {
    let mut room = match A::room() {
        Ok(room) => room,
        Err(reason) => return reason,
    };
    let Scratch {
        tuple,
        ip,
        known: flow,
        route,
        ..
    } = &mut *room;
    let found = endpoint(tuple);
    // As in `service::handle`.
    let (is_reply, whose) = (found.is_some(), found.unwrap_or_default());
    if !is_reply {
        return foreign::<A>(packet, ip);
    }
    flow.src = whose.address;
    flow.dst = tuple.dst;
    flow.src_port = port(whose.port, tuple.src_port);
    flow.dst_port = tuple.dst_port;
    (flow.service, flow.backend, flow.direction) = (whose.service, whose.backend, ROUTED);
    open::set_deltas(tuple, flow);
    let (Ok(reason) | Err(reason)) = try_reply(packet, ip, flow, &whose, route);
    service::count_drop(whose.service, reason);
    reason
}

/// Whose replies come from the source of this tuple: exactly, else by the wildcard.
#[inline(always)]
fn endpoint<A: Family>(tuple: &Tuple<A>) -> Option<ReplyAs<A>> {
    let exact = A::reply_as(tuple.src, tuple.src_port, tuple.protocol);
    if exact.is_some() || !service::has_wildcard() {
        return exact;
    }
    A::reply_as(tuple.src, NetPort(0), tuple.protocol)
}

/// Asks for the way of a reply that is translated to `src` and `dst`: whether the kernel sends it on, or the program by
/// `route`. A reason says why it is neither, and not translated.
#[inline(always)]
pub(crate) fn leaves_by_kernel<A: Family>(
    route: &mut Route,
    packet: &Packet,
    ip: &Ip,
    src: &A,
    dst: &A,
) -> Result<bool, Reason> {
    // Only then does it count whether it fits, see `direct::fits`.
    let len = if packet.is_linear() { ip.len() } else { 0 };
    match route.ask(packet, src, dst, len) {
        // Other devices may not take frames from a program: VLANs, bridges, tunnels.
        BPF_FIB_LKUP_RET_SUCCESS => Ok(!verdict::serves(route.ifindex())),
        BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_UNSUPP_LWT => Ok(true),
        BPF_FIB_LKUP_RET_FRAG_NEEDED if may_fragment::<A>(packet, ip) => Ok(true),
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Err(Reason::ReplyByKernel),
        BPF_FIB_LKUP_RET_FWD_DISABLED => Err(Reason::ForwardingDisabled),
        // For the machine itself, or there is no way: that is the kernel's to say, to the backend's own address.
        _ => Err(foreign::<A>(packet, ip)),
    }
}

/// Whether a router may make fragments of a packet that does not fit.
#[inline(always)]
fn may_fragment<A: Family>(packet: &Packet, ip: &Ip) -> bool {
    const FLAGS: usize = offset_of!(Ipv4Hdr, frags);
    const DONT_FRAGMENT: u8 = 0x40;
    let flags = packet.read::<[u8; 1]>(ip.header + FLAGS);
    !A::IS_V6 && flags.is_some_and(|[flags]| flags & DONT_FRAGMENT == 0)
}

#[inline(always)]
fn try_reply<A: Family>(
    packet: &Packet,
    ip: &Ip,
    flow: &NatFlow<A>,
    whose: &ReplyAs<A>,
    route: &mut Route,
) -> Result<Reason, Reason> {
    let by_kernel = leaves_by_kernel(route, packet, ip, &flow.src, &flow.dst)?;
    if ip.protocol != Protocol::Icmp {
        service::check_ours::<A>(packet, ip)?;
    }
    nat::may_route(ip)?;
    let hops = if by_kernel { Hops::Same } else { Hops::OneLess };
    maps::count_reply(whose.service, whose.backend, u64::from(packet.frame_len));
    if ip.protocol == Protocol::Icmp {
        // As in `icmp`: also where a router between us and the backend has sent it.
        quote::translate::<A>(packet, false, hops)?;
    } else {
        nat::rewrite(packet, ip, flow, hops)?;
    }
    if by_kernel {
        return Ok(Reason::ReplyByKernel);
    }
    Ok(verdict::reason(route.next_hop(packet).send(packet)))
}

/// What a global function has returned.
#[inline(always)]
fn reason(number: u32) -> Reason {
    // As in `open::outcome`.
    Reason::from_number(core::hint::black_box(number)).unwrap_or(Reason::Internal)
}

/// A record's port, or the packet's own.
#[inline(always)]
const fn port(record: NetPort, own: NetPort) -> NetPort {
    if record.0 == 0 { own } else { record }
}

/// A packet that is not for us after all.
#[inline(always)]
fn foreign<A: Family>(packet: &Packet, ip: &Ip) -> Reason {
    match ip.protocol {
        Protocol::Tcp | Protocol::Udp => service::not_ours::<A>(packet, ip),
        Protocol::Icmp => Reason::OtherProtocol,
    }
}
