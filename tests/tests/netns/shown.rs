//! Checks as operators see them: failures with their cause, and one event for each change.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::Service,
    lane::Lane,
    nginx::Nginx,
    site::{NGINX_PORT, Site},
    topology::{Family, Shape},
    wait,
};
use serde_json::Value;

/// For operations that normally take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Checks to wait for, far more than verdicts.
const CHECKS: u64 = 40;

#[test]
fn failure_is_shown_as_text_and_reported_once_for_many_checks() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let family = Family::V4;
    let host = &site.net.backends[0];
    let server = host.socket(family, NGINX_PORT);
    let mut nginx = Nginx::start(&host.ns, "b0", server)?;
    let check = "kind = \"http\"\ninterval = \"50ms\"\nfast_interval = \"50ms\"\ndown_interval_max = \"50ms\"\n\
         keep_alive = false";
    let service = |name: &str, number, check: &str| {
        let address = (site.net.vip(family, number), 80).into();
        Service::tcp(name, address).health(check).backend("b0", server, 1)
    };
    // Another check, so that each service has checks of its own.
    let services = [
        service("web", 10, check),
        service("api", 11, &format!("{check}\npath = \"/api\"")),
    ];
    let site = site.start(&services)?;
    let cli = site.daemon.cli();
    let is = |health: &str| -> Result<()> {
        for service in ["web", "api"] {
            wait::until_true(&format!("b0 of {service} is {health}"), LIMIT, || {
                let shown = cli.json(&format!("service show {service}"))?;
                Ok(shown["backends"][0]["health"] == health)
            })?;
        }
        Ok(())
    };
    // Checks since now, of both services, by the histograms.
    let more_checks = || -> Result<()> {
        let count = |service| -> Result<u64> {
            let metrics = site.daemon.metrics()?;
            Ok(metrics.count("lb_health_check_duration_seconds_count", &[("service", service)]))
        };
        for service in ["web", "api"] {
            let before = count(service)?;
            wait::until_true(&format!("{CHECKS} more checks of {service}"), LIMIT, || {
                Ok(count(service)? >= before + CHECKS)
            })?;
        }
        Ok(())
    };
    let words = format!("connection refused by {server}");

    is("up")?;
    more_checks()?;
    nginx.kill()?;
    is("down")?;
    more_checks()?;
    let wide = cli.ok("backend list -o wide")?;
    ensure!(wide.matches(&words).count() == 2, "{wide}");
    let status = cli.ok("status")?;
    ensure!(status.contains(&format!("down: {words}")), "{status}");
    nginx.restart()?;
    is("up")?;
    more_checks()?;

    let lines = cli.ok("-o json events")?;
    let events = lines.lines().map(serde_json::from_str::<Value>);
    let events: Vec<Value> = events.collect::<Result<_, _>>()?;
    for service in ["web", "api"] {
        let messages = events
            .iter()
            .filter(|event| event["kind"] == "health" && event["service"] == service);
        let messages: Vec<&str> = messages
            .map(|event| event["message"].as_str().context("message"))
            .collect::<Result<_>>()?;
        ensure!(
            messages == ["up", &format!("down: {words}"), "up"],
            "{service}: {messages:?}"
        );
    }
    let log = site.daemon.log();
    ensure!(log.matches("health changed").count() == 6, "{log}");
    let metrics = site.daemon.metrics()?;
    for service in ["web", "api"] {
        let of = [("service", service)];
        let slow = metrics.count(
            "lb_health_check_duration_seconds_bucket",
            &[of[0], ("le", "+Inf")],
        );
        ensure!(slow == metrics.count("lb_health_check_duration_seconds_count", &of));
        ensure!(metrics.count("lb_health_transitions_total", &[of[0], ("to", "down")]) == 1);
    }
    Ok(())
}
