//! Clients go to their group of backends, to the others while it has none, and back; connections stay where they began.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lb_tests::{
    client::{KeepAlive, new_flows},
    config::Service,
    direct::Direct,
    lane::Lane,
    lb_cli::LbCli,
    netns::Netns,
    site::{NGINX_PORT, Site},
    topology::{Family, Shape, Topology},
};

const CONNECTIONS: usize = 24;
/// Answers that each connection must have got before the next change: it has been served in the state between.
const ROUNDS: u64 = 3;

/// A second address of the client, which new connections have from then on.
struct Second {
    address: IpAddr,
    /// The route to services: without and with it.
    routes: [String; 2],
}

impl Second {
    fn new(net: &Topology, family: Family, gateway: IpAddr, device: &str) -> Result<Self> {
        let (address, services, bits): (IpAddr, _, _) = match family {
            Family::V4 => ([10, 1, 0, 77].into(), "192.0.2.0/24", 24),
            Family::V6 => ([0xfd01, 0, 0, 0, 0, 0, 0, 0x77].into(), "2001:db8:9::/64", 64),
        };
        net.client
            .ns
            .ip(&format!("addr add {address}/{bits} dev {device} nodad"))?;
        let route = |source| format!("route replace {services} via {gateway} src {source}");
        let first = net.client.ip(family);
        Ok(Self {
            address,
            routes: [route(first), route(address)],
        })
    }

    fn use_it(&self, client: &Netns, second: bool) -> Result<()> {
        client.ip(&self.routes[usize::from(second)])
    }
}

/// In mode `l2dsr` flows are recorded only where slots change hands.
#[test]
fn connections_stay_when_a_group_fails_and_comes_back_and_when_clients_change_it() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        let site = Direct::start(family, 4, 4, "", "")?;
        let second = Second::new(&site.net, family, site.net.lb.ip(family), "eth0")?;
        in_groups(&site.daemon.cli(), &site.net.client.ns, site.target, &second)?;
        drop(site);
    }
    Ok(())
}

#[test]
fn connections_of_mode_nat_stay_too() -> Result<()> {
    let _lane = Lane::shared()?;
    let family = Family::V4;
    let site = Site::new(Shape::TwoArmed, 4)?;
    let _servers = site.nginx(family)?;
    let target = site.service_address(family);
    let web = site.with_backends(Service::tcp("web", target), family, NGINX_PORT, &[1; 4]);
    let site = site.start(&[web])?;
    let second = Second::new(&site.net, family, [10, 1, 0, 1].into(), "eth0")?;
    in_groups(&site.daemon.cli(), &site.net.client.ns, target, &second)
}

/// Backends b0 and b1 are near to the second address, b2 and b3 serve all others.
fn in_groups(cli: &LbCli, client: &Netns, target: SocketAddr, second: &Second) -> Result<()> {
    let mut first_port = 10_000;
    let mut only = |names: [&str; 2]| -> Result<()> {
        first_port += 1_000;
        let flows = new_flows(client, target, first_port)?;
        let counts = names.map(&flows);
        ensure!(
            counts.iter().sum::<u64>() == 100 && counts.iter().all(|count| *count > 0),
            "{counts:?} of 100 new flows go to {names:?}"
        );
        Ok(())
    };
    let shows = |command: &str, words: &str| -> Result<()> {
        let output = cli.ok(command)?;
        ensure!(
            output.contains(words),
            "lb {command} does not print {words:?}: {output}"
        );
        Ok(())
    };
    let (near, others) = (["b0", "b1"], ["b2", "b3"]);
    for name in near {
        cli.ok(&format!("backend set web {name} --group near"))?;
    }
    // Begun while all backends took flows of all clients: some of these change their backends now.
    second.use_it(client, true)?;
    let before = KeepAlive::start(client, target, CONNECTIONS)?;
    before.wait_rounds(ROUNDS)?;
    let clients = format!("near={}", second.address);
    cli.ok(&format!("service set web --clients {clients}"))?;
    only(near)?;
    let nearby = KeepAlive::start(client, target, CONNECTIONS)?;
    nearby.wait_rounds(ROUNDS)?;
    second.use_it(client, false)?;
    only(others)?;
    let general = KeepAlive::start(client, target, CONNECTIONS)?;
    general.wait_rounds(ROUNDS)?;
    before.wait_rounds(ROUNDS)?;

    let explain = format!("explain tcp {} {target}", SocketAddr::new(second.address, 4000));
    shows(&explain, "goes to group near: its backends take its new flows")?;
    shows("service show web", "whose backends take their new flows")?;
    shows("backend list web", "GROUP")?;
    shows("export", "[[service.clients]]")?;

    for name in near {
        cli.ok(&format!("backend drain web {name}"))?;
    }
    second.use_it(client, true)?;
    only(others)?;
    let fallen_back = KeepAlive::start(client, target, CONNECTIONS)?;
    fallen_back.wait_rounds(ROUNDS)?;
    nearby.wait_rounds(ROUNDS)?;
    shows(
        &explain,
        "goes to group near: backends of no such group take its new flows",
    )?;
    shows("status", "no backend of group near takes new flows")?;

    for name in near {
        cli.ok(&format!("backend enable web {name}"))?;
    }
    only(near)?;
    for connections in [&before, &nearby, &general, &fallen_back] {
        connections.wait_rounds(ROUNDS)?;
    }
    // The prefix goes: its clients are like all others.
    cli.ok("service set web --clients=")?;
    for connections in [&before, &nearby, &general, &fallen_back] {
        connections.wait_rounds(ROUNDS)?;
    }
    let (nearby, general, fallen_back) = (nearby.stop()?, general.stop()?, fallen_back.stop()?);
    for report in [&before.stop()?, &nearby, &general, &fallen_back] {
        report.ensure_flawless()?;
    }
    let answers = |report: &lb_tests::client::Report, names: [&str; 2]| {
        names.map(|name| report.answers_of(name)).iter().sum::<u64>() == report.total()
    };
    ensure!(
        answers(&nearby, near) && answers(&general, others) && answers(&fallen_back, others),
        "connections changed their backends"
    );
    Ok(())
}
