//! Backups: clients are served by them while too few other backends can, and connections that began there stay there.

use anyhow::{Result, ensure};
use lb_tests::{
    client::{KeepAlive, new_flows},
    config::Service,
    direct::Direct,
    lane::Lane,
    lb_cli::LbCli,
    netns::Netns,
    site::{NGINX_PORT, Site},
    topology::{Family, Shape},
};

const CONNECTIONS: usize = 40;
/// Answers that each connection must have got before the next change: it has been served in the state between.
const ROUNDS: u64 = 3;

/// Where flows are translated, and where a slot that changes hands has its older flows recorded.
#[test]
fn connections_that_began_on_a_backup_stay_there_when_the_others_are_back() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 2)?;
    let _servers = site.nginx(Family::V4)?;
    let target = site.service_address(Family::V4);
    let web = site.with_backends(Service::tcp("web", target), Family::V4, NGINX_PORT, &[1, 1]);
    let site = site.start(&[web.backend_keys("backup = true")])?;
    call_and_dismiss(&site.daemon.cli(), &site.net.client.ns, target)?;

    let site = Direct::start(Family::V4, 2, 2, "", "")?;
    let cli = site.daemon.cli();
    cli.ok("backend set web b1 --backup true")?;
    call_and_dismiss(&cli, &site.net.client.ns, site.target)
}

fn call_and_dismiss(cli: &LbCli, client: &Netns, target: std::net::SocketAddr) -> Result<()> {
    let only = |first_port: u16, name: &str| -> Result<()> {
        let flows = new_flows(client, target, first_port)?;
        ensure!(
            flows(name) == 100,
            "{} of 100 new flows go to {name}",
            flows(name)
        );
        Ok(())
    };
    only(10_000, "b0")?;
    let explain = format!("explain tcp 198.51.100.7:4000 {target}");
    ensure!(!cli.ok(&explain)?.contains("backup"));

    cli.ok("backend drain web b0")?;
    only(11_000, "b1")?;
    let load = KeepAlive::start(client, target, CONNECTIONS)?;
    load.wait_rounds(ROUNDS)?;
    for (command, words) in [
        ("status", "on backup"),
        ("status", "too few other backends can take new flows"),
        ("backend list web", "backup, serving"),
        ("events", "backup takes new flows: 0 of 1 other backends can"),
        (explain.as_str(), "that is a backup: it takes new flows"),
    ] {
        let output = cli.ok(command)?;
        ensure!(
            output.contains(words),
            "lb {command} does not print {words:?}: {output}"
        );
    }

    cli.ok("backend enable web b0")?;
    load.wait_rounds(ROUNDS)?;
    only(12_000, "b0")?;
    let events = cli.ok("events")?;
    ensure!(
        events.contains("backup takes no more new flows: 1 of 1"),
        "{events}"
    );
    let report = load.stop()?;
    report.ensure_flawless()?;
    ensure!(
        report.answers_of("b1") == report.total(),
        "{} of {} answers of the backup's connections are its own",
        report.answers_of("b1"),
        report.total()
    );
    Ok(())
}
