//! Answers of a service without a backend, to the byte.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lb_common::{limits::MESSAGE_BURST, reason::Reason};

use super::{
    ACK, DROP, FAMILIES, SYN, TX,
    bench::{Bench, REJECTS},
    build::{Frame, Side},
};

const FIN: u8 = 1;
/// Sequence and acknowledgement number of every segment by [`Frame::tcp`].
const SEQ: u32 = 0x0102_0304;
const ACKED: u32 = 0x0506_0708;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

fn ends(side: Side) -> (SocketAddr, SocketAddr) {
    (side.client(40_000), side.vip(REJECTS))
}

/// RFC 9293 section 3.10.7.1.
#[test]
fn a_segment_is_answered_by_the_reset_that_its_sender_believes() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let (client, vip) = ends(side);
        for (name, flags, payload, seq, ack) in [
            ("syn", SYN, &b""[..], 0, Some(SEQ + 1)),
            ("syn with data", SYN, b"fast open", 0, Some(SEQ + 10)),
            ("fin alone", FIN, b"", 0, Some(SEQ + 1)),
            ("nothing set", 0, b"odd", 0, Some(SEQ + 3)),
            ("ack", ACK, b"", ACKED, None),
            ("data", ACK, b"of a flow that was", ACKED, None),
            ("fin", FIN | ACK, b"", ACKED, None),
            ("syn and ack", SYN | ACK, b"", ACKED, None),
        ] {
            let wanted = Frame::reset(vip, client, seq, ack).lb_to_client();
            for sent in [
                Frame::tcp(client, vip, flags, 64, payload),
                Frame::tcp(client, vip, flags, 1, payload).padded(90),
            ] {
                bench.expect(name, &sent, TX, &wanted, Reason::RejectedReset)?;
            }
        }
        let reset = Frame::reset(client, vip, SEQ, None);
        bench.dropped("a reset is not answered", &reset, Reason::NoBackend)?;
    }
    ensure!(bench.new_flows()? == 0, "no flow begins");
    Ok(())
}

/// RFC 1812 section 4.3.2.3 and RFC 4443 section 2.4 (c): as much as fits 576 and 1,280 bytes, in whole words.
#[test]
fn a_datagram_is_answered_by_an_error_that_quotes_it() -> Result<()> {
    let bench = Bench::new()?;
    let payload: Vec<u8> = (0..1_400_u16).map(|n| n.to_be_bytes()[1]).collect();
    for side in FAMILIES {
        let (client, vip) = ends(side);
        let (header, most) = if vip.is_ipv4() { (20, 576) } else { (40, 1_280) };
        for len in [
            0, 1, 2, 3, 4, 11, 12, 40, 500, 519, 520, 521, 1_183, 1_184, 1_200, 1_400,
        ] {
            let sent = Frame::udp(client, vip, 64, &payload[..len]);
            let fits = (sent.len() - ETHERNET).min(most - header - 8) / 4 * 4;
            let wanted = Frame::unreachable(vip, client, 64, &sent, fits - header).lb_to_client();
            let name = format!("{len} bytes");
            bench.expect(&name, &sent, TX, &wanted, Reason::RejectedUnreachable)?;
        }
        let short = Frame::udp(client, vip, 64, b"");
        let wanted = Frame::unreachable(vip, client, 64, &short, 8).lb_to_client();
        bench.expect(
            "padded",
            &short.padded(90),
            TX,
            &wanted,
            Reason::RejectedUnreachable,
        )?;
    }
    Ok(())
}

/// RFC 1122 section 3.2.2.
#[test]
fn broadcast_and_unspecified_sources_get_no_answer() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let (_, vip) = ends(side);
        let sources: &[&str] = if vip.is_ipv4() {
            &[
                "0.0.0.0",
                "0.1.2.3",
                "127.0.0.1",
                "224.0.0.1",
                "240.0.0.1",
                "255.255.255.255",
            ]
        } else {
            &["::", "::1", "ff02::1"]
        };
        for source in sources {
            let client = SocketAddr::new(source.parse::<IpAddr>()?, 40_000);
            for sent in [
                Frame::udp(client, vip, 64, b"x"),
                Frame::tcp(client, vip, SYN, 64, b""),
            ] {
                // Reserved: some networks use it, but it need not be one host.
                let reason = if *source == "240.0.0.1" {
                    Reason::NoBackend
                } else {
                    Reason::MartianSource
                };
                bench.dropped(source, &sent, reason)?;
            }
        }
    }
    Ok(())
}

#[test]
fn errors_are_limited_for_each_service_and_resets_are_not() -> Result<()> {
    const PACKETS: u32 = 2_000;
    let bench = Bench::new()?;
    let answered = |sent: &Frame| {
        bench.many(|runner| {
            let mut answered = 0;
            for _ in 0..PACKETS {
                let (action, _) = runner.run(sent.bytes())?;
                ensure!(action == TX || action == DROP, "action {action}");
                answered += u32::from(action == TX);
            }
            Ok(answered)
        })
    };
    for side in FAMILIES {
        let (client, vip) = ends(side);
        let errors = answered(&Frame::udp(client, vip, 64, b"x"))?;
        ensure!(
            (MESSAGE_BURST..PACKETS).contains(&errors),
            "{errors} of {PACKETS} errors"
        );
        let resets = answered(&Frame::tcp(client, vip, SYN, 64, b""))?;
        ensure!(resets == PACKETS, "{resets} resets");
    }
    let counted = bench.counted()?;
    let both = counted[&Reason::RejectedUnreachable] + counted[&Reason::UnreachableRate];
    ensure!(both == u64::from(2 * PACKETS), "counted {counted:?}");
    Ok(())
}
