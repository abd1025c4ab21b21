//! The walk over extension headers of IPv6 (RFC 8200 section 4).

use lb_common::limits::MAX_EXTENSION_HEADERS;
use lb_common::reason::Reason;
use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv6Hdr},
};

use crate::{
    frame::Frame,
    header::{Protocol, protocol_v6},
    next_stage::NextStage,
};

/// Walks extension headers (RFC 8200 section 4) from `offset` to the first header that is none.
#[inline(always)]
pub fn extension_headers(
    frame: &impl Frame,
    first: u8,
    mut offset: usize,
) -> Result<(Protocol, usize), NextStage> {
    const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    const DESTINATION: u8 = IpProto::Ipv6Opts as u8;
    const ROUTING: u8 = IpProto::Ipv6Route as u8;
    const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    let mut next_header = first;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let [next, len, a, b, ..]: [u8; 8] = match next_header {
            HOP_BY_HOP | DESTINATION | ROUTING | FRAGMENT => frame.read(offset).ok_or(Reason::Truncated)?,
            // Among others "no next header", and those that hide or protect the ports: ESP, AH.
            _ => return Err(Reason::OtherProtocol.into()),
        };
        if next_header == FRAGMENT {
            const OFFSET: u16 = 0xfff8;
            if u16::from_be_bytes([a, b]) & OFFSET != 0 {
                return Err(NextStage::Fragment);
            }
            offset += 8;
        } else {
            // While segments are left, the destination is a way-point and not whom the packet is for.
            if next_header == ROUTING && b != 0 {
                return Err(Reason::ExtensionHeaders.into());
            }
            offset += 8 * (len as usize + 1);
        }
        if let Some(protocol) = protocol_v6(next) {
            return Ok((protocol, offset));
        }
        next_header = next;
    }
    Err(Reason::ExtensionHeaders.into())
}

/// Where an IPv6 packet's fragment header stands; 0, where no header can stand, if it has none.
#[inline(always)]
pub fn fragment_header(frame: &impl Frame) -> usize {
    const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    const DESTINATION: u8 = IpProto::Ipv6Opts as u8;
    const ROUTING: u8 = IpProto::Ipv6Route as u8;
    const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    const NEXT_HEADER: usize = core::mem::offset_of!(Ipv6Hdr, next_hdr);
    let Some([mut kind]) = frame.read::<[u8; 1]>(EthHdr::LEN + NEXT_HEADER) else {
        return 0;
    };
    let mut at = EthHdr::LEN + Ipv6Hdr::LEN;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match kind {
            FRAGMENT => return at,
            HOP_BY_HOP | DESTINATION | ROUTING => {}
            _ => return 0,
        }
        let Some([next, len]) = frame.read::<[u8; 2]>(at) else {
            return 0;
        };
        kind = next;
        at += 8 * (len as usize + 1);
    }
    0
}

/// Whether an IPv6 packet with extension headers is a fragment: one of several parts of a datagram.
#[inline(always)]
pub fn has_fragment_header(frame: &impl Frame) -> bool {
    const OFFSET_AND_MORE: u16 = 0xfff9;
    let at = fragment_header(frame);
    let header = frame.read::<[u8; 4]>(at).filter(|_| at != 0);
    header.is_some_and(|[_, _, high, low]| u16::from_be_bytes([high, low]) & OFFSET_AND_MORE != 0)
}
