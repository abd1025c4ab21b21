//! Rates between two answers of the daemon.

use std::{
    collections::HashMap,
    time::{Instant, SystemTime},
};

use serde::Serialize;

use crate::api::types::{Backend, Drops, Service, Status};

/// What the daemon counted of a service or a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    packets: u64,
    bytes: u64,
    new_flows: u64,
    reply_packets: u64,
    reply_bytes: u64,
}

impl From<&Service> for Counters {
    fn from(service: &Service) -> Self {
        Self {
            packets: service.packets,
            bytes: service.bytes,
            new_flows: service.new_flows,
            reply_packets: service.reply_packets,
            reply_bytes: service.reply_bytes,
        }
    }
}

impl From<&Backend> for Counters {
    fn from(backend: &Backend) -> Self {
        Self {
            packets: backend.packets,
            bytes: backend.bytes,
            new_flows: backend.new_flows,
            reply_packets: backend.reply_packets,
            reply_bytes: backend.reply_bytes,
        }
    }
}

/// Traffic a second.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Rates {
    /// Packets from clients.
    #[serde(rename = "packets_per_second")]
    pub packets: f64,
    /// Their bits, whole frames.
    #[serde(rename = "bits_per_second")]
    pub bits: f64,
    /// Flows that began.
    #[serde(rename = "new_flows_per_second")]
    pub new_flows: f64,
    /// Packets from backends.
    #[serde(rename = "reply_packets_per_second")]
    pub reply_packets: f64,
    /// Their bits.
    #[serde(rename = "reply_bits_per_second")]
    pub reply_bits: f64,
}

impl Rates {
    /// `None` for what is new, and where a counter began again at zero.
    pub(crate) fn between(before: Option<Counters>, now: Counters, seconds: f64) -> Option<Self> {
        let before = before?;
        let rate = |before: u64, now: u64| per_second(before, now, seconds);
        Some(Self {
            packets: rate(before.packets, now.packets)?,
            bits: rate(before.bytes, now.bytes)? * 8.0,
            new_flows: rate(before.new_flows, now.new_flows)?,
            reply_packets: rate(before.reply_packets, now.reply_packets)?,
            reply_bits: rate(before.reply_bytes, now.reply_bytes)? * 8.0,
        })
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bits: self.bits + other.bits,
            new_flows: self.new_flows + other.new_flows,
            reply_packets: self.reply_packets + other.reply_packets,
            reply_bits: self.reply_bits + other.reply_bits,
        }
    }
}

pub(crate) fn per_second(before: u64, now: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then_some(now.checked_sub(before)? as f64 / seconds)
}

/// Packets of one reason that were dropped.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct DropRate {
    /// Name of the reason.
    pub reason: String,
    /// Packets since counting began.
    pub packets: u64,
    /// Packets a second; `null` before the second look.
    pub packets_per_second: Option<f64>,
}

/// Drops by reason, the highest rate first.
pub(crate) fn drop_rates(before: Option<&[Drops]>, now: &[Drops], seconds: f64) -> Vec<DropRate> {
    let rate = |drops: &Drops| {
        let mut earlier = before?.iter();
        let earlier = earlier.find(|earlier| earlier.reason == drops.reason);
        // A reason that is new has counted from zero.
        per_second(
            earlier.map_or(0, |earlier| earlier.packets),
            drops.packets,
            seconds,
        )
    };
    let rates = now.iter().map(|drops| DropRate {
        reason: drops.reason.clone(),
        packets: drops.packets,
        packets_per_second: rate(drops),
    });
    let mut rates: Vec<DropRate> = rates.collect();
    rates.sort_by(|a, b| {
        let rate = |drops: &DropRate| drops.packets_per_second.unwrap_or(0.0);
        rate(b).total_cmp(&rate(a)).then(b.packets.cmp(&a.packets))
    });
    rates
}

/// The rates of a service.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ServiceRates {
    /// Its traffic.
    pub traffic: Option<Rates>,
    /// Its drops.
    pub drops: Vec<DropRate>,
    /// The traffic of its backends, in their order.
    pub backends: Vec<Option<Rates>>,
}

impl ServiceRates {
    fn between(before: Option<&Service>, now: &Service, seconds: f64) -> Self {
        let backends = before.iter().flat_map(|before| &before.backends);
        let earlier: HashMap<_, _> = backends
            .map(|backend| ((backend.name.as_str(), backend.address), backend))
            .collect();
        let of_backend = |backend: &Backend| {
            let earlier = earlier.get(&(backend.name.as_str(), backend.address));
            Rates::between(
                earlier.map(|earlier| Counters::from(*earlier)),
                backend.into(),
                seconds,
            )
        };
        Self {
            traffic: Rates::between(before.map(Counters::from), now.into(), seconds),
            drops: drop_rates(before.map(|before| before.drops.as_slice()), &now.drops, seconds),
            backends: now.backends.iter().map(of_backend).collect(),
        }
    }

    /// All its drops a second.
    pub(crate) fn dropped(&self) -> Option<f64> {
        self.traffic?;
        let rates = self.drops.iter().filter_map(|drops| drops.packets_per_second);
        // The sum of no numbers is -0.0, which shows.
        Some(rates.fold(0.0, |sum, rate| sum + rate))
    }
}

/// The rates of everything together.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Totals {
    /// Packets a second that the interfaces received, also those of no service.
    pub received_per_second: Option<f64>,
    /// Packets a second that were dropped, also those of no service.
    pub dropped_per_second: Option<f64>,
    /// Traffic of all services.
    pub rates: Option<Rates>,
    /// Flows under way.
    pub active_flows: u64,
    /// Drops by reason, also those of no service.
    pub drops: Vec<DropRate>,
}

impl Totals {
    fn between(before: Option<&Status>, now: &Status, services: &[ServiceRates], seconds: f64) -> Self {
        let sum = |of: fn(&Status) -> u64| per_second(of(before?), of(now), seconds);
        let known = services.iter().filter_map(|service| service.traffic);
        let earlier = before.map(all_drops);
        Self {
            received_per_second: sum(|status| status.interfaces.iter().map(|i| i.packets).sum()),
            dropped_per_second: sum(|status| status.interfaces.iter().map(|i| i.dropped).sum()),
            rates: before.map(|_| known.fold(Rates::default(), Rates::plus)),
            active_flows: now.services.iter().map(|service| service.active_flows).sum(),
            drops: drop_rates(earlier.as_deref(), &all_drops(now), seconds),
        }
    }
}

/// The drops of all interfaces together.
pub(crate) fn all_drops(status: &Status) -> Vec<Drops> {
    let mut all: Vec<Drops> = Vec::new();
    for drops in status.interfaces.iter().flat_map(|interface| &interface.drops) {
        match all.iter_mut().find(|known| known.reason == drops.reason) {
            Some(known) => known.packets += drops.packets,
            None => all.push(drops.clone()),
        }
    }
    all
}

/// An answer of the daemon, and the rates since the one before.
#[derive(Debug)]
pub(crate) struct Sample {
    /// When it came, for intervals.
    pub at: Instant,
    /// When it came, for people.
    pub time: SystemTime,
    /// Time between the two answers; 0 for the first.
    pub seconds: f64,
    /// The answer.
    pub status: Status,
    /// Everything together.
    pub totals: Totals,
    /// Its services, in their order.
    pub services: Vec<ServiceRates>,
}

impl Sample {
    /// The rates of `status`, which came `at`, since `before`.
    pub(crate) fn since(before: Option<&Self>, status: Status, at: Instant) -> Self {
        let seconds = before.map_or(0.0, |before| {
            at.saturating_duration_since(before.at).as_secs_f64()
        });
        let earlier = before.map(|before| &before.status);
        let by_name: HashMap<_, _> = earlier
            .iter()
            .flat_map(|earlier| &earlier.services)
            .map(|service| (service.name.as_str(), service))
            .collect();
        let services: Vec<ServiceRates> = status
            .services
            .iter()
            .map(|service| {
                let before = by_name.get(service.name.as_str()).copied();
                ServiceRates::between(before, service, seconds)
            })
            .collect();
        Self {
            at,
            time: SystemTime::now(),
            seconds,
            totals: Totals::between(earlier, &status, &services, seconds),
            services,
            status,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::testing::{backend, drops, service, status};

    fn pair(before: Status, now: Status, seconds: u64) -> Sample {
        let began = Instant::now();
        let first = Sample::since(None, before, began);
        assert_eq!(first.services[0].traffic, None, "one look has no rates");
        Sample::since(Some(&first), now, began + Duration::from_secs(seconds))
    }

    #[test]
    fn rates_are_differences_over_the_time_between_the_answers() {
        let mut before = service("web", vec![backend("b0"), backend("b1")]);
        before.packets = 1_000;
        before.bytes = 64_000;
        before.drops = drops(&[("acl", 5)]);
        let mut now = before.clone();
        now.packets += 200;
        now.bytes += 12_800;
        now.new_flows += 10;
        now.reply_packets += 100;
        now.active_flows = 7;
        now.backends[1].packets += 200;
        now.drops = drops(&[("acl", 7), ("no_backend", 40)]);
        let sample = pair(status(vec![before]), status(vec![now]), 2);
        let rates = &sample.services[0];
        let expected = Rates {
            packets: 100.0,
            bits: 51_200.0,
            new_flows: 5.0,
            reply_packets: 50.0,
            reply_bits: 0.0,
        };
        assert_eq!(rates.traffic, Some(expected));
        assert_eq!(sample.totals.rates, Some(expected));
        assert_eq!(sample.totals.active_flows, 7);
        let of_backends: Vec<_> = rates
            .backends
            .iter()
            .map(|rates| rates.unwrap().packets)
            .collect();
        assert_eq!(of_backends, [0.0, 100.0]);
        assert_eq!(rates.dropped(), Some(21.0));
        let order: Vec<_> = rates.drops.iter().map(|drops| drops.reason.as_str()).collect();
        assert_eq!(order, ["no_backend", "acl"], "the highest rate first");
    }

    #[test]
    fn what_is_new_or_began_again_has_no_rate() {
        let mut before = service("web", vec![backend("b0")]);
        before.packets = 1_000;
        let mut again = service("web", vec![backend("b0"), backend("b1")]);
        again.packets = 3;
        let sample = pair(
            status(vec![before]),
            status(vec![again, service("dns", vec![])]),
            1,
        );
        assert_eq!(sample.services[0].traffic, None, "counters began again");
        assert!(sample.services[0].backends[0].is_some());
        assert_eq!(sample.services[0].backends[1], None, "a new backend");
        assert_eq!(sample.services[1].traffic, None, "a new service");
        assert_eq!(sample.services[1].dropped(), None);
        assert_eq!(sample.totals.rates, Some(Rates::default()));
    }

    #[test]
    fn totals_count_drops_of_no_service_and_of_all_interfaces() {
        let mut before = status(vec![service("web", vec![])]);
        before.interfaces[0].packets = 100;
        let mut now = before.clone();
        now.interfaces.push(now.interfaces[0].clone());
        now.interfaces[0].packets = 160;
        now.interfaces[0].dropped = 6;
        now.interfaces[0].drops = drops(&[("malformed", 6)]);
        now.interfaces[1].packets = 0;
        now.interfaces[1].drops = drops(&[("malformed", 4)]);
        let sample = pair(before, now, 2);
        assert_eq!(sample.totals.received_per_second, Some(30.0));
        assert_eq!(sample.totals.dropped_per_second, Some(3.0));
        assert_eq!(sample.totals.drops[0].packets, 10);
        assert_eq!(sample.totals.drops[0].packets_per_second, Some(5.0));
    }
}
