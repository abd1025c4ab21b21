//! Agents report how to use their backends, by HAProxy's protocol.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::{
    agent::Agent,
    client::run_many,
    config::Service,
    http::{connect, exchange},
    lane::Lane,
    site::{HTTP_PORT, Site},
    topology::{Family, Shape},
    wait,
};
use serde_json::Value;

/// Port of the agents.
const AGENT_PORT: u16 = 9707;
/// For operations that normally take seconds.
const LIMIT: Duration = Duration::from_secs(60);

struct Rig {
    site: Site,
    agents: Vec<Agent>,
    family: Family,
}

impl Rig {
    /// Two servers, each with an agent that reports `up`, behind a service that also checks them.
    fn start(family: Family) -> Result<Self> {
        let site = Site::new(Shape::TwoArmed, 2)?;
        let agent = format!("[service.agent]\nport = {AGENT_PORT}\ninterval = \"100ms\"");
        let check =
            "kind = \"tcp\"\ninterval = \"200ms\"\nfast_interval = \"50ms\"\ndown_interval_max = \"200ms\"";
        let mut service = Service::tcp("web", site.service_address(family))
            .keys(&agent)
            .health(check);
        let mut agents = Vec::new();
        for (i, host) in site.net.backends.iter().enumerate() {
            let address = host.socket(family, AGENT_PORT);
            agents.push(Agent::start(&host.ns, address, "up 100%\n")?);
            service = service.backend(&format!("b{i}"), host.socket(family, HTTP_PORT), 100);
        }
        let rig = Self {
            site: site.start(&[service])?,
            agents,
            family,
        };
        for name in ["b0", "b1"] {
            rig.wait_for(&format!("{name} is up, and its agent answers"), name, |backend| {
                backend["health"] == "up" && backend["agent"]["last_poll"]["answer"] == "up 100%"
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

    fn wait_for_weight(&self, name: &str, weight: u32) -> Result<()> {
        let what = format!("{name} has a weight of {weight}");
        self.wait_for(&what, name, |backend| backend["effective_weight"] == weight)
    }

    /// New connections that must all be answered. Returns how many of 100 by b0.
    fn served_by_b0(&self) -> Result<u64> {
        let (ns, target) = (&self.site.net.client.ns, self.site.service_address(self.family));
        let report = run_many(ns, 300, 4, |_| {
            Ok(exchange(&mut connect(target, 0)?, "/", true)?.body)
        })?;
        report.ensure_complete(300)?;
        Ok(report.answers_of("b0") / 3)
    }

    fn events(&self) -> Result<String> {
        self.site.daemon.cli().ok("events")
    }
}

#[test]
fn an_agent_sets_weight_drain_and_state_and_the_operator_has_the_last_word() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        let mut rig = Rig::start(family)?;
        let cli = rig.site.daemon.cli();
        let target = rig.site.service_address(family);

        rig.agents[0].say("up 25% unheard-of\n")?;
        rig.wait_for_weight("b0", 25)?;
        let share = rig.served_by_b0()?;
        ensure!(
            (10..=32).contains(&share),
            "b0 serves {share} % with a fifth of the weights"
        );
        ensure!(rig.backend("b0")?["weight"] == 100, "the configured weight stays");
        let poll = rig.backend("b0")?["agent"]["last_poll"].clone();
        ensure!(poll["note"] == "unknown word \"unheard-of\"", "{poll}");

        // Clients keep their connections while a server drains; it gets no new ones.
        let mut kept = Vec::new();
        rig.site.net.client.ns.enter(|| -> Result<()> {
            for _ in 0..50 {
                let mut stream = connect(target, 0)?;
                if exchange(&mut stream, "/", false)?.body == "b0" {
                    kept.push(stream);
                }
            }
            Ok(())
        })??;
        ensure!(!kept.is_empty(), "b0 has no connections");
        rig.agents[0].say("drain 100%\n")?;
        rig.wait_for_weight("b0", 0)?;
        ensure!(rig.served_by_b0()? == 0, "b0 drains");
        for stream in &mut kept {
            ensure!(
                exchange(stream, "/", false)?.body == "b0",
                "it had a connection to b0"
            );
        }
        let wide = cli.ok("backend list web -o wide")?;
        ensure!(
            wide.contains("drain by agent") && wide.contains("AGENT"),
            "{wide}"
        );

        // A restart keeps the reports, even if agents do not answer.
        rig.agents[0].kill()?;
        rig.site.daemon.kill()?;
        rig.site.daemon.start()?;
        ensure!(
            rig.backend("b0")?["effective_weight"] == 0,
            "{}",
            rig.backend("b0")?
        );
        ensure!(rig.served_by_b0()? == 0, "b0 drains still");
        rig.wait_for("the agent of b0 is lost", "b0", |backend| {
            backend["agent"]["lost"] == true
        })?;
        ensure!(rig.served_by_b0()? == 0, "only its agent can take that back");
        let status = cli.ok("status")?;
        ensure!(status.contains("its agent does not answer"), "{status}");
        rig.agents[0].say("ready down #disk full\n")?;
        rig.agents[0].restart()?;
        rig.wait_for("b0 is down", "b0", |backend| backend["health"] == "down")?;
        ensure!(
            rig.backend("b0")?["last_check"]["ok"] == true,
            "its checks succeed"
        );
        let status = cli.ok("status")?;
        ensure!(status.contains("its agent says down: disk full"), "{status}");
        let metrics = rig.site.daemon.metrics()?;
        ensure!(metrics.count("lb_backend_agent_up", &[("backend", "b0")]) == 0);
        ensure!(metrics.count("lb_backend_health", &[("backend", "b0")]) == 0);
        ensure!(metrics.count("lb_agent_polls_total", &[("result", "failure")]) > 0);

        // `up` by the agent is not enough without checks.
        rig.agents[0].say("up\n")?;
        rig.wait_for_weight("b0", 100)?;

        // The operator's setting stays, with any report.
        cli.ok("backend disable web b0")?;
        rig.agents[0].say("ready 50%\n")?;
        rig.wait_for("the agent reports 50%", "b0", |backend| {
            backend["agent"]["weight_percent"] == 50
        })?;
        let b0 = rig.backend("b0")?;
        ensure!(b0["admin"] == "disabled" && b0["effective_weight"] == 0, "{b0}");
        cli.ok("backend enable web b0")?;
        ensure!(rig.backend("b0")?["effective_weight"] == 50);
        cli.ok("service set web --agent false")?;
        let b0 = rig.backend("b0")?;
        ensure!(b0["effective_weight"] == 100, "{b0}");

        let events = rig.events()?;
        for message in [
            "agent does not answer, its last report stays in force: connection refused by",
            "agent answers again",
            "agent: down (disk full)",
        ] {
            ensure!(events.contains(message), "{message}: {events}");
        }
    }
    Ok(())
}
