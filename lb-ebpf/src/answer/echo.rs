//! Answers to echo requests (ping) to addresses of services. Most of these addresses belong to no host, and the answer of a
//! backend that has one would not show whether the balancer works.

use lb_common::{
    addr::{NetV4, NetV6},
    csum::{self, Sum},
    limits::OWN_HOP_LIMIT,
    reason::Reason,
};
use network_types::{
    icmp::Icmpv4Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    budget,
    family::Family,
    header::Ip,
    maps::{counters, tables},
    next_stage::NextStage,
    packet::Packet,
    scratch::Scratch,
};

/// Answers an echo request if its destination is the address of a service; else it passes.
#[inline(always)]
pub(crate) fn stage<A: Echo>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    let (Ok(reason) | Err(reason)) = answer::<A>(packet, &scratch.ip);
    NextStage::Done(reason)
}

#[inline(always)]
fn answer<A: Echo>(packet: &Packet, ip: &Ip) -> Result<Reason, Reason> {
    let (mut src, mut dst) = (A::default(), A::default());
    A::addresses(packet, ip.header, &mut src, &mut dst).ok_or(Reason::Internal)?;
    let service = tables::services_on(&dst.to_record());
    let service = service.any().ok_or(Reason::OtherProtocol)?;
    // RFC 1122 section 3.2.2.6, RFC 4443 section 4.2: a source that is no host gets no answer.
    if !src.is_host() {
        return Err(Reason::OtherProtocol);
    }
    if !budget::admit_echo(service)? {
        counters::count_service_drop(service, Reason::EchoRate);
        return Err(Reason::EchoRate);
    }
    let macs = packet.macs().ok_or(Reason::Internal)?;
    A::turn(packet, ip, src, dst)?;
    packet.set_macs(macs.swapped()).ok_or(Reason::Internal)?;
    counters::count_service_drop(service, Reason::EchoAnswered);
    Ok(Reason::EchoAnswered)
}

/// The differences of ICMP and ICMPv6.
pub(crate) trait Echo: Family {
    /// Makes an echo request from `src` to `dst` its reply.
    fn turn(packet: &Packet, ip: &Ip, src: Self, dst: Self) -> Result<(), Reason>;
}

/// Sets the type of an ICMP message.
#[inline(always)]
fn set_type(packet: &Packet, ip: &Ip, kind: u8) -> Result<(), Reason> {
    // SAFETY: in use until the end of this function, which touches no other bytes.
    let message: &mut Icmpv4Hdr = unsafe { packet.at(ip.payload) }.ok_or(Reason::Internal)?;
    let word = |kind: u8| u16::from_ne_bytes([kind, message.code]);
    let delta = Sum::ZERO.sub(word(message.type_)).add(word(kind)).fold();
    // In IPv4 it covers the message alone, of which an echo reply's type and code are zero.
    message.check = csum::update_not_zero(u16::from_ne_bytes(message.check), delta).to_ne_bytes();
    message.type_ = kind;
    Ok(())
}

impl Echo for NetV4 {
    #[inline(always)]
    fn turn(packet: &Packet, ip: &Ip, src: Self, dst: Self) -> Result<(), Reason> {
        const REPLY: u8 = 0;
        set_type(packet, ip, REPLY)?;
        // SAFETY: as in `set_type`.
        let header: &mut Ipv4Hdr = unsafe { packet.at(ip.header) }.ok_or(Reason::Internal)?;
        let word = |ttl: u8| u16::from_ne_bytes([ttl, header.proto]);
        // That the addresses change places leaves the sum as it is.
        let delta = Sum::ZERO.sub(word(header.ttl)).add(word(OWN_HOP_LIMIT)).fold();
        header.ttl = OWN_HOP_LIMIT;
        Self::set_addresses(header, dst, src, delta);
        Ok(())
    }
}

impl Echo for NetV6 {
    #[inline(always)]
    fn turn(packet: &Packet, ip: &Ip, src: Self, dst: Self) -> Result<(), Reason> {
        const REPLY: u8 = 129;
        set_type(packet, ip, REPLY)?;
        // SAFETY: as in `set_type`.
        let header: &mut Ipv6Hdr = unsafe { packet.at(ip.header) }.ok_or(Reason::Internal)?;
        header.hop_limit = OWN_HOP_LIMIT;
        Self::set_addresses(header, dst, src, 0);
        Ok(())
    }
}
