//! Ethernet and IP headers, from bytes to types. Byte order and protocol numbers stay here.

use lb_common::{
    reason::Reason,
    service::{TCP, UDP},
};
use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    frame::Frame,
    header::{Fragments, Ip, Network, Protocol, protocol_v6},
    next_stage::NextStage,
};

/// What the frame carries.
#[inline(always)]
pub fn ethernet(frame: &impl Frame) -> Result<Network, NextStage> {
    let ether_type = frame.half(EthHdr::LEN - 2).ok_or(Reason::Truncated)?;
    if ether_type == EtherType::Ipv4 as u16 {
        Ok(Network::V4)
    } else if ether_type == EtherType::Ipv6 as u16 {
        Ok(Network::V6)
    } else if ether_type == EtherType::Ieee8021q as u16 || ether_type == EtherType::Ieee8021ad as u16 {
        Err(NextStage::Classify)
    } else {
        Err(Reason::NotIp.into())
    }
}

#[inline(always)]
fn protocol_v4(number: u8) -> Result<Protocol, Reason> {
    if number == TCP {
        Ok(Protocol::Tcp)
    } else if number == UDP {
        Ok(Protocol::Udp)
    } else if number == IpProto::Icmp as u8 {
        Ok(Protocol::Icmp)
    } else {
        Err(Reason::OtherProtocol)
    }
}

/// The IPv4 header after the Ethernet header.
#[inline(always)]
pub fn ipv4(frame: &impl Frame) -> Result<Ip, NextStage> {
    let ip = ipv4_header(frame, EthHdr::LEN, Fragments::First)?;
    if ip.end > frame.frame_len() as usize {
        return Err(Reason::Truncated.into());
    }
    Ok(ip)
}

/// An IPv4 header; of a quoted packet too, whose end may lie outside the frame.
#[inline(always)]
pub fn ipv4_header(frame: &impl Frame, offset: usize, fragments: Fragments) -> Result<Ip, NextStage> {
    // Version, length in words, DSCP, total length; identification, fragment; TTL, protocol, checksum.
    let [first, second, third] = frame.head::<{ Ipv4Hdr::LEN }>(offset).ok_or(Reason::Truncated)?;
    let header_len = (first >> 24 & 0xf) as usize * 4;
    let total_len = (first & 0xffff) as usize;
    if first >> 28 != 4 || header_len < Ipv4Hdr::LEN || total_len < header_len {
        return Err(Reason::Malformed.into());
    }
    if second & u32::from(fragments.refused_v4()) != 0 {
        return Err(NextStage::Fragment);
    }
    let [ttl, protocol, ..] = third.to_be_bytes();
    Ok(Ip {
        protocol: protocol_v4(protocol)?,
        hop_limit: ttl,
        header: offset,
        payload: offset + header_len,
        end: offset + total_len,
    })
}

/// The IPv6 header after the Ethernet header, and its extension headers.
#[inline(always)]
pub fn ipv6(frame: &impl Frame) -> Result<Ip, NextStage> {
    let ip = ipv6_header(frame, EthHdr::LEN)?;
    if ip.end > frame.frame_len() as usize {
        return Err(Reason::Truncated.into());
    }
    Ok(ip)
}

/// An IPv6 header and its extension headers; of a quoted packet too, whose end may lie outside the frame.
#[inline(always)]
pub fn ipv6_header(frame: &impl Frame, offset: usize) -> Result<Ip, NextStage> {
    // Version, traffic class, flow label; payload length, next header, hop limit.
    let [version, second, _] = frame.head::<{ Ipv6Hdr::LEN }>(offset).ok_or(Reason::Truncated)?;
    let payload_len = (second >> 16) as usize;
    let [.., next_header, hop_limit] = second.to_be_bytes();
    // Length 0 announces a jumbogram (RFC 2675), which no link that XDP serves carries.
    if version >> 28 != 6 || payload_len == 0 {
        return Err(Reason::Malformed.into());
    }
    let first = offset + Ipv6Hdr::LEN;
    let (protocol, payload) = match protocol_v6(next_header) {
        Some(protocol) => (protocol, first),
        None => frame.extension_headers(next_header, first)?,
    };
    let end = first + payload_len;
    if payload > end {
        return Err(Reason::Malformed.into());
    }
    Ok(Ip {
        protocol,
        hop_limit,
        header: offset,
        payload,
        end,
    })
}
