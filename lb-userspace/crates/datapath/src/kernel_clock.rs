//! The clock by which the XDP program stamps flows: CLOCK_MONOTONIC of the machine. A process in a time namespace (a
//! restored container, for example) sees that clock with an offset, and would take every flow for idle.
//! See time_namespaces(7).

use std::{fs, sync::LazyLock, time::Duration};

const OFFSETS: &str = "/proc/self/timens_offsets";
const NANOS_PER_SEC: i128 = 1_000_000_000;

/// Offset of this process's CLOCK_MONOTONIC from the machine's, in nanoseconds. It is constant for a process.
static OFFSET: LazyLock<i128> = LazyLock::new(|| {
    // Kernels without time namespaces have no such file.
    let offset = fs::read_to_string(OFFSETS).map_or(0, |text| monotonic_offset(&text));
    if offset != 0 {
        tracing::info!(
            seconds = offset / NANOS_PER_SEC,
            "runs in a time namespace; flows are timed by the machine's clock"
        );
    }
    offset
});

/// Time on the machine's CLOCK_MONOTONIC_COARSE, which is some milliseconds late at most.
pub(super) fn monotonic() -> Duration {
    time(libc::CLOCK_MONOTONIC_COARSE)
}

/// Time on the machine's CLOCK_MONOTONIC, as programs read it to the nanosecond.
pub(super) fn exact() -> Duration {
    time(libc::CLOCK_MONOTONIC)
}

fn time(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is live and of the type that the call fills. It fails for a clock or a place that is not
    // there only.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let here = i128::from(time.tv_sec) * NANOS_PER_SEC + i128::from(time.tv_nsec);
    Duration::from_nanos(u64::try_from(here - *OFFSET).unwrap_or(0))
}

/// The offset of the clock `monotonic`, in nanoseconds, from lines of clock, seconds and nanoseconds.
fn monotonic_offset(text: &str) -> i128 {
    let offset = |line: &str| {
        let mut words = line.split_whitespace();
        let (clock, seconds, nanos) = (words.next()?, words.next()?, words.next()?);
        if clock != "monotonic" {
            return None;
        }
        Some(seconds.parse::<i128>().ok()? * NANOS_PER_SEC + nanos.parse::<i128>().ok()?)
    };
    text.lines().find_map(offset).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_has_a_sign_and_nanoseconds() {
        let cases = [
            (
                "monotonic           0         0\nboottime            0         0\n",
                0,
            ),
            (
                "monotonic      100000         5\nboottime  7 0\n",
                100_000 * NANOS_PER_SEC + 5,
            ),
            ("boottime 7 0\nmonotonic -2 500000000\n", -1_500_000_000),
            ("", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(monotonic_offset(text), expected, "{text:?}");
        }
    }
}
