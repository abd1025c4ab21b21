//! The JSON of the stream. The page alone reads it, so it may change with the page.

use serde::Serialize;

use crate::{
    api::{
        rates::{DropRate, Rates},
        types::{Admin, Health, Service, XdpMode},
    },
    events::EventKind,
};

#[derive(Serialize)]
pub(super) struct Node<'a> {
    pub(super) host: String,
    pub(super) version: &'a str,
    pub(super) pid: u32,
    pub(super) started: &'a str,
    pub(super) revision: u64,
    pub(super) ready: bool,
    /// Whether the daemon has a configuration file.
    pub(super) file: bool,
    pub(super) in_force: bool,
    pub(super) file_in_force: bool,
    /// Differences made by command, and those that a reload would make. Their texts may hold credentials.
    pub(super) by_command: usize,
    pub(super) pending: usize,
}

/// Traffic a second.
#[derive(Serialize)]
pub(super) struct Flows {
    packets: f64,
    bits: f64,
    new_flows: f64,
    reply_packets: f64,
    reply_bits: f64,
}

impl From<Rates> for Flows {
    fn from(rates: Rates) -> Self {
        Self {
            packets: tenth(rates.packets),
            bits: tenth(rates.bits),
            new_flows: tenth(rates.new_flows),
            reply_packets: tenth(rates.reply_packets),
            reply_bits: tenth(rates.reply_bits),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Totals {
    /// Packets a second on all interfaces.
    pub(super) received: Option<f64>,
    /// Of these, dropped.
    pub(super) dropped: Option<f64>,
    /// Of all services.
    pub(super) rates: Option<Flows>,
    pub(super) flows: u64,
}

#[derive(Serialize)]
pub(super) struct Drop<'a> {
    reason: &'a str,
    packets: u64,
    rate: Option<f64>,
}

impl<'a> From<&'a DropRate> for Drop<'a> {
    fn from(drop: &'a DropRate) -> Self {
        Self {
            reason: &drop.reason,
            packets: drop.packets,
            rate: drop.packets_per_second.map(tenth),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ServiceRow<'a> {
    pub(super) name: &'a str,
    pub(super) address: String,
    pub(super) mode: &'a str,
    pub(super) check: &'a str,
    pub(super) state: &'a str,
    /// Backends that take new flows.
    pub(super) healthy: usize,
    /// Of these, those that are down: too many are, or their state is not in force yet.
    pub(super) down_in_use: usize,
    pub(super) total: usize,
    pub(super) flows: u64,
    pub(super) rates: Option<Flows>,
    pub(super) dropped: Option<f64>,
    pub(super) drops: Vec<Drop<'a>>,
    pub(super) problems: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct BackendRow<'a> {
    pub(super) key: &'a str,
    pub(super) name: &'a str,
    pub(super) address: String,
    pub(super) mode: &'a str,
    pub(super) health: Health,
    pub(super) admin: Admin,
    pub(super) removed: bool,
    pub(super) backup: bool,
    pub(super) group: Option<&'a str>,
    pub(super) weight: u16,
    pub(super) effective_weight: u32,
    pub(super) reason: String,
    pub(super) since: Option<&'a str>,
    pub(super) drain_until: Option<&'a str>,
    pub(super) latency_us: Option<u64>,
    pub(super) flows: u64,
    pub(super) rates: Option<Flows>,
}

#[derive(Serialize)]
pub(super) struct InterfaceRow<'a> {
    pub(super) name: &'a str,
    pub(super) link: &'a str,
    pub(super) xdp_mode: XdpMode,
    pub(super) packets: u64,
    pub(super) dropped: u64,
    pub(super) received: Option<f64>,
    pub(super) note: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct Problems {
    /// All problems.
    pub(super) total: usize,
    /// Entries of the list that are left out at its end.
    pub(super) left_out: usize,
    pub(super) listed: Vec<ProblemRow>,
}

#[derive(Serialize)]
pub(super) struct ProblemRow {
    pub(super) service: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

#[derive(Serialize)]
pub(super) struct EventRow<'a> {
    pub(super) number: u64,
    pub(super) at: &'a str,
    pub(super) kind: EventKind,
    pub(super) service: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
    pub(super) message: String,
    pub(super) by: Option<&'a str>,
}

/// Rates have no more digits than they are worth, so that a steady one does not differ from second to second.
pub(super) fn tenth(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

/// Where a service is reached: `192.0.2.10:80/tcp`.
pub(super) fn endpoint(service: &Service) -> String {
    let ports = match (service.ports.as_slice(), service.port) {
        ([], 0) => "*".to_owned(),
        ([], port) => port.to_string(),
        (ports, _) => ports.join(","),
    };
    let (address, protocol) = (&service.address, &service.protocol);
    if address.contains(':') {
        format!("[{address}]:{ports}/{protocol}")
    } else {
        format!("{address}:{ports}/{protocol}")
    }
}
