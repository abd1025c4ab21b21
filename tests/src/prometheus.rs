//! Debian's Prometheus and promtool, so that "can be scraped" is not our own opinion.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{http, netns::Netns, scratch::Scratch, wait};

const LISTEN: &str = "127.0.0.1:9090";

/// Time between two scrapes, and for one.
const SCRAPE: &str = "500ms";

/// A Prometheus server that scrapes one target every half second. Dropping it kills it.
pub struct Prometheus {
    ns: Netns,
    child: Child,
    _scratch: Scratch,
}

impl Prometheus {
    /// Starts it in a namespace.
    ///
    /// # Errors
    /// When Prometheus is not installed or does not come up.
    pub fn start(ns: &Netns, target: &str) -> Result<Self> {
        Self::with_rules(ns, target, "groups: []")
    }

    /// Starts it in a namespace with these rules, which it evaluates as often as it scrapes.
    ///
    /// # Errors
    /// When Prometheus is not installed, does not like the rules or does not come up.
    pub fn with_rules(ns: &Netns, target: &str, rules: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        scratch.write("rules.yml", rules)?;
        let config = scratch.write(
            "prometheus.yml",
            format!(
                "global: {{scrape_interval: {SCRAPE}, scrape_timeout: {SCRAPE}, evaluation_interval: 200ms}}\n\
                 rule_files: [rules.yml]\n\
                 scrape_configs: [{{job_name: lb, static_configs: [{{targets: ['{target}']}}]}}]\n"
            ),
        )?;
        ns.run("promtool", &["check", "config", &config.display().to_string()])?;
        let child = ns
            .command("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", scratch.join("data").display()))
            .arg(format!("--web.listen-address={LISTEN}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start prometheus")?;
        let prometheus = Self {
            ns: ns.clone(),
            child,
            _scratch: scratch,
        };
        wait::until_true("prometheus is ready", Duration::from_secs(30), || {
            Ok(prometheus.get("/-/ready").is_ok_and(|(status, _)| status == 200))
        })?;
        Ok(prometheus)
    }

    /// Value of an instant query that gives one number, `None` while it gives none.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub fn query(&self, query: &str) -> Result<Option<f64>> {
        let series = self.series(query)?;
        let value = series.first().and_then(|one| one["value"][1].as_str());
        value
            .map(|text| text.parse().context("value of the query"))
            .transpose()
    }

    /// The series that an instant query gives, each with its labels (`metric`).
    ///
    /// # Errors
    /// When Prometheus does not answer, or does not like the query.
    pub fn series(&self, query: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", encoded(query));
        let (status, body) = self.get(&path)?;
        ensure!(status == 200, "{query}: {body}");
        let answer: Value = serde_json::from_str(&body).with_context(|| format!("answer {body}"))?;
        let series = answer["data"]["result"].as_array();
        series.cloned().with_context(|| format!("{query}: {answer}"))
    }

    /// Names of the alerts that fire.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub fn firing(&self) -> Result<BTreeSet<String>> {
        let series = self.series("ALERTS{alertstate=\"firing\"}")?;
        let names = series.iter().map(|one| one["metric"]["alertname"].as_str());
        let names = names.map(|name| name.unwrap_or_default().to_owned());
        Ok(names.collect())
    }

    /// Whether the target's answer described the family `name`. That of a counter ends in `_total` only in Prometheus text.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub fn describes(&self, name: &str) -> Result<bool> {
        let (_, body) = self.get(&format!("/api/v1/targets/metadata?metric={name}"))?;
        let answer: Value = serde_json::from_str(&body).with_context(|| format!("answer {body}"))?;
        Ok(answer["data"]
            .as_array()
            .is_some_and(|families| !families.is_empty()))
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        let address: SocketAddr = LISTEN.parse()?;
        let answer = http::get(&self.ns, address, path)?;
        Ok((answer.status, answer.body))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checks metrics text with `promtool`.
///
/// # Errors
/// When it finds an error, with its output.
pub fn check_metrics(ns: &Netns, text: &str) -> Result<()> {
    let output = ns.run_with_input("promtool", &["check", "metrics"], text)?;
    ensure!(output.trim().is_empty(), "promtool: {output}");
    Ok(())
}

/// A query as it stands in a URL (RFC 3986 section 2.1).
fn encoded(query: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    query.bytes().map(encode).collect()
}
