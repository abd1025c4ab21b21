//! Passive checks: clients' failures reveal a bad backend before its checks do.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_tests::{
    client::run_many,
    config::Service,
    http::{connect, connect_as, exchange},
    lane::Lane,
    nginx::Nginx,
    site::{NGINX_PORT, Site},
    topology::{Family, Shape},
    wait,
};
use serde_json::Value;

/// For operations that normally take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// A second address of the client's: failures of one client alone prove nothing about a backend.
const SECOND: [(IpAddr, &str); 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 1, 0, 77)), "10.1.0.77/24"),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 0x77)),
        "fd01::77/64 nodad",
    ),
];
/// Longer than a client waits before it repeats its SYN.
const PATIENCE: Duration = Duration::from_millis(1_500);

struct Rig {
    site: Site,
    servers: Vec<Nginx>,
    family: Family,
}

impl Rig {
    /// Two real servers behind a service with hourly checks, modified by `health`.
    fn start(family: Family, health: &str) -> Result<Self> {
        let site = Site::new(Shape::TwoArmed, 2)?;
        for (_, address) in SECOND {
            site.net
                .client
                .ns
                .ip(&format!("address add {address} dev eth0"))?;
        }
        let health = format!("kind = \"tcp\"\ninterval = \"1h\"\ndown_interval_max = \"1h\"\n{health}");
        let service = Service::tcp("web", site.service_address(family)).health(&health);
        let service = site.with_backends(service, family, NGINX_PORT, &[1, 1]);
        let rig = Self {
            servers: site.nginx(family)?,
            site: site.start(&[service])?,
            family,
        };
        for name in ["b0", "b1"] {
            rig.wait_for(&format!("{name} is up"), name, |backend| {
                backend["health"] == "up"
            })?;
        }
        Ok(rig)
    }

    fn backend(&self, name: &str) -> Result<Value> {
        self.site.daemon.cli().backend("web", name)
    }

    fn wait_for(&self, what: &str, name: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        wait::until_true(what, LIMIT, || Ok(is(&self.backend(name)?)))
    }

    /// Sends clients until `is` holds for b0; their results do not matter.
    fn suffer_until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        let (ns, target) = (&self.site.net.client.ns, self.site.service_address(self.family));
        self.wait_for(what, "b0", |backend| {
            // Errors of clients are expected.
            let _ = run_many(ns, 16, 8, |n| {
                let second = SECOND.iter().find(|(ip, _)| ip.is_ipv4() == target.is_ipv4());
                let any = if target.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                let source = second.filter(|_| n % 2 == 1).map_or(any, |(ip, _)| *ip);
                let answer = connect_as(SocketAddr::new(source, 0), target, PATIENCE)
                    .and_then(|mut stream| exchange(&mut stream, "/", true));
                Ok(answer.map(|answer| answer.body).unwrap_or_default())
            });
            is(backend)
        })
    }

    /// New connections that must all be answered. Returns how many of them by b0.
    fn be_served(&self) -> Result<u64> {
        let (ns, target) = (&self.site.net.client.ns, self.site.service_address(self.family));
        let report = run_many(ns, 100, 4, |_| {
            Ok(exchange(&mut connect(target, 0)?, "/", true)?.body)
        })?;
        report.ensure_complete(100)?;
        Ok(report.answers_of("b0"))
    }

    fn signals(&self, signal: &str) -> Result<u64> {
        let labels = [("service", "web"), ("backend", "b0"), ("signal", signal)];
        Ok(self
            .site
            .daemon
            .metrics()?
            .count("lb_backend_signals_total", &labels))
    }

    fn events(&self) -> Result<String> {
        self.site.daemon.cli().ok("events")
    }
}

/// The check would need a thousand failures: it is the breaker that takes the backend out, and a check that lets it back.
#[test]
fn a_backend_that_begins_to_refuse_is_out_until_a_check_succeeds() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        let mut rig = Rig::start(
            family,
            "fast_interval = \"200ms\"\nfall = 1000\nbreaker_failures = 5\nbreaker_open = \"1h\"",
        )?;
        ensure!(rig.be_served()? > 0, "b0 serves no client");
        ensure!(
            rig.backend("b0")?["breaker"] == "closed",
            "{}",
            rig.backend("b0")?
        );
        rig.servers[0].kill()?;
        rig.suffer_until("the breaker of b0 is open", |backend| {
            backend["breaker"] == "open"
        })?;
        let b0 = rig.backend("b0")?;
        ensure!(b0["health"] == "down" && b0["suspect"] == true, "{b0}");
        ensure!(b0["signals"]["refused"].as_u64() >= Some(5), "{b0}");
        ensure!(rig.be_served()? == 0, "b0 is dead");
        ensure!(rig.signals("refused")? >= 5);
        let metrics = rig.site.daemon.metrics()?;
        ensure!(metrics.count("lb_backend_breaker", &[("backend", "b0")]) == 2);
        let status = rig.site.daemon.cli().ok("status")?;
        ensure!(status.contains("circuit breaker open"), "{status}");
        let events = rig.events()?;
        ensure!(
            events.contains("down: circuit breaker open: within 10s"),
            "{events}"
        );

        rig.servers[0].restart()?;
        rig.wait_for("b0 is back", "b0", |backend| backend["health"] == "up")?;
        let b0 = rig.backend("b0")?;
        ensure!(b0["breaker"] == "closed" && b0["suspect"] == false, "{b0}");
        ensure!(rig.be_served()? > 0, "b0 serves no client");
        let events = rig.events()?;
        ensure!(events.contains("up: ok; circuit breaker closed"), "{events}");
    }
    Ok(())
}

/// No check comes for an hour, since the fast interval is as long: only a trial can bring it back.
#[test]
fn an_open_breaker_lets_flows_try_again() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut rig = Rig::start(
        Family::V4,
        "fast_interval = \"1h\"\nbreaker_failures = 3\nbreaker_window = \"1s\"\nbreaker_open = \"1s\"",
    )?;
    rig.servers[0].kill()?;
    rig.suffer_until("the breaker of b0 is open", |backend| {
        backend["breaker"] == "open"
    })?;
    rig.servers[0].restart()?;
    rig.wait_for("the trial is over", "b0", |backend| {
        backend["breaker"] == "closed"
    })?;
    ensure!(rig.be_served()? > 0, "b0 serves no client");
    let events = rig.events()?;
    ensure!(events.contains("up: circuit breaker half-open"), "{events}");
    let transitions = |to| {
        let labels = [("service", "web"), ("to", to)];
        Ok::<_, anyhow::Error>(
            rig.site
                .daemon
                .metrics()?
                .count("lb_health_breaker_transitions_total", &labels),
        )
    };
    for to in ["open", "half-open", "closed"] {
        ensure!(transitions(to)? > 0, "{to}");
    }
    Ok(())
}

/// No breaker: failures of clients' flows make the backend checked at once and at the fast interval.
#[test]
fn silent_backend_is_detected_before_its_next_check() -> Result<()> {
    let _lane = Lane::shared()?;
    let rig = Rig::start(Family::V4, "fast_interval = \"100ms\"\ntimeout = \"500ms\"")?;
    rig.site.net.middle.ip("link set b0 down")?;
    rig.suffer_until("b0 is down", |backend| backend["health"] == "down")?;
    ensure!(rig.signals("unanswered")? > 0, "no SYN was repeated");
    ensure!(rig.be_served()? == 0, "b0 serves clients");
    ensure!(rig.backend("b0")?["breaker"].is_null(), "there is none");
    Ok(())
}
