//! `lb explain` says where a packet would go, and that is where it goes.

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests},
    direct::Direct,
    lane::Lane,
    site::Site,
    topology::{Family, Shape},
};
use serde_json::Value;

/// Flows that are asked about.
const FLOWS: u16 = 20;
const FIRST_PORT: u16 = 20_000;

fn text<'a>(told: &'a Value, key: &str) -> Result<&'a str> {
    told[key].as_str().with_context(|| format!("{key} in {told}"))
}

#[test]
fn a_flow_goes_where_explain_said_and_stays_where_it_says() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        direct(family)?;
        translated(family)?;
    }
    Ok(())
}

/// Backends get packets as they come, and slots change hands.
fn direct(family: Family) -> Result<()> {
    let site = Direct::start(family, 3, 3, "", "")?;
    let cli = site.daemon.cli();
    let client = site.net.client.ip(family);
    let ask = |port: u16, more: &str| {
        let source = std::net::SocketAddr::new(client, port);
        cli.json(&format!("explain tcp {source} {} {more}", site.target))
    };
    let answered = |port: u16| -> Result<String> {
        let report = http_requests(&site.net.client.ns, site.target, port, 1, 1)?;
        report.ensure_complete(1)?;
        Ok(report.answers.into_keys().next().unwrap_or_default())
    };
    let mut before = Vec::new();
    for port in FIRST_PORT..FIRST_PORT + FLOWS {
        let told = ask(port, "")?;
        ensure!(
            text(&told, "verdict")? == "forward" && text(&told, "mode")? == "l2dsr",
            "{told}"
        );
        ensure!(told["tracked"] == false && told["slot"].is_u64(), "{told}");
        let backend = text(&told, "backend")?.to_owned();
        ensure!(backend == answered(port)?, "{told}");
        before.push(backend);
    }
    ensure!(
        before.iter().any(|name| name == "b0"),
        "some flow leads to b0: {before:?}"
    );
    cli.ok("backend drain web b0")?;
    for (port, before) in (FIRST_PORT..).zip(&before) {
        let (new, old) = (ask(port, "")?, ask(port, "--established")?);
        ensure!(text(&old, "backend")? == before, "an older flow stays: {old}");
        ensure!(text(&new, "backend")? == answered(port)?, "{new}");
        ensure!(text(&new, "backend")? != "b0");
    }
    for backend in ["b1", "b2"] {
        cli.ok(&format!("backend disable web {backend}"))?;
    }
    cli.ok("backend disable web b0")?;
    let told = ask(FIRST_PORT, "")?;
    ensure!(
        text(&told, "verdict")? == "drop" && text(&told, "reason")? == "no_backend",
        "{told}"
    );
    Ok(())
}

/// Every flow is recorded, and its answers come back through the balancer.
fn translated(family: Family) -> Result<()> {
    let site = Site::new(Shape::TwoArmed, 2)?;
    let web = site.web(family, &[1, 1]);
    let site = site.start(&[web])?;
    let (cli, target) = (site.daemon.cli(), site.service_address(family));
    let client = site.net.client.ip(family);
    let ask = |port: u16| {
        let source = std::net::SocketAddr::new(client, port);
        cli.json(&format!("explain tcp {source} {target}"))
    };
    for port in FIRST_PORT..FIRST_PORT + FLOWS {
        let told = ask(port)?;
        ensure!(told["tracked"] == false, "{told}");
        ensure!(
            told["output"]["interface"] == site.net.lb_interfaces()[1],
            "out towards the backends: {told}"
        );
        let report = http_requests(&site.net.client.ns, target, port, 1, 1)?;
        let backend = text(&told, "backend")?;
        ensure!(report.answers_of(backend) == 1, "{told} {report:?}");
    }
    // A connection that stays: it is recorded, and belongs to who answers it.
    let load = KeepAlive::start(&site.net.client.ns, target, 1)?;
    load.wait_rounds(2)?;
    let elsewhere = std::net::SocketAddr::new(target.ip(), 81);
    let told = cli.json(&format!("explain tcp {}:1 {elsewhere}", bracketed(client)))?;
    ensure!(
        text(&told, "verdict")? == "pass" && text(&told, "reason")? == "not_ours",
        "{told}"
    );
    load.stop()?;
    Ok(())
}

fn bracketed(ip: std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

#[test]
fn a_reason_is_explained_without_a_daemon() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let cli = site.daemon.cli();
    ensure!(cli.ok("explain no_backend")?.contains("lb backend list"));
    ensure!(cli.ok("explain")?.contains("snat_ports_exhausted"));
    ensure!(cli.fails(2, "explain gremlins")?.contains("lists all reasons"));
    ensure!(cli.fails(2, "explain tcp")?.contains("192.0.2.10:80"));
    Ok(())
}
