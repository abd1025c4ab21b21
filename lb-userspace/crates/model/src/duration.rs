//! Durations as people write them: `500ms`, `2s`, `10m`, `1h30m`.

use std::time::Duration;

use crate::value_error::ValueError;

/// Units from the largest on, with their milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration: whole numbers with units, larger units first, each at most once.
///
/// # Errors
/// The text is no duration, for the reason in the error.
pub fn parse(text: &str) -> Result<Duration, ValueError> {
    let invalid = |why: &str| ValueError::new(format!("{text:?} is no duration: {why}"), EXAMPLES);
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut millis = 0_u64;
    if text.is_empty() {
        return Err(invalid("it is empty"));
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let (name, after) = after.split_at(letters);
        if number.is_empty() {
            return Err(invalid("a whole number was expected"));
        }
        if name.is_empty() {
            return Err(invalid(if after.is_empty() {
                "the unit is missing"
            } else {
                "a unit was expected"
            }));
        }
        if !UNITS.iter().any(|(unit, _)| *unit == name) {
            return Err(invalid(&format!("{name:?} is no unit")));
        }
        let Some((_, factor)) = units.find(|(unit, _)| *unit == name) else {
            return Err(invalid("larger units come first, each at most once"));
        };
        let part = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*factor));
        millis = part
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| invalid("it is too long"))?;
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

const EXAMPLES: &str = "for example \"500ms\", \"2s\", \"10m\" or \"1h30m\"";

/// A duration in the form that [`parse`] reads, without what is below a millisecond.
pub fn text(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in UNITS {
        if millis >= factor {
            text.push_str(&format!("{}{unit}", millis / factor));
            millis %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("1d", 86_400_000),
            ("1m1ms", 60_001),
            ("90s", 90_000),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        for (text, why) in [
            ("", "empty"),
            ("5", "unit is missing"),
            ("s", "whole number"),
            ("1.5s", "unit was expected"),
            ("5 s", "unit was expected"),
            ("5sec", "no unit"),
            ("-5s", "whole number"),
            ("1s1m", "larger units"),
            ("1s1s", "larger units"),
            ("99999999999999999999s", "too long"),
            ("999999999999999999d", "too long"),
            ("5µs", "no unit"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same(millis in any::<u64>()) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&text(duration)), Ok(duration));
        }
    }
}
