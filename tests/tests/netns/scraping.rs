//! The counters reach a real Prometheus.

use std::time::Duration;

use anyhow::Result;
use lb_tests::{
    client::http_requests,
    daemon::METRICS,
    lane::Lane,
    prometheus::{Prometheus, check_metrics},
    site::Site,
    topology::{Family, Shape},
    wait,
};

/// Metrics that dashboards and alerts are built on.
const PROMISED: &[&str] = &[
    "lb_backend_admin",
    "lb_backend_configured_weight",
    "lb_backend_info",
    "lb_backend_last_check_age_seconds",
    "lb_build_info",
    "lb_config_differs_from_file",
    "lb_config_last_reload_timestamp_seconds",
    "lb_config_reloads_total",
    "lb_cpu_packets_total",
    "lb_events_total",
    "lb_interface_losses_total",
    "lb_interface_native",
    "lb_listener_requests_total",
    "lb_service_backends",
    "lb_service_check_interval_seconds",
    "lb_service_info",
    "lb_sweep_age_seconds",
    "lb_sweep_duration_seconds",
    "lb_config_revision",
    "lb_config_last_apply_success",
    "lb_ready",
    "lb_xdp_packets_total",
    "lb_xdp_bytes_total",
    "lb_drops_total",
    "lb_passes_total",
    "lb_service_packets_total",
    "lb_service_bytes_total",
    "lb_service_new_flows_total",
    "lb_service_healthy_backends",
    "lb_backend_packets_total",
    "lb_backend_bytes_total",
    "lb_backend_new_flows_total",
    "lb_active_connections",
    "lb_backend_health",
    "lb_backend_weight",
    "lb_health_checks_total",
    "lb_flows",
    "lb_map_entries",
    "lb_map_capacity",
    "lb_map_update_errors_total",
    "process_resident_memory_bytes",
];

#[test]
fn prometheus_scrapes_the_counters_and_promtool_is_content() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 2)?;
    let web = site
        .web(Family::V4, &[1, 1])
        .health("kind = \"http\"\npath = \"/health\"");
    let site = site.start(&[web])?;
    let prometheus = Prometheus::start(&site.net.lb.ns, METRICS)?;
    http_requests(
        &site.net.client.ns,
        site.service_address(Family::V4),
        20_000,
        100,
        8,
    )?
    .ensure_complete(100)?;

    let mut answer = None;
    wait::until_true("prometheus has the 100 flows", Duration::from_secs(15), || {
        answer = prometheus.query("sum(lb_service_new_flows_total)")?;
        Ok(answer == Some(100.0))
    })
    .map_err(|e| e.context(format!("it answers {answer:?}")))?;
    // Also after a scrape that came too late on a busy machine.
    for (name, value) in [
        ("lb_ready", 1.0),
        ("up", 1.0),
        ("lb_service_healthy_backends", 2.0),
    ] {
        wait::until_true(&format!("{name} is {value}"), Duration::from_secs(60), || {
            Ok(prometheus.query(name)? == Some(value))
        })?;
    }
    // Prometheus prefers OpenMetrics, and reads it strictly.
    assert!(prometheus.describes("lb_drops")? && !prometheus.describes("lb_drops_total")?);

    let metrics = site.daemon.metrics()?;
    check_metrics(&site.net.lb.ns, &metrics.text)?;
    let missing: Vec<_> = PROMISED.iter().filter(|name| !metrics.has(name)).collect();
    assert!(missing.is_empty(), "not served: {missing:?}");
    assert!(
        !metrics.text.contains("10.1.0.2"),
        "a client's address in the metrics"
    );
    assert_eq!(
        (
            site.daemon.http_status("/healthz")?,
            site.daemon.http_status("/readyz")?
        ),
        (200, 200)
    );
    Ok(())
}
