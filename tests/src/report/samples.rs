//! Values of one figure, one for each turn.

use serde_json::{Value, json};

/// What a value counts, and how it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Things, or things a second.
    Count,
    /// One value divided by another.
    Ratio,
    /// A share of 100.
    Percent,
    /// Seconds, shown with a fitting prefix.
    Seconds,
    /// Bytes, shown with a fitting prefix.
    Bytes,
    /// Bits a second, shown with a fitting prefix.
    BitsPerSecond,
}

impl Unit {
    /// Its name in JSON, where values have no prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Ratio => "ratio",
            Self::Percent => "percent",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::BitsPerSecond => "bits per second",
        }
    }

    /// A value for people.
    pub fn show(self, value: f64) -> String {
        const SECONDS: [(f64, &str); 4] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];
        const BYTES: [(f64, &str); 4] = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")];
        const BITS: [(f64, &str); 4] = [(1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1.0, "bit/s")];
        match self {
            Self::Count => grouped(value),
            Self::Ratio => format!("{value:.2}"),
            Self::Percent => format!("{value:.2} %"),
            Self::Seconds => prefixed(value, SECONDS),
            Self::Bytes => prefixed(value, BYTES),
            Self::BitsPerSecond => prefixed(value, BITS),
        }
    }
}

/// A value in the largest of these units that leaves a number before the point, with three digits.
fn prefixed(value: f64, units: [(f64, &str); 4]) -> String {
    let fits = |(size, _): &&(f64, &str)| value.abs() >= *size;
    let (size, unit) = units.iter().find(fits).unwrap_or(&units[3]);
    format!("{} {unit}", three_digits(value / size))
}

fn three_digits(value: f64) -> String {
    let digits = match value.abs() {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// A number with separators of thousands; small ones that are not whole keep three digits.
fn grouped(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return three_digits(value);
    }
    let whole = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// The values of all turns, in order.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// These values.
    pub fn new(values: Vec<f64>) -> Self {
        Self(values)
    }

    /// A value that was measured once.
    pub fn one(value: f64) -> Self {
        Self(vec![value])
    }

    /// Adds a turn.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The values in the order of the turns.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The middle value; the mean of both of an even number. Not a number without any. As the least and the greatest value, it leaves
    /// turns out that failed, whose values are not numbers.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.get(middle) {
            None => f64::NAN,
            Some(value) if sorted.len() % 2 == 1 => *value,
            Some(value) => f64::midpoint(*value, sorted[middle - 1]),
        }
    }

    /// The least value.
    pub fn least(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(f64::NAN)
    }

    /// The greatest value.
    pub fn most(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(f64::NAN)
    }

    /// Each value divided by that of another series in the same turn: what a machine does in a turn happens to both.
    #[must_use]
    pub fn per(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// The median for people, with the least and the greatest value if there are several.
    pub fn show(&self, unit: Unit) -> String {
        let count = self.sorted().len();
        if count == 0 {
            return "failed".to_owned();
        }
        let median = unit.show(self.median());
        if count == 1 {
            return median;
        }
        format!(
            "{median} ({} to {})",
            unit.show(self.least()),
            unit.show(self.most())
        )
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({"median": self.median(), "least": self.least(), "most": self.most(), "turns": self.0})
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.retain(|value| !value.is_nan());
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_the_prefix_that_fits() {
        let cases = [
            (Unit::Count, 1_234_567.0, "1,234,567"),
            (Unit::Count, 999.0, "999"),
            (Unit::Count, -1_000.0, "-1,000"),
            (Unit::Count, 1.5, "1.50"),
            (Unit::Ratio, 0.957, "0.96"),
            (Unit::Seconds, 0.000_087, "87.0 µs"),
            (Unit::Seconds, 0.0, "0.00 ns"),
            (Unit::Seconds, 12.0, "12.0 s"),
            (Unit::Bytes, 64.0, "64.0 B"),
            (Unit::BitsPerSecond, 5.5e9, "5.50 Gbit/s"),
            (Unit::Percent, 1.0, "1.00 %"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.show(value), text);
        }
    }

    #[test]
    fn ratios_are_taken_turn_by_turn() {
        let ours = Samples::new(vec![10.0, 1.0, 30.0]);
        let theirs = Samples::new(vec![20.0, 1.0, 10.0]);
        let ratios = ours.per(&theirs);
        assert_eq!(ratios.values(), [0.5, 1.0, 3.0]);
        assert_eq!((ratios.least(), ratios.median(), ratios.most()), (0.5, 1.0, 3.0));
        assert_eq!(ratios.show(Unit::Ratio), "1.00 (0.50 to 3.00)");
        assert_eq!(Samples::new(vec![1.0, 2.0]).median(), 1.5);
        assert!(Samples::default().median().is_nan());
        let failed = Samples::new(vec![1.0, f64::NAN]);
        assert_eq!(failed.show(Unit::Ratio), "1.00");
        assert_eq!(failed.per(&failed).show(Unit::Ratio), "1.00");
        assert_eq!(Samples::one(f64::NAN).show(Unit::Ratio), "failed");
    }
}
