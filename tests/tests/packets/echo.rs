//! Echo requests: answered for addresses of services, and for no others.

use anyhow::{Result, ensure};
use lb_common::{limits::ECHO_BURST, reason::Reason};

use super::{
    FAMILIES, PASS, TX,
    bench::Bench,
    build::{Frame, V4},
};

/// Where an ICMP message begins behind an IPv4 header without options.
const ICMP_V4: usize = 34;

#[test]
fn an_echo_request_to_a_service_is_answered_to_the_byte() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for payload in [&b""[..], b"odd", &[0xff; 56], &[7; 1_400]] {
            for hops in [64, 255, 1] {
                let sent = Frame::echo(side.client(0), side.vip(0), true, hops, payload);
                let wanted = Frame::echo(side.vip(0), side.client(0), false, 64, payload).lb_to_client();
                bench.expect("echo", &sent, TX, &wanted, Reason::EchoAnswered)?;
            }
        }
        let marked = |frame: Frame| frame.marked(0xb8);
        let sent = marked(Frame::echo(side.client(0), side.vip(0), true, 64, b"marked"));
        let wanted = marked(Frame::echo(side.vip(0), side.client(0), false, 64, b"marked")).lb_to_client();
        bench.expect("marked", &sent, TX, &wanted, Reason::EchoAnswered)?;
    }
    Ok(())
}

/// All words of such a reply are zero, so receivers accept only one form of its ICMPv4 checksum, 0xffff.
#[test]
fn echo_reply_of_zeros_has_a_checksum_that_receivers_accept() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for payload in [&[][..], &[0], &[0; 32], &[0; 1_400]] {
            let sent = Frame::echo_of((0, 0), side.client(0), side.vip(0), true, 64, payload);
            let wanted =
                Frame::echo_of((0, 0), side.vip(0), side.client(0), false, 64, payload).lb_to_client();
            bench.expect("zeros", &sent, TX, &wanted, Reason::EchoAnswered)?;
        }
    }
    // Non-zero words whose sum is zero: both forms are right.
    let sent = Frame::echo_of((0xffff, 0), V4.client(0), V4.vip(0), true, 64, &[0xff; 8]);
    let (_, reply, _) = bench.run(&sent)?;
    let words = reply.bytes()[ICMP_V4..].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    ensure!(sum.is_multiple_of(0xffff) && sum != 0, "{:02x?}", reply.bytes());
    Ok(())
}

#[test]
fn echo_that_is_not_for_a_service_passes() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let request = |from, to| Frame::echo(from, to, true, 64, b"ping");
        let source = if side.vip(0).is_ipv4() { 26 } else { 22 };
        for (name, frame) in [
            ("to a backend", request(side.client(0), side.backend(0))),
            ("to the host", request(side.client(0), side.snat(0))),
            (
                "a reply",
                Frame::echo(side.client(0), side.vip(0), false, 64, b"ping"),
            ),
            (
                "from multicast",
                request(side.client(0), side.vip(0)).set(source, 0xff),
            ),
        ] {
            bench.expect(name, &frame, PASS, &frame, Reason::OtherProtocol)?;
        }
        let frame = request(side.client(0), side.vip(0)).set(0, 1);
        bench.expect("to many stations", &frame, PASS, &frame, Reason::NotOurs)?;
    }
    Ok(())
}

#[test]
fn echo_limit_does_not_affect_other_messages() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let sent = Frame::echo(side.client(0), side.vip(0), true, 64, b"ping");
        let refused = bench.many(|runner| {
            let mut refused = 0_u64;
            for _ in 0..20 * u64::from(ECHO_BURST) {
                let (action, _) = runner.run(sent.bytes())?;
                refused += u64::from(action != TX);
            }
            Ok(refused)
        })?;
        ensure!(refused > 0, "all of them were answered");
        ensure!(
            bench.counted()?[&Reason::EchoRate] >= refused,
            "{refused} were not counted"
        );
        let rejects = side.vip(super::bench::REJECTS);
        let datagram = Frame::udp(side.client(40_000), rejects, 64, b"hello");
        let (_, _, reason) = bench.run(&datagram)?;
        ensure!(
            reason == Reason::RejectedUnreachable,
            "an error message is another's budget: {reason:?}"
        );
    }
    Ok(())
}
