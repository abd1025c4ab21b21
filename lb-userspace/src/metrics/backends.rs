//! Families of the backends: traffic, and whether they take new flows.

use std::collections::BTreeMap;

use super::text::{Kind, Text};
use crate::{
    control::{ControlView, Observation},
    datapath::NextHopState,
    health::{CheckId, Health},
    plan::TargetBackend,
    state::{backend::Admin, effective::HealthView, words::Word as _},
};

pub(super) fn render(text: &mut Text, view: &ControlView, health: &HealthView, seen: &Observation) {
    let stats = || {
        seen.backends.iter().map(|((service, backend), stats)| {
            (
                [("service", service.as_str()), ("backend", backend.as_str())],
                stats,
            )
        })
    };
    let mut family = text.family(
        "lb_backend_packets_total",
        Kind::Counter,
        "Packets forwarded to a backend",
    );
    stats().for_each(|(labels, stats)| family.sample(&labels, stats.traffic.packets));
    let mut family = text.family(
        "lb_backend_bytes_total",
        Kind::Counter,
        "Bytes of frames forwarded to a backend",
    );
    stats().for_each(|(labels, stats)| family.sample(&labels, stats.traffic.bytes));
    let mut family = text.family(
        "lb_backend_new_flows_total",
        Kind::Counter,
        "New flows of a backend",
    );
    stats().for_each(|(labels, stats)| family.sample(&labels, stats.traffic.new_flows));
    let mut family = text.family(
        "lb_backend_reply_packets_total",
        Kind::Counter,
        "Packets from a backend that were sent to clients",
    );
    stats().for_each(|(labels, stats)| family.sample(&labels, stats.traffic.reply_packets));
    let mut family = text.family(
        "lb_backend_reply_bytes_total",
        Kind::Counter,
        "Bytes of frames from a backend that were sent to clients",
    );
    stats().for_each(|(labels, stats)| family.sample(&labels, stats.traffic.reply_bytes));
    let mut family = text.family(
        "lb_active_connections",
        Kind::Gauge,
        "Active flows at the last count",
    );
    stats().for_each(|(labels, stats)| family.sample(&labels, stats.active_flows));

    configured(text, view);
    let mut desired = BTreeMap::new();
    for ((service, backend), key, address) in view.backends() {
        let id = CheckId(service, backend);
        let weight = view
            .target_backend(&key, address)
            .map_or(0, TargetBackend::weight_in_force);
        let way = seen.next_hops.get(&address.ip());
        let blocked = way.is_some_and(NextHopState::is_blocked);
        // The desired one comes first; a removed one of the same name only finishes its flows.
        desired.entry(id).or_insert((weight, blocked));
    }
    let mut family = text.family(
        "lb_backend_health",
        Kind::Gauge,
        "1: checks pass or there are none, 0: checks fail, or it cannot be reached",
    );
    for (id, (_, blocked)) in &desired {
        let up = match health.get(id).copied().unwrap_or_default() {
            Health::Up | Health::Unchecked => u8::from(!blocked),
            Health::Down => 0,
        };
        family.sample(&[("service", id.0.as_str()), ("backend", id.1.as_str())], up);
    }
    let mut family = text.family(
        "lb_backend_weight",
        Kind::Gauge,
        "Weight in force; 0: takes no new flows",
    );
    for (id, (weight, _)) in &desired {
        family.sample(&[("service", id.0.as_str()), ("backend", id.1.as_str())], weight);
    }
    let mut family = text.family(
        "lb_backend_reachable",
        Kind::Gauge,
        "0: nothing can be sent to it (no route, an address of this machine, no Ethernet), so it takes no new flows",
    );
    for (id, (_, blocked)) in &desired {
        family.sample(
            &[("service", id.0.as_str()), ("backend", id.1.as_str())],
            u8::from(!blocked),
        );
    }
}

/// What the configuration says of the backends.
fn configured(text: &mut Text, view: &ControlView) {
    let each = || {
        view.desired.services.iter().flat_map(|(name, service)| {
            let backends = service.backends.iter();
            backends.map(move |backend| (name.as_str(), service, backend))
        })
    };
    let mut family = text.family(
        "lb_backend_info",
        Kind::Gauge,
        "Always 1; the labels tell where a backend is and how it is reached",
    );
    for (name, service, backend) in each() {
        let labels = [
            ("service", name),
            ("backend", backend.name.as_str()),
            ("address", &backend.address.to_string()),
            ("mode", backend.mode.unwrap_or(service.mode).word()),
            ("backup", if backend.backup { "true" } else { "false" }),
        ];
        family.sample(&labels, 1);
    }
    let mut family = text.family(
        "lb_backend_admin",
        Kind::Gauge,
        "State that the operator wants; 0: enabled, 1: draining (no new flows), 2: disabled (no flows)",
    );
    for (name, _, backend) in each() {
        let admin = match backend.admin {
            Admin::Enabled => 0,
            Admin::Draining => 1,
            Admin::Disabled => 2,
        };
        family.sample(&[("service", name), ("backend", backend.name.as_str())], admin);
    }
    let mut family = text.family(
        "lb_backend_configured_weight",
        Kind::Gauge,
        "Weight in the configuration; lb_backend_weight is the one in force",
    );
    for (name, _, backend) in each() {
        family.sample(
            &[("service", name), ("backend", backend.name.as_str())],
            backend.weight,
        );
    }
}
