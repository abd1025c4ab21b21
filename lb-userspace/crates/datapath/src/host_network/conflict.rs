//! Asks a network whether another machine has an address: by an ARP probe (RFC 5227 section 2.1.1), or by neighbour discovery as for
//! duplicate addresses (RFC 4862 section 5.4).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use lb_common::csum::Sum;
use socket2::{Domain, Protocol, Socket, Type};

use super::link_socket::{link_address, receive};

/// Time for an answer, in which the question is sent [`QUESTIONS`] times.
const WAIT: Duration = Duration::from_secs(1);
const QUESTIONS: u32 = 3;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Bytes of an Ethernet header, of an ARP message and of an IPv6 header.
const ETHERNET: usize = 14;
const IPV6: usize = 40;
/// Types of ICMPv6 messages (RFC 4861 section 4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Protocol number of ICMPv6.
const ICMPV6: u8 = 58;
/// Most bytes of a frame that are read.
const FRAME: usize = 128;

/// The MAC address of another machine that has `address`, on the network of an interface with index `ifindex` and address `mac`.
///
/// # Errors
/// Without CAP_NET_RAW, or when the interface is down.
pub(super) fn holder(ifindex: u32, mac: [u8; 6], address: IpAddr) -> io::Result<Option<[u8; 6]>> {
    let (question, ethertype) = match address {
        IpAddr::V4(address) => (arp_probe(mac, address), ETHERTYPE_ARP),
        IpAddr::V6(address) => (solicitation(mac, address), ETHERTYPE_IPV6),
    };
    let protocol = Protocol::from(i32::from(ethertype.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.bind(&link_address(ifindex, ethertype, mac))?;
    for _ in 0..QUESTIONS {
        socket.send(&question)?;
        let deadline = Instant::now() + WAIT / QUESTIONS;
        while let Some((frame, _)) = receive(&socket, FRAME, deadline)? {
            let sender = match address {
                IpAddr::V4(address) => arp_sender(&frame, address),
                IpAddr::V6(address) => advertiser(&frame, address),
            };
            if let Some(sender) = sender.filter(|sender| *sender != mac) {
                return Ok(Some(sender));
            }
        }
    }
    Ok(None)
}

fn arp_probe(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], mac, ETHERTYPE_ARP);
    // Ethernet and IPv4 by the length of their addresses, and a request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

fn arp_sender(frame: &[u8], address: Ipv4Addr) -> Option<[u8; 6]> {
    let message = frame.get(ETHERNET..)?;
    (message.get(14..18)? == address.octets())
        .then(|| message.get(8..14)?.try_into().ok())
        .flatten()
}

fn solicitation(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let target = address.octets();
    let [.., a, b, c] = target;
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    );
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    let checksum = checksum(group, &message).to_be_bytes();
    message[2..4].copy_from_slice(&checksum);

    let mut frame = ethernet([0x33, 0x33, 0xff, a, b, c], mac, ETHERTYPE_IPV6);
    // Version 6, 24 bytes of ICMPv6, hop limit 255.
    frame.extend([0x60, 0, 0, 0, 0, 24, ICMPV6, 255]);
    frame.extend(Ipv6Addr::UNSPECIFIED.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

/// The checksum of a message from the unspecified address (RFC 8200 section 8.1).
fn checksum(destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut sum = Sum::ZERO.add(u16::from(ICMPV6));
    sum = sum.add(u16::try_from(message.len()).unwrap_or(u16::MAX));
    for bytes in [&destination.octets()[..], message] {
        for word in bytes.chunks_exact(2) {
            sum = sum.add(u16::from_be_bytes([word[0], word[1]]));
        }
    }
    !sum.fold()
}

fn advertiser(frame: &[u8], address: Ipv6Addr) -> Option<[u8; 6]> {
    let (ip, message) = (frame.get(ETHERNET..)?, frame.get(ETHERNET + IPV6..)?);
    let is_answer = *ip.get(6)? == ICMPV6
        && *message.first()? == ADVERTISEMENT
        && message.get(8..24)? == address.octets();
    is_answer.then(|| frame.get(6..12)?.try_into().ok()).flatten()
}

fn ethernet(destination: [u8; 6], source: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME);
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn an_answer_for_another_address_is_none() {
        let address = Ipv4Addr::new(192, 0, 2, 10);
        let mut answer = arp_probe(OTHER, address);
        assert_eq!(arp_sender(&answer, address), None, "a probe names no sender");
        answer[ETHERNET + 14..ETHERNET + 18].copy_from_slice(&address.octets());
        assert_eq!(arp_sender(&answer, address), Some(OTHER));
        assert_eq!(arp_sender(&answer, Ipv4Addr::new(192, 0, 2, 11)), None);
        assert_eq!(arp_sender(&answer[..30], address), None);

        let address: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let mut answer = solicitation(OTHER, address);
        assert_eq!(advertiser(&answer, address), None, "a question is no answer");
        answer[ETHERNET + IPV6] = ADVERTISEMENT;
        assert_eq!(advertiser(&answer, address), Some(OTHER));
        assert_eq!(advertiser(&answer, "2001:db8::11".parse().unwrap()), None);
        assert_eq!(advertiser(&answer[..60], address), None);
    }

    #[test]
    fn a_solicitation_carries_a_checksum_that_sums_up() {
        let frame = solicitation(OWN, "2001:db8::12:3456".parse().unwrap());
        assert_eq!(frame.len(), ETHERNET + IPV6 + 24);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let group = frame[ETHERNET + 24..ETHERNET + IPV6]
            .try_into()
            .map(u128::from_be_bytes)
            .unwrap();
        assert_eq!(checksum(group.into(), &frame[ETHERNET + IPV6..]), 0);
    }
}
