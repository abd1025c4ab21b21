//! Parses a frame far enough to identify its flow and verify its checksums.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket};

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

/// UDP port of Generic UDP Encapsulation.
const GUE_PORT: u16 = 6080;
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Fields of an IP packet in an Ethernet frame, behind any VLAN tags and extension headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Source; port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Destination; port 0 where the protocol has none.
    pub destination: SocketAddr,
    /// IP protocol number after all IP headers.
    pub protocol: u8,
    /// TCP flags, else 0.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether all its checksums are right, including an inner packet's.
    pub checksums_ok: bool,
}

impl Frame {
    /// Parses a frame; `None` unless it is a whole IPv4 or IPv6 packet.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        Self::of(&SlicedPacket::from_ethernet(frame).ok()?)
    }

    /// Whether it opens a TCP connection.
    pub fn is_syn(&self) -> bool {
        self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// Whether it is the answer to a frame that opens a TCP connection.
    pub fn is_syn_ack(&self) -> bool {
        self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK
    }

    fn of(packet: &SlicedPacket<'_>) -> Option<Self> {
        let (source, destination, ttl, header_ok): (IpAddr, IpAddr, _, _) = match packet.net.as_ref()? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                let ok = fold(sum(header.slice())) == 0xffff;
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    header.ttl(),
                    ok,
                )
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    header.hop_limit(),
                    true,
                )
            }
            NetSlice::Arp(_) => return None,
        };
        let ip_payload = packet.net.as_ref()?.ip_payload_ref()?;
        let (protocol, payload) = (ip_payload.ip_number.0, ip_payload.payload);
        let port = |at: usize| match payload.get(at..at + 2) {
            Some(bytes) if !ip_payload.fragmented && matches!(protocol, TCP | UDP) => {
                u16::from_be_bytes([bytes[0], bytes[1]])
            }
            _ => 0,
        };
        let pseudo =
            address_sum(source) + address_sum(destination) + u64::from(protocol) + payload.len() as u64;
        let valid = |extra: u64| fold(sum(payload) + extra) == 0xffff;
        let payload_ok = match protocol {
            _ if ip_payload.fragmented => true,
            // None over IPv4, and none for tunnels over IPv6 (RFC 6935).
            UDP if payload.get(6..8) == Some(&[0, 0]) => {
                (source.is_ipv4() || port(2) == GUE_PORT) && Self::gue_ok(port(2), payload)
            }
            UDP => valid(pseudo) && Self::gue_ok(port(2), payload),
            TCP | ICMPV6 => valid(pseudo),
            ICMP => valid(0),
            IPV4 | IPV6 => Self::of(&SlicedPacket::from_ip(payload).ok()?)?.checksums_ok,
            _ => true,
        };
        let tcp_flags = match protocol {
            TCP if !ip_payload.fragmented => payload.get(13).copied().unwrap_or(0),
            _ => 0,
        };
        Some(Self {
            source: SocketAddr::new(source, port(0)),
            destination: SocketAddr::new(destination, port(2)),
            protocol,
            tcp_flags,
            ttl,
            checksums_ok: header_ok && payload_ok,
        })
    }
}

impl Frame {
    /// Whether the packet within is right, where a UDP packet to this port carries one (GUE, variant 1).
    fn gue_ok(port: u16, udp: &[u8]) -> bool {
        if port != GUE_PORT {
            return true;
        }
        let within = udp.get(8..).and_then(|packet| SlicedPacket::from_ip(packet).ok());
        within
            .and_then(|packet| Self::of(&packet))
            .is_some_and(|packet| packet.checksums_ok)
    }
}

fn address_sum(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
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
