//! Native XDP by a driver of network cards with several queues: virtio-net, whose two cards the machine's host joins by a bridge.

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
    net::SocketAddr,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    decap::Decap,
    http::HttpServer,
    lane::Lane,
    netns::Netns,
    topology::{Family, Topology},
    wait,
};

use super::{PLENTY, PORT, keeps_address, request_all, wait_for_backends};

/// The balancer's card, and that of the bridge with client and backend.
const CARDS: [&str; 2] = ["eth0", "eth1"];
/// Queues that the balancer's card receives on; it has as many more as there are processors, on which the program sends.
const QUEUES: usize = 4;

const MODES: [(&str, u8); 3] = [("nat", 10), ("l2dsr", 11), ("ipip", 12)];

/// Packets that the program sent back out of each queue that they came in on, as the driver counts them.
fn sent_by_queue(ns: &Netns) -> Result<BTreeMap<String, u64>> {
    let counters = ns.run("ethtool", &["-S", "eth0"])?;
    let counter = |line: &str| {
        let (name, value) = line.trim().split_once(": ")?;
        // Newer kernels count all queues together, too.
        let of_queue = name.starts_with("rx") && name.contains(char::is_numeric) && name.ends_with("xdp_tx");
        of_queue.then(|| Some((name.to_owned(), value.parse().ok()?)))?
    };
    Ok(counters.lines().filter_map(counter).collect())
}

#[test]
fn a_driver_runs_the_program_on_several_queues() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::with_cards(CARDS, 1)?;
    net.lb
        .ns
        .run("ethtool", &["-L", "eth0", "combined", &QUEUES.to_string()])?;
    let backend = &net.backends[0];
    backend.ns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    backend.ns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    let mut services = Vec::new();
    let mut servers = Vec::new();
    for family in Family::BOTH {
        let address = backend.socket(family, PORT);
        let mut addresses = vec![address];
        for (mode, n) in MODES {
            let vip = SocketAddr::new(net.vip(family, n), PORT);
            if keeps_address(mode) {
                let bits = if vip.is_ipv4() { 32 } else { 128 };
                backend
                    .ns
                    .ip(&format!("addr add {}/{bits} dev lo nodad", vip.ip()))?;
                addresses.push(vip);
            }
            let service = Service::tcp(&format!("{mode}-{family:?}"), vip)
                .keys(&format!("mode = \"{mode}\""))
                .health("kind = \"http\"\ntimeout = \"10s\"");
            services.push(service.backend("b0", address, 1));
        }
        servers.push(HttpServer::start(&backend.ns, "b0", &addresses)?);
    }
    let balancer = Family::BOTH.map(|family| net.lb.ip(family).to_string());
    let _decap = Decap::start(&backend.ns, "eth0", &balancer)?;
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
    daemon.start()?;
    wait_for_backends(&daemon)?;
    let status = daemon.cli().ok("status")?;
    ensure!(
        status.contains("native"),
        "the driver does not run the program:\n{status}"
    );
    let requests = request_all(&net, &MODES)?;
    let metrics = daemon.metrics()?;
    let flows = metrics.count("lb_service_new_flows_total", &[]);
    ensure!(flows == requests, "{flows} new flows of {requests} requests");
    ensure!(metrics.count("lb_drops_total", &[]) == 0, "packets were dropped");
    let mut last = String::new();
    let queues = wait::until("program and driver count the same packets", PLENTY, || {
        let labels = [("interface", "eth0"), ("action", "tx")];
        let counted = daemon.metrics()?.count("lb_xdp_packets_total", &labels);
        let queues = sent_by_queue(&net.lb.ns)?;
        last = format!("{counted} by the program, by the driver: {queues:?}");
        let sum: u64 = queues.values().sum();
        Ok((counted == sum).then_some(queues))
    })
    .with_context(|| last)?;
    let busy = queues.values().filter(|packets| **packets > 0).count();
    ensure!(busy >= QUEUES, "packets came in on {busy} queues: {queues:?}");
    // Past the harness, which shows nothing of tests that pass.
    writeln!(stdout(), "\nforwarded by queue: {queues:?}")?;
    let cpus = daemon.metrics()?;
    for cpu in ["0", "1"] {
        let packets = cpus.count("lb_cpu_packets_total", &[("cpu", cpu)]);
        ensure!(packets > 0, "no packets on processor {cpu}");
    }
    daemon.stop().context("stop the daemon")
}
