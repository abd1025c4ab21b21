//! Real connections, all open at a time.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_common::map_names::FLOWS_V4;
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    load_tool::{self, load_tool},
    nginx::Nginx,
    topology::{Family, Shape, Topology},
    wait,
};

use crate::process;

/// Servers, and services over all of them with a client process each: a process may have few files open.
const PARTS: u8 = 4;
/// Port of the servers, and of the first service.
const PORT: u16 = 8080;
/// Ports that a client process may take.
const PORTS: &str = "10000 65000";
/// Longest wait until all connections are open.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was seen with all connections open.
pub(super) struct Held {
    pub(super) open: u64,
    pub(super) requests: f64,
    pub(super) per_second: f64,
    /// Requests that failed, by kind, of each process with some.
    pub(super) errors: Vec<String>,
    /// Bytes a connection, of the flow table and of the daemon.
    pub(super) tables: f64,
    pub(super) daemon: f64,
}

/// Opens connections, and keeps them busy for some seconds.
pub(super) fn hold(count: usize, seconds: u64) -> Result<Held> {
    let net = Topology::new(Shape::TwoArmed, PARTS)?;
    net.client.ns.sysctl("net/ipv4/ip_local_port_range", PORTS)?;
    let hosts = net.backends.iter().enumerate();
    let servers =
        hosts.map(|(i, host)| Nginx::start(&host.ns, &format!("b{i}"), host.socket(Family::V4, PORT)));
    let _servers: Vec<Nginx> = servers.collect::<Result<_>>()?;
    let targets: Vec<SocketAddr> = (0..u16::from(PARTS))
        .map(|part| SocketAddr::new(net.vip(Family::V4, 10), PORT + part))
        .collect();
    let services = targets.iter().map(|target| {
        let service = Service::tcp(&format!("web{}", target.port()), *target);
        let backends = net.backends.iter().enumerate();
        backends.fold(service, |service, (i, host)| {
            service.backend(&format!("b{i}"), host.socket(Family::V4, PORT), 1)
        })
    });
    let mut daemon =
        Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services.collect::<Vec<_>>()))?;
    daemon.start()?;
    daemon.wait_for_whole_program()?;
    let memory = || -> Result<[f64; 2]> {
        Ok([
            process::map_bytes(&daemon, FLOWS_V4)?,
            process::resident(daemon.pid()?)?,
        ])
    };
    let before = memory()?;
    let clients: Vec<Child> = targets
        .iter()
        .map(|target| client(&net, *target, count / usize::from(PARTS), seconds))
        .collect::<Result<_>>()?;
    let cli = daemon.cli();
    let mut most = 0;
    wait::until_true("all connections are open", PATIENCE, || {
        let open = cli.json("flows count --state established")?["flows"].as_u64();
        most = most.max(open.context("no count of flows")?);
        // One that cannot send ends early, and tells why below.
        let has_ended = clients.iter().any(|client| process::has_ended(client.id()));
        Ok(most >= count as u64 || has_ended)
    })?;
    let after = memory()?;
    let mut held = Held {
        open: most,
        requests: 0.0,
        per_second: 0.0,
        errors: Vec::new(),
        tables: (after[0] - before[0]) / count as f64,
        daemon: (after[1] - before[1]) / count as f64,
    };
    for client in clients {
        let result = load_tool::end(client)?.json()?;
        let number = |name: &str| {
            result[name]
                .as_f64()
                .with_context(|| format!("no {name} in {result}"))
        };
        held.requests += number("requests")?;
        held.per_second += number("rps")?;
        if result["errors"] != 0 {
            held.errors.push(result["errors_by_kind"].to_string());
        }
    }
    Ok(held)
}

fn client(net: &Topology, target: SocketAddr, connections: usize, seconds: u64) -> Result<Child> {
    let mut command = load_tool(&net.client.ns)?;
    command.args(["--json", "-t", "1", "-w", "0s", "--timeout", "20s"]);
    command
        .args(["-c", &connections.to_string(), "-d", &format!("{seconds}s")])
        .arg(format!("http://{target}/"));
    command.stdout(Stdio::piped()).spawn().context("start lb-bench")
}
