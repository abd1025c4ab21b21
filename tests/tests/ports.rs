//! A service with several ports, from its configuration to its connections.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests},
    http::HttpServer,
    lane::Lane,
    site::{HTTP_PORT, Site},
    topology::{Family, Shape},
};
use serde_json::json;

/// A port that backends serve beside [`HTTP_PORT`], under another name.
const SECOND_PORT: u16 = 8091;

#[test]
fn connections_to_each_port_reach_that_port_of_a_backend_and_outlive_changes_of_the_others() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 2)?;
    let mut second = Vec::new();
    for (i, host) in site.net.backends.iter().enumerate() {
        let at = Family::BOTH.map(|family| host.socket(family, SECOND_PORT));
        second.push(HttpServer::start(&host.ns, &format!("second{i}"), &at)?);
    }
    let mut text = String::new();
    for (name, family) in [("web4", Family::V4), ("web6", Family::V6)] {
        let vip = site.net.vip(family, 10);
        text.push_str(&format!(
            "[[service]]\nname = \"{name}\"\naddress = \"{vip}\"\nports = [{HTTP_PORT}, \"8090-8099\"]\n"
        ));
        for (i, host) in site.net.backends.iter().enumerate() {
            text.push_str(&format!(
                "[[service.backend]]\nname = \"b{i}\"\naddress = \"{}\"\n",
                host.ip(family)
            ));
        }
    }
    site.daemon = site.daemon.config(&text)?;
    site.daemon.start()?;
    let cli = site.daemon.cli();
    for (name, family) in [("web4", Family::V4), ("web6", Family::V6)] {
        let client = &site.net.client.ns;
        let to = |port| SocketAddr::new(site.net.vip(family, 10), port);
        for (port, prefix) in [(HTTP_PORT, "b"), (SECOND_PORT, "second")] {
            let report = http_requests(client, to(port), 20_000 + port % 100 * 100, 100, 8)?;
            report.ensure_flawless()?;
            let answers = [0, 1].map(|i| report.answers_of(&format!("{prefix}{i}")));
            ensure!(
                answers.iter().sum::<u64>() == 100 && !answers.contains(&0),
                "{name}, port {port}: {answers:?}"
            );
        }
        let shown = cli.json(&format!("service show {name}"))?;
        ensure!(shown["port"] == HTTP_PORT, "{shown}");
        ensure!(
            shown["ports"] == json!([HTTP_PORT.to_string(), "8090-8099"]),
            "{shown}"
        );
        ensure!(shown["new_flows"] == 200, "{}", shown["new_flows"]);
        let told = cli.json(&format!(
            "explain tcp {} {}",
            SocketAddr::new(site.net.client.ip(family), 40_000),
            to(SECOND_PORT)
        ))?;
        ensure!(told["service"] == name && told["verdict"] == "forward", "{told}");
    }
    let stays = KeepAlive::start(
        &site.net.client.ns,
        SocketAddr::new(site.net.vip(Family::V4, 10), SECOND_PORT),
        8,
    )?;
    stays.wait_rounds(2)?;
    cli.ok(&format!(
        "service set web4 --ports {HTTP_PORT},{SECOND_PORT},9000-9100"
    ))?;
    stays.wait_rounds(2)?;
    let exported = cli.ok("export")?;
    ensure!(
        exported.contains(&format!("ports = [{HTTP_PORT}, {SECOND_PORT}, \"9000-9100\"]")),
        "{exported}"
    );
    // A restart finds all ports where they are.
    site.daemon.kill()?;
    stays.wait_rounds(2)?;
    site.daemon.start()?;
    stays.wait_rounds(2)?;
    let refused = cli.fails(1, &format!("service set web4 --port {HTTP_PORT}"))?;
    ensure!(refused.contains("has no port"), "{refused}");
    let overlaps = cli.fails(
        4,
        &format!(
            "service add other --address {} --port {SECOND_PORT}",
            site.net.vip(Family::V4, 10)
        ),
    )?;
    ensure!(overlaps.contains("overlaps service"), "{overlaps}");
    ensure!(stays.failed() == 0);
    stays.stop()?.ensure_flawless()
}
