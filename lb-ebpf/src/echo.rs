//! Answers to echo requests (ping) to addresses of services. Most of these addresses are no host's, and on a backend that
//! holds one, nobody would see the balancer.
//!
//! The functions that are not generic are what the verifier calls global, as in [`crate::open`].

use aya_ebpf::bindings::xdp_md;
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

use crate::{budget, family::Family, maps, packet::Packet, parse::Ip};

/// Answers an echo request if its destination is the address of a service; else it passes. Returns what has become of it.
#[inline(always)]
pub(crate) fn answer<A: Family>(packet: &Packet) -> Reason {
    let answer = if A::IS_V6 { echo_v6 } else { echo_v4 };
    // As in `open::outcome`.
    let reason = core::hint::black_box(answer(packet.context()));
    Reason::from_number(reason).unwrap_or(Reason::Internal)
}

/// [`answer`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn echo_v4(ctx: *mut xdp_md) -> u32 {
    let (Ok(reason) | Err(reason)) = try_answer::<NetV4>(&Packet::new(ctx));
    reason as u32
}

/// [`answer`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn echo_v6(ctx: *mut xdp_md) -> u32 {
    let (Ok(reason) | Err(reason)) = try_answer::<NetV6>(&Packet::new(ctx));
    reason as u32
}

#[inline(always)]
fn try_answer<A: Echo>(packet: &Packet) -> Result<Reason, Reason> {
    let ip = A::parse(packet)?;
    let (mut src, mut dst) = (A::default(), A::default());
    A::addresses(packet, ip.header, &mut src, &mut dst).ok_or(Reason::Internal)?;
    let services = maps::services_on(&dst.to_record()).ok_or(Reason::OtherProtocol)?;
    let service = services.any().ok_or(Reason::OtherProtocol)?;
    // RFC 1122 section 3.2.2.6, RFC 4443 section 4.2: a source that is no host gets no answer.
    if !src.is_host() {
        return Err(Reason::OtherProtocol);
    }
    if !budget::admit_echo(service)? {
        maps::count_service_drop(service, Reason::EchoRate);
        return Err(Reason::EchoRate);
    }
    let macs = packet.macs().ok_or(Reason::Internal)?;
    A::turn(packet, &ip, src, dst)?;
    packet.set_macs(macs.swapped()).ok_or(Reason::Internal)?;
    maps::count_service_drop(service, Reason::EchoAnswered);
    Ok(Reason::EchoAnswered)
}

/// What differs between ICMP and ICMPv6.
trait Echo: Family {
    /// Makes an echo request from `src` to `dst` its reply.
    fn turn(packet: &Packet, ip: &Ip, src: Self, dst: Self) -> Result<(), Reason>;
}

/// Sets the type of an ICMP message.
#[inline(always)]
fn set_type(packet: &Packet, ip: &Ip, kind: u8) -> Result<(), Reason> {
    let message: &mut Icmpv4Hdr = packet.at(ip.payload).ok_or(Reason::Internal)?;
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
        let header: &mut Ipv4Hdr = packet.at(ip.header).ok_or(Reason::Internal)?;
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
        let header: &mut Ipv6Hdr = packet.at(ip.header).ok_or(Reason::Internal)?;
        header.hop_limit = OWN_HOP_LIMIT;
        Self::set_addresses(header, dst, src, 0);
        Ok(())
    }
}
