//! Control plane timings: start, change, ring swap, memory; and requests through the balancer compared with direct
//! ones. Every figure has its reference from the same run.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    lane::Lane,
    nginx::Nginx,
    topology::{Family, Shape, Topology},
};

/// Repetitions of operations that take milliseconds.
const REPEAT: usize = 21;
/// Pairs of runs with and without the balancer, alternating.
const PAIRS: usize = 5;
/// Length of one wrk run, seconds.
const WRK_SECONDS: u32 = 3;
/// Connections of wrk.
const WRK_CONNECTIONS: u32 = 64;

fn main() -> Result<()> {
    let _lane = Lane::alone()?;
    print_machine()?;
    start_and_memory()?;
    changes(10, "auto")?;
    changes(10, "131071")?;
    against_direct()
}

fn print_machine() -> Result<()> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let mut models = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = models.next().map_or("unknown CPU", |(_, name)| name);
    let cpus = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("{cpus} x {model}, Linux {}\n", kernel.trim());
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A service with `count` backends that need not exist.
fn large_service(name: &str, host: u8, count: u8, ring_size: &str) -> Service {
    let address = SocketAddr::from(([192, 0, 2, host], 80));
    let size = if ring_size == "auto" {
        "\"auto\""
    } else {
        ring_size
    };
    let service = Service::tcp(name, address).keys(&format!("ring_size = {size}"));
    (0..count).fold(service, |service, i| {
        service.backend(
            &format!("b{i}"),
            SocketAddr::from(([10, 2, host, i + 1], 8080)),
            100,
        )
    })
}

fn start_and_memory() -> Result<()> {
    let net = Topology::new(Shape::TwoArmed, 1)?;
    let services: Vec<_> = (1..=100)
        .map(|i| large_service(&format!("s{i}"), i, 10, "auto"))
        .collect();
    println!("start to READY=1, and memory (RSS of the daemon; maps by memlock in fdinfo)");
    for (what, config) in [
        ("no service", String::new()),
        ("100 services with 10 backends each", file(&services)),
    ] {
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        let mut memory = (0.0, 0.0);
        for _ in 0..REPEAT / 3 {
            let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&config)?;
            cold.push(millis(daemon.start()?));
            daemon.kill()?;
            warm.push(millis(daemon.start()?));
            memory = (resident(daemon.pid()?)?, map_memory(daemon.pid()?)?);
            daemon.stop()?;
        }
        println!(
            "  {what:<36} cold {:>6.1} ms   take-over {:>6.1} ms   daemon {:>5.1} MB   maps {:>6.1} MB",
            median(cold),
            median(warm),
            memory.0,
            memory.1
        );
    }
    println!();
    Ok(())
}

fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1e3)
}

/// Memory of all BPF maps that a process holds, each once.
fn map_memory(pid: u32) -> Result<f64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        // Descriptors come and go while the daemon runs.
        let Ok(info) = fs::read_to_string(entry.path()) else {
            continue;
        };
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id.to_bits(), bytes);
        }
    }
    ensure!(!maps.is_empty(), "the daemon holds no map");
    Ok(maps.values().sum::<f64>() / 1e6)
}

fn changes(backends: u8, ring_size: &str) -> Result<()> {
    let net = Topology::new(Shape::TwoArmed, 1)?;
    let config = file(&[large_service("web", 10, backends, ring_size)]);
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&config)?;
    daemon.start()?;
    let cli = daemon.cli();
    let timed = |line: &str| -> Result<f64> {
        let begin = Instant::now();
        cli.ok(line)?;
        Ok(millis(begin.elapsed()))
    };
    let floor = median((0..REPEAT).map(|_| timed("--version")).collect::<Result<_>>()?);
    let apply = |metrics: &lb_tests::metrics::Metrics| {
        (
            metrics.sum("lb_apply_seconds_sum", &[]),
            metrics.sum("lb_apply_seconds_count", &[]),
        )
    };
    let before = apply(&daemon.metrics()?);
    let weights = (0..REPEAT).map(|i| timed(&format!("backend set web b0 --weight {}", 101 + i)));
    let change = median(weights.collect::<Result<_>>()?);
    let after = apply(&daemon.metrics()?);
    let swap = (after.0 - before.0) / (after.1 - before.1) * 1e3;
    println!("weight change of 1 of {backends} backends, ring_size {ring_size}");
    println!("  command line to programmed {change:>6.1} ms   (lb --version alone {floor:.1} ms)");
    println!("  new ring built and swapped {swap:>6.2} ms   (mean of lb_apply_seconds)\n");
    daemon.stop()
}

/// Result of one run of wrk.
struct Run {
    per_second: f64,
    p99_millis: f64,
}

fn wrk(net: &Topology, target: SocketAddr, close: bool) -> Result<Run> {
    let header = if close {
        "Connection: close"
    } else {
        "Connection: keep-alive"
    };
    let (seconds, connections) = (format!("-d{WRK_SECONDS}s"), format!("-c{WRK_CONNECTIONS}"));
    let args = [
        "-t1",
        &connections,
        &seconds,
        "--latency",
        "-H",
        header,
        &format!("http://{target}/"),
    ];
    let output = net.client.ns.run("wrk", &args)?;
    let field = |name: &str| {
        output
            .lines()
            .find_map(|line| line.trim().strip_prefix(name))
            .map(str::trim)
    };
    ensure!(
        !output.contains("Socket errors") && !output.contains("Non-2xx"),
        "wrk saw failures: {output}"
    );
    Ok(Run {
        per_second: field("Requests/sec:").context("no rate")?.parse()?,
        p99_millis: field("99%")
            .and_then(as_millis)
            .with_context(|| format!("no latency in {output}"))?,
    })
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

fn against_direct() -> Result<()> {
    println!(
        "through the balancer against the same way through its kernel without it ({WRK_CONNECTIONS} connections, \
         {PAIRS} alternating pairs of {WRK_SECONDS} s, medians)"
    );
    for (what, close) in [("requests/s, keep-alive", false), ("new connections/s", true)] {
        let (mut ours, mut plain, mut ratios, mut p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            let (direct, through) = (one_run(close, false)?, one_run(close, true)?);
            ratios.push(through.per_second / direct.per_second);
            p99.push(through.p99_millis / direct.p99_millis);
            ours.push(through.per_second);
            plain.push(direct.per_second);
        }
        println!(
            "  {what:<24} {:>8.0}   direct {:>8.0}   ratio {:.2}   p99 {:.2} x direct",
            median(ours),
            median(plain),
            median(ratios),
            median(p99)
        );
    }
    Ok(())
}

/// One run in a fresh network, so that no run meets sockets that an earlier one left in TIME_WAIT.
fn one_run(close: bool, balanced: bool) -> Result<Run> {
    let net = Topology::new(Shape::TwoArmed, 1)?;
    net.forward_in_kernel()?;
    let backend = net.backends[0].socket(Family::V4, 8080);
    let _nginx = Nginx::start(&net.backends[0].ns, "b0", backend)?;
    if !balanced {
        return wrk(&net, backend, close);
    }
    let target = SocketAddr::new(net.vip(Family::V4, 10), 80);
    let config = file(&[Service::tcp("web", target).backend("b0", backend, 1)]);
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&config)?;
    daemon.start()?;
    wrk(&net, target, close)
}
