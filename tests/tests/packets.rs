//! Single packets through the real program in the kernel (BPF_PROG_TEST_RUN): action, bytes and reason of each.
//!
//! Expected bytes come from etherparse, never from our own code.

#[path = "packets/bench.rs"]
mod bench;
#[path = "packets/buffers.rs"]
mod buffers;
#[path = "packets/build.rs"]
mod build;
#[path = "packets/counts.rs"]
mod counts;
#[path = "packets/decap.rs"]
mod decap;
#[path = "packets/dnat.rs"]
mod dnat;
#[path = "packets/echo.rs"]
mod echo;
#[path = "packets/end_tunnel.rs"]
mod end_tunnel;
#[path = "packets/explain.rs"]
mod explain;
#[path = "packets/explained.rs"]
mod explained;
#[path = "packets/flows.rs"]
mod flows;
#[path = "packets/forged.rs"]
mod forged;
#[path = "packets/fragments.rs"]
mod fragments;
#[path = "packets/fuzz.rs"]
mod fuzz;
#[path = "packets/groups.rs"]
mod groups;
#[path = "packets/guard.rs"]
mod guard;
#[path = "packets/host_sockets.rs"]
mod host_sockets;
#[path = "packets/kinds.rs"]
mod kinds;
#[path = "packets/matrix.rs"]
mod matrix;
#[path = "packets/modes.rs"]
mod modes;
#[path = "packets/monitor.rs"]
mod monitor;
#[path = "packets/other_hosts.rs"]
mod other_hosts;
#[path = "packets/ports.rs"]
mod ports;
#[path = "packets/prefixes.rs"]
mod prefixes;
#[path = "packets/quic.rs"]
mod quic;
#[path = "packets/reject.rs"]
mod reject;
#[path = "packets/several.rs"]
mod several;
#[path = "packets/signals.rs"]
mod signals;
#[path = "packets/slots.rs"]
mod slots;
#[path = "packets/sources.rs"]
mod sources;
#[path = "packets/stages.rs"]
mod stages;
#[path = "packets/through.rs"]
mod through;
#[path = "packets/vlan.rs"]
mod vlan;

use anyhow::{Context, Result, ensure};
use bench::{ABORTED, Bench, DROP, PASS, REDIRECT, TX};
use build::{Frame, Side, V4, V6};
use lb_common::{
    backend::{ALIVE, Generation},
    reason::{Action, Reason},
};

const FAMILIES: [Side; 2] = [V4, V6];
const SYN: u8 = 2;
const ACK: u8 = 16;

#[test]
fn packets_of_a_flow_are_translated_to_the_byte_in_both_directions() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for (client_port, payload) in [(40_000, &b""[..]), (40_001, b"x"), (40_002, b"an odd length")] {
            bench.one_port(3000 + client_port - 40_000)?;
            let snat = side.snat(3000 + client_port - 40_000);
            let client = side.client(client_port);
            for (flags, name) in [(SYN, "new flow"), (ACK, "known flow")] {
                let sent = Frame::tcp(client, side.vip(80), flags, 64, payload);
                let wanted = Frame::tcp(snat, side.backend(8080), flags, 63, payload).lb_to_backend();
                bench.expect(name, &sent, TX, &wanted, Reason::SentBack)?;
            }
            let sent = Frame::tcp(side.backend(8080), snat, SYN | ACK, 64, payload).backend_to_lb();
            let wanted = Frame::tcp(side.vip(80), client, SYN | ACK, 63, payload).lb_to_client();
            bench.expect("reply", &sent, TX, &wanted, Reason::SentBack)?;

            let sent = Frame::udp(client, side.vip(53), 64, payload);
            let wanted = Frame::udp(snat, side.backend(5353), 63, payload).lb_to_backend();
            bench.expect("udp", &sent, TX, &wanted, Reason::SentBack)?;
            let sent = Frame::udp(side.backend(5353), snat, 64, payload).backend_to_lb();
            let wanted = Frame::udp(side.vip(53), client, 63, payload).lb_to_client();
            bench.expect("udp reply", &sent, TX, &wanted, Reason::SentBack)?;
        }
    }
    Ok(())
}

#[test]
fn a_udp_packet_without_checksum_stays_without_one() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    let sent = Frame::udp(V4.client(40_000), V4.vip(53), 64, b"abc").set16(40, 0);
    let wanted = Frame::udp(V4.snat(3000), V4.backend(5353), 63, b"abc")
        .lb_to_backend()
        .set16(40, 0);
    bench.expect("no checksum", &sent, TX, &wanted, Reason::SentBack)
}

/// RFC 768: a sum of zero is sent as all ones, since zero means no checksum.
#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_ones() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    for side in FAMILIES {
        let wanted = |word: u16| {
            Frame::udp(side.snat(3000), side.backend(5353), 63, &word.to_be_bytes()).lb_to_backend()
        };
        let checksum = if side.vip(0).is_ipv4() { 40 } else { 60 };
        let ones = |word: &u16| wanted(*word).bytes()[checksum..checksum + 2] == [0xff; 2];
        let word = (0..=u16::MAX).find(ones).context("no payload gives that sum")?;
        let sent = Frame::udp(side.client(40_000), side.vip(53), 64, &word.to_be_bytes());
        bench.expect("all ones", &sent, TX, &wanted(word), Reason::SentBack)?;
    }
    Ok(())
}

#[test]
fn icmp_errors_reach_the_other_end_with_the_quoted_packet_translated() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        bench.one_port(3000)?;
        let (client, snat) = (side.client(40_000), side.snat(3000));
        let opening = Frame::udp(client, side.vip(53), 64, b"hello");
        let forwarded = Frame::udp(snat, side.backend(5353), 63, b"hello").lb_to_backend();
        bench.expect("opening", &opening, TX, &forwarded, Reason::SentBack)?;

        // Whole quotes, and the 8 bytes of L4 that every error has at least.
        for quoted_l4 in [13, 8] {
            let sent = Frame::unreachable(side.backend(0), snat, 64, &forwarded, quoted_l4).backend_to_lb();
            let quoted = Frame::udp(client, side.vip(53), 63, b"hello");
            let wanted = Frame::unreachable(side.vip(0), client, 63, &quoted, quoted_l4).lb_to_client();
            bench.expect("from the backend", &sent, TX, &wanted, Reason::SentBack)?;

            let reply = Frame::udp(side.vip(53), client, 63, b"hello");
            let sent = Frame::unreachable(client, side.vip(0), 64, &reply, quoted_l4);
            let quoted = Frame::udp(side.backend(5353), snat, 63, b"hello");
            let wanted = Frame::unreachable(snat, side.backend(0), 63, &quoted, quoted_l4).lb_to_backend();
            bench.expect("from the client", &sent, TX, &wanted, Reason::SentBack)?;
        }
    }
    Ok(())
}

#[test]
fn a_backend_behind_another_interface_is_redirected_to() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    bench.change_backends(|backend| backend.ifindex = 2)?;
    for side in FAMILIES {
        let sent = Frame::tcp(side.client(40_000), side.vip(80), SYN, 64, b"");
        let wanted = Frame::tcp(side.snat(3000), side.backend(8080), SYN, 63, b"").lb_to_backend();
        bench.expect("redirect", &sent, REDIRECT, &wanted, Reason::Redirected)?;
    }
    Ok(())
}

#[test]
fn packets_that_cannot_be_forwarded_are_dropped_with_their_reason() -> Result<()> {
    for side in FAMILIES {
        let syn = |port| Frame::tcp(side.client(port), side.vip(80), SYN, 64, b"");
        let bench = Bench::new()?;
        bench.one_port(3000)?;
        let forwarded = Frame::tcp(side.snat(3000), side.backend(8080), SYN, 63, b"").lb_to_backend();
        forged::establish(&bench, side, 40_000, 3000)?;
        // One port towards one backend carries one flow; the flow that has it is not disturbed.
        bench.dropped("port taken", &syn(40_001), Reason::SnatPortsExhausted)?;
        bench.expect("first again", &syn(40_000), TX, &forwarded, Reason::SentBack)?;
        bench.change_backends(|backend| backend.mtu = 30)?;
        let message = Frame::too_big(side.vip(80), side.client(40_000), &syn(40_000), 30);
        bench.expect("too big", &syn(40_000), TX, &message, Reason::TooBigAnswered)?;
        bench.change_backends(|backend| backend.mtu = 1500)?;
        bench.change_backends(|backend| backend.flags &= !ALIVE)?;
        bench.dropped("dead", &syn(40_000), Reason::NoBackend)?;
        bench.change_backends(|backend| backend.flags |= ALIVE)?;
        bench.change_backends(|backend| backend.mode = 9)?;
        bench.dropped("mode", &syn(40_002), Reason::ModeMissing)?;
        bench.change_backends(|backend| backend.mode = 1)?;
        bench.change_backends(|backend| backend.flags = 0)?;
        bench.dropped("freed", &syn(40_002), Reason::BackendMissing)?;
        let empty = Frame::tcp(side.client(40_000), side.vip(81), SYN, 64, b"");
        bench.dropped("no backend", &empty, Reason::NoBackend)?;
    }
    Ok(())
}

#[test]
fn flow_of_a_reused_backend_id_is_set_up_again() -> Result<()> {
    let bench = Bench::new()?;
    bench.ports(3000..=3001)?;
    for side in FAMILIES {
        let syn = Frame::tcp(side.client(40_000), side.vip(80), SYN, 64, b"");
        let data = Frame::tcp(side.client(40_000), side.vip(80), ACK, 64, b"data");
        bench.run(&syn)?;
        let flows = bench.new_flows()?;
        bench.run(&data)?;
        ensure!(bench.new_flows()? == flows, "a known flow is not new");
        bench.change_backends(|backend| backend.generation = Generation(backend.generation.0 + 1))?;
        bench.run(&data)?;
        ensure!(bench.new_flows()? == flows + 1, "its backend was removed");
    }
    Ok(())
}

/// Broken, lying and foreign packets: bytes come out as they went in.
#[test]
fn hostile_and_foreign_packets_are_not_touched() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    let mut cases = 0;
    let mut wrong = Vec::new();
    let mut check = |name: &str, frame: &Frame, reason: Reason| {
        let action = match reason.action() {
            Action::Pass => PASS,
            Action::Drop => DROP,
            Action::Tx | Action::Redirect | Action::Aborted => u32::MAX,
        };
        wrong.extend(
            bench
                .expect(name, frame, action, frame, reason)
                .err()
                .map(|e| e.to_string()),
        );
    };
    for side in FAMILIES {
        for case in build::hostile(side) {
            check(&case.name, &case.frame, case.reason);
            cases += 1;
        }
        // A frame may end anywhere.
        let whole = Frame::tcp(side.client(40_000), side.vip(80), SYN, 64, b"payload");
        for len in 14..whole.len() {
            check(&format!("cut to {len}"), &whole.cut(len), Reason::Truncated);
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(cases >= 60, "{cases} cases");
    ensure!(bench.new_flows()? == 0, "none of them opens a flow");
    Ok(())
}
