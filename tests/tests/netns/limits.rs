//! The balancer at its limits: packets beyond a limit are counted by reason, and established flows continue.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::{
    client::{KeepAlive, run_many},
    config::{Service, file},
    flood,
    flooded::{self, Outcome, Plan},
    http::{connect, exchange},
    lane::Lane,
    site::{ECHO_PORT, Site},
    topology::{Family, Shape},
    udp::{echo_once, open},
    wait,
};

/// Flows sent: more than half of `lb_map_capacity`, since a flow takes two entries.
const FLOOD: u32 = 600_000;

#[test]
fn exhausted_source_ports_are_counted_and_known_flows_continue() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::OneArmed, 1)?;
    let echo = site.echo_service(Family::V4, &[1]);
    let settings = "[lb]\nsnat_ports = \"20000-20009\"\n";
    site.daemon = site.daemon.config(&format!("{settings}{echo}"))?;
    site.daemon.start()?;
    let (client, target) = (&site.net.client.ns, site.service_address(Family::V4));
    let open_all = || {
        (0..10)
            .map(|i| open(target, 30_000 + i))
            .collect::<io::Result<Vec<_>>>()
    };
    let sockets = client.enter(open_all)??;
    for socket in &sockets {
        echo_once(socket, 1)?;
    }
    let late = client.enter(|| open(target, 31_000))??;
    late.send(b"too many")?;
    wait::until_true("the drop is counted", Duration::from_secs(5), || {
        let metrics = site.daemon.metrics()?;
        Ok(metrics.count("lb_drops_total", &[("reason", "snat_ports_exhausted")]) == 1)
    })?;
    for socket in &sockets {
        echo_once(socket, 2)?;
    }
    Ok(())
}

/// A flood takes a processor from tests beside it.
mod alone {
    use super::*;

    #[test]
    fn flooded_service_leaves_other_services_their_share_of_the_flow_table() -> Result<()> {
        let _lane = Lane::alone()?;
        overflow(Family::V4, "FLOWS_V4", "10.2.0.", 32)?;
        overflow(Family::V6, "FLOWS_V6", "fd02::", 128)
    }

    /// Sends [`FLOOD`] flows to a service of a family, with 16 addresses to send from that begin so.
    fn overflow(family: Family, table: &str, prefix: &str, bits: u8) -> Result<()> {
        let mut site = Site::new(Shape::TwoArmed, 2)?;
        let flooded = SocketAddr::new(site.net.vip(family, 20), 53);
        // A sink without answers: backends would spend CPU time on ICMP errors.
        let sink = |i: usize| site.net.backends[i].socket(family, ECHO_PORT);
        for host in &site.net.backends {
            host.ns.run_with_input(
                "nft",
                &["-f", "-"],
                "table netdev t { chain c { type filter hook ingress device eth0 priority 0; \
             udp dport 7007 udp length 12 drop; }; }",
            )?;
        }
        let services = [
            site.web(family, &[1, 1]),
            Service::udp("flooded", flooded)
                .backend("b0", sink(0), 1)
                .backend("b1", sink(1), 1),
        ];
        let sources: Vec<String> = (100..116).map(|last| format!("{prefix}{last}")).collect();
        let settings = format!("[lb]\nsnat_addresses = {sources:?}\n");
        for source in &sources {
            site.net.lb.ns.ip(&format!("addr add {source}/{bits} dev back"))?;
        }
        site.daemon = site.daemon.config(&format!("{settings}{}", file(&services)))?;
        site.daemon.start()?;
        let load = KeepAlive::start(&site.net.client.ns, site.service_address(family), 50)?;
        load.wait_rounds(3)?;

        flood::udp_flows(
            &site.net.client.ns,
            "eth0",
            site.net.lb.ns.mac("front")?,
            flooded,
            0..FLOOD,
        )?;
        load.wait_rounds(3)?;

        let metrics = site.daemon.metrics()?;
        let (flows, capacity) = (
            metrics.count("lb_flows", &[("map", table)]),
            metrics.count("lb_map_capacity", &[("map", table)]),
        );
        let opened = metrics.count("lb_service_new_flows_total", &[("service", "flooded")]);
        let dropped = |reason| metrics.count("lb_drops_total", &[("reason", reason)]);
        println!("{opened} of {FLOOD} flows opened, {flows} of {capacity} entries of {table}");
        ensure!(
            opened == u64::from(FLOOD) && dropped("flow_table_full") == 0 && dropped("internal") == 0,
            "{}",
            metrics.text
        );
        ensure!(flows < capacity / 16 * 15, "the table is full");
        let gave_way = metrics.count("lb_service_flows_gave_way_total", &[("service", "flooded")]);
        ensure!(gave_way > 0, "none gave way");
        let (ns, web) = (&site.net.client.ns, site.service_address(family));
        let report = run_many(ns, 1_000, 4, |_| {
            Ok(exchange(&mut connect(web, 0)?, "/", true)?.body)
        })?;
        report.ensure_complete(1_000)?;

        // Commands still work, and established flows are served to the end.
        site.daemon.cli().ok("service remove flooded")?;
        load.wait_rounds(3)?;
        load.stop()?.ensure_flawless()
    }

    #[test]
    fn syn_flood_loses_no_established_flow_and_no_new_flow_of_other_services() -> Result<()> {
        const PLAN: Plan = Plan {
            time: Duration::from_secs(5),
            connections: 300,
        };
        let _lane = Lane::alone()?;
        let outcome = flooded::run(PLAN)?;
        println!("{outcome}");
        let Outcome { flooded, other, .. } = &outcome;
        other.established.ensure_flawless()?;
        flooded.established.ensure_flawless()?;
        other.new.ensure_complete(PLAN.connections.into())?;
        let failed = &flooded.new.errors;
        // Less than one in a hundred.
        ensure!(failed.len() * 100 < PLAN.connections as usize, "{failed:?}");
        ensure!(outcome.gave_way > 0 && outcome.events.len() == 1, "{outcome}");
        Ok(())
    }
}
