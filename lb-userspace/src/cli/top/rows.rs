//! Services and backends as rows that can be ordered and filtered.

use crate::api::{
    rates::{Rates, Sample, ServiceRates},
    service_state::ServiceState,
    types::{Admin, Backend, Health, Service},
};

/// By what rows are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Name.
    Name,
    /// State of a service, health and admin state of a backend: the worst first.
    State,
    /// Packets a second.
    Packets,
    /// Bits a second.
    Bits,
    /// New flows a second.
    NewFlows,
    /// Flows under way.
    Flows,
    /// Drops a second; backends have none.
    Drops,
    /// Latency of the last checks.
    Latency,
}

impl Order {
    /// All, as the columns stand.
    pub(super) const ALL: [Self; 8] = [
        Self::Name,
        Self::State,
        Self::Packets,
        Self::Bits,
        Self::NewFlows,
        Self::Flows,
        Self::Drops,
        Self::Latency,
    ];

    /// The key that orders by it.
    pub(super) const fn key(self) -> char {
        match self {
            Self::Name => 'n',
            Self::State => 'h',
            Self::Packets => 'p',
            Self::Bits => 'b',
            Self::NewFlows => 'w',
            Self::Flows => 'f',
            Self::Drops => 'x',
            Self::Latency => 'c',
        }
    }

    /// What it is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Packets => "packets/s",
            Self::Bits => "bits/s",
            Self::NewFlows => "new flows/s",
            Self::Flows => "flows",
            Self::Drops => "drops/s",
            Self::Latency => "check latency",
        }
    }
}

/// An order and its direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sort {
    /// By what.
    pub by: Order,
    /// Whether the first row is the one that stands last by default: names from A, numbers and faults from the highest.
    pub is_reversed: bool,
}

/// A row: what it is ordered and found by.
pub(super) trait Row {
    /// Its name.
    fn name(&self) -> &str;
    /// Its address, which the filter finds too.
    fn address(&self) -> String;
    /// Its value, of which the highest comes first; orders by name have none.
    fn value(&self, order: Order) -> f64;
}

/// A service and its rates.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceRow<'a> {
    /// The service.
    pub service: &'a Service,
    /// Its rates.
    pub rates: &'a ServiceRates,
}

impl ServiceRow<'_> {
    /// Median and highest latency of the last successful checks of its backends, microseconds.
    pub(super) fn latency(&self) -> Option<(u64, u64)> {
        let checks = self.service.backends.iter().filter_map(latency);
        let mut latencies: Vec<u64> = checks.collect();
        latencies.sort_unstable();
        Some((*latencies.get(latencies.len() / 2)?, *latencies.last()?))
    }
}

impl Row for ServiceRow<'_> {
    fn name(&self) -> &str {
        &self.service.name
    }

    fn address(&self) -> String {
        self.service.address.clone()
    }

    fn value(&self, order: Order) -> f64 {
        match order {
            Order::Name => 0.0,
            Order::State => match self.service.judged() {
                ServiceState::Ok => 0.0,
                ServiceState::OnBackup => 1.0,
                ServiceState::Degraded => 2.0,
                ServiceState::NoBackends => 3.0,
                ServiceState::Down => 4.0,
                ServiceState::Broken => 5.0,
                ServiceState::NotProgrammed => 6.0,
            },
            Order::Packets => of(self.rates.traffic, |rates| rates.packets),
            Order::Bits => of(self.rates.traffic, |rates| rates.bits),
            Order::NewFlows => of(self.rates.traffic, |rates| rates.new_flows),
            Order::Flows => self.service.active_flows as f64,
            Order::Drops => self.rates.dropped().unwrap_or(-1.0),
            Order::Latency => self.latency().map_or(-1.0, |(_, highest)| highest as f64),
        }
    }
}

/// A backend and its rates.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackendRow<'a> {
    /// The backend.
    pub backend: &'a Backend,
    /// Its traffic.
    pub rates: Option<Rates>,
}

impl Row for BackendRow<'_> {
    fn name(&self) -> &str {
        &self.backend.name
    }

    fn address(&self) -> String {
        self.backend.address.to_string()
    }

    fn value(&self, order: Order) -> f64 {
        match order {
            Order::Name | Order::Drops => 0.0,
            Order::State => {
                let health = match self.backend.health {
                    Health::Up | Health::Unchecked => 0.0,
                    Health::Down => 10.0,
                };
                let admin = match self.backend.admin {
                    Admin::Enabled => 0.0,
                    Admin::Draining => 1.0,
                    Admin::Disabled => 2.0,
                };
                health + admin
            }
            Order::Packets => of(self.rates, |rates| rates.packets),
            Order::Bits => of(self.rates, |rates| rates.bits),
            Order::NewFlows => of(self.rates, |rates| rates.new_flows),
            Order::Flows => self.backend.active_flows as f64,
            Order::Latency => latency(self.backend).map_or(-1.0, |latency| latency as f64),
        }
    }
}

/// Rows without a rate come after those of rate 0.
fn of(rates: Option<Rates>, value: fn(&Rates) -> f64) -> f64 {
    rates.as_ref().map_or(-1.0, value)
}

/// Latency of the last check, if it succeeded, microseconds.
pub(super) fn latency(backend: &Backend) -> Option<u64> {
    let check = backend.last_check.as_ref().filter(|check| check.ok)?;
    Some(check.latency_us)
}

/// The services of a sample.
pub(super) fn services(sample: &Sample) -> impl Iterator<Item = ServiceRow<'_>> {
    let pairs = sample.status.services.iter().zip(&sample.services);
    pairs.map(|(service, rates)| ServiceRow { service, rates })
}

/// The backends of a service.
pub(super) fn backends<'a>(service: ServiceRow<'a>) -> impl Iterator<Item = BackendRow<'a>> {
    let pairs = service.service.backends.iter().zip(&service.rates.backends);
    pairs.map(|(backend, rates)| BackendRow {
        backend,
        rates: *rates,
    })
}

/// The rows whose name or address contains `filter`, in order; equal ones by name.
pub(super) fn arranged<R: Row>(rows: impl Iterator<Item = R>, filter: &str, sort: Sort) -> Vec<R> {
    let filter = filter.to_lowercase();
    let found = |row: &R| {
        filter.is_empty() || row.name().to_lowercase().contains(&filter) || row.address().contains(&filter)
    };
    let mut rows: Vec<(f64, R)> = rows.filter(found).map(|row| (row.value(sort.by), row)).collect();
    rows.sort_by(|(a_value, a), (b_value, b)| {
        let by_name = a.name().cmp(b.name());
        match (sort.by, sort.is_reversed) {
            (Order::Name, true) => by_name.reverse(),
            (_, true) => a_value.total_cmp(b_value).then(by_name),
            (_, false) => b_value.total_cmp(a_value).then(by_name),
        }
    });
    rows.into_iter().map(|(_, row)| row).collect()
}
