//! Whom a guarded service turns away, in every mode.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lb_common::reason::Reason;
use lb_userspace::{
    plan::TargetService,
    state::{
        guard::Guard,
        service::{Protocol, ServiceKey},
    },
};

use super::{
    ACK, FAMILIES, SYN, TX,
    bench::{Bench, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR, PASS, REJECTS},
    build::{Frame, Side, V4},
};

/// A service of each mode and protocol.
const SERVICES: [(u16, Protocol); 12] = [
    (80, Protocol::Tcp),
    (53, Protocol::Udp),
    (L2DSR, Protocol::Tcp),
    (L2DSR, Protocol::Udp),
    (IPIP_V4, Protocol::Tcp),
    (IPIP_V4, Protocol::Udp),
    (IPIP_V6, Protocol::Tcp),
    (IPIP_V6, Protocol::Udp),
    (GUE_V4, Protocol::Tcp),
    (GUE_V4, Protocol::Udp),
    (GUE_V6, Protocol::Tcp),
    (GUE_V6, Protocol::Udp),
];

fn key(side: Side, port: u16, protocol: Protocol) -> ServiceKey {
    ServiceKey {
        address: side.vip(port).ip(),
        port,
        protocol,
    }
}

fn guard(allow: &[&str], deny: &[&str]) -> Result<Guard> {
    let list = |texts: &[&str]| texts.iter().map(|text| text.parse()).collect::<Result<_, _>>();
    Ok(Guard {
        allow: list(allow)?,
        deny: list(deny)?,
    })
}

/// A bench whose services of some ports are guarded, each family's by a guard of its own.
fn guarded(v4: &Guard, v6: &Guard, ports: impl Fn(u16) -> bool + Send) -> Result<Bench> {
    let (v4, v6) = (v4.clone(), v6.clone());
    let bench = Bench::with(move |key: &ServiceKey, service: &mut TargetService| {
        if ports(key.port) {
            let guard = if key.address.is_ipv4() { &v4 } else { &v6 };
            service.guard = guard.clone();
        }
    })?;
    bench.ports(3000..=3999)?;
    Ok(bench)
}

/// A packet that opens a flow, and one that goes on with it.
fn packets(client: SocketAddr, vip: SocketAddr, protocol: Protocol) -> [Frame; 2] {
    match protocol {
        Protocol::Tcp => [SYN, ACK].map(|flags| Frame::tcp(client, vip, flags, 64, b"")),
        Protocol::Udp => [&b"first"[..], b"second"].map(|payload| Frame::udp(client, vip, 64, payload)),
    }
}

fn client(side: Side, v4: &str, v6: &str) -> Result<IpAddr> {
    let text = if side.vip(0).is_ipv4() { v4 } else { v6 };
    Ok(text.parse()?)
}

#[test]
fn a_denied_client_is_dropped_in_every_mode_and_another_is_not() -> Result<()> {
    let (v4, v6) = (
        guard(&[], &["198.51.100.0/24"])?,
        guard(&[], &["2001:db8:bad::/48"])?,
    );
    let bench = guarded(&v4, &v6, |_| true)?;
    for side in FAMILIES {
        let denied = client(side, "198.51.100.255", "2001:db8:bad:ffff::1")?;
        let served = client(side, "198.51.101.0", "2001:db8:bae::")?;
        for (port, protocol) in SERVICES {
            let name = format!("port {port} {protocol:?}");
            let vip = side.vip(port);
            let flows = bench.new_flows()?;
            for sent in packets((denied, 40_000).into(), vip, protocol) {
                bench.dropped(&name, &sent, Reason::ClientDenied)?;
            }
            ensure!(bench.new_flows()? == flows, "{name}: no flow begins");
            let counted = bench.of_service(key(side, port, protocol), Reason::ClientDenied)?;
            ensure!(counted == 2, "{name}: {counted} counted for the service");
            for sent in packets((served, 40_000).into(), vip, protocol) {
                let (action, _, reason) = bench.run(&sent)?;
                ensure!((action, reason) == (TX, Reason::SentBack), "{name}: {reason:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn services_without_the_guard_serve_everybody() -> Result<()> {
    let (v4, v6) = (guard(&["10.0.0.0/8"], &[])?, guard(&["fd00::/8"], &[])?);
    let bench = guarded(&v4, &v6, |port| port == 80 || port == L2DSR)?;
    for side in FAMILIES {
        for (port, protocol) in SERVICES {
            let name = format!("port {port} {protocol:?}");
            for sent in packets(side.client(40_000), side.vip(port), protocol) {
                if port == 80 || port == L2DSR {
                    bench.dropped(&name, &sent, Reason::ClientDenied)?;
                } else {
                    let (action, _, reason) = bench.run(&sent)?;
                    ensure!((action, reason) == (TX, Reason::SentBack), "{name}: {reason:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_longest_prefix_decides_in_the_kernel_too() -> Result<()> {
    let v4 = guard(
        &["10.0.0.0/8", "10.1.1.1", "10.3.0.0/16"],
        &["10.1.0.0/16", "10.3.0.0/16"],
    )?;
    let v6 = guard(
        &["fd00::/8", "fd01:1::1", "fd03::/16"],
        &["fd01::/16", "fd03::/16"],
    )?;
    let bench = guarded(&v4, &v6, |_| true)?;
    for side in FAMILIES {
        for (v4, v6, served) in [
            ("10.0.0.1", "fd00::1", true),
            ("10.255.255.255", "fdff:ffff::1", true),
            ("10.1.1.2", "fd01:1::2", false),
            ("10.1.1.1", "fd01:1::1", true),
            ("10.3.0.0", "fd03::", false),
            ("11.0.0.0", "fe00::1", false),
            ("9.255.255.255", "fcff::1", false),
        ] {
            let client = client(side, v4, v6)?;
            for port in [80, IPIP_V6] {
                let sent = Frame::tcp((client, 40_000).into(), side.vip(port), SYN, 64, b"");
                let (_, _, reason) = bench.run(&sent)?;
                let wanted = if served {
                    Reason::SentBack
                } else {
                    Reason::ClientDenied
                };
                ensure!(reason == wanted, "{client} to port {port}: {reason:?}");
            }
        }
    }
    Ok(())
}

/// Also of a service whose clients get answers from the balancer itself.
#[test]
fn a_denied_client_gets_no_answer() -> Result<()> {
    let everyone = (guard(&[], &["0.0.0.0/0"])?, guard(&[], &["::/0"])?);
    let bench = guarded(&everyone.0, &everyone.1, |_| true)?;
    bench.change_backends(|backend| backend.mtu = 30)?;
    for side in FAMILIES {
        for (port, protocol) in [
            (REJECTS, Protocol::Tcp),
            (REJECTS, Protocol::Udp),
            (80, Protocol::Tcp),
            (L2DSR, Protocol::Udp),
        ] {
            for sent in packets(side.client(40_000), side.vip(port), protocol) {
                bench.dropped(&format!("port {port}"), &sent, Reason::ClientDenied)?;
            }
        }
    }
    Ok(())
}

/// What is not addressed to this machine's MAC address is not ours to drop.
#[test]
fn a_guard_does_not_drop_what_came_by_broadcast() -> Result<()> {
    let bench = guarded(&guard(&[], &["0.0.0.0/0"])?, &Guard::default(), |_| true)?;
    for port in [80, L2DSR] {
        let mut sent = Frame::tcp(V4.client(40_000), V4.vip(port), SYN, 64, b"");
        for byte in 0..6 {
            sent = sent.set(byte, 0xff);
        }
        bench.expect("broadcast", &sent, PASS, &sent, Reason::NotOurs)?;
    }
    Ok(())
}
