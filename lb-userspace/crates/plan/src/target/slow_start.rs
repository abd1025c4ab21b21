//! Slow start: a backend that begins to take new flows gets a tenth of its weight at first and the rest in nine equal
//! steps, so that cold caches and pools fill before the load comes. Each step moves only its share of slots.
//!
//! Weights only matter relative to each other, so backends that come up together are not slowed: the most advanced one
//! counts with its whole weight, the others in proportion. A start of all backends slows none. And no backend carries
//! more than [`MAX_BURDEN`] times its fair share because of backends in slow start: if most of a service is new, these
//! begin higher than at a tenth.

use std::{
    collections::BTreeMap,
    mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    backend::Backend,
    content::{Target, TargetService},
    desired::Desired,
    effective::{HealthView, health_of},
    service::{Service, ServiceKey},
};
use crate::health::Health;

/// Parts of a weight. Slow start begins with one.
pub const TENTHS: u8 = lb_common::backend::TENTHS;

/// Steps of a rise, all equally long.
const STEPS: u8 = TENTHS - 1;

/// Times its fair share of new flows that a backend may have to carry while others rise.
pub const MAX_BURDEN: u32 = 2;

/// How far a backend has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rise {
    /// Tenths of the weight at `at`.
    from: u8,
    /// When it had them. All backends of a service that rise step at the same moments, so that none is overtaken.
    at: Instant,
    /// Duration of a whole slow start.
    over: Duration,
}

impl Rise {
    fn steps(&self, now: Instant) -> u8 {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let steps = (passed * u128::from(STEPS))
            .checked_div(self.over.as_nanos())
            .unwrap_or(u128::MAX);
        u8::try_from(steps).unwrap_or(u8::MAX)
    }

    fn tenths(&self, now: Instant) -> u8 {
        self.from.saturating_add(self.steps(now)).min(TENTHS)
    }

    /// When it has made `steps` steps.
    fn after(&self, steps: u8) -> Instant {
        let length = (self.over.as_nanos() * u128::from(steps)).div_ceil(u128::from(STEPS));
        let length = Duration::from_nanos(u64::try_from(length).unwrap_or(u64::MAX));
        self.at.checked_add(length).unwrap_or(self.at)
    }

    /// The same height now, on the way to the whole in another time from here.
    fn over(self, over: Duration, now: Instant) -> Self {
        if over == self.over {
            return self;
        }
        Self {
            from: self.tenths(now),
            at: now,
            over,
        }
    }

    fn rises(&self, now: Instant) -> bool {
        self.tenths(now) < TENTHS
    }
}

/// Where a backend stands in the data plane.
type Place = (ServiceKey, SocketAddr);

/// All backends that take new flows in services with slow start. A backend that is not among them starts slowly when it
/// comes; one that takes no flows any more is forgotten.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlowStart {
    rises: BTreeMap<Place, Rise>,
    next: Option<Instant>,
}

impl SlowStart {
    /// Takes over a backend from an earlier daemon, which withheld `held_back` tenths of its weight. Its present step
    /// starts over.
    pub fn inherit(&mut self, service: &Service, address: SocketAddr, held_back: u8, now: Instant) {
        let rise = Rise {
            from: TENTHS.saturating_sub(held_back).max(1),
            at: now,
            over: service.slow_start,
        };
        self.rises.insert((service.key, address), rise);
    }

    /// Records the backends that take new flows in `target`, and withholds weight from those in slow start. `health`
    /// has the health states by checks: a backend that takes flows although it is down helps out, like a backup, with
    /// its whole weight.
    pub fn hold_back(
        &mut self,
        mut target: Target,
        desired: &Desired,
        health: &HealthView,
        now: Instant,
    ) -> Target {
        let mut known = mem::take(&mut self.rises);
        for service in desired.services.values() {
            if service.slow_start.is_zero() {
                continue;
            }
            if let Some(there) = target.services.get_mut(&service.key) {
                self.service(service, there, &mut known, health, now);
            }
        }
        let rising = self.rises.values().filter(|rise| rise.rises(now));
        self.next = rising.map(|rise| rise.after(rise.steps(now) + 1)).min();
        target
    }

    fn service(
        &mut self,
        service: &Service,
        target: &mut TargetService,
        known: &mut BTreeMap<Place, Rise>,
        health: &HealthView,
        now: Instant,
    ) {
        let (mut new, mut rises): (Vec<&Backend>, Vec<(SocketAddr, Rise)>) = (Vec::new(), Vec::new());
        for backend in &service.backends {
            let takes_flows = |address| target.backends.get(address).is_some_and(|there| there.weight > 0);
            if !takes_flows(&backend.address) {
                continue;
            }
            match known.remove(&(service.key, backend.address)) {
                Some(rise) => rises.push((backend.address, rise.over(service.slow_start, now))),
                None => new.push(backend),
            }
        }
        let grid = rises.iter().find(|(_, rise)| rise.rises(now));
        let at = grid.map_or(now, |(_, rise)| rise.after(rise.steps(now)).min(now));
        for backend in new {
            let from = match health_of(service, backend, health) {
                Health::Up | Health::Unchecked if backend.backup => TENTHS,
                Health::Up | Health::Unchecked => 1,
                Health::Down => TENTHS,
            };
            let over = service.slow_start;
            rises.push((backend.address, Rise { from, at, over }));
        }
        let weight = |address: &SocketAddr| target.backends.get(address).map_or(0, |there| there.weight);
        let tenths = |(address, rise): &(SocketAddr, Rise)| (weight(address), rise.tenths(now));
        let heights = spared(rises.iter().map(tenths).collect());
        let most = heights.iter().copied().max().unwrap_or(TENTHS);
        for ((address, mut rise), height) in rises.into_iter().zip(heights) {
            if height > rise.tenths(now) {
                (rise.from, rise.at) = (height, at);
            }
            let in_proportion = (u16::from(TENTHS) * u16::from(height)).div_ceil(u16::from(most));
            if let Some(there) = target.backends.get_mut(&address) {
                there.held_back = TENTHS.saturating_sub(u8::try_from(in_proportion).unwrap_or(TENTHS));
            }
            self.rises.insert((service.key, address), rise);
        }
    }

    /// When a weight rises next.
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// When a backend has its whole weight; `None` if it has it, or takes no flows.
    pub fn whole_at(&self, service: ServiceKey, address: SocketAddr, now: Instant) -> Option<Instant> {
        let rise = self.rises.get(&(service, address))?;
        rise.rises(now)
            .then(|| rise.after(TENTHS.saturating_sub(rise.from)))
    }
}

/// Heights, in tenths, of backends with these weights and heights, with the lowest raised until no backend carries more
/// than it may.
fn spared(mut backends: Vec<(u32, u8)>) -> Vec<u8> {
    let carried = |backends: &[(u32, u8)]| -> u64 {
        backends
            .iter()
            .map(|(weight, tenths)| u64::from(*weight) * u64::from(*tenths))
            .sum()
    };
    let most = backends.iter().map(|(_, tenths)| *tenths).max().unwrap_or(0);
    let fair: u64 = backends
        .iter()
        .map(|(weight, _)| u64::from(*weight) * u64::from(most))
        .sum();
    while u64::from(MAX_BURDEN) * carried(&backends) < fair {
        let lowest = backends.iter().map(|(_, tenths)| *tenths).min().unwrap_or(most);
        for (_, tenths) in backends.iter_mut().filter(|(_, tenths)| *tenths == lowest) {
            *tenths += 1;
        }
    }
    backends.into_iter().map(|(_, tenths)| tenths).collect()
}

#[cfg(test)]
mod tests;
