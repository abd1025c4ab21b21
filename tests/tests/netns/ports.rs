//! A service with several ports, from its configuration to its connections.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Result, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests},
    http::HttpServer,
    lane::Lane,
    site::{ECHO_PORT, HTTP_PORT, Site},
    topology::{Family, Shape},
    udp::udp_flows,
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
        let explanation = cli.json(&format!(
            "explain tcp {} {}",
            SocketAddr::new(site.net.client.ip(family), 40_000),
            to(SECOND_PORT)
        ))?;
        ensure!(
            explanation["service"] == name && explanation["verdict"] == "forward",
            "{explanation}"
        );
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

/// First and last of the ports that media goes to, as where VoIP and TURN servers share one address.
const MEDIA: (u16, u16) = (10_000, 10_015);

#[test]
fn all_flows_to_a_port_share_a_backend_where_the_port_decides() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 3)?;
    let mut text = String::new();
    for (name, family) in [("media4", Family::V4), ("media6", Family::V6)] {
        text.push_str(&format!(
            "[[service]]\nname = \"{name}\"\naddress = \"{}\"\nports = [\"{}-{}\"]\nprotocol = \"udp\"\n\
             affinity = \"port\"\n",
            site.net.vip(family, 10),
            MEDIA.0,
            MEDIA.1
        ));
        for (i, host) in site.net.backends.iter().enumerate() {
            text.push_str(&format!(
                "[[service.backend]]\nname = \"b{i}\"\naddress = \"{}\"\n",
                host.socket(family, ECHO_PORT)
            ));
        }
    }
    site.daemon = site.daemon.config(&text)?;
    site.daemon.start()?;
    let (client, cli) = (&site.net.client, site.daemon.cli());
    // The owner of a port; all of 20 flows must go to it.
    let owner = |family, port: u16, first| -> Result<String> {
        let target = SocketAddr::new(site.net.vip(family, 10), port);
        let report = udp_flows(&client.ns, target, first, 20, 8)?;
        report.ensure_complete(20)?;
        let names = (0..3).map(|i| format!("b{i}"));
        let owners: Vec<String> = names.filter(|name| report.answers_of(name) == 20).collect();
        ensure!(owners.len() == 1, "the flows to port {port} are not together");
        Ok(owners[0].clone())
    };
    for (name, family) in [("media4", Family::V4), ("media6", Family::V6)] {
        let ports = MEDIA.0..=MEDIA.1;
        let before: Vec<String> = ports
            .clone()
            .map(|port| owner(family, port, 20_000))
            .collect::<Result<_>>()?;
        let all: BTreeSet<&String> = before.iter().collect();
        ensure!(all.len() == 3, "16 ports are at {all:?} alone");
        let explained = cli.json(&format!(
            "explain udp {} {}",
            SocketAddr::new(client.ip(family), 50_000),
            SocketAddr::new(site.net.vip(family, 10), MEDIA.0)
        ))?;
        ensure!(explained["backend"] == before[0].as_str(), "{explained}");
        ensure!(
            explained["steps"].to_string().contains("its destination port"),
            "{explained}"
        );
        cli.ok(&format!("backend drain {name} b1"))?;
        let after: Vec<String> = ports
            .map(|port| owner(family, port, 30_000))
            .collect::<Result<_>>()?;
        ensure!(!after.contains(&"b1".to_owned()), "{after:?}");
        let others = before.iter().zip(&after).filter(|(before, _)| *before != "b1");
        let (stay, move_on): (Vec<_>, Vec<_>) = others.partition(|(before, after)| before == after);
        ensure!(stay.len() > 2 * move_on.len(), "{before:?} became {after:?}");
    }
    Ok(())
}
