//! Just enough of a frame to say whose it is and whether its checksums are right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP flag bits.
pub mod tcp {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Opens a connection.
    pub const SYN: u8 = 2;
    /// Resets it.
    pub const RST: u8 = 4;
    /// Acknowledges.
    pub const ACK: u8 = 16;
}

const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What was read of an IP packet in an Ethernet frame. Extension headers are not walked: the harness sends none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Source; port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Destination; port 0 where the protocol has none.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags, else 0.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether all its checksums are right.
    pub checksums_ok: bool,
}

impl Frame {
    /// Reads a frame; `None` for what is not a whole IPv4 or IPv6 packet.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        match u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]) {
            0x0800 => Self::parse_v4(packet),
            0x86dd => Self::parse_v6(packet),
            _ => None,
        }
    }

    /// Whether it opens a TCP connection.
    pub fn is_syn(&self) -> bool {
        self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 15) * 4;
        let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let (header, payload) = (packet.get(..header)?, packet.get(header..total)?);
        let source: [u8; 4] = header.get(12..16)?.try_into().ok()?;
        let destination: [u8; 4] = header.get(16..20)?.try_into().ok()?;
        let whole = u16::from_be_bytes([header[6], header[7]]) & 0x3fff == 0;
        let ends = (Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into());
        let pseudo = sum(&source) + sum(&destination);
        let mut frame = Self::with_payload(ends, header[9], payload, pseudo, whole);
        frame.ttl = header[8];
        frame.checksums_ok &= fold(sum(header)) == 0xffff;
        Some(frame)
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.get(..40)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload = packet.get(40..40 + length)?;
        let source: [u8; 16] = header.get(8..24)?.try_into().ok()?;
        let destination: [u8; 16] = header.get(24..40)?.try_into().ok()?;
        let ends = (Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into());
        let pseudo = sum(&source) + sum(&destination);
        let mut frame = Self::with_payload(ends, header[6], payload, pseudo, true);
        frame.ttl = header[7];
        Some(frame)
    }

    fn with_payload(ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8], pseudo: u64, whole: bool) -> Self {
        let port = |at: usize| match payload.get(at..at + 2) {
            Some(bytes) if matches!(protocol, TCP | UDP) => u16::from_be_bytes([bytes[0], bytes[1]]),
            _ => 0,
        };
        let pseudo = pseudo + u64::from(protocol) + payload.len() as u64;
        let valid = |extra: u64| fold(sum(payload) + extra) == 0xffff;
        let checksums_ok = match protocol {
            _ if !whole => true,
            UDP => payload.get(6..8) == Some(&[0, 0]) && ends.0.is_ipv4() || valid(pseudo),
            TCP | ICMPV6 => valid(pseudo),
            ICMP => valid(0),
            _ => true,
        };
        Self {
            source: SocketAddr::new(ends.0, port(0)),
            destination: SocketAddr::new(ends.1, port(2)),
            protocol,
            tcp_flags: if protocol == TCP {
                payload.get(13).copied().unwrap_or(0)
            } else {
                0
            },
            ttl: 0,
            checksums_ok,
        }
    }
}

/// Sum of 16-bit big-endian words, RFC 1071, not yet folded.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes
        .chunks(2)
        .map(|word| u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    words.map(u64::from).sum()
}

fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_bit_anywhere_in_a_packet_shows() {
        let mut frame = vec![0; 1600];
        for length in [0, 1, 100] {
            let payload = vec![7; length];
            let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                .tcp(1000, 80, 1, 512)
                .syn();
            frame.clear();
            builder.write(&mut frame, &payload).unwrap();
            let parsed = Frame::parse(&frame).unwrap();
            assert!(parsed.checksums_ok && parsed.is_syn() && parsed.ttl == 64);
            assert_eq!(parsed.destination, "10.0.0.2:80".parse().unwrap());
            for at in 24..frame.len() {
                frame[at] ^= 1;
                assert!(!Frame::parse(&frame).is_some_and(|f| f.checksums_ok), "byte {at}");
                frame[at] ^= 1;
            }
        }
    }
}
