//! ICMP errors about a flow: they name it by quoting a packet, so both the outer and the quoted headers are translated.
//!
//! The quoted packet is one that we sent, so it is the mirror of what the flow's other side sends, and its addresses
//! are translated the other way round. The outer source becomes the address that the receiver knows the flow by, also
//! where a router between us and the flow's end has sent the error: the receiver could not route to it, and the
//! network behind the balancer is not its business (RFC 5508 section 4.2 leaves this to the operator's policy).

use core::cell::Cell;

use lb_common::{
    addr::NetPort,
    backend::BackendId,
    flow::{FORWARD, NatFlow, REPLY},
    reason::Reason,
    service::{FORWARDS, TCP, UDP},
};
use network_types::icmp::Icmpv4Hdr;

use crate::{
    echo,
    family::Family,
    forward::{
        dnat,
        nat::{self, Hops},
    },
    host_socket,
    maps::{self, Scratch},
    next_hop::NextHop,
    packet::{Packet, Ports},
    parse::{Ip, Protocol},
    pick, quote,
    service::{self, Way},
    signals, track,
    verdict::{self, Verdict},
};

/// L4 bytes that every ICMP error quotes at least (RFC 792).
const QUOTED_L4: usize = 8;

/// Translates an ICMP error about a known flow and sends it to the flow's other end. One about a packet that a backend
/// sent in the service's name goes to that backend as it is. Everything else passes.
// Not inlined: the stack of a rare case.
#[inline(never)]
pub(crate) fn handle<A: Family>(packet: &Packet) -> Way {
    match try_handle::<A>(packet) {
        Ok(way) => way,
        Err(reason) => Way::Ends(reason),
    }
}

#[inline(always)]
fn try_handle<A: Family>(packet: &Packet) -> Result<Way, Reason> {
    let ip = &A::parse(packet)?;
    if A::is_fragment(packet, ip) {
        return Err(Reason::Fragment);
    }
    if ip.payload_len() < Icmpv4Hdr::LEN {
        return Err(Reason::Truncated);
    }
    let message: Icmpv4Hdr = packet.read(ip.payload).ok_or(Reason::Truncated)?;
    if A::is_echo_request(message.type_) {
        return Ok(Way::Ends(echo::answer::<A>(packet)));
    }
    if !A::is_icmp_error(message.type_) {
        return Err(Reason::OtherProtocol);
    }
    let quoted = A::parse_quoted(packet, ip.payload + Icmpv4Hdr::LEN)?;
    let protocol = match quoted.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Icmp => return Err(Reason::OtherProtocol),
    };
    let mut room = A::room()?;
    let Scratch {
        ip: header,
        tuple,
        known: flow,
        spare_key: outer,
        service,
        limit,
        ..
    } = &mut *room;
    // The flow's own packets come from where the quoted one went.
    A::addresses(packet, quoted.header, &mut tuple.dst, &mut tuple.src).ok_or(Reason::Internal)?;
    A::addresses(packet, ip.header, &mut outer.src, &mut outer.dst).ok_or(Reason::Internal)?;
    // An error goes to the sender of the packet it is about. Any other is made up.
    if tuple.dst != outer.dst {
        return Err(Reason::OtherProtocol);
    }
    if quoted.payload + QUOTED_L4 > ip.end || quoted.payload + QUOTED_L4 > quoted.end {
        return Err(Reason::Truncated);
    }
    let ports: Ports = packet.read(quoted.payload).ok_or(Reason::Truncated)?;
    tuple.src_port = NetPort(u16::from_ne_bytes(ports.destination));
    tuple.dst_port = NetPort(u16::from_ne_bytes(ports.source));
    tuple.protocol = protocol;
    (tuple.pad, tuple.pad_end) = (0, 0);
    if track::find(tuple, flow).is_none() {
        service::find(room);
        let Scratch {
            ip: header, service, ..
        } = &mut *room;
        if host_socket::expects::<A>(packet, service) {
            return Err(Reason::HostSocket);
        }
        let is_service = service.is_some();
        if !is_service && dnat::may_be_reply() {
            *header = *ip;
            return Ok(Way::Reply);
        }
        if !is_service || !service.has(FORWARDS) {
            return Err(Reason::OtherProtocol);
        }
        (room.ip, room.named) = (*ip, BackendId::NONE);
        return Ok(Way::AsIs);
    }
    signals::error_about::<A>(message.type_, message.code, packet.ifindex());
    *header = *ip;
    // One that is too big is counted by whom it names here.
    service.id = flow.service;
    let sent = send(packet, ip, flow, limit);
    if let Err(reason) = sent
        && reason != Reason::TooBig
    {
        maps::count_service_drop(flow.service, reason);
    }
    Ok(Way::Ends(verdict::reason(sent)))
}

/// Sends the error to where `flow` leads, which is in the room as all about it.
#[inline(always)]
fn send<A: Family>(
    packet: &Packet,
    ip: &Ip,
    flow: &NatFlow<A>,
    limit: &Cell<u32>,
) -> Result<Verdict, Reason> {
    let next_hop = match flow.direction {
        FORWARD => {
            let Some(owner) = pick::living_owner(flow) else {
                return Err(Reason::OtherProtocol);
            };
            nat::may_route(ip)?;
            NextHop::towards(packet, ip, owner, &flow.src, &flow.dst, limit)?
        }
        REPLY => {
            nat::may_route(ip)?;
            NextHop::back(&flow.last_hop)
        }
        _ => return Err(Reason::Internal),
    };
    let bytes = u64::from(packet.frame_len);
    if flow.direction == FORWARD {
        maps::count_forward(flow.service, flow.backend, bytes, false);
    } else {
        maps::count_reply(flow.service, flow.backend, bytes);
    }
    quote::translate::<A>(packet, false, Hops::OneLess)?;
    next_hop.send(packet)
}
