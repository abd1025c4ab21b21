//! Packets that no client made, from addresses that no machine has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;
use fastrand::Rng;
use lb_tests::flood::{NET_V4, NET_V6};

/// Protocol numbers.
pub(crate) const ICMP_V4: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP_V6: u8 = 58;
const FRAGMENT: u8 = 44;
/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;
const HOP_LIMIT: u8 = 64;

/// Which part of a datagram a fragment is.
#[derive(Clone, Copy)]
pub(crate) struct Fragment {
    /// Units of 8 bytes before it.
    pub(crate) offset: u16,
    /// Whether others follow.
    pub(crate) more: bool,
}

pub(crate) fn random(rng: &mut Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes);
    bytes
}

/// An address that no machine has, of the family of another one.
pub(crate) fn source(rng: &mut Rng, like: IpAddr) -> IpAddr {
    let [first, second] = NET_V4;
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(first, second, rng.u8(..), rng.u8(1..255)).into(),
        IpAddr::V6(_) => Ipv6Addr::new(NET_V6, 0, 0, 0, 0, 0, 0, rng.u16(1..)).into(),
    }
}

/// An IP packet in a frame, or a fragment of one. Both addresses are of one family.
pub(crate) fn ip(
    rng: &mut Rng,
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    fragment: Option<Fragment>,
    data: &[u8],
) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET];
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame[12..].copy_from_slice(&[8, 0]);
            let mut header = [0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&length(20 + data.len()));
            header[4..6].copy_from_slice(&rng.u16(..).to_be_bytes());
            let place = fragment.map_or(0, |of| of.offset | u16::from(of.more) << 13);
            header[6..8].copy_from_slice(&place.to_be_bytes());
            header[8..10].copy_from_slice(&[HOP_LIMIT, protocol]);
            header[12..16].copy_from_slice(&from.octets());
            header[16..].copy_from_slice(&to.octets());
            let sum = checksum(Sum16BitWords::new().add_slice(&header));
            header[10..12].copy_from_slice(&sum);
            frame.extend(header);
        }
        (from, to) => {
            frame[12..].copy_from_slice(&[0x86, 0xdd]);
            let extension = fragment.map(|of| {
                let [high, low] = (of.offset << 3 | u16::from(of.more)).to_be_bytes();
                let [a, b, c, d] = rng.u32(..).to_be_bytes();
                [protocol, 0, high, low, a, b, c, d]
            });
            let extension = extension.as_ref().map_or(&[][..], |bytes| bytes);
            let next = if extension.is_empty() { protocol } else { FRAGMENT };
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length(extension.len() + data.len()));
            frame.extend([next, HOP_LIMIT]);
            for address in [from, to] {
                frame.extend(octets_v6(address));
            }
            frame.extend(extension);
        }
    }
    frame.extend(data);
    frame
}

/// The checksum of an ICMP message, whose own is zero so far (RFC 792, RFC 4443 section 2.3).
pub(crate) fn icmp_checksum(from: IpAddr, to: IpAddr, message: &[u8]) -> [u8; 2] {
    let sum = Sum16BitWords::new().add_slice(message);
    checksum(match (from, to) {
        (IpAddr::V4(_), _) => sum,
        (from, to) => sum
            .add_slice(&octets_v6(from))
            .add_slice(&octets_v6(to))
            .add_2bytes(length(message.len()))
            .add_2bytes([0, ICMP_V6]),
    })
}

fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// The Internet checksum (RFC 1071). It is summed as the bytes are in memory.
fn checksum(sum: Sum16BitWords) -> [u8; 2] {
    sum.ones_complement().to_ne_bytes()
}
