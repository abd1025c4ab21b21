//! Frames of several buffers, wherever the packet ends in them: a driver puts what its first buffer does not hold into others.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_common::reason::Reason;
use lb_userspace::state::service::{Protocol, ServiceKey};

use super::{
    ACK, FAMILIES, PASS, SYN, TX,
    bench::{Bench, DNAT, DNAT_UDP, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR, REJECTS},
    build::{Frame, Side, V4, V6},
    fragments::{id_of, split_by},
    modes::{Entropy, tunnelled},
};

/// Bytes of the first buffer of a test run: a page, without its head room and what the kernel keeps at its end.
const FIRST: usize = 4_096 - 256 - 320;
/// Bytes of the longest frame here, which takes two.
const LONGEST: usize = FIRST + 440;
/// Where packets end in their frames: in the first buffer, at its end, behind it.
const ENDS: [usize; 6] = [FIRST - 400, FIRST - 1, FIRST, FIRST + 1, FIRST + 2, FIRST + 400];

/// A datagram whose packet ends at `end`.
fn datagram(from: SocketAddr, to: SocketAddr, hops: u8, end: usize) -> Frame {
    let headers = Frame::udp(from, to, hops, b"").len();
    let payload: Vec<u8> = (0..251).cycle().take(end - headers).collect();
    Frame::udp(from, to, hops, &payload)
}

/// The same frame with `more` bytes behind the packet.
fn with_more(frame: Frame, more: usize) -> Frame {
    let len = frame.len() + more;
    frame.padded(len)
}

/// Every place of a packet's end, and how many bytes follow the packet.
fn shapes() -> impl Iterator<Item = (usize, usize)> {
    ENDS.into_iter()
        .flat_map(|end| [(end, 0), (end, 1), (end, LONGEST - end)])
}

fn bench() -> Result<Bench> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    bench.change_backends(|backend| backend.mtu = 9_000)?;
    Ok(bench)
}

/// A datagram through a tunnel, as the backend gets it.
fn expect_tunnelled(bench: &Bench, side: Side, port: u16, outer: Side, gue: bool) -> Result<()> {
    for (end, more) in shapes() {
        let case = format!("port {port}, packet of {end} bytes and {more}");
        let sent = datagram(side.client(40_000), side.vip(port), 64, end);
        let (action, got, reason) = bench.run(&with_more(sent.clone(), more)).context(case.clone())?;
        ensure!(
            (action, reason) == (TX, Reason::SentBack),
            "{case}: {action}, {reason:?}"
        );
        let entropy = Entropy::of(&got, outer, gue)?;
        let wanted = tunnelled(&sent, outer, gue.then_some(entropy.port), entropy.label);
        ensure!(
            got.bytes() == with_more(wanted, more).bytes(),
            "{case}: other bytes"
        );
    }
    Ok(())
}

#[test]
fn every_mode_sends_packets_on_wherever_they_end() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        for (port, backend_port, mode) in [
            (53, 5353, "nat"),
            (DNAT, DNAT_UDP, "dnat"),
            (L2DSR, L2DSR, "l2dsr"),
        ] {
            for (end, more) in shapes() {
                let case = format!("{mode}, packet of {end} bytes and {more}");
                let (client, vip) = (side.client(40_000), side.vip(port));
                let sent = datagram(client, vip, 64, end);
                let (source, to, hops) = match mode {
                    "nat" => (side.snat(3000), side.backend(backend_port), 63),
                    "dnat" => (client, side.backend(backend_port), 63),
                    _ => (client, vip, 64),
                };
                let wanted = datagram(source, to, hops, end).lb_to_backend();
                let (sent, wanted) = (with_more(sent, more), with_more(wanted, more));
                bench.expect(&case, &sent, TX, &wanted, Reason::SentBack)?;
                if mode == "nat" {
                    let answer = datagram(side.backend(backend_port), source, 64, end).backend_to_lb();
                    let wanted = datagram(vip, client, 63, end).lb_to_client();
                    let (answer, wanted) = (with_more(answer, more), with_more(wanted, more));
                    bench.expect(&case, &answer, TX, &wanted, Reason::SentBack)?;
                }
            }
        }
        for (port, outer, gue) in [
            (IPIP_V4, V4, false),
            (IPIP_V6, V6, false),
            (GUE_V4, V4, true),
            (GUE_V6, V6, true),
        ] {
            expect_tunnelled(&bench, side, port, outer, gue)?;
        }
    }
    Ok(())
}

#[test]
fn packets_for_no_service_pass_as_they_are() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        for (end, more) in shapes() {
            let foreign = datagram(side.client(40_000), side.vip(9), 64, end);
            let foreign = with_more(foreign, more);
            bench.expect("for no service", &foreign, PASS, &foreign, Reason::NotOurs)?;
            let other = foreign.set16(12, 0x88cc);
            bench.expect("neither IPv4 nor IPv6", &other, PASS, &other, Reason::NotIp)?;
        }
    }
    Ok(())
}

#[test]
fn packets_that_end_behind_their_frame_pass() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        for end in ENDS {
            for port in [53, DNAT, L2DSR, IPIP_V4, GUE_V6] {
                let whole = datagram(side.client(40_000), side.vip(port), 64, end);
                let short = whole.cut(end - 1);
                bench.expect("one byte short", &short, PASS, &short, Reason::Truncated)?;
            }
        }
    }
    Ok(())
}

/// Bytes of the frame, over all buffers.
#[test]
fn all_bytes_of_a_packet_count() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        for port in [53, DNAT, L2DSR, IPIP_V4, IPIP_V6, GUE_V4, GUE_V6] {
            let key = ServiceKey::new(side.vip(port).ip(), port, Protocol::Udp);
            let bytes = || Ok::<_, anyhow::Error>(bench.snapshot()?.services[&key].bytes);
            for end in ENDS {
                let before = bytes()?;
                bench.run(&datagram(side.client(40_000), side.vip(port), 64, end))?;
                let counted = bytes()? - before;
                ensure!(counted == u64::try_from(end)?, "port {port}: {counted} of {end}");
            }
        }
    }
    Ok(())
}

#[test]
fn answers_leave_nothing_of_other_buffers() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        let (client, vip) = (side.client(40_000), side.vip(L2DSR));
        let (header, most) = if vip.is_ipv4() { (20, 576) } else { (40, 1_280) };
        for (end, more) in shapes() {
            let rejected = side.vip(REJECTS);
            let sent = datagram(client, rejected, 64, end);
            let wanted =
                Frame::unreachable(rejected, client, 64, &sent, (most - header - 8) / 4 * 4 - header);
            let wanted = wanted.lb_to_client();
            let name = format!("packet of {end} bytes and {more}");
            bench.expect(
                &name,
                &with_more(sent, more),
                TX,
                &wanted,
                Reason::RejectedUnreachable,
            )?;
            let payload = vec![7; end - Frame::tcp(client, rejected, SYN, 64, b"").len()];
            let sent = Frame::tcp(client, rejected, ACK, 64, &payload);
            let wanted = Frame::reset(rejected, client, 0x0506_0708, None).lb_to_client();
            bench.expect(&name, &with_more(sent, more), TX, &wanted, Reason::RejectedReset)?;
        }
        // A packet in the first buffer is one packet. What takes several buffers may be several that fit.
        bench.change_backends(|backend| backend.mtu = 1_500)?;
        for (end, more) in shapes() {
            let sent = datagram(client, vip, 64, end);
            let name = format!("packet of {end} bytes and {more}");
            if end > FIRST {
                let wanted = with_more(sent.clone().lb_to_backend(), more);
                bench.expect(&name, &with_more(sent, more), TX, &wanted, Reason::SentBack)?;
            } else {
                let wanted = Frame::too_big(vip, client, &sent, 1_500);
                bench.expect(&name, &with_more(sent, more), TX, &wanted, Reason::TooBigAnswered)?;
            }
        }
        // Also what is shorter than the longest quote.
        bench.change_backends(|backend| backend.mtu = 100)?;
        let sent = datagram(client, vip, 64, 300);
        let wanted = Frame::too_big(vip, client, &sent, 100);
        let sent = with_more(sent, LONGEST - 300);
        bench.expect("a short packet", &sent, TX, &wanted, Reason::TooBigAnswered)?;
        bench.change_backends(|backend| backend.mtu = 9_000)?;
    }
    Ok(())
}

#[test]
fn fragments_follow_their_first_one_wherever_they_end() -> Result<()> {
    const SIZE: usize = (FIRST + 40) / 8 * 8;
    let bench = bench()?;
    for side in FAMILIES {
        for (id, port) in (1..).zip([L2DSR, 53]) {
            let (client, vip) = (side.client(40_001), side.vip(port));
            let end = Frame::udp(client, vip, 64, b"").len() + 2 * SIZE;
            let sent = split_by(&datagram(client, vip, 64, end), id, SIZE);
            ensure!(sent.len() == 3, "the last one is short");
            let mut wanted = None;
            for (number, piece) in sent.iter().enumerate() {
                // Its frame takes several buffers, too.
                let more = LONGEST.saturating_sub(piece.len());
                let (action, got, reason) = bench.run(&with_more(piece.clone(), more))?;
                ensure!(
                    (action, reason) == (TX, Reason::SentBack),
                    "{number}: {action}, {reason:?}"
                );
                let whole = if port == 53 {
                    datagram(side.snat(3000), side.backend(5353), 63, end)
                } else {
                    datagram(client, vip, 64, end)
                };
                let of_id = if port == 53 { id_of(&got)? } else { id };
                let pieces = wanted.get_or_insert_with(|| split_by(&whole.lb_to_backend(), of_id, SIZE));
                let piece = with_more(pieces[number].clone(), more);
                ensure!(
                    got.bytes() == piece.bytes(),
                    "port {port}, fragment {number}: other bytes"
                );
            }
        }
    }
    Ok(())
}
