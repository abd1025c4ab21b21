//! The traffic and the changes of a round.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use fastrand::Rng;
use lb_tests::{
    client::{KeepAlive, run_many},
    config::{Service, file},
    http::{connect_within, exchange},
    site::{ECHO_PORT, HTTP_PORT, Site},
    topology::{Family, Shape},
    udp, wait,
};

const BACKENDS: u8 = 3;
/// Between two changes.
const CHANGE: Duration = Duration::from_millis(30);
/// Between two bursts of new flows.
const BURST: Duration = Duration::from_millis(50);
/// Flows of a burst, and how many at a time.
const FLOWS: u32 = 12;
const AT_A_TIME: u32 = 4;
/// Connections of the service that nothing changes, whose only backend is the first one.
const KEPT: usize = 8;
/// A client gives up after this.
const IMPATIENCE: Duration = Duration::from_millis(500);
const HEALTH: &str = "kind = \"http\"\npath = \"/health\"\ninterval = \"50ms\"\nfast_interval = \"20ms\"\ndown_interval_max = \"100ms\"";
/// Flows run out soon after a round.
const TIMEOUTS: &str = "idle_timeout = \"2s\"\nhalf_open_timeout = \"1s\"\nclosed_timeout = \"1s\"";
const UDP_TIMEOUTS: &str = "idle_timeout = \"2s\"\nhalf_open_timeout = \"1s\"";
const UDP_HEALTH: &str =
    "kind = \"icmp\"\ninterval = \"50ms\"\nfast_interval = \"20ms\"\ndown_interval_max = \"100ms\"";

/// Names of the services that are changed.
const CHANGED: [&str; 4] = ["web4", "web6", "dnat4", "echo4"];

/// The machines, and what was done so far.
pub(super) struct Rig {
    pub(super) site: Site,
    config: String,
    targets: Vec<SocketAddr>,
    echo: SocketAddr,
    steady: SocketAddr,
    random: Rng,
    done: BTreeMap<&'static str, f64>,
    lost: Vec<String>,
}

impl Rig {
    pub(super) fn start(seed: u64) -> Result<Self> {
        let site = Site::new(Shape::TwoArmed, BACKENDS)?;
        site.net.forward_in_kernel()?;
        let weights = [1; BACKENDS as usize];
        let at = |family, host| SocketAddr::new(site.net.vip(family, host), 80);
        let web = |name: &str, address: SocketAddr, keys: &str, weights: &[u32]| {
            let service = Service::tcp(name, address).keys(keys).health(HEALTH);
            let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
            site.with_backends(service, family, HTTP_PORT, weights)
        };
        let (steady, echo) = (at(Family::V4, 10), at(Family::V4, 13));
        let targets = vec![at(Family::V4, 11), at(Family::V6, 11), at(Family::V4, 12)];
        let udp = Service::udp("echo4", echo).keys(UDP_TIMEOUTS).health(UDP_HEALTH);
        let services = [
            web("steady", steady, TIMEOUTS, &weights[..1]),
            web("web4", targets[0], TIMEOUTS, &weights),
            web("web6", targets[1], TIMEOUTS, &weights),
            web("dnat4", targets[2], "mode = \"dnat\"", &weights),
            site.with_backends(udp, Family::V4, ECHO_PORT, &weights),
        ];
        let config = format!("[lb]\ntransition = \"1s\"\n{}", file(&services));
        let mut site = site;
        site.daemon = site.daemon.config(&config)?;
        site.daemon.start()?;
        site.daemon.wait_for_whole_program()?;
        Ok(Self {
            site,
            config,
            targets,
            echo,
            steady,
            random: Rng::with_seed(seed),
            done: BTreeMap::new(),
            lost: Vec::new(),
        })
    }

    /// What was done, with how often.
    pub(super) fn done(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.done.iter().map(|(what, count)| (*what, *count))
    }

    /// Kept connections that were lost.
    pub(super) fn lost(&self) -> Option<String> {
        (!self.lost.is_empty()).then(|| self.lost.join("; "))
    }

    /// Traffic and changes for this time; then everything is put back.
    pub(super) fn round(&mut self, time: Duration) -> Result<()> {
        let kept = KeepAlive::start(&self.site.net.client.ns, self.steady, KEPT)?;
        let stop = AtomicBool::new(false);
        let (flows, answered, looks) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let end = Instant::now() + time;
        let (site, targets, echo) = (&self.site, &self.targets, self.echo);
        let (random, done) = (&mut self.random, &mut self.done);
        thread::scope(|scope| -> Result<()> {
            let load = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    for report in bursts(site, targets, echo)? {
                        flows.fetch_add(FLOWS.into(), Ordering::Relaxed);
                        answered.fetch_add(report, Ordering::Relaxed);
                    }
                    wait::pace(BURST);
                }
                Ok(())
            });
            let reader = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    site.daemon.metrics()?;
                    for command in [
                        "status",
                        "flows list",
                        "flows count",
                        "events",
                        "service show web4",
                    ] {
                        // A service may be gone.
                        site.daemon.cli().run(&command.split(' ').collect::<Vec<_>>())?;
                        looks.fetch_add(1, Ordering::Relaxed);
                    }
                    wait::pace(BURST);
                }
                Ok(())
            });
            let changed = (|| -> Result<()> {
                while Instant::now() < end {
                    *done.entry(change(site, random)?).or_default() += 1.0;
                    wait::pace(CHANGE);
                }
                Ok(())
            })();
            stop.store(true, Ordering::Relaxed);
            for thread in [load, reader] {
                thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            }
            changed
        })?;
        self.put_back()?;
        for (what, count) in [
            ("new flows", &flows),
            ("new flows answered", &answered),
            ("commands that read", &looks),
        ] {
            *self.done.entry(what).or_default() += count.load(Ordering::Relaxed) as f64;
        }
        self.lost.extend(kept.stop()?.errors);
        Ok(())
    }

    /// As it was at the start.
    fn put_back(&self) -> Result<()> {
        self.site.net.middle.ip("link set b2 up")?;
        self.site
            .http
            .iter()
            .for_each(|server| server.set_health_status(200));
        let cli = self.site.daemon.cli();
        let config = self.site.daemon.write_config(&self.config)?;
        cli.ok(&format!("apply {} --yes --wait", config.display()))?;
        for service in CHANGED {
            (0..BACKENDS)
                .try_for_each(|backend| cli.ok(&format!("backend enable {service} b{backend}")).map(drop))?;
        }
        let are_healthy = |service: &serde_json::Value| {
            let backends = if service["name"] == "steady" { 1 } else { BACKENDS };
            service["healthy_backends"] == backends
        };
        wait::until_true("all backends are up", Duration::from_secs(60), || {
            let status = cli.json("status")?;
            let services = status["services"].as_array().cloned().unwrap_or_default();
            Ok(services.len() == CHANGED.len() + 1 && services.iter().all(are_healthy))
        })
    }
}

/// New flows to each service; gives the answers by service.
fn bursts(site: &Site, targets: &[SocketAddr], echo: SocketAddr) -> Result<Vec<u64>> {
    let ns = &site.net.client.ns;
    let mut answered = Vec::new();
    for target in targets {
        let report = run_many(ns, FLOWS, AT_A_TIME, |_| {
            Ok(exchange(&mut connect_within(*target, 0, IMPATIENCE)?, "/", true)?.body)
        })?;
        answered.push(report.total());
    }
    let report = run_many(ns, FLOWS, AT_A_TIME, |number| {
        let socket = udp::open(echo, 0)?;
        socket.set_read_timeout(Some(IMPATIENCE))?;
        udp::echo_once(&socket, number)
    })?;
    answered.push(report.total());
    Ok(answered)
}

/// Makes a random change, which may be refused, such as the removal of what is not there. Gives its name.
fn change(site: &Site, random: &mut Rng) -> Result<&'static str> {
    let service = random.choice(CHANGED).unwrap_or("web4");
    let backend = random.u8(..BACKENDS);
    let command = match random.u8(..14) {
        0..4 => (
            "weights set",
            format!("backend set {service} b{backend} --weight {}", random.u8(..)),
        ),
        4 => ("backends removed", format!("backend remove {service} b2")),
        5 => (
            "backends added",
            format!("backend add {service} b2 --address {}", added(site, service)),
        ),
        6 => ("backends drained", format!("backend drain {service} b{backend}")),
        7 => (
            "backends disabled",
            format!("backend disable {service} b{backend}"),
        ),
        8 => ("backends enabled", format!("backend enable {service} b{backend}")),
        9 => (
            "services added",
            "service add more --address 192.0.2.99 --port 80 --check tcp".to_owned(),
        ),
        10 => ("services removed", "service remove more --yes".to_owned()),
        11 => ("flows flushed", format!("flows flush --service {service} --yes")),
        12 => {
            let status = if random.bool() { 200 } else { 503 };
            site.http
                .iter()
                .skip(1)
                .for_each(|server| server.set_health_status(status));
            return Ok("answers of servers changed");
        }
        _ => {
            let state = if random.bool() { "up" } else { "down" };
            site.net.middle.ip(&format!("link set b2 {state}"))?;
            return Ok("links changed");
        }
    };
    let (name, command) = command;
    site.daemon.cli().run(&command.split(' ').collect::<Vec<_>>())?;
    Ok(name)
}

/// Address of the backend that comes and goes.
fn added(site: &Site, service: &str) -> SocketAddr {
    let (family, port) = match service {
        "web6" => (Family::V6, HTTP_PORT),
        "echo4" => (Family::V4, ECHO_PORT),
        _ => (Family::V4, HTTP_PORT),
    };
    site.net.backends[2].socket(family, port)
}
