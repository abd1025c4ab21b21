//! Mode dnat with real sockets: backends see clients' addresses, and their default route leads through the balancer.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    bulk::{BulkServer, DOWNLOAD, TRANSFER, UPLOAD, bulk},
    capture::Capture,
    client::{KeepAlive, http_requests},
    config::{Service, file},
    daemon::Daemon,
    http::{connect, exchange},
    lane::Lane,
    site::Site,
    topology::{Family, Shape, Topology},
    udp::{echo_large, echo_once, open, udp_flows},
    wait,
};

const REQUESTS: u16 = 300;
/// Longest wait for something that the daemon does by itself.
const LIMIT: Duration = Duration::from_secs(60);
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A site whose services are all of this mode, between clients and backends.
fn start(backends: u8, keys: &str) -> Result<Site> {
    let site = Site::new(Shape::TwoArmed, backends)?;
    site.net.forward_in_kernel()?;
    let weights = vec![1; backends.into()];
    let keys = format!("mode = \"dnat\"\n{keys}");
    let services: Vec<Service> = Family::BOTH
        .into_iter()
        .flat_map(|family| [site.web(family, &weights), site.echo_service(family, &weights)])
        .map(|service| service.keys(&keys))
        .collect();
    site.start(&services)
}

/// Packets that passed for a reason.
fn passed(daemon: &Daemon, reason: &str) -> Result<u64> {
    Ok(daemon.metrics()?.count("lb_passes_total", &[("reason", reason)]))
}

#[test]
fn backends_see_the_client_and_the_client_sees_the_service() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = start(2, "")?;
    let client = &site.net.client;
    let of_services = |protocol: u8| protocol == TCP || protocol == UDP;
    let at_client = Capture::start(&client.ns, "eth0", move |frame| of_services(frame.protocol))?;
    let at_backends: Vec<Capture> = site
        .net
        .backends
        .iter()
        .map(|host| Capture::start(&host.ns, "eth0", move |frame| of_services(frame.protocol)))
        .collect::<Result<_>>()?;
    for family in Family::BOTH {
        let vip = site.service_address(family);
        let report = http_requests(&client.ns, vip, 20_000, REQUESTS, 8)?;
        report.ensure_complete(REQUESTS.into())?;
        ensure!(
            (0.4..0.6).contains(&report.share("b0")),
            "b0 has {}",
            report.share("b0")
        );
        udp_flows(&client.ns, vip, 20_000, REQUESTS, 8)?.ensure_complete(REQUESTS.into())?;
        // In fragments, both ways.
        for port in 30_000..30_004 {
            client.ns.enter(|| echo_large(vip, port, 9_000))??;
        }
    }
    let clients: BTreeSet<_> = Family::BOTH.map(|family| client.ip(family)).into();
    let vips: BTreeSet<_> = Family::BOTH
        .map(|family| site.service_address(family).ip())
        .into();
    for capture in at_backends {
        let frames = capture.stop()?;
        let sources: BTreeSet<_> = frames
            .iter()
            .filter(|captured| !captured.outgoing)
            .map(|captured| captured.frame.source.ip())
            .collect();
        ensure!(sources == clients, "packets came from {sources:?}");
    }
    let frames = at_client.stop()?;
    let sources: BTreeSet<_> = frames
        .iter()
        .filter(|captured| !captured.outgoing)
        .map(|captured| captured.frame.source.ip())
        .collect();
    ensure!(sources == vips, "answers came from {sources:?}");

    let metrics = site.daemon.metrics()?;
    ensure!(metrics.count("lb_drops_total", &[]) == 0, "packets were dropped");
    for name in ["web4", "web6", "echo4", "echo6"] {
        let labels = [("service", name)];
        let (sent, answered) = (
            metrics.count("lb_service_packets_total", &labels),
            metrics.count("lb_service_reply_packets_total", &labels),
        );
        ensure!(
            sent >= REQUESTS.into() && answered >= REQUESTS.into(),
            "{name}: {sent} packets, {answered} answered"
        );
        let by_backend: u64 = ["b0", "b1"]
            .iter()
            .map(|backend| {
                let labels = [("service", name), ("backend", *backend)];
                metrics.count("lb_backend_reply_packets_total", &labels)
            })
            .sum();
        ensure!(
            by_backend == answered,
            "{name}: {by_backend} of {answered} replies have a backend"
        );
    }
    for map in ["FLOWS_V4", "FLOWS_V6", "TRACKED_V4", "TRACKED_V6"] {
        ensure!(
            metrics.sum("lb_flows", &[("map", map)]) == 0.0,
            "{map} holds a flow"
        );
    }
    let entries = |map| metrics.sum("lb_map_entries", &[("map", map)]);
    ensure!(
        (entries("REPLIES_V4"), entries("REPLIES_V6")) == (4.0, 4.0),
        "two backends for each of two services of a family"
    );
    ensure!(
        site.uncounted()?.iter().all(|packets| *packets >= 0),
        "no packet is counted twice"
    );
    Ok(())
}

#[test]
fn connections_outlive_changes_and_the_death_of_the_daemon() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = start(3, "")?;
    let cli = site.daemon.cli();
    for family in Family::BOTH {
        let name = if family == Family::V4 { "web4" } else { "web6" };
        let (vip, client) = (site.service_address(family), site.net.client.ns.clone());
        let load = KeepAlive::start(&client, vip, 60)?;
        load.wait_rounds(3)?;
        let socket = client.enter(|| open(vip, 0))??;
        let of_socket = echo_once(&socket, 0)?;

        cli.ok(&format!("backend set {name} b0 --weight 3"))?;
        load.wait_rounds(3)?;
        cli.ok(&format!("backend drain {name} b1"))?;
        load.wait_rounds(3)?;
        cli.ok(&format!("backend remove {name} b2"))?;
        load.wait_rounds(3)?;
        let report = http_requests(&client, vip, 10_000, 60, 8)?;
        report.ensure_complete(60)?;
        ensure!(
            report.answers_of("b0") == 60,
            "the only backend that takes new flows"
        );

        site.daemon.kill()?;
        load.wait_rounds(3)?;
        http_requests(&client, vip, 11_000, 60, 8)?.ensure_complete(60)?;
        ensure!(
            echo_once(&socket, 1)? == of_socket,
            "a UDP flow keeps its backend"
        );
        // With the file, which has all backends as they were.
        site.daemon.start()?;
        load.wait_rounds(3)?;
        http_requests(&client, vip, 12_000, 60, 8)?.ensure_complete(60)?;
        ensure!(
            echo_once(&socket, 2)? == of_socket,
            "a UDP flow keeps its backend"
        );
        let report = load.stop()?;
        ensure!(report.errors.is_empty(), "{:?}", report.errors);
    }
    ensure!(
        site.daemon.metrics()?.count("lb_drops_total", &[]) == 0,
        "packets were dropped"
    );
    Ok(())
}

/// Checks come from the balancer's own address and are answered from the port that replies come from.
#[test]
fn checks_of_the_balancer_itself_are_answered() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 2)?;
    site.net.forward_in_kernel()?;
    let services = Family::BOTH.map(|family| {
        let service = site.web(family, &[1, 1]).keys("mode = \"dnat\"");
        service.health("kind = \"http\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"\npath = \"/health\"")
    });
    let site = site.start(&services)?;
    for name in ["web4", "web6"] {
        wait::until_true("both backends are found healthy", LIMIT, || {
            let healthy = [("service", name)];
            let metrics = site.daemon.metrics()?;
            let succeeded = [("service", name), ("result", "success")];
            Ok(metrics.sum("lb_service_healthy_backends", &healthy) == 2.0
                && metrics.count("lb_health_checks_total", &succeeded) >= 4)
        })?;
    }
    Ok(())
}

/// A client's link-layer address is unknown: the kernel resolves it, and forwards the reply.
#[test]
fn reply_with_unresolved_next_hop_is_not_lost() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = start(1, "")?;
    let lb = &site.net.lb.ns;
    for device in ["all", "back"] {
        lb.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
    }
    lb.sysctl("net/ipv4/conf/back/accept_local", "1")?;
    for family in Family::BOTH {
        let vip = site.service_address(family);
        let before = passed(&site.daemon, "reply_by_kernel")?;
        let mut stream = site.net.client.ns.enter(|| connect(vip, 0))??;
        let mut asked = 0;
        // The client may resolve the balancer's address in between, by which the balancer learns the client's.
        wait::until_true("the kernel has sent a reply on", LIMIT, || {
            lb.run("ip", &["neigh", "flush", "dev", "front"])?;
            exchange(&mut stream, "/", false).context("no answer")?;
            asked += 1;
            Ok(passed(&site.daemon, "reply_by_kernel")? > before)
        })?;
        ensure!(asked > 0);
    }
    ensure!(
        site.daemon.metrics()?.count("lb_drops_total", &[]) == 0,
        "packets were dropped"
    );
    Ok(())
}

/// Without forwarding there is no reply for the client; the operator sees why.
#[test]
fn machine_without_forwarding_is_shown_by_a_counter() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = start(1, "")?;
    for family in ["ipv4", "ipv6"] {
        site.net
            .lb
            .ns
            .sysctl(&format!("net/{family}/conf/all/forwarding"), "0")?;
    }
    for family in Family::BOTH {
        let vip = site.service_address(family);
        let answer = site.net.client.ns.enter(|| -> Result<bool> {
            let socket = open(vip, 0)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(echo_once(&socket, 1).is_ok())
        })??;
        ensure!(!answer, "forwarding is off");
    }
    ensure!(passed(&site.daemon, "forwarding_disabled")? >= 2, "not counted");
    Ok(())
}

/// Port of services and servers.
const PORT: u16 = 8080;
/// MTU of the narrow interface.
const NARROW: u16 = 1400;

/// A separate network for each direction: an end that has learnt a size announces it in its next SYN.
#[test]
fn both_ends_learn_which_size_fits() -> Result<()> {
    let _lane = Lane::shared()?;
    let daemon = transfers(UPLOAD, "back")?;
    let answered = [("reason", "too_big_answered")];
    ensure!(
        daemon.metrics()?.count("lb_replies_total", &answered) > 0,
        "the balancer sent no message to the client"
    );
    drop(daemon);
    let daemon = transfers(DOWNLOAD, "front")?;
    ensure!(
        passed(&daemon, "reply_by_kernel")? > 0,
        "the kernel sent no message to the backend"
    );
    Ok(())
}

/// Transfers by way of a narrow interface of the balancer; its daemon.
fn transfers(transfer: u8, narrow: &str) -> Result<Daemon> {
    let net = Topology::new(Shape::TwoArmed, 2)?;
    net.forward_in_kernel()?;
    let mut services = Vec::new();
    for family in Family::BOTH {
        let vip = SocketAddr::new(net.vip(family, 10), PORT);
        let service = Service::tcp(&format!("bulk-{family:?}"), vip).keys("mode = \"dnat\"");
        let backends = net.backends.iter().enumerate();
        services.push(backends.fold(service, |service, (i, host)| {
            service.backend(&format!("b{i}"), host.socket(family, PORT + 1), 1)
        }));
    }
    let mut servers = Vec::new();
    for host in &net.backends {
        let addresses = Family::BOTH.map(|family| host.socket(family, PORT + 1));
        servers.push(BulkServer::start(&host.ns, &addresses)?);
    }
    net.lb.ns.ip(&format!("link set {narrow} mtu {NARROW}"))?;
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
    daemon.start()?;
    for family in Family::BOTH {
        let vip = SocketAddr::new(net.vip(family, 10), PORT);
        for port in 30_000..30_004 {
            let received = net.client.ns.enter(|| bulk(vip, port, transfer))?;
            let case = || format!("transfer {transfer} to {vip}");
            let received = received.with_context(case)?;
            ensure!(received == TRANSFER, "{}: {received} bytes", case());
        }
    }
    Ok(daemon)
}
