//! Established connections in a mode without translation: each stays with its backend through all changes of backends,
//! and while no daemon runs. The balancer sees only packets from clients.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_common::map_names;
use lb_tests::{
    client::{KeepAlive, http_requests, new_flows},
    direct::{Direct, PORT},
    lane::Lane,
    site::Site,
    topology::{Family, Shape},
    wait,
};

const CONNECTIONS: usize = 100;
/// Answers that each connection must have got before the next change: it has been served in the state between.
const ROUNDS: u64 = 3;
/// Longest wait for something that the daemon does by itself.
const LIMIT: Duration = Duration::from_secs(60);

const fn tables(family: Family) -> [&'static str; 3] {
    match family {
        Family::V4 => [map_names::TRACKED_V4, map_names::OPENING_V4, map_names::SEEN_V4],
        Family::V6 => [map_names::TRACKED_V6, map_names::OPENING_V6, map_names::SEEN_V6],
    }
}

#[test]
fn untranslated_connections_survive_changes_and_a_killed_daemon() -> Result<()> {
    survive_everything(Family::V4)
}

#[test]
fn untranslated_ipv6_connections_survive_changes_and_a_killed_daemon() -> Result<()> {
    survive_everything(Family::V6)
}

fn survive_everything(family: Family) -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Direct::start(family, 4, 3, "", "")?;
    let cli = site.daemon.cli();
    let load = KeepAlive::start(&site.net.client.ns, site.target, CONNECTIONS)?;
    load.wait_rounds(ROUNDS)?;
    ensure!(site.flows(tables(family)[0])? == 0.0, "no change, so no records");

    cli.ok("backend set web b0 --weight 3")?;
    load.wait_rounds(ROUNDS)?;
    cli.ok(&format!(
        "backend add web b3 --address {} --weight 3",
        site.net.backends[3].socket(family, PORT)
    ))?;
    load.wait_rounds(ROUNDS)?;
    ensure!(
        new_flows(&site.net.client.ns, site.target, 10_000)?("b3") > 0,
        "the new backend takes flows"
    );

    cli.ok("backend drain web b1")?;
    load.wait_rounds(ROUNDS)?;
    ensure!(
        new_flows(&site.net.client.ns, site.target, 11_000)?("b1") == 0,
        "a drained backend takes no new flow"
    );
    wait::until_true("its connections are counted", LIMIT, || {
        Ok(site.active("b1")? >= 1.0 && site.flows(tables(family)[0])? >= 1.0)
    })?;

    cli.ok("backend remove web b2")?;
    load.wait_rounds(ROUNDS)?;
    ensure!(
        new_flows(&site.net.client.ns, site.target, 12_000)?("b2") == 0,
        "a removed backend takes no new flow"
    );

    site.daemon.kill()?;
    load.wait_rounds(ROUNDS)?;
    ensure!(
        new_flows(&site.net.client.ns, site.target, 13_000)?("b0") > 0,
        "new flows are served while no daemon runs"
    );
    // The file has not changed, so changes by command stand: b1 is drained, b2 removed, b3 added.
    site.daemon.start()?;
    load.wait_rounds(ROUNDS)?;
    cli.ok("backend set web b0 --weight 1")?;
    load.wait_rounds(ROUNDS)?;
    for backend in ["b0", "b3"] {
        cli.ok(&format!("backend drain web {backend}"))?;
        load.wait_rounds(ROUNDS)?;
    }
    // No backend takes new flows, and established ones continue.
    let refused = http_requests(&site.net.client.ns, site.target, 14_000, 1, 1)?;
    ensure!(refused.total() == 0, "no backend takes new flows");
    cli.ok("backend enable web b3")?;
    load.wait_rounds(ROUNDS)?;
    ensure!(new_flows(&site.net.client.ns, site.target, 15_000)?("b3") == 100);

    let report = load.stop()?;
    println!(
        "{family:?}: {} answers, slowest {:?}",
        report.total(),
        report.slowest
    );
    report.ensure_flawless()
}

#[test]
fn after_the_window_flows_stay_and_records_go_with_them() -> Result<()> {
    come_to_rest(Family::V4)
}

#[test]
fn after_the_window_ipv6_flows_stay_and_records_go_with_them() -> Result<()> {
    come_to_rest(Family::V6)
}

fn come_to_rest(family: Family) -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Direct::start(family, 2, 2, "[lb]\ntransition = \"2s\"\n", "")?;
    let cli = site.daemon.cli();
    let load = KeepAlive::start(&site.net.client.ns, site.target, 40)?;
    load.wait_rounds(ROUNDS)?;
    cli.ok("backend drain web b0")?;
    load.wait_rounds(ROUNDS)?;
    let [tracked, opening, seen] = tables(family);
    wait::until_true("the drained backend's flows are tracked", LIMIT, || {
        Ok(site.active("b0")? >= 1.0 && site.flows(tracked)? >= site.active("b0")?)
    })?;
    // In transition a SYN is recorded; once all slots have left it, none is.
    let mut port = 10_000;
    wait::until_true("the window ends", LIMIT, || {
        port += 200;
        drop(new_flows(&site.net.client.ns, site.target, port)?);
        let recorded = cli.json("status").and_then(|_| site.flows(opening))?;
        Ok(recorded == 0.0 && site.flows(seen)? == 0.0)
    })?;
    ensure!(
        site.active("b0")? >= 1.0,
        "flows of the owner before are kept for as long as they last"
    );
    load.wait_rounds(ROUNDS)?;
    load.stop()?.ensure_flawless()?;
    // Three windows after the last packet no record is left.
    wait::until_true("all records are gone", LIMIT, || Ok(site.flows(tracked)? == 0.0))
}

#[test]
fn a_service_that_records_every_flow_counts_and_spreads_them_evenly() -> Result<()> {
    let _lane = Lane::shared()?;
    let keys = "algorithm = \"round-robin\"\ntracking = \"full\"";
    let site = Direct::start(Family::V4, 2, 2, "", keys)?;
    let load = KeepAlive::start(&site.net.client.ns, site.target, 40)?;
    load.wait_rounds(ROUNDS)?;
    wait::until_true("all flows are counted, half of them each", LIMIT, || {
        Ok(site.active("b0")? == 20.0 && site.active("b1")? == 20.0)
    })?;
    site.daemon.cli().ok("backend drain web b0")?;
    load.wait_rounds(ROUNDS)?;
    ensure!(new_flows(&site.net.client.ns, site.target, 10_000)?("b1") == 100);
    load.stop()?.ensure_flawless()
}

#[test]
fn all_connections_of_a_client_share_a_backend_where_its_address_decides() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Direct::start(Family::V4, 4, 4, "", "affinity = \"source\"")?;
    let report = http_requests(&site.net.client.ns, site.target, 10_000, 100, 8)?;
    report.ensure_complete(100)?;
    let owners = (0..4).filter(|i| report.answers_of(&format!("b{i}")) > 0);
    ensure!(owners.count() == 1, "one client, one backend");
    Ok(())
}

#[test]
fn flows_are_not_taken_for_idle_by_a_daemon_in_a_time_namespace() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let target = site.service_address(Family::V4);
    // A day ahead of the machine's clock, by which the program stamps flows.
    site.daemon = site
        .daemon
        .through(&["unshare", "--time", "--monotonic", "86400"]);
    let site = site.start(&[web])?;
    let load = KeepAlive::start(&site.net.client.ns, target, 20)?;
    wait::until_true("the sweeper counts all connections as active", LIMIT, || {
        Ok(site
            .daemon
            .metrics()?
            .sum("lb_active_connections", &[("service", "web4")])
            == 20.0)
    })?;
    load.wait_rounds(ROUNDS)?;
    load.stop()?.ensure_flawless()
}
