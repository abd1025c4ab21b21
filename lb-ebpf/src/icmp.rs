//! ICMP errors about a flow: they name it by quoting a packet, so both the outer and the quoted headers are translated.
//!
//! The quoted packet is one that we sent, so it is the mirror of what the flow's other side sends, and its addresses
//! are translated the other way round. The outer source becomes the address that the receiver knows the flow by, also
//! where a router between us and the flow's end has sent the error: the receiver could not route to it, and the
//! network behind the balancer is not its business (RFC 5508 section 4.2 leaves this to the operator's policy).

use lb_common::{
    addr::NetPort,
    flow::{FORWARD, REPLY, Tuple},
    reason::Reason,
    service::{BY_CLIENTS, FORWARDS, SHARES_ADDRESS, TCP, UDP},
};
use network_types::icmp::Icmpv4Hdr;

use crate::{
    family::Family,
    forward::{
        quote,
        rewrite::{self, TtlAction},
    },
    header::Protocol,
    host_socket, lookup,
    maps::{counters, tables},
    nat::{signals, track},
    next_stage::NextStage,
    packet::Packet,
    scratch::{NextHop, Scratch},
    select,
    verdict::{self, Verdict},
};
use lb_wire::{Frame as _, Ports};

/// L4 bytes that every ICMP error quotes at least (RFC 792).
const QUOTED_L4: usize = 8;

/// Translates an ICMP error about a known flow and sends it to the flow's other end. One about a packet that a backend
/// sent in the service's name goes to that backend as it is. Everything else passes.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    match try_stage(packet, scratch) {
        Ok(next) | Err(next) => next,
    }
}

#[inline(always)]
fn try_stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<NextStage, NextStage> {
    let Scratch {
        ip,
        tuple,
        flow,
        peer_key: outer,
        ..
    } = &mut *scratch;
    if A::is_fragment(packet, ip) {
        return Err(NextStage::Fragment);
    }
    if ip.payload_len() < Icmpv4Hdr::LEN {
        return Err(Reason::Truncated.into());
    }
    let message: Icmpv4Hdr = packet.read(ip.payload).ok_or(Reason::Truncated)?;
    if A::is_echo_request(message.type_) {
        return Ok(NextStage::Echo);
    }
    if !A::is_icmp_error(message.type_) {
        return Err(Reason::OtherProtocol.into());
    }
    let quoted = A::parse_quoted(packet, ip.payload + Icmpv4Hdr::LEN)?;
    let protocol = match quoted.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Icmp => return Err(Reason::OtherProtocol.into()),
    };
    // The flow's own packets come from where the quoted one went.
    let Tuple { src, dst, .. } = &mut **tuple;
    A::addresses(packet, quoted.header, dst, src).ok_or(Reason::Internal)?;
    A::addresses(packet, ip.header, &mut outer.src, &mut outer.dst).ok_or(Reason::Internal)?;
    // An error goes to the sender of the packet it is about. Any other is made up.
    if tuple.dst != outer.dst {
        return Err(Reason::OtherProtocol.into());
    }
    if quoted.payload + QUOTED_L4 > ip.end || quoted.payload + QUOTED_L4 > quoted.end {
        return Err(Reason::Truncated.into());
    }
    let ports: Ports = packet.read(quoted.payload).ok_or(Reason::Truncated)?;
    tuple.src_port = NetPort(u16::from_ne_bytes(ports.destination));
    tuple.dst_port = NetPort(u16::from_ne_bytes(ports.source));
    tuple.protocol = protocol;
    (tuple.pad, tuple.pad_end) = (0, 0);
    if track::find(tuple, flow).is_none() {
        lookup::find(scratch);
        if !scratch.service.is_some() && tables::has_prefix() {
            lookup::find_by_prefix(scratch);
        }
        if scratch.service.has(SHARES_ADDRESS) && host_socket::expects(packet, &mut scratch.tuple) {
            return Err(Reason::HostSocket.into());
        }
        let is_service = scratch.service.is_some();
        if !is_service && tables::has_dnat() {
            return Ok(NextStage::DnatReply);
        }
        if !is_service || !scratch.service.has(FORWARDS) {
            return Err(Reason::OtherProtocol.into());
        }
        scratch.select_none();
        return Ok(if scratch.service.has(BY_CLIENTS) {
            NextStage::Clients
        } else {
            NextStage::SlowPath
        });
    }
    signals::error_about(flow, message.type_, message.code, packet.ifindex());
    // A message that is too big counts for this service.
    let service = flow.service;
    (scratch.service.id, scratch.drop_counts_for) = (service, service);
    Ok(verdict::next(send(packet, scratch)))
}

/// Sends the error to where its flow leads.
#[inline(always)]
fn send<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> Result<Verdict, NextStage> {
    let Scratch { ip, flow, exit, .. } = &mut *scratch;
    exit.hop = match flow.direction {
        FORWARD => {
            let Some(owner) = select::living_owner(flow) else {
                return Err(Reason::OtherProtocol.into());
            };
            rewrite::may_route(ip)?;
            NextHop::towards(packet, ip, owner, &flow.src, &flow.dst, exit)?
        }
        REPLY => {
            rewrite::may_route(ip)?;
            NextHop::back(&flow.last_hop)
        }
        _ => return Err(Reason::Internal.into()),
    };
    let bytes = u64::from(packet.frame_len);
    if flow.direction == FORWARD {
        counters::count_forward(flow.service, flow.backend, bytes, false);
    } else {
        counters::count_reply(flow.service, flow.backend, bytes);
    }
    quote::translate(packet, scratch, false, TtlAction::Decrement)?;
    Ok(scratch.exit.leave(packet)?)
}
