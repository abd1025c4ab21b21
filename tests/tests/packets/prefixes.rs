//! Services whose address is a prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use lb_common::{reason::Reason, service::Mode};
use lb_userspace::{
    plan::TargetService,
    state::{
        guard::Prefix,
        service::{Protocol, ServiceKey},
    },
};

use super::{
    ACK, FAMILIES, PASS, SYN, TX,
    bench::{Bench, with_backend},
    build::{Frame, Side, V4},
    fragments::split,
};

/// A service: how many bits of its addresses count, its port and protocol, its mode and its backend's port.
type Row = (u8, u16, Protocol, Mode, u16);

/// All of them in the same network, whose host with the number 17 has a service of its own: their address is the one with 16.
const ROWS: [Row; 7] = [
    (24, 80, Protocol::Tcp, Mode::Nat, 8100),
    (24, 0, Protocol::Tcp, Mode::Nat, 8101),
    (28, 80, Protocol::Tcp, Mode::Nat, 8102),
    (28, 443, Protocol::Tcp, Mode::L2dsr, 443),
    (28, 53, Protocol::Udp, Mode::L2dsr, 53),
    (30, 0, Protocol::Tcp, Mode::Nat, 8103),
    (32, 80, Protocol::Tcp, Mode::Nat, 8104),
];

fn host(side: Side, last: u8) -> IpAddr {
    if side.vip(0).is_ipv4() {
        Ipv4Addr::new(203, 0, 113, last).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, last.into()).into()
    }
}

fn services() -> Vec<(ServiceKey, TargetService)> {
    let all = FAMILIES.into_iter().flat_map(|side| ROWS.map(|row| (side, row)));
    let service = |(side, (bits, port, protocol, mode, to)): (Side, Row)| {
        let before = if side.vip(0).is_ipv4() { 0 } else { 96 };
        let prefix = Prefix::around(host(side, 17), before + bits);
        let key = ServiceKey::of_prefix(prefix, port, protocol);
        (key, with_backend(mode, side.backend(to)))
    };
    all.map(service).collect()
}

fn bench() -> Result<Bench> {
    Bench::beside(services())
}

#[test]
fn an_address_goes_before_a_prefix_a_longer_one_before_a_shorter_and_then_the_port() -> Result<()> {
    let bench = bench()?;
    let mut number = 0;
    for side in FAMILIES {
        for (last, port, backend) in [
            (99, 80, Some(8100)),
            (99, 81, Some(8101)),
            (20, 80, Some(8102)),
            (20, 81, Some(8101)),
            (31, 80, Some(8102)),
            // The prefix of 30 bits begins with 16: every port of it goes before a port of the others.
            (18, 80, Some(8103)),
            (18, 443, Some(8103)),
            (17, 80, Some(8104)),
            (17, 81, Some(8103)),
        ] {
            number += 1;
            bench.one_port(3000 + number)?;
            let (client, asked) = (
                side.client(40_000 + number),
                SocketAddr::new(host(side, last), port),
            );
            let snat = side.snat(3000 + number);
            let sent = Frame::tcp(client, asked, SYN, 64, b"");
            let Some(backend) = backend else {
                bench.expect("not served", &sent, PASS, &sent, Reason::NotOurs)?;
                continue;
            };
            let name = format!("to {asked}");
            let wanted = Frame::tcp(snat, side.backend(backend), SYN, 63, b"").lb_to_backend();
            bench.expect(&name, &sent, TX, &wanted, Reason::SentBack)?;
            let sent = Frame::tcp(client, asked, ACK, 64, b"more");
            let wanted = Frame::tcp(snat, side.backend(backend), ACK, 63, b"more").lb_to_backend();
            bench.expect(&name, &sent, TX, &wanted, Reason::SentBack)?;
            // The client hears from the address that it asked.
            let reply = Frame::tcp(side.backend(backend), snat, SYN | ACK, 64, b"").backend_to_lb();
            let wanted = Frame::tcp(asked, client, SYN | ACK, 63, b"").lb_to_client();
            bench.expect(&name, &reply, TX, &wanted, Reason::SentBack)?;
        }
    }
    Ok(())
}

#[test]
fn packets_to_a_prefix_reach_backends_that_hold_it_as_they_are() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        for last in [20, 31] {
            let at = |port| SocketAddr::new(host(side, last), port);
            let sent = Frame::tcp(side.client(40_000), at(443), SYN, 64, b"");
            let wanted = sent.clone().lb_to_backend();
            bench.expect("as it is", &sent, TX, &wanted, Reason::SentBack)?;
            // The backend's own packet was too big for a router on its way.
            let reply = Frame::tcp(at(443), side.client(40_000), ACK, 64, b"data");
            let sent = Frame::unreachable(SocketAddr::new(side.nowhere(), 0), at(0), 64, &reply, 8);
            let wanted = sent.clone().lb_to_backend();
            bench.expect("an error about it", &sent, TX, &wanted, Reason::SentBack)?;
            for frame in split(
                &Frame::udp(side.client(40_000), at(53), 64, &[7; 90]),
                last.into(),
            ) {
                let wanted = frame.clone().lb_to_backend();
                bench.expect("a fragment", &frame, TX, &wanted, Reason::SentBack)?;
            }
            let alone = &split(&Frame::udp(side.client(40_001), at(53), 64, &[7; 90]), 99)[1];
            bench.dropped("a fragment alone", alone, Reason::FragmentAlone)?;
        }
    }
    Ok(())
}

#[test]
fn what_no_service_of_a_prefix_takes_passes_untouched() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        let at = |last, port| SocketAddr::new(host(side, last), port);
        let outside = if side.vip(0).is_ipv4() {
            SocketAddr::new(Ipv4Addr::new(203, 0, 112, 20).into(), 80)
        } else {
            SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 1, 20).into(), 80)
        };
        for (name, sent) in [
            ("another port", Frame::udp(side.client(1), at(20, 54), 64, b"x")),
            ("another prefix", Frame::udp(side.client(1), at(99, 53), 64, b"x")),
            ("beside it", Frame::tcp(side.client(1), outside, SYN, 64, b"")),
            // A port that replies of mode nat come to.
            (
                "a source port",
                Frame::udp(side.client(1), at(20, 3000), 64, b"x"),
            ),
        ] {
            bench.expect(name, &sent, PASS, &sent, Reason::NotOurs)?;
        }
        for frame in split(&Frame::udp(side.client(1), at(20, 54), 64, &[7; 90]), 50) {
            bench.expect("fragments", &frame, PASS, &frame, Reason::Fragment)?;
        }
        let sent = Frame::echo(side.client(0), at(99, 0), true, 64, b"ping");
        let wanted = Frame::echo(at(99, 0), side.client(0), false, 64, b"ping").lb_to_client();
        bench.expect("a ping", &sent, TX, &wanted, Reason::EchoAnswered)?;
        let sent = Frame::echo(side.client(0), outside, true, 64, b"ping");
        bench.expect("a ping beside it", &sent, PASS, &sent, Reason::OtherProtocol)?;
    }
    Ok(())
}

#[test]
fn a_start_finds_services_of_prefixes_as_the_daemon_before_left_them() -> Result<()> {
    let bench = bench()?.reopened()?;
    let sent = Frame::tcp(
        V4.client(40_000),
        SocketAddr::new(host(V4, 20), 443),
        SYN,
        64,
        b"",
    );
    let wanted = sent.clone().lb_to_backend();
    bench.expect("as before", &sent, TX, &wanted, Reason::SentBack)?;
    let keys: Vec<ServiceKey> = bench.snapshot()?.services.into_keys().collect();
    for (key, _) in services() {
        ensure!(keys.contains(&key), "{key} is not there");
    }
    Ok(())
}
