//! Numbers and trends as short text.

/// A rate in at most six characters, in powers of 1,000; `-` where it is not known.
pub(super) fn rate(value: Option<f64>) -> String {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let Some(mut value) = value else {
        return "-".to_owned();
    };
    let mut unit = 0;
    while value >= 9_999.5 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let unit = UNITS[unit];
    let is_whole = value < 0.05 || (unit.is_empty() && value >= 9.95) || value >= 99.95;
    if is_whole {
        format!("{value:.0}{unit}")
    } else {
        format!("{value:.1}{unit}")
    }
}

/// Microseconds in at most five characters, up to a thousand seconds.
pub(super) fn latency(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..10_000 => format!("{}.{}ms", us / 1_000, us % 1_000 / 100),
        10_000..1_000_000 => format!("{}ms", us / 1_000),
        1_000_000..100_000_000 => format!("{}.{}s", us / 1_000_000, us % 1_000_000 / 100_000),
        _ => format!("{}s", us / 1_000_000),
    }
}

/// Bars for values, of which the highest is the full height. Zero is a blank.
pub(super) fn spark(values: impl Iterator<Item = f64> + Clone) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.clone().fold(0.0, f64::max);
    let bar = |value: f64| {
        if value <= 0.0 {
            return ' ';
        }
        let mut levels = (1_u8..).zip(BARS);
        let level = levels.find(|(level, _)| value * 8.0 <= highest * f64::from(*level));
        level.map_or('█', |(_, bar)| bar)
    };
    values.map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.5, "0.5"),
            (9.94, "9.9"),
            (12.3, "12"),
            (9_999.0, "9999"),
            (10_000.0, "10.0k"),
            (1_234_567.0, "1235k"),
            (98_100_000.0, "98.1M"),
            (4e14, "400T"),
        ] {
            assert_eq!(rate(Some(value)), text);
        }
        assert_eq!(rate(None), "-");
        for (us, text) in [
            (999, "999us"),
            (1_250, "1.2ms"),
            (45_600, "45ms"),
            (1_500_000, "1.5s"),
            (600_000_000, "600s"),
        ] {
            assert_eq!(latency(us), text);
        }
    }

    #[test]
    fn bars_are_relative_to_the_highest_value() {
        let bars = |values: &[f64]| spark(values.iter().copied());
        assert_eq!(bars(&[0.0, 1.0, 4.0, 8.0]), " ▁▄█");
        assert_eq!(bars(&[3.0, 3.0]), "██");
        assert_eq!(bars(&[0.0, 0.0]), "  ");
        assert_eq!(bars(&[1e-9, 1e12]), "▁█");
    }
}
