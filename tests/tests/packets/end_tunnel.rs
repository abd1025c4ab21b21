//! Tunnels that end at the balancer.

use std::net::IpAddr;

use anyhow::Result;
use lb_common::{counters::PacketCount, reason::Reason};
use lb_userspace::state::guard::Prefix;

use super::{
    ACK, DROP, FAMILIES, PASS, SYN, TX,
    bench::{Bench, IPIP_V4, L2DSR},
    build::{Frame, Side, V4},
    decap::{GUE_PORT, TUNNELS, Tunnel, within},
    fragments::split,
    modes::tunnelled,
    vlan::TAGS,
};

/// A balancer of another tier, whose tunnels are taken.
fn tier(side: Side) -> IpAddr {
    side.nowhere()
}

/// Where they end: at the address that flows of mode `nat` leave from, too.
fn end(side: Side) -> IpAddr {
    side.snat(0).ip()
}

fn bench() -> Result<Bench> {
    let from: Vec<Prefix> = FAMILIES
        .iter()
        .map(|side| Prefix::around(tier(*side), Prefix::most(tier(*side))))
        .collect();
    Bench::ending_tunnels(&from, FAMILIES.map(end))
}

/// A packet in a tunnel between two addresses, as the balancer's interface gets it.
fn arriving(packet: &Frame, from: IpAddr, to: IpAddr, tunnel: Tunnel) -> Frame {
    within(packet, from, to, tunnel, 0).set(5, 2).set(11, 1)
}

#[test]
fn a_packet_in_a_tunnel_is_balanced_as_if_it_had_come_without() -> Result<()> {
    let bench = bench()?;
    let mut number = 0;
    for outer in FAMILIES {
        for inner in FAMILIES {
            for tunnel in TUNNELS {
                number += 1;
                bench.one_port(3000 + number)?;
                let client = inner.client(40_000 + number);
                let name = |what| format!("{what} in {tunnel:?}, {}", outer.vip(0).ip());
                let send = |packet: &Frame| arriving(packet, tier(outer), end(outer), tunnel);

                let packet = Frame::tcp(client, inner.vip(L2DSR), SYN, 64, b"odd");
                let wanted = packet.clone().lb_to_backend();
                bench.expect(&name("l2dsr"), &send(&packet), TX, &wanted, Reason::SentBack)?;

                let packet = Frame::tcp(client, inner.vip(80), SYN, 64, b"");
                let wanted =
                    Frame::tcp(inner.snat(3000 + number), inner.backend(8080), SYN, 63, b"").lb_to_backend();
                bench.expect(&name("nat"), &send(&packet), TX, &wanted, Reason::SentBack)?;

                let packet = Frame::tcp(client, inner.vip(IPIP_V4), ACK, 64, b"data");
                let wanted = tunnelled(&packet, V4, None, 0);
                bench.expect(
                    &name("another tunnel"),
                    &send(&packet),
                    TX,
                    &wanted,
                    Reason::SentBack,
                )?;

                let packet = Frame::echo(client, inner.vip(0), true, 64, b"ping");
                let wanted = Frame::echo(inner.vip(0), client, false, 64, b"ping").lb_to_client();
                bench.expect(&name("ping"), &send(&packet), TX, &wanted, Reason::EchoAnswered)?;

                let packet = Frame::udp(client, inner.vip(999), 64, b"x");
                bench.expect(
                    &name("not served"),
                    &send(&packet),
                    PASS,
                    &packet,
                    Reason::NotOurs,
                )?;
            }
        }
    }
    Ok(())
}

#[test]
fn other_tunnels_and_replies_to_the_port_of_gue_are_left_alone() -> Result<()> {
    let bench = bench()?;
    let plain = Bench::new;
    for side in FAMILIES {
        let packet = Frame::tcp(side.client(1), side.vip(80), SYN, 64, b"");
        for tunnel in TUNNELS {
            let (reason, from_elsewhere) = if tunnel == Tunnel::Ipip {
                (Reason::OtherProtocol, Reason::TunnelSource)
            } else {
                (Reason::NotOurs, Reason::NotOurs)
            };
            for (name, from, to, reason) in [
                ("from elsewhere", side.client(0).ip(), end(side), from_elsewhere),
                ("to another machine", tier(side), side.strange_client(), reason),
            ] {
                let sent = arriving(&packet, from, to, tunnel);
                bench.expect(name, &sent, PASS, &sent, reason)?;
            }
            let sent = arriving(&packet, tier(side), end(side), tunnel).tagged(TAGS[0].1);
            bench.expect("in a VLAN", &sent, PASS, &sent, reason)?;
        }
        let whole = arriving(&packet, tier(side), end(side), Tunnel::Gue1);
        for frame in split(&whole, 9) {
            bench.expect("a fragment", &frame, PASS, &frame, Reason::Fragment)?;
        }
        // A flow of mode nat has the port of GUE as its source port.
        bench.one_port(GUE_PORT)?;
        let (client, snat) = (side.client(40_000), side.snat(GUE_PORT));
        let sent = Frame::udp(client, side.vip(53), 64, b"question");
        let wanted = Frame::udp(snat, side.backend(5353), 63, b"question").lb_to_backend();
        bench.expect("a question", &sent, TX, &wanted, Reason::SentBack)?;
        let sent = Frame::udp(side.backend(5353), snat, 64, b"answer").backend_to_lb();
        let wanted = Frame::udp(side.vip(53), client, 63, b"answer").lb_to_client();
        bench.expect("an answer", &sent, TX, &wanted, Reason::SentBack)?;
    }
    drop(bench);
    let bench = plain()?;
    for side in FAMILIES {
        let packet = Frame::tcp(side.client(1), side.vip(80), SYN, 64, b"");
        let sent = arriving(&packet, tier(side), end(side), Tunnel::Ipip);
        bench.expect("no tunnel ends here", &sent, PASS, &sent, Reason::OtherProtocol)?;
        let sent = arriving(&packet, tier(side), end(side), Tunnel::Gue1);
        bench.expect("no tunnel ends here", &sent, PASS, &sent, Reason::NotOurs)?;
    }
    Ok(())
}

#[test]
fn fragments_in_a_tunnel_follow_the_first_and_a_tunnel_in_it_is_left_to_the_kernel() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        let whole = Frame::udp(side.client(40_000), side.vip(L2DSR), 64, &[7; 90]);
        for packet in split(&whole, 9) {
            let sent = arriving(&packet, tier(side), end(side), Tunnel::Ipip);
            let wanted = packet.clone().lb_to_backend();
            bench.expect("a fragment", &sent, TX, &wanted, Reason::SentBack)?;
        }
        let packet = Frame::tcp(side.client(1), side.vip(80), SYN, 64, b"");
        for (tunnel, reason) in [
            (Tunnel::Ipip, Reason::OtherProtocol),
            (Tunnel::Gue1, Reason::NotOurs),
        ] {
            let inner = within(&packet, tier(side), end(side), tunnel, 0);
            let sent = arriving(&inner, tier(side), end(side), Tunnel::Ipip);
            let wanted = inner.set(5, 2).set(11, 1);
            bench.expect("a tunnel", &sent, PASS, &wanted, reason)?;
        }
    }
    Ok(())
}

#[test]
fn a_tunnel_without_a_whole_packet_or_with_congestion_is_dropped() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        let header = if side.vip(0).is_ipv4() { 20 } else { 40 };
        let packet = Frame::tcp(side.client(1), side.vip(80), SYN, 64, b"");
        let sent = arriving(&packet, tier(side), end(side), Tunnel::Ipip);
        // The version of what is in it.
        let broken = sent.clone().set(14 + header, 0x35);
        // Congestion, about a packet whose sender does not react to marks.
        let marked = within(&packet, tier(side), end(side), Tunnel::Ipip, 3)
            .set(5, 2)
            .set(11, 1);
        for frame in [broken, marked] {
            let (action, _, reason) = bench.run(&frame)?;
            assert_eq!((action, reason), (DROP, Reason::TunnelMalformed));
        }
    }
    Ok(())
}

#[test]
fn tunnels_that_end_here_are_counted_beside_the_verdict() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        let packet = Frame::tcp(side.client(1), side.vip(L2DSR), SYN, 64, b"odd");
        for tunnel in TUNNELS {
            let sent = arriving(&packet, tier(side), end(side), tunnel);
            let ended =
                |bench: &Bench| -> Result<PacketCount> { Ok(bench.snapshot()?.interfaces[0].tunnels_ended) };
            let before = ended(&bench)?;
            bench.expect(
                "taken",
                &sent,
                TX,
                &packet.clone().lb_to_backend(),
                Reason::SentBack,
            )?;
            let after = ended(&bench)?;
            let counted = (after.packets - before.packets, after.bytes - before.bytes);
            assert_eq!(counted, (1, sent.len() as u64), "{tunnel:?}");
            for other in [
                arriving(&packet, side.client(0).ip(), end(side), tunnel),
                arriving(&packet, tier(side), side.strange_client(), tunnel),
                packet.clone(),
            ] {
                bench.run(&other)?;
            }
            assert_eq!(ended(&bench)?, after, "{tunnel:?}");
        }
    }
    Ok(())
}
