//! Debian's Prometheus and promtool, so that "can be scraped" is not our own opinion.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{http, netns::Netns, scratch::Scratch, wait};

const LISTEN: &str = "127.0.0.1:9090";

/// A Prometheus server that scrapes one target every 200 ms. Dropping it kills it.
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
        let scratch = Scratch::new()?;
        let config = scratch.write(
            "prometheus.yml",
            format!(
                "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n\
                 scrape_configs: [{{job_name: lb, static_configs: [{{targets: ['{target}']}}]}}]\n"
            ),
        )?;
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
        let (_, body) = self.get(&format!("/api/v1/query?query={query}"))?;
        let answer: Value = serde_json::from_str(&body).with_context(|| format!("answer {body}"))?;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        value
            .map(|text| text.parse().context("value of the query"))
            .transpose()
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
    anyhow::ensure!(output.trim().is_empty(), "promtool: {output}");
    Ok(())
}
