//! ACLs and rate limits: refused clients, and their errors.

use std::{io::ErrorKind, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests},
    flood,
    http::connect,
    lane::Lane,
    site::Site,
    topology::{Family, Shape},
    udp::{echo_once, open},
    wait,
};

#[test]
fn clients_of_a_service_that_rejects_without_backends_learn_of_it_at_once() -> Result<()> {
    let _lane = Lane::shared()?;
    for shape in [Shape::OneArmed, Shape::TwoArmed] {
        let site = Site::new(shape, 1)?;
        let services: Vec<_> = Family::BOTH
            .into_iter()
            .flat_map(|family| [site.web(family, &[0]), site.echo_service(family, &[0])])
            .map(|service| service.keys("on_empty = \"reject\""))
            .collect();
        let site = site.start(&services)?;
        for (family, web, echo) in [(Family::V4, "web4", "echo4"), (Family::V6, "web6", "echo6")] {
            let target = site.service_address(family);
            let refused = site.net.client.ns.enter(|| connect(target, 0))?;
            let kind = refused.err().context("connected without a backend")?.kind();
            ensure!(kind == ErrorKind::ConnectionRefused, "tcp: {kind}");
            let answer = site.net.client.ns.enter(|| {
                let socket = open(target, 0)?;
                socket.send(b"hello")?;
                socket.recv(&mut [0; 100])
            })?;
            let kind = answer.err().context("got an answer without a backend")?.kind();
            ensure!(kind == ErrorKind::ConnectionRefused, "udp: {kind}");
            let metrics = site.daemon.metrics()?;
            for (service, reason) in [(web, "rejected_reset"), (echo, "rejected_unreachable")] {
                let labels = [("service", service), ("reason", reason)];
                let count = metrics.count("lb_service_replies_total", &labels);
                ensure!(count == 1, "{service} {reason}: {count}");
            }
        }
    }
    Ok(())
}

/// Longest wait for a counter.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_change_of_the_guard_holds_for_flows_under_way_and_over_a_restart() -> Result<()> {
    let _lane = Lane::shared()?;
    for (family, service, network) in [
        (Family::V4, "echo4", "10.1.0.0/24"),
        (Family::V6, "echo6", "fd01::/64"),
    ] {
        let site = Site::new(Shape::TwoArmed, 1)?;
        let echo = site.echo_service(family, &[1]);
        let mut site = site.start(std::slice::from_ref(&echo))?;
        let cli = site.daemon.cli();
        let client = &site.net.client;
        let target = site.service_address(family);
        let socket = client.ns.enter(|| open(target, 30_000))??;
        echo_once(&socket, 1)?;

        let denying = echo.keys(&format!("[service.guard]\ndeny = [\"{network}\"]"));
        let path = site.daemon.write_config(&denying.to_string())?;
        cli.ok(&format!("apply {}", path.display()))?;
        let shown = cli.ok(&format!("service show {service}"))?;
        ensure!(shown.contains(network), "{shown}");
        let labels = [("service", service), ("reason", "client_denied")];
        let dropped = |site: &Site, packets: u64| {
            wait::until_true("the drop is counted", LIMIT, || {
                let metrics = site.daemon.metrics()?;
                Ok(metrics.count("lb_service_drops_total", &labels) == packets)
            })
        };
        socket.send(b"of a flow under way")?;
        dropped(&site, 1)?;
        site.daemon.kill()?;
        socket.send(b"without a backend")?;
        site.daemon.start()?;
        socket.send(b"after the take-over")?;
        dropped(&site, 3)?;

        let own = site.net.client.ip(family);
        cli.ok(&format!("service set {service} --allow {own} --deny none"))?;
        echo_once(&socket, 2)?;
        let exported = cli.ok("export")?;
        ensure!(exported.contains(&format!("allow = [\"{own}/")), "{exported}");
        let stderr = cli.fails(1, &format!("service set {service} --allow {own}/8"))?;
        ensure!(stderr.contains("bits beyond its length"), "{stderr}");
        cli.ok(&format!(
            "service set {service} --new-flows 5 --source-new-flows 2 --source-new-flows-burst 9"
        ))?;
        let shown = cli.ok(&format!("service show {service}"))?;
        for line in ["at most 5 a second, 5 at once", "at most 2 a second, 9 at once"] {
            ensure!(shown.contains(line), "{shown}");
        }
        echo_once(&socket, 3)?;
    }
    Ok(())
}

/// Flows that a flood begins.
const FLOOD: u32 = 200_000;

/// A flood takes a processor from tests beside it.
mod alone {
    use super::*;

    #[test]
    fn a_flooded_service_costs_neither_others_nor_its_own_other_clients_their_flows() -> Result<()> {
        let _lane = Lane::alone()?;
        for (keys, reason) in [
            ("new_flows = 100\nnew_flows_burst = 200", "new_flow_rate"),
            ("source_new_flows = 100\nsource_bits = 16", "source_rate"),
        ] {
            let site = Site::new(Shape::TwoArmed, 2)?;
            let guarded = site
                .echo_service(Family::V4, &[1, 1])
                .keys(&format!("[service.guard]\n{keys}"));
            let services = [site.web(Family::V4, &[1, 1]), guarded];
            let site = site.start(&services)?;
            let (client, target) = (&site.net.client.ns, site.service_address(Family::V4));
            let load = KeepAlive::start(client, target, 50)?;
            let under_way = client.enter(|| open(target, 30_000))??;
            echo_once(&under_way, 1)?;
            load.wait_rounds(3)?;

            flood::udp_flows(client, "eth0", site.net.lb.ns.mac("front")?, target, 0..FLOOD)?;
            let metrics = || site.daemon.metrics();
            let labels = [("service", "echo4"), ("reason", reason)];
            let (mut opened, mut refused) = (0, 0);
            wait::until_true("every packet of the flood is counted", LIMIT, || {
                let metrics = metrics()?;
                opened = metrics.count("lb_service_new_flows_total", &[("service", "echo4")]);
                refused = metrics.count("lb_service_drops_total", &labels);
                Ok(opened + refused == u64::from(FLOOD) + 1)
            })?;
            println!("{opened} of {FLOOD} flows opened with {keys:?}");
            ensure!(
                opened < u64::from(FLOOD / 10),
                "{opened} flows of the flood opened"
            );

            echo_once(&under_way, 2)?;
            if reason == "source_rate" {
                let another = client.enter(|| open(target, 30_001))??;
                echo_once(&another, 1)?;
            }
            http_requests(client, target, 10_000, 100, 8)?.ensure_complete(100)?;
            load.wait_rounds(3)?;
            load.stop()?.ensure_flawless()?;
        }
        Ok(())
    }
}
