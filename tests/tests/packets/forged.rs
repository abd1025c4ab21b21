//! Forged packets, of an attacker who knows addresses and ports, but sees no answers.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lb_common::{
    flow::{IdleTimeouts, PROVEN},
    limits::{TCP_ESTABLISHED_IDLE_SECS, TCP_OPENING_IDLE_SECS, TCP_RESET_IDLE_SECS},
    reason::Reason,
    service::TCP,
};

use super::{
    ACK, FAMILIES, SYN, TX,
    bench::{Bench, DNAT, GUE_V4, IPIP_V6, L2DSR},
    build::{Frame, Side, V4},
};

const FIN: u8 = 1;
const RST: u8 = 4;
/// Sequence and acknowledgement number of every segment by [`Frame::tcp`].
const SEQ: u32 = 0x0102_0304;
const ACKED: u32 = 0x0506_0708;
/// Where the acknowledged number of an IPv4 packet without options stands.
const ACKNOWLEDGED: usize = 14 + 20 + 8;

fn client(port: u16) -> SocketAddr {
    V4.client(port)
}

/// A client's acknowledgement of everything before `number`.
fn acknowledges(port: u16, number: u32, payload: &[u8]) -> Frame {
    let [a, b, c, d] = number.to_be_bytes();
    Frame::tcp(client(port), V4.vip(80), ACK, 64, payload)
        .set16(ACKNOWLEDGED, u16::from_be_bytes([a, b]))
        .set16(ACKNOWLEDGED + 2, u16::from_be_bytes([c, d]))
}

struct Flow<'a> {
    bench: &'a Bench,
    port: u16,
    snat: u16,
}

/// Establishes a flow of service 80 from a client's port; the balancer's port is the only free one.
pub(crate) fn establish(bench: &Bench, side: Side, port: u16, snat: u16) -> Result<()> {
    let (client, vip) = (side.client(port), side.vip(80));
    let [a, b, c, d] = (SEQ + 1).to_be_bytes();
    let at = if vip.is_ipv4() {
        ACKNOWLEDGED
    } else {
        ACKNOWLEDGED + 20
    };
    let frames = [
        Frame::tcp(client, vip, SYN, 64, b""),
        Frame::tcp(side.backend(8080), side.snat(snat), SYN | ACK, 64, b"").backend_to_lb(),
        Frame::tcp(client, vip, ACK, 64, b"")
            .set16(at, u16::from_be_bytes([a, b]))
            .set16(at + 2, u16::from_be_bytes([c, d])),
    ];
    for frame in frames {
        let (action, _, reason) = bench.run(&frame)?;
        ensure!(action == TX, "{}", reason.name());
    }
    Ok(())
}

impl<'a> Flow<'a> {
    /// Half-open, and answered.
    fn answered(bench: &'a Bench, port: u16, snat: u16) -> Result<Self> {
        let flow = Self { bench, port, snat };
        bench.one_port(snat)?;
        flow.client(SYN)?;
        flow.backend(SYN | ACK)?;
        Ok(flow)
    }

    fn established(bench: &'a Bench, port: u16, snat: u16) -> Result<Self> {
        let flow = Self::answered(bench, port, snat)?;
        flow.data()?;
        ensure!(
            flow.idle_timeout()? == TCP_ESTABLISHED_IDLE_SECS,
            "not established"
        );
        Ok(flow)
    }

    fn send(&self, frame: &Frame) -> Result<()> {
        let (action, _, reason) = self.bench.run(frame)?;
        ensure!(action == TX && reason == Reason::SentBack, "{}", reason.name());
        Ok(())
    }

    fn client(&self, flags: u8) -> Result<()> {
        self.send(&Frame::tcp(client(self.port), V4.vip(80), flags, 64, b""))
    }

    fn backend(&self, flags: u8) -> Result<()> {
        self.send(&Frame::tcp(V4.backend(8080), V4.snat(self.snat), flags, 64, b"").backend_to_lb())
    }

    /// A segment of a client that has seen the SYN-ACK.
    fn data(&self) -> Result<()> {
        self.send(&acknowledges(self.port, SEQ + 1, b"data"))
    }

    fn states(&self) -> Result<(u8, u8)> {
        let (tuple, forward) = self.bench.entry(self.port)?;
        let reply = self.bench.flows()?.get(&forward.peer(tuple.protocol), 0)?;
        Ok((forward.state, reply.state))
    }

    /// Seconds for which it stays without another packet.
    fn idle_timeout(&self) -> Result<u32> {
        let (forward, reply) = self.states()?;
        Ok(IdleTimeouts::of(TCP).secs(TCP, forward, reply))
    }
}

/// RFC 5961: the ends ignore such segments, so the balancer must not end the flow that they still use.
#[test]
fn idle_connection_survives_forged_packets_on_its_tuple() -> Result<()> {
    type Forge = fn(&Flow<'_>) -> Result<()>;
    let bench = Bench::new()?;
    let cases: [(&str, Forge, u32); 8] = [
        ("a SYN", |flow| flow.client(SYN), TCP_ESTABLISHED_IDLE_SECS),
        ("a FIN", |flow| flow.client(FIN), TCP_ESTABLISHED_IDLE_SECS),
        (
            "a SYN-ACK",
            |flow| flow.client(SYN | ACK),
            TCP_ESTABLISHED_IDLE_SECS,
        ),
        ("a RST", |flow| flow.client(RST), TCP_RESET_IDLE_SECS),
        (
            "a RST with ACK",
            |flow| flow.client(RST | ACK),
            TCP_RESET_IDLE_SECS,
        ),
        (
            "a RST from the backend",
            |flow| flow.backend(RST),
            TCP_RESET_IDLE_SECS,
        ),
        (
            "a RST and a SYN",
            |flow| {
                flow.client(RST)?;
                flow.client(SYN)
            },
            TCP_ESTABLISHED_IDLE_SECS,
        ),
        (
            "a FIN, a RST and a SYN",
            |flow| {
                flow.client(FIN)?;
                flow.client(RST)?;
                flow.client(SYN)
            },
            TCP_ESTABLISHED_IDLE_SECS,
        ),
    ];
    for (n, (name, forge, idle)) in (0..).zip(cases) {
        let flow = Flow::established(&bench, 40_000 + n, 3000 + n)?;
        let (_, before) = bench.entry(flow.port)?;
        forge(&flow)?;
        let after = flow.idle_timeout()?;
        ensure!(after >= idle, "{name}: stays for {after} s, not {idle} s");
        let (_, entry) = bench.entry(flow.port)?;
        ensure!(
            entry.src_port == before.src_port && entry.backend == before.backend,
            "{name}: moved"
        );
        flow.data()?;
        flow.backend(ACK)?;
        let after = flow.idle_timeout()?;
        ensure!(
            after == TCP_ESTABLISHED_IDLE_SECS,
            "{name}: not undone, stays for {after} s"
        );
    }
    Ok(())
}

/// The sender of forged SYNs sees no SYN-ACK, so it cannot acknowledge it.
#[test]
fn only_a_client_that_has_seen_the_answer_is_established() -> Result<()> {
    let bench = Bench::new()?;
    let flow = Flow::answered(&bench, 40_000, 3000)?;
    for guess in [0, SEQ, ACKED, SEQ.wrapping_add(1 << 31), SEQ + 1 + (1 << 16)] {
        flow.send(&acknowledges(flow.port, guess, b""))?;
        let (forward, _) = flow.states()?;
        ensure!(forward & PROVEN == 0, "{guess:#x} is believed");
        ensure!(flow.idle_timeout()? == TCP_OPENING_IDLE_SECS);
    }
    flow.data()?;
    ensure!(flow.idle_timeout()? == TCP_ESTABLISHED_IDLE_SECS);
    Ok(())
}

#[test]
fn connection_closed_by_both_ends_can_start_again() -> Result<()> {
    let bench = Bench::new()?;
    let flow = Flow::established(&bench, 40_000, 3000)?;
    flow.client(FIN | ACK)?;
    flow.backend(FIN | ACK)?;
    let flows = bench.new_flows()?;
    flow.client(SYN)?;
    ensure!(flow.states()? == (0, 0), "{:?}", flow.states()?);
    ensure!(bench.new_flows()? == flows + 1, "it is not counted");
    flow.backend(SYN | ACK)?;
    flow.data()?;
    ensure!(flow.idle_timeout()? == TCP_ESTABLISHED_IDLE_SECS);
    Ok(())
}

/// The answer is a backend's to an unknown connection, and no flow is recorded.
#[test]
fn segments_of_unknown_connections_open_no_flow() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    for side in FAMILIES {
        let (client, vip) = (side.client(40_000), side.vip(80));
        for (name, flags, payload, seq, ack) in [
            ("ack", ACK, &b""[..], ACKED, None),
            ("data", ACK, b"of a flow that was", ACKED, None),
            ("fin", FIN | ACK, b"", ACKED, None),
            ("fin alone", FIN, b"", 0, Some(SEQ + 1)),
            ("syn and ack", SYN | ACK, b"", ACKED, None),
            ("nothing set", 0, b"odd", 0, Some(SEQ + 3)),
        ] {
            let sent = Frame::tcp(client, vip, flags, 64, payload);
            let wanted = Frame::reset(vip, client, seq, ack).lb_to_client();
            bench.expect(name, &sent, TX, &wanted, Reason::NoFlowReset)?;
        }
        for flags in [RST, RST | ACK, RST | SYN, RST | FIN] {
            let sent = Frame::tcp(client, vip, flags, 64, b"");
            bench.dropped(&format!("flags {flags}"), &sent, Reason::NoFlow)?;
        }
    }
    ensure!(
        bench.new_flows()? == 0 && bench.recorded()? == 0,
        "a flow is recorded"
    );
    Ok(())
}

/// RFC 1812 section 5.3.7: in every mode and family, also on the fast path.
#[test]
fn sources_that_no_packet_may_have_open_no_flow() -> Result<()> {
    let bench = Bench::new()?;
    bench.ports(3000..=3999)?;
    for side in FAMILIES {
        let own = side.vip(0).ip();
        let sources = if own.is_ipv4() {
            [
                "127.0.0.1",
                "0.0.0.0",
                "0.1.2.3",
                "224.0.0.5",
                "239.255.255.255",
                "255.255.255.255",
            ]
            .as_slice()
        } else {
            ["::", "::1", "ff02::1", "ff0e::5"].as_slice()
        };
        let sources: Vec<IpAddr> = sources
            .iter()
            .map(|source| source.parse())
            .collect::<Result<_, _>>()?;
        for source in sources.into_iter().chain([own]) {
            let from = SocketAddr::new(source, 40_000);
            for port in [80, L2DSR, DNAT, GUE_V4, IPIP_V6] {
                let sent = Frame::tcp(from, side.vip(port), SYN, 64, b"");
                bench.dropped(
                    &format!("tcp from {source} to {port}"),
                    &sent,
                    Reason::MartianSource,
                )?;
            }
            for port in [53, L2DSR, DNAT, GUE_V4, IPIP_V6] {
                let sent = Frame::udp(from, side.vip(port), 64, b"abc");
                bench.dropped(
                    &format!("udp from {source} to {port}"),
                    &sent,
                    Reason::MartianSource,
                )?;
            }
            let foreign = Frame::udp(from, side.backend(4), 64, b"abc");
            let (.., reason) = bench.run(&foreign)?;
            ensure!(
                reason == Reason::NotOurs,
                "not for us, from {source}: {}",
                reason.name()
            );
        }
    }
    ensure!(
        bench.new_flows()? == 0 && bench.recorded()? == 0,
        "a flow is recorded"
    );
    Ok(())
}
