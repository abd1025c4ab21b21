//! `lb flows` about real connections: what it shows is what clients and servers see, and a flush ends what it means.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests, run_many},
    direct::Direct,
    http::{self, connect, connect_within},
    lane::Lane,
    lb_cli::LbCli,
    site::Site,
    topology::{Family, Shape},
    wait,
};
use serde_json::Value;

/// For what takes seconds on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Port of servers that keep connections open.
const OPEN_PORT: u16 = 9000;

const fn service(family: Family) -> &'static str {
    match family {
        Family::V4 => "web4",
        Family::V6 => "web6",
    }
}

fn flows(cli: &LbCli, options: &str) -> Result<Vec<Value>> {
    let listed = cli.json(&format!("flows list {options}"))?;
    Ok(listed.as_array().context("no list")?.clone())
}

fn count(cli: &LbCli, options: &str) -> Result<u64> {
    let counted = cli.json(&format!("flows count {options}"))?;
    counted["flows"].as_u64().context("no count")
}

/// Connections through the balancer, each with both of its ends.
struct Open {
    client: TcpStream,
    server: TcpStream,
    /// What the server sees as its client.
    via: SocketAddr,
}

/// Connects from `port` to a service of which one listener of `listeners` takes it.
fn open(site: &Site, target: SocketAddr, port: u16, listeners: &[TcpListener]) -> Result<(Open, usize)> {
    let client = site.net.client.ns.enter(|| connect(target, port))??;
    for listener in listeners {
        listener.set_nonblocking(true)?;
    }
    wait::until("a server accepts", LIMIT, || {
        for (number, listener) in listeners.iter().enumerate() {
            if let Ok((server, via)) = listener.accept() {
                server.set_nonblocking(false)?;
                server.set_read_timeout(Some(LIMIT))?;
                client.set_read_timeout(Some(LIMIT))?;
                let client = client.try_clone()?;
                return Ok(Some((Open { client, server, via }, number)));
            }
        }
        Ok(None)
    })
}

/// Has a byte go each way.
fn exchange(open: &mut Open) -> Result<()> {
    open.client.write_all(b"?")?;
    open.server.read_exact(&mut [0])?;
    open.server.write_all(b"!")?;
    Ok(open.client.read_exact(&mut [0])?)
}

fn listeners(site: &Site, family: Family) -> Result<Vec<TcpListener>> {
    let hosts = site.net.backends.iter();
    let bound = hosts.map(|host| {
        Ok(host
            .ns
            .enter(|| TcpListener::bind(host.socket(family, OPEN_PORT)))??)
    });
    bound.collect()
}

/// A balancer with a service of two backends in each family.
fn two_services() -> Result<Site> {
    let site = Site::new(Shape::TwoArmed, 2)?;
    let services = Family::BOTH.map(|family| {
        let address = site.service_address(family);
        let service = lb_tests::config::Service::tcp(service(family), address);
        site.with_backends(service, family, OPEN_PORT, &[1, 1])
    });
    site.start(&services)
}

#[test]
fn a_listed_flow_is_the_connection_that_both_ends_see() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = two_services()?;
    let cli = site.daemon.cli();
    for family in Family::BOTH {
        let (target, name) = (site.service_address(family), service(family));
        let listeners = listeners(&site, family)?;
        let client = SocketAddr::new(site.net.client.ip(family), 40_000);
        let explained = cli.json(&format!("explain tcp {client} {target}"))?;
        let (mut connection, backend) = open(&site, target, client.port(), &listeners)?;
        exchange(&mut connection)?;
        let selected = format!("--service {name} --client {}", client.ip());
        let state = |state: &str| {
            wait::until_true(state, LIMIT, || {
                let found = flows(&cli, &selected)?;
                Ok(matches!(&found[..], [flow] if flow["state"] == state))
            })
        };
        state("established")?;
        let flow = flows(&cli, &selected)?.remove(0);
        ensure!(flow["client"] == client.to_string().as_str(), "{flow}");
        ensure!(
            flow["via"] == connection.via.to_string().as_str(),
            "{flow}, seen from {}",
            connection.via
        );
        ensure!(flow["backend"] == format!("b{backend}").as_str(), "{flow}");
        ensure!(
            flow["slot"] == explained["slot"] && !flow["slot"].is_null(),
            "{flow}, {explained}"
        );
        ensure!(
            flow["age"].is_u64()
                && flow["interface"].is_string()
                && flow["address"] == target.to_string().as_str(),
            "{flow}"
        );
        let table = cli.ok(&format!("flows list {selected}"))?;
        ensure!(
            table.lines().count() == 2 && table.contains(&connection.via.to_string()),
            "{table}"
        );

        connection.client.shutdown(std::net::Shutdown::Write)?;
        ensure!(connection.server.read(&mut [0])? == 0, "no end");
        state("closing")?;
        drop(connection.server);
        ensure!(connection.client.read(&mut [0])? == 0, "no end");
        state("closed")?;
    }
    let error = cli.fails(3, "flows list --service web5")?;
    ensure!(error.contains("services: web4, web6"), "{error}");
    Ok(())
}

#[test]
fn a_flush_resets_the_connections_that_it_means_and_leaves_the_others() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = two_services()?;
    let cli = site.daemon.cli();
    for family in Family::BOTH {
        let (target, name) = (site.service_address(family), service(family));
        let listeners = listeners(&site, family)?;
        let mut of_backends: [Vec<Open>; 2] = [Vec::new(), Vec::new()];
        for port in 40_000..40_040 {
            let (mut connection, backend) = open(&site, target, port, &listeners)?;
            exchange(&mut connection)?;
            of_backends[backend].push(connection);
        }
        let [mut flushed, mut kept] = of_backends;
        let (gone, stay) = (flushed.len() as u64, kept.len() as u64);
        ensure!(gone > 0 && stay > 0, "flows do not spread");

        let selected = format!("--service {name} --backend b0");
        let error = cli.fails(2, &format!("flows flush {selected}"))?;
        ensure!(error.contains("--yes"), "{error}");
        let error = cli.fails(2, "flows flush --yes")?;
        ensure!(error.contains("--all"), "{error}");
        let announced = cli.ok(&format!("flows flush {selected} --dry-run"))?;
        ensure!(
            announced.starts_with(&format!("would flush {gone} flow")),
            "{announced}"
        );
        ensure!(count(&cli, &format!("--service {name}"))? == gone + stay);
        let refused = site.on_terminal(&format!("flows flush {selected}"), "n\n")?;
        let question = format!("of service {name}, backend b0? [y/N]");
        ensure!(
            refused.code == Some(1) && refused.text.contains(&question),
            "{refused:?}"
        );
        ensure!(count(&cli, &format!("--service {name}"))? == gone + stay);
        let confirmed = site.on_terminal(&format!("flows flush {selected}"), "y\n")?;
        ensure!(
            confirmed.code == Some(0) && confirmed.text.contains(&format!("flushed {gone} flow")),
            "{confirmed:?}"
        );
        ensure!(count(&cli, &format!("--service {name}"))? == stay);

        for connection in &mut kept {
            exchange(connection)?;
        }
        for connection in &mut flushed {
            connection.client.write_all(b"?")?;
            let end = connection.client.read(&mut [0]);
            ensure!(
                end.as_ref()
                    .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
                "{end:?}"
            );
        }
        drop(flushed);
        let (mut again, _) = open(&site, target, 41_000, &listeners)?;
        exchange(&mut again)?;
        let events = cli.ok("events")?;
        let said = format!("flows flushed: {gone} (service {name}, backend b0)");
        ensure!(events.contains(&said), "{events}");
    }
    Ok(())
}

/// An operator who removes a service reads how many connections that ends, before and after.
#[test]
fn the_removal_of_a_service_says_how_many_connections_it_ends() -> Result<()> {
    const CONNECTIONS: u16 = 5;
    let _lane = Lane::shared()?;
    let site = two_services()?;
    let cli = site.daemon.cli();
    let target = site.service_address(Family::V4);
    let listeners = listeners(&site, Family::V4)?;
    let mut connections = Vec::new();
    for port in 40_000..40_000 + CONNECTIONS {
        let (mut connection, _) = open(&site, target, port, &listeners)?;
        exchange(&mut connection)?;
        connections.push(connection);
    }
    wait::until_true("all flows are counted", LIMIT, || {
        Ok(cli.json("service show web4")?["active_flows"] == CONNECTIONS)
    })?;
    let export = cli.ok("export")?;
    let without = export.replacen("name = \"web4\"", "name = \"other\"", 1);
    let address = target.ip().to_string();
    let without = site
        .daemon
        .dir()
        .write("without.toml", without.replace(&address, "192.0.2.99"))?;
    let foreign = "[[service]]\nname = \"other\"\naddress = \"192.0.2.99\"\nport = 1\n";
    let foreign = site.daemon.dir().write("foreign.toml", foreign)?;
    let empty = site.daemon.dir().write("empty.toml", "")?;

    let ended = format!("web4: removed, {CONNECTIONS} established flows end");
    for dry in ["diff", "apply --dry-run"] {
        let text = cli.ok(&format!("{dry} {}", without.display()))?;
        ensure!(text.contains(&ended), "{text}");
    }
    let lost = format!("move or end {CONNECTIONS} established flows; nothing was changed");
    let refused = cli.fails(1, &format!("apply {}", foreign.display()))?;
    ensure!(refused.contains(&lost), "{refused}");
    let asked = site.on_terminal(&format!("apply {}", foreign.display()), "n\r")?;
    ensure!(asked.text.replace(['\r', '\n'], "").contains(&lost), "{asked:?}");
    let refused = cli.fails(1, &format!("apply {}", empty.display()))?;
    ensure!(
        refused.contains(&format!("with {CONNECTIONS} established flows")),
        "{refused}"
    );
    for connection in &mut connections {
        exchange(connection)?;
    }
    let removed = cli.ok("service remove web4")?;
    ensure!(removed.contains(&ended), "{removed}");
    Ok(())
}

#[test]
fn a_flush_under_traffic_hurts_no_other_service_and_leaves_nothing_behind() -> Result<()> {
    const CONNECTIONS: usize = 20;
    const FLUSHES: u32 = 20;
    // The server's answers cannot reach a client whose flow was flushed between its request and them.
    const IMPATIENCE: Duration = Duration::from_secs(1);
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 3)?;
    let services = Family::BOTH.map(|family| site.web(family, &[1, 1, 1]));
    let site = site.start(&services)?;
    let cli = site.daemon.cli();
    let client = &site.net.client.ns;
    let [flushed, other] = Family::BOTH.map(|family| site.service_address(family));
    let load = KeepAlive::start(client, other, CONNECTIONS)?;
    load.wait_rounds(2)?;
    let mut removed = 0;
    for number in 0..FLUSHES {
        // Connections that end normally, each with a flush beside them.
        let port = 20_000 + u16::try_from(number)? * 50;
        let request = |number| {
            let port = port + u16::try_from(number).map_err(std::io::Error::other)?;
            let mut stream = connect_within(flushed, port, IMPATIENCE)?;
            Ok(http::exchange(&mut stream, "/", true)?.body)
        };
        let report = std::thread::scope(|scope| {
            let requests = scope.spawn(|| run_many(client, 50, 8, request));
            let answer = cli.json("flows flush --service web4 --yes")?;
            removed += answer["flows"].as_u64().context("no number")?;
            match requests.join() {
                Ok(report) => report,
                Err(_) => bail!("the load panicked"),
            }
        })?;
        ensure!(report.total() + report.errors.len() as u64 == 50, "{report:?}");
    }
    ensure!(removed > 0, "nothing was flushed");
    load.wait_rounds(2)?;
    load.stop()?.ensure_flawless()?;
    http_requests(client, flushed, 30_000, 100, 8)?.ensure_complete(100)?;
    cli.ok("flows flush --all --yes")?;
    ensure!(count(&cli, "")? == 0);
    wait::until_true("no entry is left", LIMIT, || {
        let metrics = site.daemon.metrics()?;
        Ok(metrics.sum("lb_flows", &[("map", "FLOWS_V4")]) == 0.0)
    })
}

#[test]
fn flows_without_translation_are_listed_where_they_are_recorded_and_said_to_be_missing_elsewhere()
-> Result<()> {
    const CONNECTIONS: usize = 12;
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        let site = Direct::start(family, 2, 2, "[lb]\ntransition = \"2s\"\n", "")?;
        let cli = site.daemon.cli();
        let load = KeepAlive::start(&site.net.client.ns, site.target, CONNECTIONS)?;
        load.wait_rounds(2)?;
        for command in ["flows list", "flows count", "flows list --service web"] {
            let outcome = cli.run(&command.split(' ').collect::<Vec<_>>())?;
            ensure!(
                outcome
                    .stderr
                    .contains("web (l2dsr) records only flows whose slot changed hands"),
                "{command}: {outcome:?}"
            );
        }
        cli.ok("backend drain web b0")?;
        wait::until_true("flows of the drained backend are listed", LIMIT, || {
            Ok(!flows(&cli, "--backend b0 --state established")?.is_empty())
        })?;
        let flow = flows(&cli, "--backend b0")?.remove(0);
        ensure!(
            flow["via"].is_null() && flow["age"].is_null() && flow["slot"].is_u64(),
            "{flow}"
        );
        load.wait_rounds(2)?;
        ensure!(load.failed() == 0);
        // Once their slots have gone to the other backend for good, a flush has them go there, too.
        wait::until_true("flushed flows leave the drained backend", LIMIT, || {
            cli.ok("flows flush --service web --backend b0 --yes")?;
            Ok(load.failed() > 0)
        })?;
        let report = load.stop()?;
        ensure!(
            !report.errors.is_empty() && report.answers_of("b0") > 0,
            "{report:?}"
        );

        cli.ok("service set web --tracking full")?;
        http_requests(&site.net.client.ns, site.target, 20_000, 20, 4)?.ensure_complete(20)?;
        wait::until_true("all flows are listed", LIMIT, || {
            Ok(count(&cli, "--service web")? >= 20)
        })?;
        let outcome = cli.run(&["flows", "list"])?;
        ensure!(outcome.stderr.is_empty(), "{outcome:?}");
    }
    Ok(())
}
