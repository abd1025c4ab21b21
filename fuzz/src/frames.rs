//! Frames, parsed twice.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice, ip_number};
use lb_common::{
    addr::{NetV4, NetV6},
    flow::Tuple,
    limits::MAX_EXTENSION_HEADERS,
    reason::Reason,
    service::{TCP, UDP},
};

use lb_wire::{
    Address, Bytes, Frame as _,
    header::{Fragments, Ip, Network, Protocol, TcpFlags},
    next_stage::NextStage,
    parse, transport, walk,
};

/// Where the IP header begins.
const IP: usize = 14;

/// Longer ones may have headers further in than the program looks.
const MAX_FRAME: usize = 4_095;

/// The compared fields of a packet.
#[derive(PartialEq, Eq, Debug)]
struct Parsed {
    source: IpAddr,
    destination: IpAddr,
    ports: (u16, u16),
    protocol: u8,
    hop_limit: u8,
    payload: usize,
}

pub(crate) fn check(frame: &[u8]) {
    let packet = Bytes(frame);
    let ours = match parse::ethernet(&packet) {
        Ok(Network::V4) => our_ports(&packet, parse::ipv4(&packet), |NetV4(word)| {
            IpAddr::from(word.to_ne_bytes())
        }),
        Ok(Network::V6) => {
            let at = walk::fragment_header(&packet);
            let ip = parse::ipv6(&packet);
            if let Ok(ip) = &ip {
                // The position of an extension header; 0: there is none.
                assert!(at == 0 || (at >= IP + 40 && at + 8 <= ip.payload));
            }
            our_ports(&packet, ip, |address: NetV6| address.to_std().into())
        }
        Err(next) => Err(next),
    };
    match (ours.map_err(NextStage::reason), theirs(frame)) {
        (Ok(Some(ours)), Some(theirs)) => assert_eq!(ours, theirs),
        // etherparse knows fewer protocols, or one of the lengths is wrong in a way that does not matter here.
        (Ok(_), None) | (Err(_), None) => {}
        (Ok(None), Some(theirs)) => panic!("no ports, but {theirs:?}"),
        (Err(reason), Some(theirs)) => {
            assert!(is_refused(frame, &theirs, reason), "{reason:?}, but {theirs:?}")
        }
    }
    // A quoted packet may stand anywhere, and end outside the frame.
    let at = usize::from(frame.first().copied().unwrap_or_default());
    for offset in [IP, IP + 8, IP + 28, at] {
        let quoted = [
            parse::ipv4_header(&packet, offset, Fragments::All),
            parse::ipv4_header(&packet, offset, Fragments::First),
            parse::ipv6_header(&packet, offset),
        ];
        for ip in quoted.into_iter().flatten() {
            assert!(ip.header == offset && ip.payload > offset && ip.payload <= ip.end);
        }
    }
}

/// The result of our parser; `None` for ICMP, which has no ports.
fn our_ports<A: Address + Copy + Default>(
    packet: &Bytes<'_>,
    ip: Result<Ip, NextStage>,
    address: impl Fn(A) -> IpAddr,
) -> Result<Option<Parsed>, NextStage> {
    let ip = ip?;
    assert!(ip.header == IP && ip.payload > IP && ip.payload <= ip.end);
    assert!(ip.end <= packet.frame_len() as usize && ip.payload_len() < ip.packet_len());
    let protocol = match ip.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Icmp => return Ok(None),
    };
    let mut tuple = Tuple::<A>::default();
    transport::tuple(packet, &ip, protocol, &mut tuple)?;
    if protocol == TCP {
        let flags = transport::tcp(packet, &ip)?;
        assert!(flags.is_syn() == (flags.syn() && !flags.ack()));
        // The byte that has them.
        let [byte]: [u8; 1] = packet.read(ip.payload + 13).unwrap_or([0]);
        let bits = [
            (flags.fin(), 1),
            (flags.syn(), 2),
            (flags.rst(), 4),
            (flags.ack(), 16),
        ];
        assert!(bits.iter().all(|(flag, bit)| *flag == (byte & bit != 0)));
        assert!(flags.is_syn_ack() == (flags.syn() && flags.ack()));
        assert!(flags.is_plain() == (byte & 7 == 0));
        assert!(flags.are_some() && !TcpFlags::NONE.are_some());
        assert!(TcpFlags::from_word(flags.to_word()).to_word() == flags.to_word());
    } else {
        transport::udp::<A>(packet, &ip)?;
    }
    Ok(Some(Parsed {
        source: address(tuple.src),
        destination: address(tuple.dst),
        ports: (tuple.src_port.get(), tuple.dst_port.get()),
        protocol,
        hop_limit: ip.hop_limit,
        payload: ip.payload,
    }))
}

/// The result of etherparse for a packet of TCP or UDP.
fn theirs(frame: &[u8]) -> Option<Parsed> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    if !sliced.link_exts.is_empty() {
        return None;
    }
    let (ports, protocol, header) = match sliced.transport? {
        TransportSlice::Tcp(tcp) => ((tcp.source_port(), tcp.destination_port()), TCP, tcp.slice()),
        TransportSlice::Udp(udp) => ((udp.source_port(), udp.destination_port()), UDP, udp.slice()),
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => return None,
    };
    let (source, destination, hop_limit) = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                header.ttl(),
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                header.hop_limit(),
            )
        }
        NetSlice::Arp(_) => return None,
    };
    Some(Parsed {
        source,
        destination,
        ports,
        protocol,
        hop_limit,
        payload: header.as_ptr() as usize - frame.as_ptr() as usize,
    })
}

/// Whether the program may refuse a whole packet for this reason.
fn is_refused(frame: &[u8], theirs: &Parsed, reason: Reason) -> bool {
    let v6 = frame[12..14] == [0x86, 0xdd];
    if reason == Reason::Malformed {
        // A jumbogram's length stands elsewhere.
        return v6 && frame[IP + 4..IP + 6] == [0, 0];
    }
    if reason == Reason::OtherProtocol {
        // Authenticated, and so not to be changed; or behind a header that is not walked.
        return headers(frame, v6).contains(&ip_number::AUTH.0) || v6 && unknown(frame);
    }
    if reason == Reason::ExtensionHeaders {
        return v6 && (headers(frame, v6).len() > MAX_EXTENSION_HEADERS as usize || has_way_point(frame));
    }
    // A UDP length of 0 is invalid; etherparse takes it for the rest of the packet.
    let no_length = theirs.protocol == UDP && frame[theirs.payload + 4..theirs.payload + 6] == [0, 0];
    // Or its headers are further in than the program looks.
    (reason == Reason::BadLength && no_length) || frame.len() > MAX_FRAME
}

/// The numbers of the headers of an IPv6 packet from the IPv6 header on, or of an IPv4 packet, that are walked or may be.
fn headers(frame: &[u8], v6: bool) -> Vec<u8> {
    if !v6 {
        return frame.get(IP + 9).copied().into_iter().collect();
    }
    let mut found = Vec::new();
    let (mut number, mut at) = (frame[IP + 6], IP + 40);
    while [0, 43, 44, 51, 60, 135, 139, 140, 253, 254].contains(&number) && found.len() < 64 {
        found.push(number);
        let Some(header) = frame.get(at..at + 2) else {
            break;
        };
        let words = usize::from(header[1]);
        at += match number {
            44 => 8,
            // Its length is in other units.
            51 => 4 * (words + 2),
            _ => 8 * (words + 1),
        };
        number = header[0];
    }
    found
}

/// Whether an IPv6 packet has extension headers that are not walked.
fn unknown(frame: &[u8]) -> bool {
    headers(frame, true)
        .iter()
        .any(|number| ![0, 43, 44, 60].contains(number))
}

/// Whether an IPv6 packet may have a routing header with segments left.
fn has_way_point(frame: &[u8]) -> bool {
    headers(frame, true).contains(&43)
}
