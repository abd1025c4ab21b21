//! A service on every port of an address of the balancer's machine leaves the machine its own connections and servers.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use lb_tests::{
    client::{KeepAlive, http_requests},
    config::{Service, file},
    daemon::Daemon,
    http::{self, HttpServer},
    lane::Lane,
    topology::{Family, Shape, Topology},
    wait,
};

/// Where the machine's own server listens, as one for its operators would.
const OPERATORS: u16 = 22;
const CLIENTS: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(20);
const REQUESTS: u16 = 50;

/// Checks leave from the machine's address, and are due often.
const HEALTH: &str = "kind = \"http\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"\nrise = 1\nfall = 1";

#[test]
fn sessions_of_the_machine_and_answers_to_checks_pass_beside_a_service_on_every_port() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        let net = Topology::new(Shape::OneArmed, 1)?;
        let (lb, own) = (&net.lb.ns, |port| net.lb.socket(family, port));
        let backend = &net.backends[0];
        let _backend = HttpServer::start(&backend.ns, "backend", &[backend.socket(family, CLIENTS)])?;
        let _machine = HttpServer::start(lb, "machine", &[own(OPERATORS)])?;
        let mut daemon = Daemon::new(lb, net.lb_interfaces())?.config("")?;
        daemon.start()?;
        let session = KeepAlive::start(&net.client.ns, own(OPERATORS), 4)?;
        session.wait_rounds(2)?;
        let service = Service::tcp("all", own(0))
            .health(&format!("{HEALTH}\nport = {CLIENTS}"))
            .backend("b0", backend.socket(family, 0), 1);
        let config = daemon.write_config(&file(&[service]))?;
        daemon.cli().ok(&format!("apply {}", config.display()))?;
        wait::until_true("checks succeed", PATIENCE, || {
            Ok(daemon.cli().backend("all", "b0")?["health"] == "up")
        })?;
        let report = http_requests(&net.client.ns, own(CLIENTS), 0, REQUESTS, 4)?;
        report
            .ensure_complete(REQUESTS.into())
            .with_context(|| format!("{family:?}"))?;
        assert_eq!(report.answers_of("backend"), u64::from(REQUESTS));
        // A new connection, and older ones than the service.
        assert_eq!(http::get(&net.client.ns, own(OPERATORS), "/")?.body, "machine");
        session.wait_rounds(5)?;
        session.stop()?.ensure_flawless()?;
        let status = daemon.cli().json("status")?;
        assert_eq!(status["problems"], serde_json::json!([]), "{family:?}");
        daemon.stop()?;
    }
    Ok(())
}

#[test]
fn an_address_is_shared_with_the_machine_for_as_long_as_it_has_it() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let lb = &net.lb.ns;
    let vip = net.vip(Family::V4, 10);
    let operators = SocketAddr::new(vip, OPERATORS);
    let _backend = HttpServer::start(
        &net.backends[0].ns,
        "backend",
        &[net.backends[0].socket(Family::V4, OPERATORS)],
    )?;
    let _machine = HttpServer::start(lb, "machine", &[SocketAddr::new([0, 0, 0, 0].into(), OPERATORS)])?;
    let service =
        Service::tcp("all", SocketAddr::new(vip, 0)).backend("b0", net.backends[0].socket(Family::V4, 0), 1);
    let mut daemon = Daemon::new(lb, net.lb_interfaces())?.config(&file(&[service]))?;
    daemon.start()?;
    let answers = |who: &'static str| {
        wait::until_true(who, PATIENCE, || {
            // An established connection is reset when the address changes hands.
            Ok(http::get(&net.client.ns, operators, "/").is_ok_and(|answer| answer.body == who))
        })
    };
    answers("backend")?;
    lb.ip(&format!("addr add {vip}/32 dev lo"))?;
    answers("machine")?;
    lb.ip(&format!("addr del {vip}/32 dev lo"))?;
    answers("backend")?;
    daemon.stop()
}

/// Local ports of the machine, which overlap `snat_ports`.
const LOCAL: (u16, u16) = (2_000, 2_099);
const SNAT: (u16, u16) = (2_000, 2_079);
/// Checks of each kind: enough of them that one would use a port of `snat_ports` if it could.
const CHECKS: usize = 24;

#[test]
fn checks_never_leave_from_ports_of_mode_nat() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let (lb, backend) = (&net.lb.ns, &net.backends[0]);
    lb.sysctl(
        "net/ipv4/ip_local_port_range",
        &format!("{} {}", LOCAL.0, LOCAL.1),
    )?;
    let mut services = Vec::new();
    let mut servers = Vec::new();
    for family in Family::BOTH {
        let address = backend.socket(family, CLIENTS);
        let (listener, datagrams) = backend
            .ns
            .enter(|| -> io::Result<_> { Ok((TcpListener::bind(address)?, UdpSocket::bind(address)?)) })??;
        listener.set_nonblocking(true)?;
        datagrams.set_nonblocking(true)?;
        servers.push((listener, datagrams));
        let vip = SocketAddr::new(net.vip(family, 10), CLIENTS);
        let health = "interval = \"100ms\"\nfast_interval = \"100ms\"\ndown_interval_max = \"100ms\"";
        let tcp = Service::tcp(&format!("tcp-{family:?}"), vip)
            .health(&format!("kind = \"http\"\nkeep_alive = false\n{health}"));
        let udp = Service::udp(&format!("udp-{family:?}"), vip)
            .health(&format!("kind = \"udp\"\npayload = \"ping\"\n{health}"));
        services.extend([tcp, udp].map(|service| service.backend("b0", address, 1)));
    }
    let snat = format!("[lb]\nsnat_ports = \"{}-{}\"\n", SNAT.0, SNAT.1);
    let mut daemon = Daemon::new(lb, net.lb_interfaces())?.config(&(snat + &file(&services)))?;
    daemon.start()?;
    let mut buffer = [0; 64];
    for (listener, datagrams) in &servers {
        let (mut connections, mut datagrams_from) = (Vec::new(), Vec::new());
        wait::until_true("checks come", PATIENCE, || {
            // Failed connections count, too.
            while let Ok((_, peer)) = listener.accept() {
                connections.push(peer.port());
            }
            while let Ok((_, peer)) = datagrams.recv_from(&mut buffer) {
                datagrams_from.push(peer.port());
                datagrams.send_to(b"pong", peer)?;
            }
            Ok(connections.len() >= CHECKS && datagrams_from.len() >= CHECKS)
        })?;
        for ports in [connections, datagrams_from] {
            let wrong = ports.iter().find(|port| !(SNAT.1 + 1..=LOCAL.1).contains(port));
            assert_eq!(wrong, None, "{ports:?}");
        }
    }
    daemon.stop()
}
