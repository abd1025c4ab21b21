//! The modes that hand a packet to its backend as it is: l2dsr, ipip, gue.
#![expect(
    clippy::unwrap_used,
    reason = "an outer header that cannot be built is a mistake in the table"
)]

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};
use lb_common::{reason::Reason, tunnel::GUE_PORT};

use super::{
    ACK, FAMILIES, SYN,
    bench::{Bench, DROP, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR, PASS, TX},
    build::{Frame, Side, V4, V6},
};

/// Where the IP header begins.
const IP: usize = 14;

/// Packets of a client to one port: first and later ones, with and without payload, of both protocols.
fn packets(side: Side, client_port: u16, port: u16) -> Vec<(&'static str, Frame)> {
    let (client, vip) = (side.client(client_port), side.vip(port));
    vec![
        ("syn", Frame::tcp(client, vip, SYN, 64, b"")),
        ("ack", Frame::tcp(client, vip, ACK, 64, b"")),
        ("odd payload", Frame::tcp(client, vip, ACK, 3, b"odd")),
        ("last hop", Frame::tcp(client, vip, ACK, 1, b"even")),
        ("marked", Frame::tcp(client, vip, ACK, 64, b"x").marked(0xb9)),
        ("udp", Frame::udp(client, vip, 64, b"hello")),
        ("empty udp", Frame::udp(client, vip, 64, b"")),
        ("marked udp", Frame::udp(client, vip, 64, b"hi").marked(0x03)),
    ]
}

#[test]
fn l2dsr_changes_the_frame_and_not_the_packet() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for (name, sent) in packets(side, 40_000, L2DSR) {
            let wanted = sent.clone().lb_to_backend();
            bench.expect(name, &sent, TX, &wanted, Reason::SentBack)?;
        }
    }
    Ok(())
}

#[test]
fn tunnels_carry_the_packet_unchanged_in_every_pair_of_families() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for (port, outer, gue) in [
            (IPIP_V4, V4, false),
            (IPIP_V6, V6, false),
            (GUE_V4, V4, true),
            (GUE_V6, V6, true),
        ] {
            let mut entropies = Vec::new();
            for client_port in 40_000..40_004 {
                let mut of_flow = Vec::new();
                for (name, sent) in packets(side, client_port, port) {
                    let (action, got, reason) = bench.run(&sent)?;
                    let case = format!("{name} from {:?} to port {port}", side.client(client_port));
                    ensure!(
                        (action, reason) == (TX, Reason::SentBack),
                        "{case}: {action}, {reason:?}"
                    );
                    let entropy = Entropy::of(&got, outer, gue).with_context(|| case.clone())?;
                    let wanted = tunnelled(&sent, outer, gue.then_some(entropy.port), entropy.label);
                    ensure!(
                        got.bytes() == wanted.bytes(),
                        "{case}\n got    {:02x?}\n wanted {:02x?}",
                        got.bytes(),
                        wanted.bytes()
                    );
                    let udp = name.contains("udp");
                    if of_flow.iter().all(|(other, _)| *other != udp) {
                        of_flow.push((udp, entropy));
                    }
                    ensure!(
                        of_flow.contains(&(udp, entropy)),
                        "{case}: a flow has one entropy"
                    );
                }
                entropies.extend(of_flow);
            }
            entropies.dedup_by_key(|(_, entropy)| *entropy);
            ensure!(
                entropies.len() > 4 || (!gue && outer.vip(0).is_ipv4()),
                "flows spread: {entropies:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn gue_over_ipv6_has_no_checksum_where_the_packet_has_none() -> Result<()> {
    let bench = Bench::new()?;
    let sent = Frame::udp(V4.client(40_000), V4.vip(GUE_V6), 64, b"abc").set16(40, 0);
    let (_, got, _) = bench.run(&sent)?;
    let entropy = Entropy::of(&got, V6, true)?;
    let wanted = tunnelled(&sent, V6, Some(entropy.port), entropy.label).set16(IP + 40 + 6, 0);
    bench.expect("no checksum within", &sent, TX, &wanted, Reason::SentBack)
}

#[test]
fn sender_of_a_too_big_packet_gets_the_size_that_fits() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for (port, overhead) in [
            (L2DSR, 0),
            (IPIP_V4, 20),
            (IPIP_V6, 40),
            (GUE_V4, 28),
            (GUE_V6, 48),
        ] {
            let (client, vip) = (side.client(40_000), side.vip(port));
            for sent in [
                Frame::tcp(client, vip, ACK, 64, &[7; 101]),
                Frame::udp(client, vip, 64, &[7; 1_400]),
            ] {
                let length = u16::try_from(sent.len() - IP)?;
                bench.change_backends(|backend| backend.mtu = length + overhead)?;
                let (action, _, reason) = bench.run(&sent)?;
                ensure!((action, reason) == (TX, Reason::SentBack), "it fits: {reason:?}");
                bench.change_backends(|backend| backend.mtu = length + overhead - 1)?;
                let wanted = Frame::too_big(vip, client, &sent, length - 1);
                bench.expect("one byte too many", &sent, TX, &wanted, Reason::TooBigAnswered)?;
            }
            // No ICMP error about an ICMP error.
            let reply = Frame::udp(side.vip(port), client, 64, b"reply");
            let error = Frame::unreachable(side.snat(0), side.vip(0), 64, &reply, 8);
            bench.change_backends(|backend| backend.mtu = 30)?;
            bench.dropped("an error", &error, Reason::TooBig)?;
            bench.change_backends(|backend| backend.mtu = 1500)?;
        }
    }
    Ok(())
}

#[test]
fn packets_that_break_off_or_lie_are_dropped_in_every_mode() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let l4 = if side.vip(0).is_ipv4() { 34 } else { 54 };
        for port in [L2DSR, IPIP_V4, IPIP_V6, GUE_V4, GUE_V6] {
            let tcp = Frame::tcp(side.client(40_000), side.vip(port), ACK, 64, b"0123456789");
            let udp = Frame::udp(side.client(40_000), side.vip(port), 64, b"0123456789");
            for (name, frame) in [
                ("tcp header too short", tcp.clone().set(l4 + 12, 0x40)),
                ("tcp header too long", tcp.clone().set(l4 + 12, 0xf0)),
                ("udp too short", udp.clone().set16(l4 + 4, 7)),
                ("udp too long", udp.clone().set16(l4 + 4, 19)),
            ] {
                bench.expect(name, &frame, DROP, &frame, Reason::BadLength)?;
            }
        }
    }
    Ok(())
}

/// Errors about packets that a backend sent with the service's address reach the backend, like the flow's own packets.
#[test]
fn icmp_errors_go_the_way_of_the_flow_they_are_about() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let (client, l4) = (side.client(40_000), if side.vip(0).is_ipv4() { 34 } else { 54 });
        for (port, outer, tunnel) in [
            (L2DSR, side, None),
            (IPIP_V4, V4, Some(false)),
            (IPIP_V6, V6, Some(false)),
            (GUE_V4, V4, Some(true)),
            (GUE_V6, V6, Some(true)),
        ] {
            for (sent, reply) in [
                (
                    Frame::tcp(client, side.vip(port), ACK, 64, b""),
                    Frame::tcp(side.vip(port), client, ACK, 64, b"reply"),
                ),
                (
                    Frame::udp(client, side.vip(port), 64, b""),
                    Frame::udp(side.vip(port), client, 64, b"reply"),
                ),
            ] {
                // From any router on the way.
                let error = Frame::unreachable(side.snat(0), side.vip(0), 64, &reply, 8);
                let Some(gue) = tunnel else {
                    let wanted = error.clone().lb_to_backend();
                    bench.expect("by MAC", &error, TX, &wanted, Reason::SentBack)?;
                    continue;
                };
                let (_, of_flow, _) = bench.run(&sent)?;
                let entropy = Entropy::of(&of_flow, outer, gue)?;
                let mut wanted = tunnelled(&error, outer, gue.then_some(entropy.port), entropy.label);
                if gue && !outer.vip(0).is_ipv4() {
                    // The quoted packet's checksum is not computed.
                    wanted = wanted.set16(IP + 40 + 6, 0);
                }
                bench.expect("in a tunnel", &error, TX, &wanted, Reason::SentBack)?;
            }
            let reply = Frame::udp(side.vip(port), client, 64, b"reply");
            let error = Frame::unreachable(side.snat(0), side.vip(0), 64, &reply, 8);
            for (name, frame, reason) in [
                (
                    "to another",
                    Frame::unreachable(side.snat(0), side.snat(0), 64, &reply, 8),
                    Reason::OtherProtocol,
                ),
                (
                    "cut",
                    Frame::unreachable(side.snat(0), side.vip(0), 64, &reply, 7),
                    Reason::Truncated,
                ),
                (
                    "about no service",
                    error.clone().set16(quoted(l4, side), 82),
                    Reason::OtherProtocol,
                ),
                (
                    "no error",
                    Frame::echo(side.snat(0), side.vip(0), false, 64, b"ping"),
                    Reason::OtherProtocol,
                ),
            ] {
                bench.expect(name, &frame, PASS, &frame, reason)?;
            }
        }
    }
    Ok(())
}

/// Where the quoted packet's source port stands in an error.
fn quoted(l4: usize, side: Side) -> usize {
    l4 + 8 + if side.vip(0).is_ipv4() { 20 } else { 40 }
}

/// Outer fields that distinguish flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entropy {
    pub(crate) port: u16,
    pub(crate) label: u32,
}

impl Entropy {
    /// Reads it from a sent frame, and checks its range.
    pub(crate) fn of(frame: &Frame, outer: Side, gue: bool) -> Result<Self> {
        let v4 = outer.vip(0).is_ipv4();
        let field = |at: usize| frame.bytes().get(at..at + 4).context("too short for its headers");
        let word = |at: usize| -> Result<u32> { Ok(u32::from_be_bytes(field(at)?.try_into()?)) };
        let label = if v4 { 0 } else { word(IP)? & 0xf_ffff };
        ensure!(v4 || label != 0, "a flow label of 0 means no flow");
        let port = if gue {
            u16::try_from(word(IP + if v4 { 20 } else { 40 })? >> 16)?
        } else {
            0
        };
        ensure!(!gue || port >= 0xc000, "port {port} is none of the dynamic ports");
        Ok(Self { port, label })
    }
}

/// The packet of `sent` within an outer one from the balancer to the backend; with a GUE source port, in GUE.
pub(crate) fn tunnelled(sent: &Frame, outer: Side, gue: Option<u16>, label: u32) -> Frame {
    let gue = gue.map(|port| (port, GUE_PORT));
    tunnelled_from(outer.snat(0).ip(), sent, outer, gue, label)
}

/// As [`tunnelled`], from another address; GUE has these two ports.
pub(crate) fn tunnelled_from(
    source: IpAddr,
    sent: &Frame,
    outer: Side,
    gue: Option<(u16, u16)>,
    label: u32,
) -> Frame {
    let packet = &sent.bytes()[IP..];
    let v6 = packet[0] >> 4 == 6;
    let class = if v6 {
        packet[0] << 4 | packet[1] >> 4
    } else {
        packet[1]
    };
    let inner = if v6 { IpNumber::IPV6 } else { IpNumber::IPV4 };
    let number = if gue.is_some() { IpNumber::UDP } else { inner };
    let udp_len = if gue.is_some() { 8 } else { 0 };
    let mut bytes = Vec::new();
    match (source, outer.backend(0).ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = u16::try_from(packet.len() + udp_len).unwrap();
            let mut header = Ipv4Header::new(len, 64, number, source.octets(), destination.octets()).unwrap();
            header.dscp = (class >> 2).try_into().unwrap();
            header.ecn = (class & 3).try_into().unwrap();
            header.dont_fragment = true;
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut bytes).unwrap();
            if let Some((from, to)) = gue {
                let udp = UdpHeader::without_ipv4_checksum(from, to, packet.len()).unwrap();
                udp.write(&mut bytes).unwrap();
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                traffic_class: class,
                flow_label: Ipv6FlowLabel::try_new(label).unwrap(),
                payload_length: u16::try_from(packet.len() + udp_len).unwrap(),
                next_header: number,
                hop_limit: 64,
                source: source.octets(),
                destination: destination.octets(),
            };
            header.write(&mut bytes).unwrap();
            if let Some((from, to)) = gue {
                let udp = UdpHeader::with_ipv6_checksum(from, to, &header, packet).unwrap();
                udp.write(&mut bytes).unwrap();
            }
        }
        _ => unreachable!("both are of one side"),
    }
    let ether_type: u16 = if source.is_ipv4() { 0x0800 } else { 0x86dd };
    let mut frame = sent.bytes()[..12].to_vec();
    frame.extend(ether_type.to_be_bytes());
    frame.extend(bytes);
    frame.extend(packet);
    Frame::from_bytes(frame).lb_to_backend()
}
