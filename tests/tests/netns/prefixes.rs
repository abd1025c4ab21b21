//! A service whose address is a prefix, from its configuration to its connections.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests},
    config::Service,
    http::connect_within,
    lane::Lane,
    site::{ECHO_PORT, HTTP_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    udp::udp_flows,
};
use std::time::Duration;

/// Bits of the prefixes that have the addresses 16 to 31 of the network's services.
const fn prefix_bits(family: Family) -> u8 {
    match family {
        Family::V4 => 28,
        Family::V6 => 124,
    }
}

/// A refusal comes at once.
const REFUSED: Duration = Duration::from_secs(5);

#[test]
fn every_address_of_a_prefix_is_served_and_each_client_hears_from_the_one_it_asked() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 2)?;
    let mut text = String::new();
    for (number, family) in [(4, Family::V4), (6, Family::V6)] {
        let prefix = format!("{}/{}", site.net.vip(family, 16), prefix_bits(family));
        for (name, port, protocol, to) in [
            ("web", SERVICE_PORT, "tcp", HTTP_PORT),
            ("echo", ECHO_PORT, "udp", ECHO_PORT),
        ] {
            text.push_str(&format!(
                "[[service]]\nname = \"{name}{number}\"\naddress = \"{prefix}\"\nport = {port}\n\
                 protocol = \"{protocol}\"\n"
            ));
            for (i, host) in site.net.backends.iter().enumerate() {
                text.push_str(&format!(
                    "[[service.backend]]\nname = \"b{i}\"\naddress = \"{}\"\n",
                    host.socket(family, to)
                ));
            }
        }
        // One address of it has a service of its own.
        let own = SocketAddr::new(site.net.vip(family, 20), SERVICE_PORT);
        let own = Service::tcp(&format!("own{number}"), own);
        text.push_str(&site.with_backends(own, family, HTTP_PORT, &[1]).to_string());
    }
    site.daemon = site.daemon.config(&text)?;
    site.daemon.start()?;
    let (client, cli) = (&site.net.client, site.daemon.cli());
    for (number, family) in [(4, Family::V4), (6, Family::V6)] {
        let at = |last, port| SocketAddr::new(site.net.vip(family, last), port);
        for (last, first_port) in [(16, 20_000), (17, 21_000), (31, 22_000)] {
            // A TCP client takes an answer from no other address, and an echo's client is connected to it.
            let report = http_requests(&client.ns, at(last, SERVICE_PORT), first_port, 100, 8)?;
            report.ensure_flawless()?;
            ensure!(report.answers_of("b0") > 0 && report.answers_of("b1") > 0);
            udp_flows(&client.ns, at(last, ECHO_PORT), first_port, 40, 8)?.ensure_complete(40)?;
        }
        let report = http_requests(&client.ns, at(20, SERVICE_PORT), 23_000, 50, 8)?;
        ensure!(
            report.answers_of("b0") == 50,
            "the address goes before its prefix"
        );
        // What the prefix does not serve is left to the machine, which refuses it.
        for not_served in [at(17, SERVICE_PORT + 1), at(32, SERVICE_PORT)] {
            let connected = client.ns.enter(|| connect_within(not_served, 0, REFUSED))?;
            let refused = connected.err().map(|error| error.kind());
            ensure!(
                refused == Some(std::io::ErrorKind::ConnectionRefused),
                "{not_served}: {refused:?}"
            );
        }
        let shown = cli.json(&format!("service show web{number}"))?;
        let prefix = format!("{}/{}", site.net.vip(family, 16), prefix_bits(family));
        ensure!(shown["address"] == prefix.as_str(), "{shown}");
        ensure!(shown["new_flows"] == 300, "{}", shown["new_flows"]);
        let explained = cli.json(&format!(
            "explain tcp {} {}",
            SocketAddr::new(client.ip(family), 40_000),
            at(18, SERVICE_PORT)
        ))?;
        ensure!(
            explained["service"] == format!("web{number}").as_str(),
            "{explained}"
        );
        ensure!(explained["steps"].to_string().contains("lies in"), "{explained}");
    }
    // A restart finds the services where they are; a change by command moves one, and a removal ends it.
    let stays = KeepAlive::start(
        &client.ns,
        SocketAddr::new(site.net.vip(Family::V4, 18), SERVICE_PORT),
        8,
    )?;
    stays.wait_rounds(2)?;
    site.daemon.kill()?;
    stays.wait_rounds(2)?;
    site.daemon.start()?;
    stays.wait_rounds(2)?;
    let exported = cli.ok("export")?;
    ensure!(exported.contains("address = \"192.0.2.16/28\""), "{exported}");
    let overlaps = cli.fails(4, "service add other --address 192.0.2.16/28 --port 80")?;
    ensure!(overlaps.contains("overlaps service"), "{overlaps}");
    let wrong = cli.fails(2, "service add other --address 192.0.2.17/28 --port 81")?;
    ensure!(wrong.contains("192.0.2.16/28"), "{wrong}");
    cli.ok("service add longer --address 192.0.2.24/29 --port 80")?;
    let at = |last| SocketAddr::new(site.net.vip(Family::V4, last), SERVICE_PORT);
    let explained = cli.json(&format!(
        "explain tcp {} {}",
        client.socket(Family::V4, 40_000),
        at(25)
    ))?;
    ensure!(explained["service"] == "longer", "{explained}");
    ensure!(stays.failed() == 0);
    stays.stop()?.ensure_flawless()?;
    cli.ok("service remove web4")?;
    let connected = client.ns.enter(|| connect_within(at(18), 0, REFUSED).is_ok())?;
    ensure!(!connected, "a service that is gone is served");
    Ok(())
}
