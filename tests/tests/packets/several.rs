//! Services with several ports.

use anyhow::{Result, ensure};
use lb_common::{addr::NetPort, reason::Reason, service::Mode};
use lb_userspace::state::service::{Protocol, ServiceKey};

use super::{
    ACK, FAMILIES, PASS, SYN, TX,
    bench::{Bench, IPIP_V4, L2DSR},
    build::{Frame, V4},
    modes::tunnelled,
};

/// Ports beside their own of the services on these.
const MORE: [u16; 3] = [1443, 18_000, 18_001];

fn bench(of: u16) -> Result<Bench> {
    let bench = Bench::with(move |key, service| {
        if key.port == of && key.protocol == Protocol::Tcp {
            service.more_ports = MORE.to_vec();
        }
    })?;
    bench.one_port(3000)?;
    Ok(bench)
}

#[test]
fn each_port_of_a_service_leads_to_its_backends_and_counts_for_it() -> Result<()> {
    let bench = bench(80)?;
    for side in FAMILIES {
        for (number, port) in (0..).zip(MORE) {
            // The one source port is free again for the next.
            bench.one_port(3000 + number)?;
            let (client, vip, snat) = (
                side.client(40_000 + number),
                side.vip(port),
                side.snat(3000 + number),
            );
            let key = |port| ServiceKey::new(vip.ip(), port, Protocol::Tcp);
            let before = bench.snapshot()?.services[&key(80)].packets;
            let sent = Frame::tcp(client, vip, SYN, 64, b"");
            let wanted = Frame::tcp(snat, side.backend(8080), SYN, 63, b"").lb_to_backend();
            bench.expect("request", &sent, TX, &wanted, Reason::SentBack)?;
            let answer = Frame::tcp(side.backend(8080), snat, SYN | ACK, 64, b"").backend_to_lb();
            let wanted = Frame::tcp(vip, client, SYN | ACK, 63, b"").lb_to_client();
            bench.expect("answer", &answer, TX, &wanted, Reason::SentBack)?;
            let services = bench.snapshot()?.services;
            ensure!(
                services[&key(80)].packets == before + 1,
                "port {port} counts for its service"
            );
            ensure!(
                !services.contains_key(&key(port)),
                "port {port} is no service of its own"
            );
        }
        for (name, frame) in [
            (
                "beside them",
                Frame::tcp(side.client(1), side.vip(18_002), SYN, 64, b""),
            ),
            (
                "another protocol",
                Frame::udp(side.client(1), side.vip(1443), 64, b""),
            ),
        ] {
            bench.expect(name, &frame, PASS, &frame, Reason::NotOurs)?;
        }
    }
    Ok(())
}

#[test]
fn a_backend_without_a_port_gets_packets_at_the_port_they_were_sent_to() -> Result<()> {
    let bench = bench(80)?;
    bench.change_backends(|backend| {
        if backend.mode == Mode::Nat as u8 {
            backend.port = NetPort(0);
        }
    })?;
    for side in FAMILIES {
        for (number, port) in (0..).zip([80, 1443, 18_001]) {
            bench.one_port(3000 + number)?;
            let (client, vip, snat) = (
                side.client(40_000 + number),
                side.vip(port),
                side.snat(3000 + number),
            );
            let sent = Frame::tcp(client, vip, SYN, 64, b"");
            let wanted = Frame::tcp(snat, side.backend(port), SYN, 63, b"").lb_to_backend();
            bench.expect("request", &sent, TX, &wanted, Reason::SentBack)?;
            let answer = Frame::tcp(side.backend(port), snat, SYN | ACK, 64, b"").backend_to_lb();
            let wanted = Frame::tcp(vip, client, SYN | ACK, 63, b"").lb_to_client();
            bench.expect("answer", &answer, TX, &wanted, Reason::SentBack)?;
        }
    }
    Ok(())
}

#[test]
fn packets_that_backends_get_as_they_are_keep_each_of_the_ports() -> Result<()> {
    for of in [L2DSR, IPIP_V4] {
        let bench = bench(of)?;
        for side in FAMILIES {
            for port in MORE {
                let sent = Frame::tcp(side.client(40_000), side.vip(port), SYN, 64, b"");
                let wanted = if of == L2DSR {
                    sent.clone().lb_to_backend()
                } else {
                    tunnelled(&sent, V4, None, 0)
                };
                bench.expect("as it is", &sent, TX, &wanted, Reason::SentBack)?;
            }
        }
    }
    Ok(())
}
