//! What connections cost: health checks of the daemon over kept, new and half-open ones, and requests through a service with and without
//! keep-alive.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lb_tests::{
    daemon::Daemon,
    nginx::Nginx,
    report::{
        document::Report,
        plot::Plot,
        samples::{Samples, Unit},
        table::Table,
    },
    topology::{Family, Shape, Topology},
    wait,
};

use crate::{context::Context, load::Load, ways::Way, world::World};

/// Backends that are checked: addresses of one nginx.
const BACKENDS: u32 = 1_000;
const QUICK_BACKENDS: u32 = 20;
const PORT: u16 = 8080;
/// More often than a processor can check all of them.
const INTERVALS: &str =
    "interval = \"10ms\"\nfast_interval = \"10ms\"\ndown_interval_max = \"10ms\"\ntimeout = \"5s\"";
/// Ways to check.
const CHECKS: [(&str, &str); 4] = [
    ("http, kept connection", "kind = \"http\""),
    ("http, new connection", "kind = \"http\"\nkeep_alive = false"),
    ("tcp, new connection", "kind = \"tcp\""),
    ("tcp, half-open", "kind = \"tcp\"\nhalf_open = true"),
];
/// Connections of clients.
const CONNECTIONS: usize = 64;
/// Longest wait until backends are checked.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was measured of a way to check.
#[derive(Default)]
struct Checked {
    per_second: Samples,
    /// CPU seconds of the checking thread, a check.
    cpu: Samples,
    /// Checks of a second of that thread's CPU time.
    per_cpu: Samples,
    connections: Samples,
}

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let count = context.pick(QUICK_BACKENDS, BACKENDS);
    let mut report = Report::new(format!(
        "Checks: the daemon checks {count} backends, addresses of one nginx behind another interface, every 10 ms, which is more often \
         than one processor can; CPU time is that of the thread that checks. A kept connection has a half-open one beside some checks. \
         Requests: `lb-bench` over {CONNECTIONS} connections through a service of mode `nat`, closed loop; without keep-alive each request \
         has a connection of its own."
    ));
    let bench = Bench::start(count)?;
    let mut all: Vec<Checked> = CHECKS.iter().map(|_| Checked::default()).collect();
    for turn in 0..context.turns() {
        for ((name, keys), checked) in CHECKS.iter().zip(&mut all) {
            context.progress(&format!("turn {} of {}, {name}", turn + 1, context.turns()));
            bench.check(keys, Duration::from_millis(context.pick(200, 2_000)), checked)?;
        }
    }
    drop(bench);
    let columns = [
        ("checks/s", Unit::Count),
        ("CPU a check", Unit::Seconds),
        ("checks a second of CPU", Unit::Count),
        ("connections a check", Unit::Ratio),
    ];
    let mut table = Table::new("Health checks", "check", &columns);
    for ((name, _), checked) in CHECKS.iter().zip(&all) {
        let cells = [
            &checked.per_second,
            &checked.cpu,
            &checked.per_cpu,
            &checked.connections,
        ];
        table.row(*name, cells.map(|samples| Some(samples.clone())));
    }
    report.table(table);
    let bars = CHECKS
        .iter()
        .zip(&all)
        .map(|((name, _), checked)| ((*name).to_owned(), checked.per_cpu.clone()));
    report.plot(Plot::bars(
        "",
        "Health checks a second of CPU time",
        Unit::Count,
        bars.collect(),
    ));
    report.check("checks were made in every turn", None);
    add_requests(context, &mut report)?;
    Ok(report)
}

fn add_requests(context: &mut Context, report: &mut Report) -> Result<()> {
    let world = World::start(Way::Nat, context)?;
    let columns = [
        ("requests/s", Unit::Count),
        ("p50", Unit::Seconds),
        ("p99", Unit::Seconds),
    ];
    let mut table = Table::new("Requests through a service", "connections", &columns);
    let mut rates = Vec::new();
    for (name, is_kept) in [("kept", true), ("new for each request", false)] {
        let mut samples: [Samples; 3] = Default::default();
        for _ in 0..context.turns() {
            let load = Load {
                is_kept,
                ..Load::new(CONNECTIONS, Duration::from_millis(context.pick(200, 1_000)))
            };
            let loaded = world.load(&load, report);
            let values = [loaded.per_second(), loaded.latency("p50"), loaded.latency("p99")];
            samples
                .iter_mut()
                .zip(values)
                .for_each(|(samples, value)| samples.push(value));
        }
        rates.push(samples[0].clone());
        table.row(name, samples.map(Some));
    }
    report.table(table);
    report.check("no other request failed", None);
    if let [kept, new] = &rates[..] {
        report.note(format!(
            "requests over kept connections, by those over new ones: {}",
            kept.per(new).show(Unit::Ratio)
        ));
    }
    Ok(())
}

/// A daemon, and a server with many addresses.
struct Bench {
    daemon: Daemon,
    _nginx: Nginx,
    net: Topology,
    count: u32,
}

impl Bench {
    fn start(count: u32) -> Result<Self> {
        let net = Topology::new(Shape::TwoArmed, 1)?;
        let host = &net.backends[0];
        host.ns.ip("route add local 10.64.0.0/16 dev lo")?;
        net.lb
            .ns
            .ip(&format!("route add 10.64.0.0/16 via {}", host.ip(Family::V4)))?;
        let nginx = Nginx::start(&host.ns, "host", ([0, 0, 0, 0], PORT).into())?;
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?;
        daemon.start()?;
        Ok(Self {
            daemon,
            _nginx: nginx,
            net,
            count,
        })
    }

    /// Checks the backends in this way for some time.
    fn check(&self, keys: &str, time: Duration, checked: &mut Checked) -> Result<()> {
        let mut text = format!(
            "[[service]]\nname = \"web\"\naddress = \"{}\"\nport = 80\n[service.health]\n{keys}\n{INTERVALS}\n",
            self.net.vip(Family::V4, 10)
        );
        for number in 1..=self.count {
            let [.., high, low] = number.to_be_bytes();
            writeln!(
                text,
                "[[service.backend]]\nname = \"b{number}\"\naddress = \"10.64.{high}.{low}:{PORT}\""
            )?;
        }
        let (file, cli) = (self.daemon.write_config(&text)?, self.daemon.cli());
        cli.ok(&format!("apply {} --yes", file.display()))?;
        // The former checks have ended.
        wait::pace(time / 2);
        let before = self.look()?;
        wait::until_true("every backend was checked meanwhile", PATIENCE, || {
            let now = self.look()?;
            Ok(now.at - before.at >= time && now.checks - before.checks >= f64::from(self.count))
        })?;
        let after = self.look()?;
        let (checks, cpu) = (after.checks - before.checks, after.cpu - before.cpu);
        checked
            .per_second
            .push(checks / (after.at - before.at).as_secs_f64());
        checked.cpu.push(cpu / checks);
        checked.per_cpu.push(checks / cpu);
        checked
            .connections
            .push((after.connections - before.connections) / checks);
        Ok(())
    }

    fn look(&self) -> Result<Counts> {
        let text = fs::read_to_string(thread_of(self.daemon.pid()?, "lb-health")?.join("schedstat"))?;
        // Nanoseconds on a processor come first (proc(5)).
        let nanoseconds = text.split_whitespace().next().context("empty schedstat")?;
        let snmp = self.net.lb.ns.run("cat", &["/proc/net/snmp"])?;
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = lines.next().zip(lines.next()).context("no counters of TCP")?;
        let place = names.split(' ').position(|name| name == "ActiveOpens");
        let connections = place
            .and_then(|place| values.split(' ').nth(place))
            .context("no count of connections")?;
        Ok(Counts {
            at: Instant::now(),
            checks: self.daemon.metrics()?.sum("lb_health_checks_total", &[]),
            cpu: nanoseconds.parse::<f64>()? / 1e9,
            connections: connections.parse()?,
        })
    }
}

/// Counts of a daemon since its start.
struct Counts {
    at: Instant,
    checks: f64,
    /// CPU seconds of the checking thread.
    cpu: f64,
    /// Connections that its machine began.
    connections: f64,
}

fn thread_of(pid: u32, name: &str) -> Result<PathBuf> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            return Ok(path);
        }
    }
    bail!("no thread {name}")
}
