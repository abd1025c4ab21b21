//! A writer for the Prometheus text format, for families that mirror BPF maps: no registry, no label maps, one pass.

use std::fmt::{self, Display, Write};

/// Kind of a family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Only goes up.
    Counter,
    /// Goes both ways.
    Gauge,
}

/// Text in the exposition format, version 0.0.4.
#[derive(Default, Debug)]
pub(super) struct Text(String);

/// The family that samples are added to.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Text {
    /// Begins a family with its HELP and TYPE lines.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        push(
            &mut self.0,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
        );
        Family {
            text: &mut self.0,
            name,
        }
    }

    /// The finished text.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds one series.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (i, (label, value)) in labels.iter().enumerate() {
            self.text.push(if i == 0 { '{' } else { ',' });
            push(self.text, format_args!("{label}=\"{}\"", Escaped(value)));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        push(self.text, format_args!(" {value}\n"));
    }
}

/// Writing to a `String` cannot fail.
fn push(text: &mut String, arguments: fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

/// A label value with backslash, quote and line feed escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_follow_the_text_format() {
        let mut text = Text::default();
        text.family("lb_ready", Kind::Gauge, "Whether it forwards.")
            .sample(&[], 1);
        let mut drops = text.family("lb_drops_total", Kind::Counter, "Packets.");
        drops.sample(&[("reason", "no_backend")], 7_u64);
        drops.sample(&[("interface", "a\"b\\c\nd"), ("reason", "x")], 0);
        assert_eq!(
            text.into_string(),
            "# HELP lb_ready Whether it forwards.\n# TYPE lb_ready gauge\nlb_ready 1\n\
             # HELP lb_drops_total Packets.\n# TYPE lb_drops_total counter\n\
             lb_drops_total{reason=\"no_backend\"} 7\n\
             lb_drops_total{interface=\"a\\\"b\\\\c\\nd\",reason=\"x\"} 0\n"
        );
    }
}
