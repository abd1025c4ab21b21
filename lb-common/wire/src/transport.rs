//! TCP and UDP headers, and the tuple that they and the IP header make.

use lb_common::{addr::NetPort, flow::Tuple, reason::Reason};
use network_types::{tcp::TcpHdr, udp::UdpHdr};

use crate::{
    address::Address,
    frame::Frame,
    header::{Ip, Protocol, TcpFlags},
};

/// Reads the tuple of a TCP or UDP packet. `protocol` is its number.
#[inline(always)]
pub fn tuple<A: Address>(
    frame: &impl Frame,
    ip: &Ip,
    protocol: u8,
    tuple: &mut Tuple<A>,
) -> Result<(), Reason> {
    // The shorter of the two headers; that of TCP is checked once a service is found.
    if ip.payload_len() < UdpHdr::LEN {
        return Err(Reason::Malformed);
    }
    A::addresses(frame, ip.header, &mut tuple.src, &mut tuple.dst).ok_or(Reason::Internal)?;
    let [a, b, c, d] = frame.word(ip.payload).ok_or(Reason::Truncated)?.to_ne_bytes();
    tuple.src_port = NetPort(u16::from_ne_bytes([a, b]));
    tuple.dst_port = NetPort(u16::from_ne_bytes([c, d]));
    tuple.protocol = protocol;
    (tuple.pad, tuple.pad_end) = (0, 0);
    Ok(())
}

/// Checks a TCP header that is for us, and tells its flags.
#[inline(always)]
pub fn tcp(frame: &impl Frame, ip: &Ip) -> Result<TcpFlags, Reason> {
    let header: [u8; TcpHdr::LEN] = frame.read(ip.payload).ok_or(Reason::BadLength)?;
    let header_len = (header[12] >> 4) as usize * 4;
    if header_len < TcpHdr::LEN || header_len > ip.payload_len() {
        return Err(Reason::BadLength);
    }
    Ok(TcpFlags::from_word(header[13].into()))
}

/// Checks a UDP header that is for us. The length is that of the whole datagram, whose end may lie in other fragments.
/// Bytes between its end and that of the IP packet are allowed (RFC 9868).
#[inline(always)]
pub fn udp<A: Address>(frame: &impl Frame, ip: &Ip) -> Result<(), Reason> {
    let header: UdpHdr = frame.read(ip.payload).ok_or(Reason::BadLength)?;
    let len = u16::from_be_bytes(header.len) as usize;
    if len < UdpHdr::LEN || (len > ip.payload_len() && !A::is_fragment(frame, ip)) {
        return Err(Reason::BadLength);
    }
    Ok(())
}

/// Checks the header of a packet that is for us. Returns TCP's flags, [`TcpFlags::NONE`] for other protocols.
#[inline(always)]
pub fn check<A: Address>(frame: &impl Frame, ip: &Ip) -> Result<TcpFlags, Reason> {
    match ip.protocol {
        Protocol::Tcp => tcp(frame, ip),
        Protocol::Udp | Protocol::Icmp => {
            udp::<A>(frame, ip)?;
            Ok(TcpFlags::NONE)
        }
    }
}

/// Whether a packet comes from an address that none may come from, or from the service itself.
#[inline(always)]
pub fn is_martian<A: Address>(tuple: &Tuple<A>) -> bool {
    tuple.src.is_martian() || tuple.src == tuple.dst
}
