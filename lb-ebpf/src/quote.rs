//! Rewriting ICMP errors: their own headers, and those of the packet that they quote.
//!
//! The functions at work are what the verifier calls global (see [`crate::open`]).

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    addr::{NetV4, NetV6},
    csum::{self, Sum},
    reason::Reason,
};
use network_types::icmp::Icmpv4Hdr;

use crate::{
    family::Family,
    forward::nat::{self, Hops},
    maps::Scratch,
    packet::{Packet, Ports},
    parse::Protocol,
    track,
};

/// Offset of the checksum in a TCP header, and in a UDP header.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// What a global function returns where all went well. Other numbers are reasons.
const DONE: u32 = u32::MAX;

/// Translates the ICMP error whose header, tuple (that of the quoted packet, turned round) and flow are in the room.
/// `keeps_source`: it goes on coming from where it came, not from the flow's source.
#[inline(always)]
pub(crate) fn translate<A: Family>(packet: &Packet, keeps_source: bool, hops: Hops) -> Result<(), Reason> {
    let translate = if A::IS_V6 { translate_v6 } else { translate_v4 };
    // As in `open::outcome`.
    match core::hint::black_box(translate(packet.context(), keeps_source, hops == Hops::Same)) {
        DONE => Ok(()),
        reason => Err(Reason::from_number(reason).unwrap_or(Reason::Internal)),
    }
}

/// [`translate`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn translate_v4(ctx: *mut xdp_md, keeps_source: bool, keeps_hops: bool) -> u32 {
    rewrite::<NetV4>(&Packet::new(ctx), keeps_source, keeps_hops)
        .map_or_else(|reason| reason as u32, |()| DONE)
}

/// [`translate`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn translate_v6(ctx: *mut xdp_md, keeps_source: bool, keeps_hops: bool) -> u32 {
    rewrite::<NetV6>(&Packet::new(ctx), keeps_source, keeps_hops)
        .map_or_else(|reason| reason as u32, |()| DONE)
}

#[inline(always)]
fn rewrite<A: Family>(packet: &Packet, keeps_source: bool, keeps_hops: bool) -> Result<(), Reason> {
    let mut room = A::room()?;
    let Scratch {
        tuple,
        ip,
        known: flow,
        spare_key: outer,
        ..
    } = &mut *room;
    A::addresses(packet, ip.header, &mut outer.src, &mut outer.dst).ok_or(Reason::Internal)?;
    let quoted = A::parse_quoted(packet, ip.payload + Icmpv4Hdr::LEN)?;
    // All that ICMP's checksum covers and that changes is summed up here.
    let mut change = Sum::ZERO;

    let quoted_header = A::header(packet, quoted.header).ok_or(Reason::Internal)?;
    let before = A::header_checksum(quoted_header);
    A::set_addresses(quoted_header, flow.dst, flow.src, flow.ip_delta);
    change = change.sub(before).add(A::header_checksum(quoted_header));
    change = track::port_change(track::address_change(tuple, flow).plus(change), tuple, flow);

    let ports: &mut Ports = packet.at(quoted.payload).ok_or(Reason::Internal)?;
    ports.source = flow.dst_port.0.to_ne_bytes();
    ports.destination = flow.src_port.0.to_ne_bytes();

    let checksum_offset = match quoted.protocol {
        Protocol::Udp => UDP_CHECKSUM,
        Protocol::Tcp | Protocol::Icmp => TCP_CHECKSUM,
    };
    // Errors that quote 8 bytes of TCP have no checksum to adapt.
    let checksum_at = quoted.payload + checksum_offset;
    if checksum_at + 2 <= ip.end
        && let Some(field) = packet.at::<[u8; 2]>(checksum_at)
    {
        let before = u16::from_ne_bytes(*field);
        let after = match quoted.protocol {
            Protocol::Udp => csum::update_udp(before, flow.l4_delta),
            Protocol::Tcp | Protocol::Icmp => csum::update(before, flow.l4_delta),
        };
        *field = after.to_ne_bytes();
        change = change.sub(before).add(after);
    }

    // The outer addresses: the source need not be the flow's.
    let source = if keeps_source { &outer.src } else { &flow.src };
    let addresses = outer.dst.take_from(outer.src.take_from(Sum::ZERO));
    let addresses = flow.dst.add_to(source.add_to(addresses));
    change = change.plus(A::icmp_delta(addresses));
    let message: &mut Icmpv4Hdr = packet.at(ip.payload).ok_or(Reason::Internal)?;
    message.check = csum::update(u16::from_ne_bytes(message.check), change.fold()).to_ne_bytes();
    let header = A::header(packet, ip.header).ok_or(Reason::Internal)?;
    let hops = if keeps_hops { Hops::Same } else { Hops::OneLess };
    nat::set_addresses(header, *source, flow.dst, A::header_delta(addresses), hops);
    Ok(())
}
