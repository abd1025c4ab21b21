//! ACLs and rate limits of services, in every mode.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use aya::maps::HashMap;
use lb_common::{addr::NetAddr, guard::SourceKey, map_names, reason::Reason};
use lb_userspace::{
    plan::TargetService,
    state::{
        guard::{Guard, Rate},
        service::{Protocol, ServiceKey},
    },
};

use super::{
    ACK, DROP, FAMILIES, SYN, TX,
    bench::{Bench, DNAT, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR, PASS, REJECTS},
    build::{Frame, Side, V4},
};

/// A service of each mode and protocol.
const SERVICES: [(u16, Protocol); 14] = [
    (DNAT, Protocol::Tcp),
    (DNAT, Protocol::Udp),
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
    ServiceKey::new(side.vip(port).ip(), port, protocol)
}

fn guard(allow: &[&str], deny: &[&str]) -> Result<Guard> {
    let list = |texts: &[&str]| texts.iter().map(|text| text.parse()).collect::<Result<_, _>>();
    Ok(Guard {
        allow: list(allow)?,
        deny: list(deny)?,
        ..Guard::default()
    })
}

/// A bench with ACLs and rate limits for services of some ports, separate for each family.
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

/// A packet that opens a flow, and a later one.
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
fn services_without_acls_serve_all_clients() -> Result<()> {
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

/// Also of a service that the balancer answers itself.
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

/// Frames to another MAC address must not be dropped.
#[test]
fn acl_does_not_drop_broadcast_frames() -> Result<()> {
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

/// At once, of services with a budget; a second brings one more.
const BURST: u32 = 5;
/// So many packets that only a test delayed by many seconds would see all of them admitted.
const PACKETS: u16 = 15;

/// Limits of flows at once, of all clients and of each source.
fn limited(all: u32, each: u32) -> Guard {
    let rate = |burst| Rate {
        per_second: u32::from(burst != 0),
        burst,
    };
    Guard {
        new_flows: rate(all),
        source_new_flows: rate(each),
        ..Guard::default()
    }
}

/// A packet that opens a flow of this port.
fn opening(client: IpAddr, port: u16, vip: SocketAddr, protocol: Protocol) -> Frame {
    let [first, _] = packets((client, port).into(), vip, protocol);
    first
}

/// Sends the first packets of [`PACKETS`] flows, and gives how many went on.
fn admitted(bench: &Bench, client: IpAddr, vip: SocketAddr, protocol: Protocol) -> Result<u32> {
    let frames: Vec<Frame> = (0..PACKETS)
        .map(|n| opening(client, 30_000 + n, vip, protocol))
        .collect();
    bench.many(move |runner| {
        let mut admitted = 0;
        for frame in &frames {
            let (action, _) = runner.run(frame.bytes())?;
            ensure!(action == TX || action == DROP, "action {action}");
            admitted += u32::from(action == TX);
        }
        Ok(admitted)
    })
}

#[test]
fn a_flood_of_new_flows_is_cut_in_every_mode_and_costs_no_other_service_its_flows() -> Result<()> {
    // One service of each mode is limited; stateless UDP cannot be.
    let limits = |key: &ServiceKey| {
        [80, 53, DNAT, L2DSR, IPIP_V6, GUE_V4].contains(&key.port)
            && (key.protocol == Protocol::Tcp || key.port == 53)
    };
    let bench = Bench::with(move |key, service| {
        if limits(key) {
            service.guard = limited(BURST, 0);
        }
    })?;
    bench.ports(3000..=3999)?;
    for side in FAMILIES {
        let client = side.client(0).ip();
        for (port, protocol) in SERVICES {
            let name = format!("port {port} {protocol:?}");
            let vip = side.vip(port);
            let key = key(side, port, protocol);
            let known = packets((client, 30_000).into(), vip, protocol);
            bench.run(&known[0])?;
            let refused = |bench: &Bench| bench.of_service(key, Reason::NewFlowRate);
            let before = admitted(&bench, client, vip, protocol)?;
            if limits(&key) {
                ensure!(
                    (BURST - 1..u32::from(PACKETS)).contains(&before),
                    "{name}: {before}"
                );
                let counted = refused(&bench)?;
                ensure!(
                    counted == u64::from(u32::from(PACKETS) - before),
                    "{name}: {counted}"
                );
            } else {
                ensure!(before == u32::from(PACKETS), "{name}: {before}");
                ensure!(refused(&bench)? == 0, "{name}");
            }
            let (action, _, reason) = bench.run(&known[1])?;
            ensure!(action == TX, "{name}: an established flow continues: {reason:?}");
        }
    }
    Ok(())
}

/// Mode nat: every packet that opens a flow is charged, also with a reused client port.
#[test]
fn only_packets_that_open_a_flow_are_charged() -> Result<()> {
    const FIN: u8 = 1;
    let bench = Bench::with(|_, service| service.guard = limited(2, 0))?;
    bench.ports(3000..=3999)?;
    for side in FAMILIES {
        let send = |port, flags| bench.run(&Frame::tcp(side.client(port), side.vip(80), flags, 64, b""));
        let expect = |port, flags, wanted: Reason| -> Result<()> {
            let (_, _, reason) = send(port, flags)?;
            ensure!(reason == wanted, "port {port} flags {flags}: {reason:?}");
            Ok(())
        };
        expect(40_000, SYN, Reason::SentBack)?;
        for flags in [SYN, ACK, ACK, FIN | ACK] {
            expect(40_000, flags, Reason::SentBack)?;
        }
        expect(40_000, SYN, Reason::SentBack)?;
        // Two flows have begun; at one a second, not all of these find room.
        let mut refused = 0;
        for port in 41_000..41_000 + PACKETS {
            let (_, _, reason) = send(port, SYN)?;
            refused += u32::from(reason == Reason::NewFlowRate);
        }
        ensure!(refused > 0, "every SYN opens a flow");
        expect(40_000, ACK, Reason::SentBack)?;
    }
    Ok(())
}

#[test]
fn one_source_does_not_use_up_the_budget_of_all() -> Result<()> {
    let bench = Bench::with(|key, service| {
        if key.protocol == Protocol::Tcp || key.port == 53 {
            service.guard = limited(2 * BURST, BURST);
            service.guard.source_bits = if key.address.is_ipv4() { 24 } else { 64 };
        }
    })?;
    bench.ports(3000..=3999)?;
    for side in FAMILIES {
        for (port, protocol) in [
            (80, Protocol::Tcp),
            (53, Protocol::Udp),
            (L2DSR, Protocol::Tcp),
            (GUE_V6, Protocol::Tcp),
        ] {
            let name = format!("port {port} {protocol:?}");
            let vip = side.vip(port);
            let flooder = client(side, "198.51.100.1", "2001:db8:1::1")?;
            let neighbour = client(side, "198.51.100.255", "2001:db8:1:0:ffff::")?;
            let other = client(side, "198.51.101.1", "2001:db8:1:1::1")?;
            let of_flooder = admitted(&bench, flooder, vip, protocol)?;
            ensure!(
                (BURST..u32::from(PACKETS)).contains(&of_flooder),
                "{name}: {of_flooder}"
            );
            let refused = bench.of_service(key(side, port, protocol), Reason::SourceRate)?;
            ensure!(
                refused == u64::from(u32::from(PACKETS) - of_flooder),
                "{name}: {refused}"
            );
            let of_neighbour = admitted(&bench, neighbour, vip, protocol)?;
            ensure!(
                of_neighbour < u32::from(PACKETS),
                "{name}: {of_neighbour} of the same source"
            );
            let (_, _, reason) = bench.run(&opening(other, 40_000, vip, protocol))?;
            ensure!(reason == Reason::SentBack, "{name}: another source: {reason:?}");
        }
    }
    Ok(())
}

/// A flood of refused sources does not evict limited ones.
#[test]
fn sources_of_refused_packets_are_not_remembered() -> Result<()> {
    let bench = Bench::with(|_, service| service.guard = limited(1, BURST))?;
    bench.ports(3000..=3999)?;
    let sources: HashMap<_, SourceKey, u64> = HashMap::try_from(bench.map(map_names::GUARD_SOURCES)?)?;
    for n in 0..200_u8 {
        let source: IpAddr = [198, 51, 100, n].into();
        let (_, _, reason) = bench.run(&opening(source, 40_000, V4.vip(80), Protocol::Tcp))?;
        let known = sources
            .keys()
            .filter_map(Result::ok)
            .any(|key| key.address == NetAddr::from(source));
        ensure!(known == (reason == Reason::SentBack), "{source}: {reason:?}");
        if reason == Reason::NewFlowRate {
            return Ok(());
        }
    }
    anyhow::bail!("no packet was refused")
}
