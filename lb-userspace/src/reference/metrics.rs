//! `docs/metrics.md`: every metric that the daemon exports.

use std::collections::BTreeMap;

use super::{cell, check};
use crate::metrics;

const INTRODUCTION: &str = "\
# Metrics

Generated from a scrape of every family by `cargo xtask docs`.

`/metrics` serves Prometheus text, or OpenMetrics where the client prefers it, at `http://127.0.0.1:9900` (key `metrics`);
compressed by gzip where the client takes it. `/healthz` answers 200 while the daemon lives, `/readyz` while it forwards on all
its interfaces.

- Packets and bytes of services and backends count what clients send, whole frames as received; replies have families of their own
  (`…_reply_…`). Every packet received counts for exactly one reason: [reasons.md](reasons.md) lists them, with what to do
  about each.
- No label holds a client's address.
- A series of `lb_service_drops_total` and `lb_service_replies_total` begins with its first packet. All other counters begin at 0,
  so that `increase()` sees the first one.
- The load of the busiest CPU relative to all: `max(rate(lb_cpu_packets_total[5m])) / avg(rate(lb_cpu_packets_total[5m]))`.

| metric | type | labels | meaning |
|---|---|---|---|
";

#[tokio::test]
async fn the_metrics_reference_is_what_a_scrape_shows() {
    let text = metrics::every_family().await;
    let mut families: BTreeMap<&str, (&str, &str, Vec<&str>)> = BTreeMap::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            family = name;
            families.insert(name, ("", help, Vec::new()));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            families.get_mut(family).unwrap().0 = rest.split_once(' ').unwrap().1;
        } else if let Some((_, labels)) = line.split_once('{') {
            let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
            let labels = labels.map(|(label, _)| label).filter(|label| *label != "le");
            families.get_mut(family).unwrap().2 = labels.collect();
        }
    }
    let mut page = INTRODUCTION.to_owned();
    // The client library's `process_*` metrics depend on the machine, and are documented there.
    for (name, (kind, help, labels)) in families.iter().filter(|(name, _)| !name.starts_with("process_")) {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        page.push_str(&format!(
            "| `{name}` | {kind} | {} | {} |\n",
            labels.join(", "),
            cell(help)
        ));
    }
    page.push_str("\nBeside them: `process_*` of the Prometheus client library.\n");
    check("metrics.md", &page);
}
