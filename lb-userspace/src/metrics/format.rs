//! The forms in which a scrape is answered: Prometheus text or `OpenMetrics`, plain or compressed, as the client asks.

use std::io::{self, Write as _};

use axum::http::{
    HeaderMap, HeaderName,
    header::{ACCEPT, ACCEPT_ENCODING},
};
use flate2::{Compression, write::GzEncoder};

/// Media type of `OpenMetrics` 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
const OPEN_METRICS: &str = "application/openmetrics-text";

/// The form of an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Format {
    /// `OpenMetrics` rather than Prometheus text.
    open_metrics: bool,
    /// Compressed by gzip.
    pub(super) gzip: bool,
}

impl Format {
    /// The form that a request asks for. Without a wish: Prometheus text, plain.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accepted = preferences(headers, &ACCEPT);
        let weight_of = |names: &[&str]| {
            let weights = accepted.iter().filter(|(name, _)| names.contains(name));
            weights
                .map(|(_, weight)| *weight)
                .fold(None, |most, weight| most.max(Some(weight)))
        };
        let text = weight_of(&["text/plain"])
            .or(weight_of(&["text/*", "*/*"]))
            .unwrap_or(0);
        let open_metrics = weight_of(&[OPEN_METRICS]).unwrap_or(0);
        let encodings = preferences(headers, &ACCEPT_ENCODING);
        Self {
            open_metrics: open_metrics > text,
            gzip: encodings
                .iter()
                .any(|(name, weight)| *name == "gzip" && *weight > 0),
        }
    }

    /// Its value of `Content-Type`.
    pub(super) const fn content_type(self) -> &'static str {
        if self.open_metrics {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            prometheus::TEXT_FORMAT
        }
    }

    /// Prometheus text in this form.
    ///
    /// # Errors
    /// If it cannot be compressed.
    pub(super) fn encode(self, text: String) -> io::Result<Vec<u8>> {
        let text = if self.open_metrics {
            open_metrics(&text)
        } else {
            text
        };
        if !self.gzip {
            return Ok(text.into_bytes());
        }
        // The fastest level: the text repeats itself, so even that leaves a twentieth.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes())?;
        encoder.finish()
    }
}

/// Values of a header that lists what a client accepts, in lower case as clients write them, each with its weight in
/// thousandths (RFC 9110, 12.4.2). A weight that cannot be read is 0.
fn preferences<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<(&'a str, u16)> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let items = lines.flat_map(|line| line.split(','));
    items
        .map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let value = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let weight = weight.map_or(Some(1.0), |weight| weight.parse::<f32>().ok());
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "within 0 and 1000"
            )]
            let thousandths = weight.map_or(0, |weight| (weight.clamp(0.0, 1.0) * 1_000.0) as u16);
            (value, thousandths)
        })
        .collect()
}

/// Prometheus text as `OpenMetrics`: families of counters go without `_total`, help escapes quotes, and the end is marked.
fn open_metrics(text: &str) -> String {
    let mut converted = String::with_capacity(text.len());
    for line in text.lines() {
        let comment = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|word| Some((word, line.strip_prefix(word)?)));
        match comment.and_then(|(word, rest)| Some((word, rest.split_once(' ')?))) {
            Some((word, (family, rest))) => {
                let family = family.strip_suffix("_total").unwrap_or(family);
                converted.extend([word, family, " ", &rest.replace('"', "\\\""), "\n"]);
            }
            None => converted.extend([line, "\n"]),
        }
    }
    converted.push_str("# EOF\n");
    converted
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::http::HeaderValue;
    use flate2::read::GzDecoder;

    use super::*;

    fn format(accept: &str, encoding: &str) -> Format {
        let mut headers = HeaderMap::new();
        for (name, value) in [(ACCEPT, accept), (ACCEPT_ENCODING, encoding)] {
            if !value.is_empty() {
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
        }
        Format::of(&headers)
    }

    #[test]
    fn the_client_selects_the_form() {
        // As Prometheus 2.42 and 3.0 ask.
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.2";
        for (accept, encoding, open_metrics, gzip) in [
            ("", "", false, false),
            ("*/*", "identity", false, false),
            (prometheus_2, "gzip", true, true),
            (prometheus_3, "gzip, deflate", true, true),
            (
                "text/plain, application/openmetrics-text;q=0.9",
                "gzip;q=0",
                false,
                false,
            ),
            ("application/openmetrics-text;q=0", "gzip;q=x", false, false),
        ] {
            let expected = Format { open_metrics, gzip };
            assert_eq!(format(accept, encoding), expected, "{accept} {encoding}");
        }
    }

    #[test]
    fn open_metrics_names_families_of_counters_without_total() {
        let text = "# HELP lb_drops_total Packets, \"dropped\"\n# TYPE lb_drops_total counter\n\
                    lb_drops_total{reason=\"a\"} 7\n# HELP lb_ready It\n# TYPE lb_ready gauge\nlb_ready 1\n";
        let expected = "# HELP lb_drops Packets, \\\"dropped\\\"\n# TYPE lb_drops counter\n\
                        lb_drops_total{reason=\"a\"} 7\n# HELP lb_ready It\n# TYPE lb_ready gauge\nlb_ready 1\n# EOF\n";
        let both = format(OPEN_METRICS, "gzip");
        let mut read = String::new();
        let encoded = both.encode(text.to_owned()).unwrap();
        GzDecoder::new(&*encoded).read_to_string(&mut read).unwrap();
        assert_eq!(read, expected);
        assert_eq!(
            Format::default().encode(text.to_owned()).unwrap(),
            text.as_bytes()
        );
    }
}
