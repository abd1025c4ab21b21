//! A service on every port of an address of the balancer's machine leaves the machine its own connections and servers.

use std::{net::SocketAddr, time::Duration};

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
        // A new one, and those that were there before the service.
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
            // One that is under way when the address changes hands is reset.
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
