//! Times for people: local time, and how long ago.

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    time::{Duration, SystemTime},
};

use super::fit::Extent;

/// Hours, minutes, seconds and milliseconds in the local time zone.
pub(super) fn local(at: SystemTime) -> String {
    let Some(time) = broken_down(at) else {
        return humantime::format_rfc3339_millis(at).to_string();
    };
    let millis = since_epoch(at).subsec_millis();
    format!("{}.{millis:03}", time_of_day(&time))
}

/// The same moment in the local time zone, with that zone's name, and the day where that is another one. `None` where the local
/// time is UTC, or `at` is not a time in RFC 3339.
pub(super) fn beside_utc(at: &str) -> Option<String> {
    let moment = humantime::parse_rfc3339(at).ok()?;
    let time = broken_down(moment)?;
    if time.tm_gmtoff == 0 {
        return None;
    }
    let day = format!("{:02}-{:02}", time.tm_mon + 1, time.tm_mday);
    let day = if at.get(5..10) == Some(day.as_str()) {
        String::new()
    } else {
        day + " "
    };
    Some(format!("{day}{} {}", time_of_day(&time), zone(&time)))
}

/// How long ago a time in RFC 3339 was, in its two largest units: `3m12s`. `None` if the text is no such time, or the time lies ahead.
pub(super) fn age(at: &str) -> Option<String> {
    let at = humantime::parse_rfc3339(at).ok()?;
    SystemTime::now().duration_since(at).ok().map(short)
}

/// How far a time in RFC 3339 lies ahead; zero if it is past.
pub(super) fn ahead(at: &str) -> Option<Duration> {
    let at = humantime::parse_rfc3339(at).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// A time in RFC 3339 without the parts of its last second.
pub(super) fn second(at: &str) -> String {
    let second = at.split_once('.').map_or(at, |(second, _)| second);
    format!("{}Z", second.trim_end_matches('Z'))
}

/// A time in RFC 3339, and beside it what `extent` shows of it: how long ago that was, and local time.
pub(super) fn with_age(at: &str, extent: Extent) -> String {
    if !extent.has_ages() {
        return at.to_owned();
    }
    let ago = age(at).map(|age| format!("{age} ago"));
    let beside: Vec<String> = [ago, beside_utc(at)].into_iter().flatten().collect();
    if beside.is_empty() {
        second(at)
    } else {
        format!("{} ({})", second(at), beside.join(", "))
    }
}

/// A duration in its two largest units, down to seconds: `3m12s`, `2d4h`.
pub(super) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}

fn time_of_day(time: &libc::tm) -> String {
    format!("{:02}:{:02}:{:02}", time.tm_hour, time.tm_min, time.tm_sec)
}

/// The name of the zone of a local time, such as `CET`.
fn zone(time: &libc::tm) -> String {
    if time.tm_zone.is_null() {
        return "local".to_owned();
    }
    // SAFETY: localtime_r(3) has set it to a string of the C library, which keeps the names of zones until the process ends.
    unsafe { CStr::from_ptr(time.tm_zone) }
        .to_string_lossy()
        .into_owned()
}

/// The parts of a moment in the local time zone.
fn broken_down(at: SystemTime) -> Option<libc::tm> {
    let seconds = since_epoch(at).as_secs();
    let seconds = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
    let mut time = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are of live values of their types.
    let found = unsafe { libc::localtime_r(&raw const seconds, time.as_mut_ptr()) };
    // SAFETY: zeros are a valid value, and the call has filled it where it found a time.
    (!found.is_null()).then(|| unsafe { time.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (192, "3m12s"),
            (3_600, "1h0m"),
            (90_000, "1d1h"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
        assert_eq!(age("2999-01-01T00:00:00Z"), None);
        assert_eq!(age("yesterday"), None);
        assert!(age("2026-01-01T00:00:00.000Z").is_some());
    }

    #[test]
    fn programs_read_the_time_alone() {
        let at = "2026-01-01T00:00:00.123Z";
        assert_eq!(with_age(at, Extent::Usual), at);
        let shown = with_age(at, Extent::All);
        assert!(shown.starts_with("2026-01-01T00:00:00Z ("), "{shown}");
        assert!(shown.contains(" ago"), "{shown}");
    }
}
