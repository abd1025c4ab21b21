//! A SYN flood at one service of mode `nat`, and its effect on clients of this and another service.

use std::{
    fmt,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use crate::{
    client::{KeepAlive, Report, run_many},
    config::file,
    http::{connect, exchange},
    site::{HTTP_PORT, SERVICE_PORT, Site},
    syn_flood::SynFlood,
    topology::{Family, Shape},
    wait,
};

/// Connections to each service that stand before the flood.
const ESTABLISHED: usize = 20;
/// New connections to each service at a time.
const AT_A_TIME: u32 = 4;
/// Source addresses of the balancer.
const SOURCES: u8 = 16;
/// Backends of both services.
const BACKENDS: u8 = 2;

/// How long, and how many new connections to each service meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The time over which the connections are spread.
    pub time: Duration,
    /// New connections.
    pub connections: u32,
}

/// Results of a service's clients.
#[derive(Clone, Debug)]
pub struct Clients {
    /// New connections; a failed one stands among the errors.
    pub new: Report,
    /// Requests on connections that stood before the flood, to its end; a connection that was lost stands among the errors.
    pub established: Report,
}

/// Effect of a flood.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// SYNs that were sent.
    pub sent: u64,
    /// The time that they took.
    pub took: Duration,
    /// Flows that they opened.
    pub opened: u64,
    /// Flows among them that gave way to new ones.
    pub gave_way: u64,
    /// SYNs for which there was no source port, or no room in the flow table.
    pub refused: u64,
    /// Of the flooded service.
    pub flooded: Clients,
    /// Of the other one.
    pub other: Clients,
    /// Events about flows that give way, as they are shown.
    pub events: Vec<String>,
}

/// Floods one of two services by `plan`. SYNs of the flood are dropped behind the balancer, before backends see them:
/// the test is about the balancer.
///
/// # Errors
/// When a part cannot be made. Lost connections are in the outcome.
pub fn run(plan: Plan) -> Result<Outcome> {
    let mut site = Site::new(Shape::TwoArmed, BACKENDS)?;
    site.net.middle.run_with_input(
        "nft",
        &["-f", "-"],
        "table netdev t { chain c { type filter hook ingress device lb priority 0; \
         tcp flags syn tcp doff 5 drop; }; }",
    )?;
    let other = site.web(Family::V4, &[1; BACKENDS as usize]);
    let address = SocketAddr::new(site.net.vip(Family::V4, 20), SERVICE_PORT);
    let flooded = site.with_backends(
        crate::config::Service::tcp("flooded", address),
        Family::V4,
        HTTP_PORT,
        &[1; BACKENDS as usize],
    );
    let sources: Vec<String> = (100..100 + SOURCES)
        .map(|last| format!("10.2.0.{last}"))
        .collect();
    for source in &sources {
        site.net.lb.ns.ip(&format!("addr add {source}/32 dev back"))?;
    }
    let settings = format!("[lb]\nsnat_addresses = {sources:?}\n");
    site.daemon = site.daemon.config(&(settings + &file(&[other, flooded])))?;
    site.daemon.start()?;
    let targets = [address, site.service_address(Family::V4)];
    let client = &site.net.client.ns;
    let established = targets.map(|target| KeepAlive::start(client, target, ESTABLISHED));
    let established: Vec<KeepAlive> = established.into_iter().collect::<Result<_>>()?;
    for connections in &established {
        connections.wait_rounds(3)?;
    }

    let began = Instant::now();
    let flood = SynFlood::start(client, "eth0", site.net.lb.ns.mac("front")?, address)?;
    let event = || -> Result<Vec<String>> {
        let events = site.daemon.cli().ok("events")?;
        let lines = events.lines().filter(|line| line.contains("give way"));
        Ok(lines.map(str::to_owned).collect())
    };
    wait::until_true("flows give way", Duration::from_secs(60), || {
        Ok(!event()?.is_empty())
    })?;
    let pause = plan.time * AT_A_TIME / plan.connections.max(1);
    let open = |target| {
        run_many(client, plan.connections, AT_A_TIME, move |_| {
            let begin = Instant::now();
            let body = exchange(&mut connect(target, 0)?, "/", true)?.body;
            wait::pace(pause.saturating_sub(begin.elapsed()));
            Ok(body)
        })
    };
    let new = thread::scope(|scope| {
        let both = targets.map(|target| scope.spawn(move || open(target)));
        both.map(|one| one.join().map_err(|_| anyhow!("a load thread panicked"))?)
    });
    let sent = flood.stop()?;
    let took = began.elapsed();

    for connections in established.iter().filter(|connections| connections.failed() == 0) {
        connections.wait_rounds(3)?;
    }
    let mut clients = new
        .into_iter()
        .zip(established)
        .map(|(new, established)| -> Result<Clients> {
            Ok(Clients {
                new: new?,
                established: established.stop()?,
            })
        });
    let mut next = || -> Result<Clients> { clients.next().context("two services")? };
    let (flooded, other) = (next()?, next()?);
    let metrics = site.daemon.metrics()?;
    let of_flooded = |name| metrics.count(name, &[("service", "flooded")]);
    let dropped = |reason| metrics.count("lb_drops_total", &[("reason", reason)]);
    Ok(Outcome {
        sent,
        took,
        opened: of_flooded("lb_service_new_flows_total"),
        gave_way: of_flooded("lb_service_flows_gave_way_total"),
        refused: dropped("snat_ports_exhausted") + dropped("flow_table_full"),
        flooded,
        other,
        events: event()?,
    })
}

impl Clients {
    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let Self { new, established } = self;
        let opened = new.total() + new.errors.len() as u64;
        writeln!(
            f,
            "{name:<10} {opened:>8} {:>8} {:>9.2} {ESTABLISHED:>13} {:>8} {:>10}",
            new.errors.len(),
            new.slowest.as_secs_f64(),
            established.errors.len(),
            established.total(),
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let rate = |count: u64| count as f64 / seconds;
        writeln!(
            f,
            "{} SYNs in {seconds:.1} s ({:.0}/s); {} opened flows ({:.0}/s), {} gave way, {} found no port or no room\n",
            self.sent,
            rate(self.sent),
            self.opened,
            rate(self.opened),
            self.gave_way,
            self.refused
        )?;
        writeln!(
            f,
            "{:<10} {:>8} {:>8} {:>9} {:>13} {:>8} {:>10}",
            "service", "new", "failed", "slowest", "established", "lost", "requests"
        )?;
        self.flooded.row(f, "flooded")?;
        self.other.row(f, "other")?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}
