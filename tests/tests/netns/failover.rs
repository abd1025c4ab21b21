//! A backend dies: no new flow reaches it later than its check settings promise, and it serves again after `rise`.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::{
    capture::{Capture, Captured},
    client::{KeepAlive, run_many},
    config::Service,
    direct::Direct,
    http::{connect, connect_within, exchange},
    lane::Lane,
    nginx::Nginx,
    site::{NGINX_PORT, Site},
    topology::{Family, Shape},
    wait,
};

const INTERVAL: Duration = Duration::from_millis(800);
const FAST_INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(1);
/// Long, so that new flows have stopped before the next check also where the processors have much else to do.
const DOWN_INTERVAL: Duration = Duration::from_secs(2);
const FALL: usize = 3;
const RISE: usize = 2;
/// Longest wait for something that the daemon does by itself.
const LIMIT: Duration = Duration::from_secs(60);
/// A client of the steady load gives up after this, so that a dead backend does not keep the load from going on.
const IMPATIENCE: Duration = Duration::from_millis(100);
/// Source ports below are the balancer's translated clients, above are its own health checks.
const LAST_SNAT_PORT: u16 = 32_767;

/// New connections without end, until dropped: each one a new flow.
struct SteadyFlows {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl SteadyFlows {
    fn start(site: &Site, target: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, ns) = (Arc::clone(&stop), site.net.client.ns.clone());
        let thread = std::thread::spawn(move || {
            let port = AtomicU16::new(0);
            let mut answered = 0;
            while !stopped.load(Ordering::Relaxed) {
                // Failures are expected between death and detection; the test is about where flows go.
                let report = run_many(&ns, 20, 4, |_| {
                    let port = 10_000 + port.fetch_add(1, Ordering::Relaxed) % 50_000;
                    let answer = exchange(&mut connect_within(target, port, IMPATIENCE)?, "/", true)?;
                    Ok(answer.body)
                })?;
                answered += report.total();
                wait::pace(Duration::from_millis(50));
            }
            Ok(answered)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped before")?;
        thread.join().map_err(|_| anyhow!("the load panicked"))?
    }
}

impl Drop for SteadyFlows {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Failover {
    site: Site,
    servers: Vec<Nginx>,
    target: SocketAddr,
}

impl Failover {
    fn start(family: Family) -> Result<Self> {
        let site = Site::new(Shape::TwoArmed, 2)?;
        let target = site.service_address(family);
        let service = Service::tcp("web", target).health(&format!(
            "kind = \"http\"\ninterval = \"{}ms\"\nfast_interval = \"{}ms\"\ndown_interval_max = \"{}ms\"\n\
             timeout = \"{}ms\"\nfall = {FALL}\nrise = {RISE}\njitter = 0.0",
            INTERVAL.as_millis(),
            FAST_INTERVAL.as_millis(),
            DOWN_INTERVAL.as_millis(),
            TIMEOUT.as_millis(),
        ));
        let service = site.with_backends(service, family, NGINX_PORT, &[1, 1]);
        let failover = Self {
            servers: site.nginx(family)?,
            site: site.start(&[service])?,
            target,
        };
        failover.wait_health("up")?;
        Ok(failover)
    }

    fn wait_health(&self, health: &str) -> Result<()> {
        let cli = self.site.daemon.cli();
        wait::until_true(&format!("backend b0 is {health}"), LIMIT, || {
            Ok(cli.backend("web", "b0")?["health"] == health)
        })
    }

    /// Clients' flows to backend b0 so far.
    fn flows_of_b0(&self) -> Result<u64> {
        let labels = [("service", "web"), ("backend", "b0")];
        Ok(self
            .site
            .daemon
            .metrics()?
            .count("lb_backend_new_flows_total", &labels))
    }

    /// What opens connections to backend b0, of clients and of checks, and its answers.
    fn openings_of_b0(&self) -> Result<Capture> {
        let b0 = self.servers[0].address();
        Capture::start(&self.site.net.middle, "lb", move |frame| {
            frame.destination == b0 && frame.is_syn() || frame.source == b0 && frame.is_syn_ack()
        })
    }
}

/// Whether this opens a connection of a client.
fn is_flow(captured: &Captured) -> bool {
    captured.frame.is_syn() && captured.frame.source.port() <= LAST_SNAT_PORT
}

/// The numbers of checks that the backend answered and did not answer. A repeated SYN is of the same check.
fn checks(openings: &[Captured]) -> (usize, usize) {
    let ports = |answered: bool| -> BTreeSet<u16> {
        let frames = openings.iter().map(|captured| &captured.frame);
        let ports = frames
            .filter(|frame| frame.is_syn_ack() == answered)
            .map(|frame| {
                let own = if answered { frame.destination } else { frame.source };
                own.port()
            });
        ports.filter(|port| *port > LAST_SNAT_PORT).collect()
    };
    let (asked, answered) = (ports(false), ports(true));
    (answered.len(), asked.difference(&answered).count())
}

/// Counts checks instead of seconds, which depend on what else the machine does. That checks come in time is tested in simulated time,
/// beside the code.
fn dies_and_returns(
    family: Family,
    die: impl FnOnce(&mut Failover) -> Result<()>,
    revive: impl FnOnce(&mut Failover) -> Result<()>,
) -> Result<()> {
    let _lane = Lane::shared()?;
    let mut failover = Failover::start(family)?;
    let load = SteadyFlows::start(&failover.site, failover.target);

    let capture = failover.openings_of_b0()?;
    let before = failover.flows_of_b0()?;
    wait::until_true("clients reach the backend", LIMIT, || {
        Ok(failover.flows_of_b0()? > before)
    })?;
    die(&mut failover)?;
    failover.wait_health("down")?;
    // Flows that a wrong ring would still send have time to show themselves.
    let answered = http_rounds(&failover)?;
    let openings = capture.stop()?;
    let last = openings.iter().rposition(is_flow);
    let last = last.context("no flow went to the backend before it died")?;
    let (_, failed) = checks(&openings[..last]);
    println!("{family:?}: the last new flow came after {failed} failed checks; {answered} answered since");
    ensure!(failed <= FALL, "a new flow after {failed} failed checks");

    let capture = failover.openings_of_b0()?;
    revive(&mut failover)?;
    failover.wait_health("up")?;
    http_rounds(&failover)?;
    let openings = capture.stop()?;
    let first = openings
        .iter()
        .position(is_flow)
        .context("no flow after the return")?;
    let (succeeded, _) = checks(&openings[..first]);
    println!("{family:?}: the first new flow came after {succeeded} answered checks");
    // One may have been answered too late.
    ensure!(
        (RISE..=RISE + 1).contains(&succeeded),
        "the first new flow came after {succeeded} answered checks"
    );
    load.stop()?;
    Ok(())
}

/// A hundred new flows, all answered: none goes to a dead backend.
fn http_rounds(failover: &Failover) -> Result<u64> {
    let (ns, target) = (&failover.site.net.client.ns, failover.target);
    let report = run_many(ns, 100, 4, |_| {
        Ok(exchange(&mut connect(target, 0)?, "/", true)?.body)
    })?;
    report.ensure_complete(100)?;
    Ok(report.total())
}

#[test]
fn a_killed_server_gets_no_new_flow_after_the_promised_checks() -> Result<()> {
    dies_and_returns(Family::V4, |f| f.servers[0].kill(), |f| f.servers[0].restart())
}

#[test]
fn a_machine_off_the_network_gets_no_new_flow_after_the_promised_checks() -> Result<()> {
    is_cut_off_and_returns(Family::V4)
}

#[test]
fn an_ipv6_machine_off_the_network_gets_no_new_flow_after_the_promised_checks() -> Result<()> {
    is_cut_off_and_returns(Family::V6)
}

fn is_cut_off_and_returns(family: Family) -> Result<()> {
    dies_and_returns(
        family,
        |f| f.site.net.middle.ip("link set b0 down"),
        |f| f.site.net.middle.ip("link set b0 up"),
    )
}

/// One failed check more or less would be a second of lost flows, or a backend that goes at a passing failure.
#[test]
fn fall_is_the_number_of_failed_checks_in_a_row_that_take_a_backend_out() -> Result<()> {
    const FALL: usize = 4;
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let web = site.web(Family::V4, &[1]).health(&format!(
        "kind = \"http\"\npath = \"/health\"\ninterval = \"200ms\"\nfast_interval = \"50ms\"\n\
         down_interval_max = \"200ms\"\ntimeout = \"30s\"\nfall = {FALL}\nrise = 1"
    ));
    let site = site.start(&[web])?;
    let server = &site.http[0];
    let downs = || {
        let events = site.daemon.cli().ok("-o json events")?;
        let is_down = |line: &&str| line.contains("\"b0\"") && line.contains("down: ");
        anyhow::Ok(events.lines().filter(is_down).count())
    };
    wait::until_true("the backend is up", LIMIT, || {
        Ok(site.daemon.cli().backend("web4", "b0")?["health"] == "up")
    })?;
    // A check comes after the result of the one before it was judged.
    server.script_health(&[[503; FALL - 1].as_slice(), &[200, 200]].concat());
    wait::until_true("fewer checks than that have failed", LIMIT, || {
        Ok(server.scripted() == 0)
    })?;
    ensure!(downs()? == 0, "it went after fewer than {FALL} failed checks");
    server.script_health(&[[503; FALL].as_slice(), &[200, 200]].concat());
    wait::until_true("the backend goes down once", LIMIT, || Ok(downs()? == 1))
}

#[test]
fn unhealthy_answer_takes_a_backend_out_and_drops_without_backends_are_counted() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let health = "kind = \"http\"\npath = \"/health\"\ninterval = \"200ms\"\nfast_interval = \"50ms\"\n\
                  down_interval_max = \"200ms\"\ntimeout = \"5s\"\nfall = 2\nrise = 2";
    let web = site.web(Family::V4, &[1]).health(health);
    let site = site.start(&[web])?;
    let healthy = |want: f64| {
        wait::until_true("healthy backends", Duration::from_secs(10), || {
            Ok(site
                .daemon
                .metrics()?
                .sum("lb_service_healthy_backends", &[("service", "web4")])
                == want)
        })
    };
    healthy(1.0)?;
    site.http[0].set_health_status(503);
    healthy(0.0)?;
    let target = site.service_address(Family::V4);
    let refused = site
        .net
        .client
        .ns
        .enter(|| std::net::TcpStream::connect_timeout(&target, Duration::from_millis(200)).is_err())?;
    assert!(refused);
    let metrics = site.daemon.metrics()?;
    assert!(metrics.count("lb_drops_total", &[("reason", "no_backend")]) > 0);
    assert!(
        metrics.count(
            "lb_service_drops_total",
            &[("service", "web4"), ("reason", "no_backend")]
        ) > 0
    );
    site.http[0].set_health_status(200);
    healthy(1.0)?;
    let events = site.daemon.cli().ok("-o json events")?;
    let transitions = events.lines().filter(|line| line.contains("b0")).count();
    assert!(transitions >= 2, "down and up are events: {events}");
    Ok(())
}

/// The network of backend b0 fails until its checks call it down, and returns. Gives the connections that were lost.
fn lost_in_a_blip(mode: &str, on_down_after: &str) -> Result<u64> {
    const CONNECTIONS: usize = 40;
    const ROUNDS: u64 = 3;
    let keys = format!("on_down_after = \"{on_down_after}\"");
    let health = "kind = \"icmp\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"\n\
                  down_interval_max = \"200ms\"\ntimeout = \"200ms\"\nfall = 2\nrise = 1";
    let direct;
    let site;
    let (net, daemon, target) = if mode == "nat" {
        let new = Site::new(Shape::TwoArmed, 2)?;
        let service = new.web(Family::V4, &[1, 1]).keys(&keys).health(health);
        site = new.start(&[service])?;
        (&site.net, &site.daemon, site.service_address(Family::V4))
    } else {
        let keys = format!("{keys}\n[service.health]\n{health}");
        direct = Direct::start(Family::V4, 2, 2, "", &keys)?;
        (&direct.net, &direct.daemon, direct.target)
    };
    let name = if mode == "nat" { "web4" } else { "web" };
    let wait_health = |health: &str| {
        wait::until_true(&format!("b0 is {health}"), Duration::from_secs(60), || {
            Ok(daemon.cli().backend(name, "b0")?["health"] == health)
        })
    };
    wait_health("up")?;
    let load = KeepAlive::start(&net.client.ns, target, CONNECTIONS)?;
    load.wait_rounds(ROUNDS)?;
    net.middle.ip("link set b0 down")?;
    wait_health("down")?;
    net.middle.ip("link set b0 up")?;
    wait_health("up")?;
    let rounds = load.wait_rounds(ROUNDS);
    let lost = load.failed();
    if lost == 0 {
        rounds?;
        load.stop()?.ensure_flawless()?;
    }
    Ok(lost)
}

#[test]
fn a_blip_resets_connections_only_where_the_service_wants_them_to_move_at_once() -> Result<()> {
    let _lane = Lane::shared()?;
    for mode in ["nat", "l2dsr"] {
        ensure!(
            lost_in_a_blip(mode, "1h")? == 0,
            "{mode}: connections were lost in a blip"
        );
        ensure!(
            lost_in_a_blip(mode, "0s")? > 0,
            "{mode}: no connection moved from a backend that is down"
        );
    }
    Ok(())
}
