//! The main job: requests to a service reach its backends in the right shares, none is lost, and the balancer's counts
//! are exact.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    capture::Capture,
    client::{Report, http_requests},
    frame_counter::{Count, FrameCounter, Way},
    lane::Lane,
    site::{ECHO_PORT, HTTP_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    udp::{echo_large, udp_flows},
    wait,
};

/// Requests of the long runs.
const MANY: u16 = 20_000;
/// Clients at a time.
const AT_A_TIME: u32 = 64;
/// First source port; each request has its own.
const FIRST_PORT: u16 = 20_000;
/// A share may differ from its weight by one percentage point.
const TOLERANCE: f64 = 0.01;
const WEIGHTS: [u32; 3] = [1, 2, 3];

#[derive(Clone, Copy)]
enum Kind {
    Http,
    Udp,
}

impl Kind {
    fn service(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Http, Family::V4) => "web4",
            (Self::Http, Family::V6) => "web6",
            (Self::Udp, Family::V4) => "echo4",
            (Self::Udp, Family::V6) => "echo6",
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Http => "tcp",
            Self::Udp => "udp",
        }
    }

    fn backend_port(self) -> u16 {
        match self {
            Self::Http => HTTP_PORT,
            Self::Udp => ECHO_PORT,
        }
    }

    fn send(self, site: &Site, family: Family, count: u16) -> Result<Report> {
        let (client, target) = (&site.net.client.ns, site.service_address(family));
        match self {
            Self::Http => http_requests(client, target, FIRST_PORT, count, AT_A_TIME),
            Self::Udp => udp_flows(client, target, FIRST_PORT, count, AT_A_TIME),
        }
    }
}

fn start(shape: Shape) -> Result<Site> {
    let site = Site::new(shape, 3)?;
    let services = Family::BOTH
        .map(|f| [site.web(f, &WEIGHTS), site.echo_service(f, &WEIGHTS)])
        .concat();
    site.start(&services)
}

/// Frames as the kernels of client and backends count them.
struct Independent {
    service: FrameCounter,
    backends: Vec<FrameCounter>,
}

impl Independent {
    fn start(site: &Site, kind: Kind, family: Family) -> Result<Self> {
        let (ip, protocol) = (family.keyword(), kind.protocol());
        let vip = site.service_address(family).ip();
        let to_service = format!("{ip} daddr {vip} {protocol} dport {SERVICE_PORT}");
        let backends = site.net.backends.iter();
        Ok(Self {
            service: FrameCounter::start(&site.net.client.ns, "eth0", Way::Out, &to_service)?,
            backends: backends
                .map(|host| {
                    let (address, port) = (host.ip(family), kind.backend_port());
                    let to_backend = format!("{ip} daddr {address} {protocol} dport {port}");
                    FrameCounter::start(&host.ns, "eth0", Way::In, &to_backend)
                })
                .collect::<Result<_>>()?,
        })
    }

    fn read(&self) -> Result<(Count, Vec<Count>)> {
        let backends = self
            .backends
            .iter()
            .map(FrameCounter::read)
            .collect::<Result<_>>()?;
        Ok((self.service.read()?, backends))
    }
}

/// The daemon's counts of the same frames.
fn claimed(site: &Site, service: &str) -> Result<(Count, Vec<Count>)> {
    let metrics = site.daemon.metrics()?;
    let read = |what: &str, labels: &[(&str, &str)]| Count {
        packets: metrics.count(&format!("lb_{what}_packets_total"), labels),
        bytes: metrics.count(&format!("lb_{what}_bytes_total"), labels),
    };
    let backends = (0..3).map(|i| read("backend", &[("service", service), ("backend", &format!("b{i}"))]));
    Ok((read("service", &[("service", service)]), backends.collect()))
}

fn check_shares(report: &Report) -> Result<()> {
    let sum: u32 = WEIGHTS.iter().sum();
    for (i, weight) in WEIGHTS.iter().enumerate() {
        let (want, got) = (
            f64::from(*weight) / f64::from(sum),
            report.share(&format!("b{i}")),
        );
        ensure!(
            (want - got).abs() <= TOLERANCE,
            "b{i} has a share of {got:.4} instead of {want:.4}"
        );
    }
    Ok(())
}

fn every_flow_is_answered_shared_and_counted(kind: Kind) -> Result<()> {
    let _lane = Lane::alone()?;
    let site = start(Shape::TwoArmed)?;
    let uncounted = site.uncounted()?;
    for family in Family::BOTH {
        let service = kind.service(family);
        let independent = Independent::start(&site, kind, family)?;
        let report = kind.send(&site, family, MANY)?;
        report
            .ensure_complete(MANY.into())
            .with_context(|| format!("over {family:?}"))?;
        check_shares(&report)?;

        // The last FIN may still be on its way when the last answer has been read.
        let seen = wait::until("no more frames", Duration::from_secs(5), || {
            let (first, claim, second) = (independent.read()?, claimed(&site, service)?, independent.read()?);
            Ok((first == second && first == claim).then_some(first))
        });
        let seen = seen.with_context(|| {
            format!(
                "{service}: seen {:?}, claimed {:?}",
                independent.read(),
                claimed(&site, service)
            )
        })?;
        let to_backends: u64 = seen.1.iter().map(|count| count.packets).sum();
        assert_eq!(seen.0.packets, to_backends, "all packets were forwarded");

        let metrics = site.daemon.metrics()?;
        assert_eq!(
            metrics.count("lb_service_new_flows_total", &[("service", service)]),
            u64::from(MANY)
        );
        for i in 0..3 {
            let name = format!("b{i}");
            let labels = [("service", service), ("backend", name.as_str())];
            assert_eq!(
                metrics.count("lb_backend_new_flows_total", &labels),
                report.answers_of(&name)
            );
        }
        assert_eq!(metrics.sum("lb_drops_total", &[]), 0.0, "{}", metrics.text);
    }
    assert_eq!(
        site.uncounted()?,
        uncounted,
        "sum of verdicts = packets received, on each interface"
    );
    Ok(())
}

#[test]
fn traffic_flows_in_every_shape_of_network_with_right_checksums() -> Result<()> {
    let _lane = Lane::shared()?;
    for shape in [Shape::OneArmed, Shape::TwoArmed, Shape::Routed] {
        let site = start(shape)?;
        for (kind, family) in [Kind::Http, Kind::Udp]
            .into_iter()
            .zip([Family::BOTH; 2])
            .flat_map(|(kind, both)| both.map(|family| (kind, family)))
        {
            let context = || format!("{shape:?} {family:?} {}", kind.protocol());
            let vip = site.service_address(family);
            let captures = site.net.backends.iter().map(|host| {
                let port = kind.backend_port();
                Capture::start(&host.ns, "eth0", move |f| f.destination.port() == port)
            });
            let captures = captures.collect::<Result<Vec<_>>>()?;
            let replies = Capture::start(&site.net.client.ns, "eth0", move |f| f.source == vip)?;
            kind.send(&site, family, 300)?
                .ensure_complete(300)
                .with_context(context)?;
            for capture in captures {
                let frames = capture.stop().with_context(context)?;
                ensure!(!frames.is_empty(), "{}: a backend without traffic", context());
            }
            ensure!(!replies.stop().with_context(context)?.is_empty());
        }
    }
    Ok(())
}

/// A large datagram and its echo come in fragments, both ways translated.
#[test]
fn a_datagram_in_fragments_arrives_whole() -> Result<()> {
    let _lane = Lane::shared()?;
    for shape in [Shape::OneArmed, Shape::TwoArmed] {
        let site = start(shape)?;
        for family in Family::BOTH {
            for port in 40_000..40_030 {
                let target = site.service_address(family);
                let echoed = site.net.client.ns.enter(|| echo_large(target, port, 9_000))?;
                echoed.with_context(|| format!("{shape:?}, {target}, from port {port}"))?;
            }
        }
        let drops = site.daemon.metrics()?.count("lb_drops_total", &[]);
        ensure!(drops == 0, "{shape:?}: {drops} packets were dropped");
    }
    Ok(())
}

#[test]
fn generic_mode_carries_traffic_and_is_shown() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 2)?;
    let services = Family::BOTH
        .map(|f| [site.web(f, &[1, 1]), site.echo_service(f, &[1, 1])])
        .concat();
    site.daemon = site.daemon.args("--xdp-mode generic");
    let site = site.start(&services)?;
    for family in Family::BOTH {
        Kind::Http.send(&site, family, 300)?.ensure_complete(300)?;
        Kind::Udp.send(&site, family, 300)?.ensure_complete(300)?;
    }
    let status = site.daemon.cli().json("status")?;
    let modes: Vec<_> = status["interfaces"]
        .as_array()
        .context("interfaces")?
        .iter()
        .map(|i| &i["xdp_mode"])
        .collect();
    assert_eq!(modes, ["generic", "generic"]);
    Ok(())
}

#[test]
fn status_and_service_show_match_sent_traffic() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = start(Shape::OneArmed)?;
    let report = Kind::Udp.send(&site, Family::V4, 600)?;
    report.ensure_complete(600)?;
    let status = site.daemon.cli().json("status")?;
    assert_eq!(status["ready"], true);
    assert_eq!(status["pid"], site.daemon.pid()?);
    let services = status["services"].as_array().context("services")?;
    let echo = services
        .iter()
        .find(|s| s["name"] == "echo4")
        .context("echo4 in status")?;
    let bytes = FRAME_OVERHEAD * 600
        + (0..600)
            .map(|i| format!("datagram {i}").len() as u64)
            .sum::<u64>();
    for (field, want) in [("packets", 600), ("new_flows", 600), ("bytes", bytes)] {
        assert_eq!(echo[field], want, "{field}");
    }
    assert_eq!(
        (&echo["programmed"], &echo["error"]),
        (&true.into(), &serde_json::Value::Null)
    );
    let backends = echo["backends"].as_array().context("backends")?;
    let flows: BTreeMap<_, _> = backends
        .iter()
        .map(|b| (b["name"].as_str(), b["new_flows"].as_u64()))
        .collect();
    for (name, answers) in &report.answers {
        assert_eq!(flows.get(&Some(name.as_str())), Some(&Some(*answers)));
    }
    Ok(())
}

#[test]
fn a_client_that_reuses_its_port_is_not_held_up_by_the_backends_time_wait() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        let mut site = Site::new(Shape::OneArmed, 1)?;
        let web = site.web(family, &[1]);
        // With twenty ports for ten clients, the next port would soon be one in TIME_WAIT at the backend.
        let settings = "[lb]\nsnat_ports = \"20000-20019\"\n";
        site.daemon = site.daemon.config(&format!("{settings}{web}"))?;
        site.daemon.start()?;
        for _ in 0..10 {
            let target = site.service_address(family);
            http_requests(&site.net.client.ns, target, FIRST_PORT, 10, 2)?.ensure_complete(10)?;
        }
        let text = site.net.backends[0].ns.run("nstat", &["-asj"])?;
        let stats: serde_json::Value = serde_json::from_str(&text)?;
        let refused = &stats["kernel"]["TcpExtPAWSTimewait"];
        assert_eq!(
            refused.as_u64().unwrap_or(0),
            0,
            "SYNs that the backend took for old segments"
        );
        let flows = site.daemon.metrics()?.count("lb_service_new_flows_total", &[]);
        assert_eq!(flows, 100, "each connection counts as a flow");
    }
    Ok(())
}

/// Ethernet, IPv4 and UDP headers, bytes.
const FRAME_OVERHEAD: u64 = 14 + 20 + 8;

/// Thousands of flows as fast as they go.
mod alone {
    use super::*;

    #[test]
    fn every_http_request_is_answered_shared_by_weight_and_counted() -> Result<()> {
        every_flow_is_answered_shared_and_counted(Kind::Http)
    }

    #[test]
    fn every_udp_flow_is_answered_shared_by_weight_and_counted() -> Result<()> {
        every_flow_is_answered_shared_and_counted(Kind::Udp)
    }
}
