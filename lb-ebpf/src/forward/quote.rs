//! Rewriting ICMP errors: their own headers, and the headers of the quoted packet.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    csum::{self, Sum},
    reason::Reason,
};
use network_types::icmp::Icmpv4Hdr;

use super::rewrite::{self, TtlAction};
use lb_wire::Ports;

use crate::{
    family::Family,
    global::{decode, encode, global},
    header::Protocol,
    nat::track,
    next_stage::NextStage,
    packet::Packet,
    scratch::Scratch,
};

/// Offset of the checksum in a TCP header, and in a UDP header.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// Translates the ICMP error whose header, tuple (reversed, of the quoted packet) and flow are in the scratch.
/// `keeps_source`: it goes on coming from where it came, not from the flow's source.
#[inline(always)]
pub(crate) fn translate<A: Family>(
    packet: &Packet,
    scratch: &mut Scratch<A>,
    keeps_source: bool,
    ttl: TtlAction,
) -> Result<(), Reason> {
    decode(rewrite_quote(
        scratch,
        packet.context(),
        keeps_source,
        ttl == TtlAction::Keep,
    ))
}

global! {
    /// [`translate`].
    fn rewrite_quote(&mut Scratch, ctx: *mut xdp_md, keeps_source: bool, keeps_ttl: bool) -> u32
        = rewrite_quote_v4, rewrite_quote_v6: rewrite_both
}

#[inline(always)]
fn rewrite_both<A: Family>(
    scratch: &mut Scratch<A>,
    ctx: *mut xdp_md,
    keeps_source: bool,
    keeps_ttl: bool,
) -> u32 {
    // SAFETY: the caller's context.
    let packet = unsafe { Packet::resume(ctx, scratch.tags, scratch.frame_len) };
    encode(try_rewrite(&packet, scratch, keeps_source, keeps_ttl))
}

#[inline(always)]
fn try_rewrite<A: Family>(
    packet: &Packet,
    scratch: &mut Scratch<A>,
    keeps_source: bool,
    keeps_ttl: bool,
) -> Result<(), Reason> {
    let Scratch {
        tuple,
        ip,
        flow,
        peer_key: outer,
        ..
    } = scratch;
    A::addresses(packet, ip.header, &mut outer.src, &mut outer.dst).ok_or(Reason::Internal)?;
    let quoted = A::parse_quoted(packet, ip.payload + Icmpv4Hdr::LEN).map_err(NextStage::reason)?;
    // All that ICMP's checksum covers and that changes is summed up here.
    let mut change = Sum::ZERO;

    // SAFETY: headers are changed one after the other, and each reference is in use until the next.
    let quoted_header = unsafe { A::header(packet, quoted.header) }.ok_or(Reason::Internal)?;
    let before = A::header_checksum(quoted_header);
    A::set_addresses(quoted_header, flow.dst, flow.src, flow.ip_delta);
    change = change.sub(before).add(A::header_checksum(quoted_header));
    change = track::port_change(track::address_change(tuple, flow).plus(change), tuple, flow);

    // SAFETY: in use until the next reference into the packet.
    let ports: &mut Ports = unsafe { packet.at(quoted.payload) }.ok_or(Reason::Internal)?;
    ports.source = flow.dst_port.0.to_ne_bytes();
    ports.destination = flow.src_port.0.to_ne_bytes();

    let checksum_offset = match quoted.protocol {
        Protocol::Udp => UDP_CHECKSUM,
        Protocol::Tcp | Protocol::Icmp => TCP_CHECKSUM,
    };
    // Errors that quote 8 bytes of TCP have no checksum to adapt.
    let checksum_at = quoted.payload + checksum_offset;
    if checksum_at + 2 <= ip.end
        // SAFETY: in use until the next reference into the packet; `ports` is not used again.
        && let Some(field) = unsafe { packet.at::<[u8; 2]>(checksum_at) }
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
    // SAFETY: in use until the next reference into the packet.
    let message: &mut Icmpv4Hdr = unsafe { packet.at(ip.payload) }.ok_or(Reason::Internal)?;
    message.check = csum::update(u16::from_ne_bytes(message.check), change.fold()).to_ne_bytes();
    // SAFETY: no other reference into the packet is in use.
    let header = unsafe { A::header(packet, ip.header) }.ok_or(Reason::Internal)?;
    let ttl = if keeps_ttl {
        TtlAction::Keep
    } else {
        TtlAction::Decrement
    };
    rewrite::set_addresses(header, *source, flow.dst, A::header_delta(addresses), ttl);
    Ok(())
}
