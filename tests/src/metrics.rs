//! Prometheus text, read back.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Label pairs of a sample.
type Labels = BTreeMap<String, String>;

/// One scrape.
pub struct Metrics {
    /// As it was served.
    pub text: String,
    samples: Vec<(String, Labels, f64)>,
}

impl Metrics {
    /// Reads the text exposition format (without escapes in label values, which lb's names cannot need).
    ///
    /// # Errors
    /// On a line that is neither comment nor sample.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).with_context(|| format!("metrics line {line:?}")));
        Ok(Self {
            samples: samples.collect::<Result<_>>()?,
            text: text.to_owned(),
        })
    }

    /// Sum of all samples of a metric that carry these labels; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |have: &Labels| {
            labels
                .iter()
                .all(|(k, v)| have.get(*k).is_some_and(|have| have == v))
        };
        let found = self
            .samples
            .iter()
            .filter(|(n, have, _)| n == name && matches(have));
        found.map(|(_, _, value)| value).sum()
    }

    /// A counter as the whole number it is.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole and positive"
    )]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// Whether a metric is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|(n, _, _)| n == name)
    }
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let (head, value) = line.rsplit_once(' ')?;
    let (name, labels) = match head.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (head, ""),
    };
    let pairs = labels.split_terminator(',').map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((
            key.to_owned(),
            value.strip_prefix('"')?.strip_suffix('"')?.to_owned(),
        ))
    });
    Some((
        name.to_owned(),
        pairs.collect::<Option<_>>()?,
        value.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_left_out() {
        let text = "# HELP a b\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\nb 0.5\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.count("a_total", &[("x", "1")]), 7);
        assert_eq!(metrics.count("a_total", &[("y", "3")]), 4);
        assert_eq!(metrics.sum("b", &[]), 0.5);
        assert!(Metrics::parse("nonsense\n").is_err());
    }
}
