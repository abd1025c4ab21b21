//! The modes in which backends answer clients themselves, with real sockets: backends hold the service's address, and end
//! tunnels with `lb decap`.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    bulk::{BulkServer, DOWNLOAD, TRANSFER, UPLOAD, bulk},
    capture::Capture,
    client::http_requests,
    config::{Service, file},
    daemon::Daemon,
    decap::Decap,
    http::{HttpServer, connect_within},
    lane::Lane,
    netns::Netns,
    topology::{Family, Shape, Topology},
    udp::{UdpEcho, echo_large, udp_flows},
};

/// Port of services and servers: these modes keep it.
const PORT: u16 = 8080;
const REQUESTS: u16 = 300;

/// A mode, and the family of its backends' addresses where that is not the service's.
#[derive(Clone, Copy)]
struct Way {
    mode: &'static str,
    outer: Option<Family>,
    /// The last part of its services' addresses.
    vip: u8,
}

const WAYS: [Way; 5] = [
    Way {
        mode: "l2dsr",
        outer: None,
        vip: 20,
    },
    Way {
        mode: "ipip",
        outer: Some(Family::V4),
        vip: 21,
    },
    Way {
        mode: "ipip",
        outer: Some(Family::V6),
        vip: 22,
    },
    Way {
        mode: "gue",
        outer: Some(Family::V4),
        vip: 23,
    },
    Way {
        mode: "gue",
        outer: Some(Family::V6),
        vip: 24,
    },
];

/// How a service begins.
type New = fn(&str, SocketAddr) -> Service;

/// Protocols, and how a service of each begins.
const PROTOCOLS: [(&str, New); 2] = [("tcp", Service::tcp), ("udp", Service::udp)];

impl Way {
    /// Name of its service.
    fn name(self, protocol: &str, family: Family) -> String {
        format!("{protocol}-{}-{family:?}", self.vip)
    }
}

/// All machines on one segment, servers on the services' addresses, a daemon with a service for each mode, family and
/// protocol.
struct Direct {
    net: Topology,
    daemon: Daemon,
    _http: Vec<HttpServer>,
    _echo: Vec<UdpEcho>,
}

impl Direct {
    fn start() -> Result<Self> {
        let net = Topology::new(Shape::OneArmed, 2)?;
        let mut services = Vec::new();
        for way in WAYS {
            for family in Family::BOTH {
                let vip = SocketAddr::new(net.vip(family, way.vip), PORT);
                for (protocol, new) in PROTOCOLS {
                    let service =
                        new(&way.name(protocol, family), vip).keys(&format!("mode = \"{}\"", way.mode));
                    let backends = net.backends.iter().enumerate();
                    services.push(backends.fold(service, |service, (i, host)| {
                        service.backend(
                            &format!("b{i}"),
                            host.socket(way.outer.unwrap_or(family), PORT),
                            1,
                        )
                    }));
                }
            }
        }
        let (mut http, mut echo) = (Vec::new(), Vec::new());
        for (i, host) in net.backends.iter().enumerate() {
            let addresses = hold_services(&net, &host.ns)?;
            http.push(HttpServer::start(&host.ns, &format!("b{i}"), &addresses)?);
            echo.push(UdpEcho::start(&host.ns, &format!("b{i}"), &addresses)?);
        }
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
        daemon.start()?;
        Ok(Self {
            net,
            daemon,
            _http: http,
            _echo: echo,
        })
    }

    fn decap(&self, from: &[String]) -> Result<Vec<Decap>> {
        let backends = self.net.backends.iter();
        backends
            .map(|host| Decap::start(&host.ns, "eth0", from))
            .collect()
    }

    fn balancer(&self) -> Vec<String> {
        Family::BOTH
            .map(|family| self.net.lb.ip(family).to_string())
            .into()
    }
}

/// Gives a backend the services' addresses, which it never announces.
fn hold_services(net: &Topology, backend: &Netns) -> Result<Vec<SocketAddr>> {
    backend.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    backend.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    let mut addresses = Vec::new();
    for way in WAYS {
        for family in Family::BOTH {
            let vip = net.vip(family, way.vip);
            let bits = if vip.is_ipv4() { 32 } else { 128 };
            backend.ip(&format!("addr add {vip}/{bits} dev lo nodad"))?;
            addresses.push(SocketAddr::new(vip, PORT));
        }
    }
    Ok(addresses)
}

#[test]
fn every_mode_reaches_its_backends_and_they_answer_for_the_service() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Direct::start()?;
    let decaps = site.decap(&site.balancer())?;
    let client = &site.net.client.ns;
    let captures: Vec<Capture> = site
        .net
        .backends
        .iter()
        .map(|host| Capture::start(&host.ns, "eth0", |_| true))
        .collect::<Result<_>>()?;
    for (way, first_port) in WAYS.into_iter().zip((20_000..).step_by(1000)) {
        for family in Family::BOTH {
            let vip = SocketAddr::new(site.net.vip(family, way.vip), PORT);
            let case = format!("{} over {:?} for {vip}", way.mode, way.outer);
            let report = http_requests(client, vip, first_port, REQUESTS, 8)?;
            report
                .ensure_complete(REQUESTS.into())
                .with_context(|| case.clone())?;
            ensure!(
                (0.4..0.6).contains(&report.share("b0")),
                "{case}: b0 has {}",
                report.share("b0")
            );
            let report = udp_flows(client, vip, first_port, REQUESTS, 8)?;
            report
                .ensure_complete(REQUESTS.into())
                .with_context(|| case.clone())?;
        }
    }
    for capture in captures {
        let frames = capture.stop()?;
        ensure!(!frames.is_empty(), "no frame was captured");
    }
    let metrics = site.daemon.metrics()?;
    ensure!(metrics.count("lb_drops_total", &[]) == 0, "packets were dropped");
    // Every client packet, except in mode l2dsr, arrived in a tunnel, and was counted when it left and when it arrived.
    let mut sent = 0;
    for way in WAYS.into_iter().filter(|way| way.mode != "l2dsr") {
        for family in Family::BOTH {
            for (protocol, _) in PROTOCOLS {
                let name = way.name(protocol, family);
                sent += metrics.count("lb_service_packets_total", &[("service", &name)]);
            }
        }
    }
    let counts: Vec<_> = decaps.into_iter().map(Decap::stop).collect::<Result<_>>()?;
    let sum = |what: &str| {
        counts
            .iter()
            .filter_map(|count| count[what].as_u64())
            .sum::<u64>()
    };
    ensure!(
        sent > 0 && sum("decapsulated") == sent,
        "{sent} packets sent, {counts:?}"
    );
    ensure!(
        sum("unknown_source") + sum("malformed") + sum("failed") == 0,
        "{counts:?}"
    );
    Ok(())
}

/// Fragments reach the backend of their first one, tunnelled or not; where they do not fit the tunnel, smaller ones.
#[test]
fn a_datagram_in_fragments_arrives_whole_in_every_mode() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Direct::start()?;
    let _decaps = site.decap(&site.balancer())?;
    for way in WAYS {
        for family in Family::BOTH {
            let vip = SocketAddr::new(site.net.vip(family, way.vip), PORT);
            for port in 40_000..40_010 {
                let case = || format!("{} over {:?} for {vip} from {port}", way.mode, way.outer);
                let echoed = site.net.client.ns.enter(|| echo_large(vip, port, 9_000))?;
                echoed.with_context(case)?;
            }
        }
    }
    Ok(())
}

#[test]
fn tunnels_from_elsewhere_are_refused_and_other_packets_pass() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Direct::start()?;
    let decaps = site.decap(&["203.0.113.0/24".to_owned(), "2001:db8:ffff::/48".to_owned()])?;
    let client = &site.net.client.ns;
    for way in WAYS {
        for family in Family::BOTH {
            let vip = SocketAddr::new(site.net.vip(family, way.vip), PORT);
            let connected = client.enter(|| connect_within(vip, 0, Duration::from_millis(100)).is_ok())?;
            ensure!(connected == (way.mode == "l2dsr"), "{} for {vip}", way.mode);
        }
    }
    for decap in decaps {
        let counts = decap.stop()?;
        let count = |what: &str| counts[what].as_u64().unwrap_or_default();
        ensure!(count("decapsulated") == 0 && count("passed") > 0, "{counts}");
    }
    Ok(())
}

/// MTU of the narrow part of the way between router and client.
const NARROW: u16 = 1400;

/// A backend's large answers meet a link that is too small: the router's ICMP error goes to the service's address. A
/// client's large requests do not fit the tunnel: the balancer sends an ICMP error.
#[test]
fn both_ends_learn_which_size_fits_the_way_through_a_tunnel() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::Routed, 2)?;
    // Replies come from the service's address, by another way than packets to it go.
    for device in ["all", "br0"] {
        net.middle
            .sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
    }
    let mut services = Vec::new();
    for way in WAYS.into_iter().filter(|way| way.outer.is_some()) {
        for family in Family::BOTH {
            let vip = SocketAddr::new(net.vip(family, way.vip), PORT);
            let service =
                Service::tcp(&way.name("tcp", family), vip).keys(&format!("mode = \"{}\"", way.mode));
            let backends = net.backends.iter().enumerate();
            services.push(backends.fold(service, |service, (i, host)| {
                service.backend(
                    &format!("b{i}"),
                    host.socket(way.outer.unwrap_or(family), PORT),
                    1,
                )
            }));
        }
    }
    let (mut servers, mut decaps) = (Vec::new(), Vec::new());
    let balancer = Family::BOTH.map(|family| net.lb.ip(family).to_string());
    for host in &net.backends {
        servers.push(BulkServer::start(&host.ns, &hold_services(&net, &host.ns)?)?);
        decaps.push(Decap::start(&host.ns, "eth0", &balancer)?);
    }
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
    daemon.start()?;
    for (transfer, first_port) in [(UPLOAD, 30_000), (DOWNLOAD, 31_000)] {
        if transfer == DOWNLOAD {
            net.middle.ip(&format!("link set client mtu {NARROW}"))?;
        }
        for way in WAYS.into_iter().filter(|way| way.outer.is_some()) {
            for family in Family::BOTH {
                let vip = SocketAddr::new(net.vip(family, way.vip), PORT);
                for port in first_port..first_port + 4 {
                    let received = net.client.ns.enter(|| bulk(vip, port, transfer))?;
                    let case = || format!("transfer {transfer} over {} and {:?}, {vip}", way.mode, way.outer);
                    let received = received.with_context(case)?;
                    ensure!(received == TRANSFER, "{}: {received} bytes", case());
                }
            }
        }
    }
    let messages = daemon
        .metrics()?
        .count("lb_replies_total", &[("reason", "too_big_answered")]);
    ensure!(messages > 0, "the balancer sent no message");
    Ok(())
}
