//! When within its interval a target is checked: a fixed part of it that follows from balancer and target, so that
//! several balancers do not check one target in step and one balancer not all targets at once, before and after a
//! restart. Pure: time is handed in.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::random::stable_hash;

/// The same moment on both clocks: deadlines need the monotonic clock; people and other balancers use the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) wall: SystemTime,
}

/// The phases of one balancer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phases {
    node: u64,
}

impl Phases {
    /// Phases of the balancer with this number.
    pub(super) fn new(node: u64) -> Self {
        Self { node }
    }

    /// The last time not after `latest` that is in phase for `target`: intervals are counted from the epoch of the wall
    /// clock, and the phase is the part of each that the hash of balancer and target names. A clock that is set
    /// moves the phase, never by more than an interval.
    pub(super) fn align(
        self,
        target: SocketAddr,
        interval: Duration,
        now: Moment,
        latest: Instant,
    ) -> Instant {
        let interval = interval.as_nanos().max(1);
        let epoch = now.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let latest_wall = (epoch + latest.saturating_duration_since(now.instant)).as_nanos();
        // Less than the interval, since the hash is less than 2^64; a day of nanoseconds leaves room for the product.
        let phase = (interval * u128::from(self.hash(target))) >> u64::BITS;
        let past = (latest_wall + interval - phase) % interval;
        let past = Duration::from_nanos(u64::try_from(past).unwrap_or(u64::MAX));
        latest.checked_sub(past).unwrap_or(latest)
    }

    fn hash(self, target: SocketAddr) -> u64 {
        let node = self.node.to_be_bytes();
        let port = target.port().to_be_bytes();
        match target.ip() {
            IpAddr::V4(ip) => stable_hash(&[&node, &ip.octets(), &port]),
            IpAddr::V6(ip) => stable_hash(&[&node, &ip.octets(), &port]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn target(host: u16) -> SocketAddr {
        let [high, low] = host.to_be_bytes();
        SocketAddr::from(([10, 0, high, low], 80))
    }

    /// The next time in phase is the same from any moment before it, and never more than an interval away.
    #[test]
    fn a_phase_stays_through_restarts() {
        let interval = 2000 * MS;
        let boot = Instant::now();
        let epoch = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for host in 0..100 {
            let mut seen = None;
            for (after, latest) in [(0, 2000), (1234, 1999), (86_400_017, 31), (86_400_017, 4000)] {
                // A restart: another process, so another monotonic clock.
                let now = Moment {
                    instant: boot + 77 * MS * after,
                    wall: epoch + MS * after,
                };
                let latest = now.instant + MS * latest;
                let at = Phases::new(1).align(target(host), interval, now, latest);
                assert!(at <= latest && latest - at < interval);
                let day = Duration::from_secs(86_400);
                let since_epoch = now.wall + day - (now.instant + day - at);
                let phase = since_epoch.duration_since(UNIX_EPOCH).unwrap().as_nanos() % interval.as_nanos();
                assert_eq!(*seen.get_or_insert(phase), phase, "host {host}");
            }
        }
    }

    /// Two balancers check a target as far apart as chance has it, and one balancer spreads its targets over the interval.
    #[test]
    fn phases_of_balancers_and_targets_are_apart() {
        let now = Moment {
            instant: Instant::now(),
            wall: UNIX_EPOCH,
        };
        let interval = 1000 * MS;
        let phase = |node, host| {
            Phases::new(node).align(target(host), interval, now, now.instant + interval) - now.instant
        };
        let in_step = (0..1000).filter(|host| phase(1, *host).abs_diff(phase(2, *host)) < 10 * MS);
        // 2 % by chance.
        assert!((5..50).contains(&in_step.count()));
        let mut parts = [0_u32; 10];
        for host in 0..1000 {
            let tenth = phase(1, host).as_millis() / 100;
            parts[usize::try_from(tenth.min(9)).unwrap()] += 1;
        }
        assert!(parts.iter().all(|count| (60..140).contains(count)), "{parts:?}");
    }
}
