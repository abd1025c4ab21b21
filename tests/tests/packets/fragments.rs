//! Datagrams in fragments: all of them go where the first one goes.
#![expect(
    clippy::unwrap_used,
    reason = "a fragment that cannot be built is a mistake in the table"
)]

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header};
use lb_common::{backend::ALIVE, reason::Reason};
use lb_userspace::state::service::{Protocol, ServiceKey};

use super::{
    ACK, FAMILIES, PASS, SYN, TX,
    bench::{Bench, DNAT, DNAT_UDP, DROP, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR, REDIRECT, REJECTS},
    build::{Frame, Side, V4, V6},
    dnat,
    modes::{Entropy, tunnelled},
};

/// Where the IP header begins.
const IP: usize = 14;
/// Bytes of each fragment but the last.
const SIZE: usize = 24;

/// Splits a packet's payload into fragments of [`SIZE`] bytes.
pub(crate) fn split(whole: &Frame, id: u32) -> Vec<Frame> {
    split_by(whole, id, SIZE)
}

/// Splits a packet's payload into fragments of `size` bytes, a multiple of 8.
pub(crate) fn split_by(whole: &Frame, id: u32, size: usize) -> Vec<Frame> {
    let bytes = whole.bytes();
    let v4 = bytes[12..14] == [0x08, 0x00];
    let header_len = if v4 { 20 } else { 40 };
    let (header, payload) = bytes[IP..].split_at(header_len);
    let last = payload.len().div_ceil(size) - 1;
    payload
        .chunks(size)
        .enumerate()
        .map(|(n, piece)| {
            let mut frame = bytes[..IP].to_vec();
            let offset = IpFragOffset::try_new(u16::try_from(n * size / 8).unwrap()).unwrap();
            let more = n != last;
            if v4 {
                let (mut ip, _) = Ipv4Header::from_slice(header).unwrap();
                ip.identification = u16::try_from(id).unwrap();
                ip.dont_fragment = false;
                ip.more_fragments = more;
                ip.fragment_offset = offset;
                ip.set_payload_len(piece.len()).unwrap();
                ip.header_checksum = ip.calc_header_checksum();
                ip.write(&mut frame).unwrap();
            } else {
                let (mut ip, _) = Ipv6Header::from_slice(header).unwrap();
                let fragment = Ipv6FragmentHeader::new(ip.next_header, offset, more, id);
                ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                ip.set_payload_length(piece.len() + 8).unwrap();
                ip.write(&mut frame).unwrap();
                fragment.write(&mut frame).unwrap();
            }
            frame.extend(piece);
            Frame::from_bytes(frame)
        })
        .collect()
}

/// The identification in a fragment.
pub(crate) fn id_of(frame: &Frame) -> Result<u32> {
    let bytes = frame.bytes();
    let field = if bytes[12..14] == [0x08, 0x00] {
        return Ok(u32::from(u16::from_be_bytes(bytes[IP + 4..IP + 6].try_into()?)));
    } else {
        &bytes[IP + 44..IP + 48]
    };
    Ok(u32::from_be_bytes(field.try_into()?))
}

fn datagram(side: Side, port: u16, client_port: u16) -> Frame {
    let payload: Vec<u8> = (0..90).collect();
    Frame::udp(side.client(client_port), side.vip(port), 64, &payload)
}

/// Sends the fragments of `sent`, the later ones in reverse and one of them twice; each must come out as a fragment of
/// `wanted`, under a common new identification. Returns it.
fn expect_translated(bench: &Bench, name: &str, sent: &Frame, wanted: &Frame, id: u32) -> Result<u32> {
    expect_as(bench, name, sent, wanted, id, (TX, Reason::SentBack))
}

/// As [`expect_translated`], for another outcome.
fn expect_as(
    bench: &Bench,
    name: &str,
    sent: &Frame,
    wanted: &Frame,
    id: u32,
    (outcome, why): (u32, Reason),
) -> Result<u32> {
    let sent = split(sent, id);
    let (action, first, reason) = bench.run(&sent[0])?;
    ensure!((action, reason) == (outcome, why), "{name}: {action}, {reason:?}");
    let new_id = id_of(&first)?;
    let wanted = split(wanted, new_id);
    ensure!(first == wanted[0], "{name}: {:02x?}", first.bytes());
    for n in (1..sent.len()).rev().chain([1]) {
        let name = format!("{name}, fragment {n}");
        bench.expect(&name, &sent[n], outcome, &wanted[n], why)?;
    }
    Ok(new_id)
}

/// Without a flow, too: fragments of replies each go by the kernel's routes.
#[test]
fn fragments_are_translated_in_mode_dnat() -> Result<()> {
    let bench = dnat::routed()?;
    for side in FAMILIES {
        let payload: Vec<u8> = (0..90).collect();
        let (client, vip, backend) = (side.client(40_000), side.vip(DNAT), side.backend(DNAT_UDP));
        for id in [1, 2, 0xffff, 1] {
            let sent = Frame::udp(client, vip, 64, &payload);
            let wanted = Frame::udp(client, backend, 63, &payload).lb_to_backend();
            expect_translated(&bench, "request", &sent, &wanted, id)?;
            let sent = Frame::udp(backend, client, 64, &payload).backend_to_lb();
            let wanted = Frame::udp(vip, client, 63, &payload).lb_to_client();
            let outcome = (REDIRECT, Reason::Redirected);
            expect_as(&bench, "reply", &sent, &wanted, id, outcome)?;
            // The next hop is unresolved.
            let client = SocketAddr::new(side.strange_client(), 40_000);
            let sent = Frame::udp(backend, client, 64, &payload).backend_to_lb();
            let wanted = Frame::udp(vip, client, 64, &payload).backend_to_lb();
            let outcome = (PASS, Reason::ReplyByKernel);
            expect_as(&bench, "by the kernel", &sent, &wanted, id, outcome)?;
            let sent = Frame::udp(backend, client, 1, &payload).backend_to_lb();
            let first = &split(&sent, 77)[0];
            bench.dropped("no hop left", first, Reason::TtlExpired)?;
        }
        // To the machine itself, and from another port.
        let own = side.snat(50_000);
        bench.ns().ip(&format!("addr add {} dev ra", own.ip()))?;
        bench.ns().wait_for_addresses()?;
        for (from, to) in [(backend, own), (side.backend(7), client)] {
            for sent in split(&Frame::udp(from, to, 64, &payload).backend_to_lb(), 9) {
                bench.expect("not ours", &sent, PASS, &sent, Reason::Fragment)?;
            }
        }
    }
    Ok(())
}

#[test]
fn fragments_are_translated_as_their_first_one_is() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        bench.one_port(3000)?;
        let payload: Vec<u8> = (0..90).collect();
        let (client, snat) = (side.client(40_000), side.snat(3000));
        bench.run(&Frame::tcp(client, side.vip(80), SYN, 64, b""))?;
        let mut ids = Vec::new();
        for id in [1, 2, 0xffff, 1] {
            let sent = datagram(side, 53, 40_000);
            let wanted = Frame::udp(snat, side.backend(5353), 63, &payload).lb_to_backend();
            ids.push(expect_translated(&bench, "udp", &sent, &wanted, id)?);

            let sent = Frame::udp(side.backend(5353), snat, 64, &payload).backend_to_lb();
            let wanted = Frame::udp(side.vip(53), client, 63, &payload).lb_to_client();
            ids.push(expect_translated(&bench, "udp reply", &sent, &wanted, id)?);

            let sent = Frame::tcp(client, side.vip(80), ACK, 64, &payload);
            let wanted = Frame::tcp(snat, side.backend(8080), ACK, 63, &payload).lb_to_backend();
            ids.push(expect_translated(&bench, "tcp", &sent, &wanted, id)?);
        }
        ids.dedup();
        ensure!(ids.len() > 8, "identifications are new ones: {ids:?}");
    }
    Ok(())
}

#[test]
fn fragments_reach_the_backend_of_their_first_one_as_they_are() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for sent in split(&datagram(side, L2DSR, 40_000), 7) {
            let wanted = sent.clone().lb_to_backend();
            bench.expect("l2dsr", &sent, TX, &wanted, Reason::SentBack)?;
        }
        for (port, outer, gue) in [
            (IPIP_V4, V4, false),
            (IPIP_V6, V6, false),
            (GUE_V4, V4, true),
            (GUE_V6, V6, true),
        ] {
            let whole = datagram(side, port, 40_000);
            let (_, got, _) = bench.run(&whole)?;
            let entropy = Entropy::of(&got, outer, gue)?;
            for (n, sent) in split(&whole, 7).iter().enumerate() {
                let mut wanted = tunnelled(sent, outer, gue.then_some(entropy.port), entropy.label);
                if gue && !outer.vip(0).is_ipv4() {
                    // The checksum cannot be derived from a fragment.
                    wanted = wanted.set16(IP + 46, 0);
                }
                let name = format!("port {port}, fragment {n}");
                bench.expect(&name, sent, TX, &wanted, Reason::SentBack)?;
            }
        }
    }
    Ok(())
}

#[test]
fn fragments_without_their_first_one_are_dropped_on_addresses_of_services_only() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    for side in FAMILIES {
        let ours = split(&datagram(side, 53, 40_000), 9);
        let host = Frame::udp(side.client(1), side.snat(3000), 64, &[7; 60]);
        let host = split(&host, 9);
        for n in [1, 2] {
            bench.dropped("ours", &ours[n], Reason::FragmentAlone)?;
            bench.expect("the host's", &host[n], PASS, &host[n], Reason::Fragment)?;
        }
        bench.run(&ours[0])?;
        let (action, _, reason) = bench.run(&ours[1])?;
        ensure!(
            (action, reason) == (TX, Reason::SentBack),
            "its first one has come"
        );
        // Another datagram: another identification, protocol or sender.
        let other_id = &split(&datagram(side, 53, 40_000), 10)[1];
        bench.dropped("another datagram", other_id, Reason::FragmentAlone)?;
        let source = if side.vip(0).is_ipv4() { IP + 15 } else { IP + 23 };
        let other_sender = ours[1].clone().set(source, 0x55);
        bench.dropped("another sender", &other_sender, Reason::FragmentAlone)?;
    }
    let tcp = &split(&Frame::tcp(V4.client(40_000), V4.vip(80), ACK, 64, &[7; 60]), 9)[1];
    bench.dropped("another protocol", tcp, Reason::FragmentAlone)
}

/// A fragment before its first one counts for a service only if there is one of its protocol.
#[test]
fn a_lone_fragment_is_for_a_service_of_its_own_protocol() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let vip = SocketAddr::new(side.datagrams(), 53);
        let key = ServiceKey::new(vip.ip(), vip.port(), Protocol::Udp);
        let tcp = &split(&Frame::tcp(side.client(1), vip, ACK, 64, &[7; 90]), 5)[1];
        bench.expect("tcp", tcp, PASS, tcp, Reason::Fragment)?;
        ensure!(
            bench.of_service(key, Reason::FragmentAlone)? == 0,
            "counted for udp"
        );
        let udp = &split(&Frame::udp(side.client(1), vip, 64, &[7; 90]), 6)[1];
        bench.dropped("udp", udp, Reason::FragmentAlone)?;
        ensure!(bench.of_service(key, Reason::FragmentAlone)? == 1, "not counted");
    }
    let vip = SocketAddr::new(V6.datagrams(), 53);
    let ping = &split(&Frame::echo(V6.client(0), vip, true, 64, &[7; 90]), 7)[1];
    bench.expect("ping", ping, PASS, ping, Reason::Fragment)?;
    // Only the first fragment has the protocol after the options.
    let options = ping.clone().set(IP + 40, 60);
    bench.dropped("options", &options, Reason::FragmentAlone)
}

#[test]
fn fragments_that_are_for_no_service_pass() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for to in [side.vip(22), side.snat(22), side.backend(22)] {
            for (protocol, whole) in [
                ("udp", Frame::udp(side.client(1), to, 64, &[7; 90])),
                ("tcp", Frame::tcp(side.client(1), to, ACK, 64, &[7; 90])),
            ] {
                for frame in split(&whole, 11) {
                    let name = format!("{protocol} to {to}");
                    bench.expect(&name, &frame, PASS, &frame, Reason::Fragment)?;
                }
            }
        }
    }
    for frame in split(&Frame::echo(V4.client(0), V4.vip(0), true, 64, &[7; 90]), 12) {
        bench.expect("ping", &frame, PASS, &frame, Reason::OtherProtocol)?;
    }
    Ok(())
}

#[test]
fn fragments_are_dropped_for_the_same_reasons_as_packets() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    for side in FAMILIES {
        let hops = if side.vip(0).is_ipv4() { 22 } else { 21 };
        let nat = split(&datagram(side, 53, 40_000), 20);
        let direct = split(&datagram(side, IPIP_V4, 40_000), 21);
        bench.run(&nat[0])?;
        bench.run(&direct[0])?;
        let forwarded = bench.forwarded()?;
        bench.dropped("last hop", &nat[1].clone().set(hops, 1), Reason::TtlExpired)?;
        bench.change_backends(|backend| backend.mtu = 40)?;
        bench.dropped("too big to translate", &nat[1], Reason::TooBig)?;
        bench.dropped("too big for a tunnel", &direct[1], Reason::TooBig)?;
        bench.change_backends(|backend| backend.mtu = 1500)?;
        bench.change_backends(|backend| backend.flags &= !ALIVE)?;
        bench.dropped("dead", &nat[1], Reason::NoBackend)?;
        bench.dropped("dead", &direct[1], Reason::NoBackend)?;
        bench.change_backends(|backend| backend.flags |= ALIVE)?;
        let reborn = |by: u16| {
            bench.change_backends(|backend| backend.generation.0 = backend.generation.0.wrapping_add(by))
        };
        reborn(1)?;
        bench.dropped("in other hands", &nat[1], Reason::NoBackend)?;
        bench.dropped("in other hands", &direct[1], Reason::NoBackend)?;
        reborn(u16::MAX)?;
        ensure!(
            bench.forwarded()? == forwarded,
            "a dropped packet counts as forwarded"
        );
        let (action, ..) = bench.run(&nat[1])?;
        ensure!(action == TX, "and it is forwarded");

        let rejected = Frame::tcp(side.client(40_000), side.vip(REJECTS), SYN, 64, &[7; 60]);
        bench.dropped("not answered", &split(&rejected, 22)[0], Reason::NoBackend)?;
        for len in IP..nat[1].len() {
            let cut = nat[1].cut(len);
            let (action, output, reason) = bench.run(&cut)?;
            ensure!(
                [PASS, DROP].contains(&action) && output == cut,
                "cut to {len}: {action}, {reason:?}"
            );
        }
    }
    Ok(())
}

/// RFC 6946: a fragment header on a packet that is whole.
#[test]
fn an_atomic_fragment_is_a_packet_like_any_other() -> Result<()> {
    let bench = Bench::new()?;
    let whole = Frame::udp(V6.client(40_000), V6.vip(L2DSR), 64, b"short");
    let [atomic] = split(&whole, 30).try_into().ok().context("one")?;
    let wanted = atomic.clone().lb_to_backend();
    bench.expect("atomic", &atomic, TX, &wanted, Reason::SentBack)
}
