//! Alerts and dashboard in `contrib/`: each alert has its heading in the runbook and its case for promtool, and each metric and
//! reason that they name exists.

use std::collections::BTreeSet;

use lb_common::reason::Reason;

use super::finding::{Finding, Source};

/// The rules.
const RULES: &str = "contrib/prometheus/lb.rules.yml";
/// Their cases.
const CASES: &str = "contrib/prometheus/lb.rules.test.yml";
/// The dashboard.
const DASHBOARD: &str = "contrib/grafana/lb.json";
/// The page with a heading for each alert.
const RUNBOOK: &str = "docs/runbook.md";
/// The page with all metrics, which a test compares with the code.
const METRICS: &str = "docs/metrics.md";

/// What Prometheus makes of a histogram.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Checks these files against each other.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let find = |path: &str| sources.iter().find(|source| source.path == path);
    let mut findings = Vec::new();
    let [
        Some(rules),
        Some(cases),
        Some(dashboard),
        Some(runbook),
        Some(metrics),
    ] = [RULES, CASES, DASHBOARD, RUNBOOK, METRICS].map(find)
    else {
        return vec![Finding {
            path: RULES.to_owned(),
            line: 0,
            message: format!(
                "one of {CASES}, {DASHBOARD}, {RUNBOOK}, {METRICS} or the file itself is missing"
            ),
        }];
    };
    findings.extend(alerts(rules, cases, runbook));
    for source in [rules, cases, dashboard, runbook] {
        findings.extend(names(source, metrics));
    }
    findings
}

/// Alerts without a case, or whose link leads to no heading; and headings without an alert.
fn alerts(rules: &Source, cases: &Source, runbook: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let after = |source: &Source, before: &str| -> Vec<(usize, String)> {
        let lines = (1..).zip(source.text.lines());
        lines
            .filter_map(|(number, line)| Some((number, line.trim().strip_prefix(before)?.to_owned())))
            .collect()
    };
    let headings = after(runbook, "## ");
    let tested: BTreeSet<String> = after(cases, "- alertname: ")
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    let links = after(rules, "runbook: ");
    let alerts = after(rules, "- alert: ");
    for (number, alert) in &alerts {
        if !headings.iter().any(|(_, heading)| heading == alert) {
            findings.push(Finding::new(
                rules,
                *number,
                format!("{alert} has no heading in {RUNBOOK}"),
            ));
        }
        let wanted = format!("{RUNBOOK}#{}", alert.to_lowercase());
        let link = links.iter().find(|(line, _)| line > number);
        if link.is_none_or(|(_, link)| *link != wanted) {
            findings.push(Finding::new(
                rules,
                *number,
                format!("its annotation runbook is not {wanted}"),
            ));
        }
        if !tested.contains(alert) {
            findings.push(Finding::new(
                rules,
                *number,
                format!("{alert} has no case in {CASES}"),
            ));
        }
    }
    for (number, heading) in &headings {
        if !alerts.iter().any(|(_, alert)| alert == heading) {
            findings.push(Finding::new(
                runbook,
                *number,
                format!("{RULES} has no alert {heading}"),
            ));
        }
    }
    findings
}

/// Metrics and reasons that do not exist.
fn names(source: &Source, metrics: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_there = |name: &str| metrics.text.contains(&format!("| `{name}` |"));
    for (number, line) in (1..).zip(source.text.lines()) {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for name in line.split(|c| !is_name(c)).filter(|name| name.starts_with("lb_")) {
            let histogram = OF_HISTOGRAMS.iter().find_map(|end| name.strip_suffix(end));
            if !is_there(name) && !histogram.is_some_and(is_there) {
                findings.push(Finding::new(source, number, format!("{METRICS} has no {name}")));
            }
        }
        for rest in line.split("reason").skip(1) {
            let Some(values) = rest.trim_start_matches(['=', '!', '~', '\\']).strip_prefix('"') else {
                continue;
            };
            let values = values.split(['"', '\\']).next().unwrap_or_default();
            for value in values
                .split('|')
                .filter(|value| value.chars().all(is_name) && !value.is_empty())
            {
                if !Reason::ALL.iter().any(|reason| reason.name() == value) {
                    findings.push(Finding::new(
                        source,
                        number,
                        format!("there is no reason {value}"),
                    ));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES_TEXT: &str = "- alert: LbDown\n  expr: lb_ready == 0\n  runbook: docs/runbook.md#lbdown\n";
    const CASES_TEXT: &str = "  - alertname: LbDown\n";
    const RUNBOOK_TEXT: &str = "# Runbook\n\n## LbDown\n";

    fn found(rules: &str, cases: &str, dashboard: &str, runbook: &str) -> Vec<String> {
        let texts = [
            (RULES, rules),
            (CASES, cases),
            (DASHBOARD, dashboard),
            (RUNBOOK, runbook),
            (
                METRICS,
                "| `lb_ready` | gauge |\n| `lb_apply_seconds` | histogram |\n| `lb_drops_total` | counter |\n",
            ),
        ];
        let sources = texts.map(|(path, text)| Source {
            path: path.to_owned(),
            text: text.to_owned(),
        });
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn alerts_without_heading_link_or_case_are_found() {
        assert_eq!(found(RULES_TEXT, CASES_TEXT, "", RUNBOOK_TEXT), [""; 0]);
        let cases = [
            (RULES_TEXT, CASES_TEXT, "# Runbook\n", "no heading"),
            (RULES_TEXT, "", RUNBOOK_TEXT, "no case"),
            (
                "- alert: LbDown\n",
                CASES_TEXT,
                RUNBOOK_TEXT,
                "annotation runbook",
            ),
            ("", CASES_TEXT, RUNBOOK_TEXT, "no alert LbDown"),
        ];
        for (rules, cases, runbook, message) in cases {
            let found = found(rules, cases, "", runbook);
            assert!(found.len() == 1 && found[0].contains(message), "{found:?}");
        }
    }

    #[test]
    fn metrics_and_reasons_that_do_not_exist_are_found() {
        let dashboard = |query: &str| found(RULES_TEXT, CASES_TEXT, query, RUNBOOK_TEXT);
        for fine in [
            "rate(lb_apply_seconds_bucket[5m]) / instance:lb_packets:rate5m",
            r#"lb_drops_total{reason=\"no_backend\"} + lb_drops_total{reason!~"no_flow|internal"}"#,
            r#"lb_drops_total{reason=~\"$reason\"}"#,
        ] {
            assert_eq!(dashboard(fine), [""; 0]);
        }
        for (wrong, message) in [
            ("lb_never_seen == 1", "no lb_never_seen"),
            ("lb_ready_bucketful", "no lb_ready_bucketful"),
            (
                r#"lb_drops_total{reason!~"no_flow|no_such"}"#,
                "no reason no_such",
            ),
            (r#"lb_drops_total{reason=\"no_such\"}"#, "no reason no_such"),
        ] {
            let found = dashboard(wrong);
            assert!(found.len() == 1 && found[0].contains(message), "{found:?}");
        }
    }
}
