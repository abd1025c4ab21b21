//! What the metrics address answers while the balancer forwards: requests a second and their latency for `/healthz` and `/metrics`, and
//! what the same clients get without other traffic.
//!
//! Argument: seconds of each run (5 without).

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::{Daemon, METRICS},
    lane::Lane,
    netns::Netns,
    nginx::Nginx,
    topology::{Family, Shape, Topology},
};

/// Connections to the metrics address: fewer than it takes.
const CLIENTS: u32 = 32;
/// Connections through the balancer.
const FORWARDED: u32 = 16;
/// Seconds of a run.
const SECONDS: u32 = 5;
/// Runs of each kind, alternating.
const RUNS: usize = 5;
/// Services and backends of each, so that metrics have some size.
const SERVICES: u8 = 20;
const BACKENDS: u8 = 10;

fn main() -> Result<()> {
    let seconds = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let seconds = seconds.map_or(Ok(SECONDS), |seconds| seconds.parse())?;
    let _lane = Lane::alone()?;
    let net = Topology::new(Shape::TwoArmed, 1)?;
    let backend = net.backends[0].socket(Family::V4, 8080);
    let _nginx = Nginx::start(&net.backends[0].ns, "b0", backend)?;
    let target = SocketAddr::new(net.vip(Family::V4, 10), 80);
    let web = Service::tcp("web", target).backend("b0", backend, 1);
    let others = (1..=SERVICES).map(|service| {
        let address = SocketAddr::new(net.vip(Family::V4, 20), 1_000 + u16::from(service));
        (1..=BACKENDS).fold(Service::tcp(&format!("s{service}"), address), |of, backend| {
            of.backend(
                &format!("b{backend}"),
                SocketAddr::from(([10, 9, service, backend], 80)),
                1,
            )
        })
    });
    let services: Vec<_> = [web].into_iter().chain(others).collect();
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
    daemon.start()?;
    daemon.wait_for_whole_program()?;

    println!(
        "{CLIENTS} connections to the metrics address, {FORWARDED} through the balancer; medians of {RUNS} runs of {seconds} s"
    );
    println!("                              requests/s     p50 ms     p99 ms     max ms   forwarded/s");
    let at = |path: &str| format!("http://{METRICS}{path}");
    let forwarded = format!("http://{target}/");
    alone("forwarding alone", &net.client.ns, FORWARDED, &forwarded, seconds)?;
    for path in ["/healthz", "/readyz", "/metrics"] {
        alone(path, &net.lb.ns, CLIENTS, &at(path), seconds)?;
        let mut runs = Vec::new();
        let mut through = Vec::new();
        for _ in 0..RUNS {
            let traffic = Wrk::start(&net.client.ns, FORWARDED, &forwarded, seconds)?;
            runs.push(Wrk::start(&net.lb.ns, CLIENTS, &at(path), seconds)?.end()?);
            through.push(traffic.end()?.per_second);
        }
        print(&format!("{path} while forwarding"), &runs, Some(median(through)));
    }
    Ok(())
}

/// Prints what one kind of client gets with nothing beside it.
fn alone(what: &str, ns: &Netns, connections: u32, url: &str, seconds: u32) -> Result<()> {
    let run = || Wrk::start(ns, connections, url, seconds)?.end();
    let runs = (0..RUNS).map(|_| run()).collect::<Result<Vec<_>>>()?;
    print(what, &runs, None);
    Ok(())
}

fn print(what: &str, runs: &[Run], forwarded: Option<f64>) {
    let of = |field: fn(&Run) -> f64| median(runs.iter().map(field).collect());
    println!(
        "  {what:<26} {:>12.0} {:>10.2} {:>10.2} {:>10.2} {:>13}",
        of(|run| run.per_second),
        of(|run| run.millis[0]),
        of(|run| run.millis[1]),
        of(|run| run.millis[2]),
        forwarded.map_or_else(String::new, |rate| format!("{rate:.0}"))
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What wrk measured.
struct Run {
    per_second: f64,
    /// Median, 99th percentile and maximum of the latency.
    millis: [f64; 3],
}

/// A running wrk.
struct Wrk(std::process::Child);

impl Wrk {
    fn start(ns: &Netns, connections: u32, url: &str, seconds: u32) -> Result<Self> {
        let mut command = ns.command("wrk");
        command.args(["--latency", "-t", "1", "-c", &connections.to_string()]);
        command.args(["-d", &format!("{seconds}s"), url]);
        let child = command.stdout(std::process::Stdio::piped()).spawn();
        Ok(Self(child.context("start wrk")?))
    }

    fn end(self) -> Result<Run> {
        let output = self.0.wait_with_output()?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            !output.contains("Non-2xx") && !output.contains("Socket errors"),
            "{output}"
        );
        let line = |name: &str| output.lines().find_map(|line| line.trim().strip_prefix(name));
        let latency = |name: &str| line(name).and_then(|rest| as_millis(rest.split_whitespace().next()?));
        // `Latency   1.00ms  2.00ms  30.00ms  95.00%`: average, deviation, maximum.
        let max = line("Latency").and_then(|rest| as_millis(rest.split_whitespace().nth(2)?));
        let millis = [latency("50%"), latency("99%"), max];
        let millis = millis.map(|millis| millis.with_context(|| format!("no latency in {output}")));
        let [half, most, max] = millis;
        let rate = line("Requests/sec:").with_context(|| format!("no rate in {output}"))?;
        Ok(Run {
            per_second: rate.trim().parse()?,
            millis: [half?, most?, max?],
        })
    }
}

/// Reads wrk's `812.00us`, `1.20ms`, `1.00s`.
fn as_millis(text: &str) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let scale = match unit {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}
