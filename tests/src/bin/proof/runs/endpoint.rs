//! What the metrics address answers, alone and while the balancer forwards: requests a second and their latency.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_tests::{
    config::{Service, file},
    daemon::{Daemon, METRICS},
    load_tool::{self, load_tool},
    netns::Netns,
    nginx::Nginx,
    report::{
        document::{Figure, Report},
        plot::Plot,
        samples::{Samples, Unit},
        table::Table,
    },
    topology::{Family, Shape, Topology},
};

use crate::context::Context;

/// Connections to the metrics address: fewer than it takes.
const CLIENTS: u32 = 32;
/// Connections through the balancer.
const FORWARDED: u32 = 16;
/// Services and backends of each, so that metrics have some size.
const SERVICES: u8 = 20;
const BACKENDS: u8 = 10;
/// Requests a second through the balancer, beside requests at a fixed rate.
const TRAFFIC: u32 = 5_000;

/// Requests to the metrics address.
struct Case {
    path: &'static str,
    /// Requests a second; `None`: as fast as answers come.
    rate: Option<u32>,
    /// Whether requests go through the balancer meanwhile, at which rate.
    beside: Beside,
}

#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    AsFastAsItGoes,
    Rate(u32),
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for (path, rate) in [("/healthz", 10_000), ("/readyz", 10_000), ("/metrics", 200)] {
            for (rate, beside) in [
                (None, Beside::Nothing),
                (None, Beside::AsFastAsItGoes),
                (Some(rate), Beside::Rate(TRAFFIC)),
            ] {
                cases.push(Self { path, rate, beside });
            }
        }
        cases
    }

    fn name(&self) -> String {
        let rate = match self.rate {
            Some(rate) => format!("{} at {}/s", self.path, Unit::Count.show(f64::from(rate))),
            None => self.path.to_owned(),
        };
        match self.beside {
            Beside::Nothing => rate,
            Beside::AsFastAsItGoes => format!("{rate} while forwarding"),
            Beside::Rate(beside) => format!(
                "{rate} while forwarding {}/s",
                Unit::Count.show(f64::from(beside))
            ),
        }
    }
}

/// What was measured of a case.
#[derive(Default)]
struct Measured {
    per_second: Samples,
    p50: Samples,
    p99: Samples,
    most: Samples,
    forwarded: Samples,
}

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let mut report = Report::new(format!(
        "`lb-bench` over {CLIENTS} connections to the metrics address of a daemon with {} services of {BACKENDS} backends each, and over \
         {FORWARDED} connections through one of its services meanwhile. Without a rate each connection sends its next request when it has \
         its answer (closed loop), and both loads take all processors; at a rate, latency counts from the time at which a request is \
         due (open loop).",
        SERVICES + 1
    ));
    let bench = Bench::start(Duration::from_millis(context.pick(200, 1_500)))?;
    let cases = Case::all();
    let mut all: Vec<Measured> = cases.iter().map(|_| Measured::default()).collect();
    for turn in 0..context.turns() {
        for (case, measured) in cases.iter().zip(&mut all) {
            context.progress(&format!(
                "turn {} of {}, {}",
                turn + 1,
                context.turns(),
                case.name()
            ));
            let errors = bench.run(case, measured)?;
            if errors > 0 {
                report.check(case.name(), Some(format!("{errors} requests failed")));
            }
        }
    }
    report.check("no other request failed", None);
    let columns = [
        ("requests/s", Unit::Count),
        ("p50", Unit::Seconds),
        ("p99", Unit::Seconds),
        ("largest", Unit::Seconds),
        ("forwarded/s", Unit::Count),
    ];
    let mut table = Table::new("The metrics address", "requests", &columns);
    let mut bars = Vec::new();
    for (case, measured) in cases.iter().zip(&all) {
        let forwarded = (!measured.forwarded.values().is_empty()).then(|| measured.forwarded.clone());
        let cells = [&measured.per_second, &measured.p50, &measured.p99, &measured.most]
            .map(|samples| Some(samples.clone()));
        table.row(case.name(), cells.into_iter().chain([forwarded]));
        bars.push((case.name(), measured.per_second.clone()));
    }
    report.table(table);
    report.plot(Plot::bars(
        "",
        "Requests a second to the metrics address",
        Unit::Count,
        bars,
    ));
    // /healthz: alone, while forwarding, at a rate while forwarding.
    if let [_, busy, at_rate, ..] = &all[..] {
        let (rate, p50, p99) = (
            busy.per_second.median(),
            at_rate.p50.median(),
            at_rate.p99.median(),
        );
        report.figure(Figure {
            target: "endpoint",
            ours: format!(
                "{} requests/s while forwarding; at 10,000/s p50 {}, p99 {}",
                Unit::Count.show(rate),
                Unit::Seconds.show(p50),
                Unit::Seconds.show(p99)
            ),
            peers: String::new(),
            is_met: Some(rate >= 10_000.0 && p50 < 1e-3 && p99 < 10e-3),
            note: "`/healthz`; client, servers and balancer share the processors".to_owned(),
        });
    }
    Ok(report)
}

/// A daemon with services, of which one has a server.
struct Bench {
    _daemon: Daemon,
    _nginx: Nginx,
    target: SocketAddr,
    net: Topology,
    time: Duration,
}

impl Bench {
    fn start(time: Duration) -> Result<Self> {
        let net = Topology::new(Shape::TwoArmed, 1)?;
        let backend = net.backends[0].socket(Family::V4, 8080);
        let nginx = Nginx::start(&net.backends[0].ns, "b0", backend)?;
        let target = SocketAddr::new(net.vip(Family::V4, 10), 80);
        let mut services = vec![Service::tcp("web", target).backend("b0", backend, 1)];
        for number in 1..=SERVICES {
            let address = SocketAddr::new(net.vip(Family::V4, 20), 1_000 + u16::from(number));
            let service = Service::tcp(&format!("s{number}"), address);
            services.push((1..=BACKENDS).fold(service, |service, backend| {
                service.backend(&format!("b{backend}"), ([10, 9, number, backend], 80).into(), 1)
            }));
        }
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
        daemon.start()?;
        daemon.wait_for_whole_program()?;
        Ok(Self {
            _daemon: daemon,
            _nginx: nginx,
            target,
            net,
            time,
        })
    }

    /// Runs a case once. Gives the number of requests that failed.
    fn run(&self, case: &Case, measured: &mut Measured) -> Result<u64> {
        let through = format!("http://{}/", self.target);
        let beside = match case.beside {
            Beside::Nothing => None,
            Beside::AsFastAsItGoes => Some(None),
            Beside::Rate(rate) => Some(Some(rate)),
        };
        let traffic = beside.map(|rate| self.load(&self.net.client.ns, FORWARDED, &through, rate));
        let traffic = traffic.transpose()?;
        let at = format!("http://{METRICS}{}", case.path);
        let own = load_tool::end(self.load(&self.net.lb.ns, CLIENTS, &at, case.rate)?)?.json()?;
        let number = |result: &serde_json::Value, name: &str| {
            result
                .pointer(name)
                .and_then(serde_json::Value::as_f64)
                .with_context(|| format!("no {name} in {result}"))
        };
        measured.per_second.push(number(&own, "/rps")?);
        measured.p50.push(number(&own, "/latency/p50")?);
        measured.p99.push(number(&own, "/latency/p99")?);
        measured.most.push(number(&own, "/latency/max")?);
        let mut errors = own["errors"].as_u64().unwrap_or(u64::MAX);
        if let Some(traffic) = traffic {
            let traffic = load_tool::end(traffic)?.json()?;
            measured.forwarded.push(number(&traffic, "/rps")?);
            errors += traffic["errors"].as_u64().unwrap_or(u64::MAX);
        }
        Ok(errors)
    }

    fn load(&self, ns: &Netns, connections: u32, url: &str, rate: Option<u32>) -> Result<Child> {
        let mut command = load_tool(ns)?;
        command.args(["--json", "-t", "1", "-w", "100ms", "-c", &connections.to_string()]);
        command
            .args(["-d", &format!("{}ms", self.time.as_millis())])
            .args(rate.map(|rate| format!("--rate={rate}")));
        command
            .arg(url)
            .stdout(Stdio::piped())
            .spawn()
            .context("start lb-bench")
    }
}
