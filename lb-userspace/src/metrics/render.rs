//! All metrics as one text: the registry's, then the families that mirror maps and verdicts.

use std::collections::BTreeMap;

use lb_common::{
    counters::PacketCount,
    map_names,
    reason::{Action, Reason},
};
use prometheus::{Registry, TextEncoder};

use super::text::{Kind, Text};
use crate::{
    control::{ControlView, Observation, broken, forwards},
    datapath::NextHopState,
    health::{CheckId, Health},
    plan::TargetBackend,
    state::{backups, effective::HealthView, names::ServiceName, removal},
};

/// The exposition text.
///
/// # Errors
/// When the registry cannot be encoded.
pub fn render(
    registry: &Registry,
    ready: bool,
    view: &ControlView,
    health: &HealthView,
    seen: &Observation,
) -> Result<String, prometheus::Error> {
    let mut text = Text::default();
    text.family(
        "lb_ready",
        Kind::Gauge,
        "Whether the desired state is programmed on all interfaces",
    )
    .sample(&[], u8::from(ready));
    interfaces(&mut text, seen);
    services(&mut text, view, health, seen);
    backends(&mut text, view, health, seen);
    maps(&mut text, seen);
    Ok(TextEncoder::new().encode_to_string(&registry.gather())? + &text.into_string())
}

const ACTIONS: [Action; 5] = [
    Action::Tx,
    Action::Redirect,
    Action::Pass,
    Action::Drop,
    Action::Aborted,
];

fn interfaces(text: &mut Text, seen: &Observation) {
    let each = || {
        seen.interfaces
            .iter()
            .map(|interface| ([("interface", interface.name.as_str())], interface))
    };
    let mut family = text.family(
        "lb_interface_attached",
        Kind::Gauge,
        "Whether the program runs on an interface",
    );
    each().for_each(|(labels, interface)| family.sample(&labels, u8::from(interface.attached)));
    let mut family = text.family(
        "lb_interface_up",
        Kind::Gauge,
        "Whether an interface is up and has a carrier",
    );
    each().for_each(|(labels, interface)| family.sample(&labels, u8::from(interface.up)));
    let mut family = text.family(
        "lb_interface_reattachments_total",
        Kind::Counter,
        "Times the program was put back on an interface",
    );
    each().for_each(|(labels, interface)| family.sample(&labels, interface.repairs));
    // Each interface and action with its sum, in a stable order, including zeros.
    let mut by_action: Vec<(&str, Action, PacketCount)> = Vec::new();
    let mut by_reason: BTreeMap<u32, u64> = BTreeMap::new();
    for interface in &seen.interfaces {
        for action in ACTIONS {
            let counts = interface
                .by_reason
                .iter()
                .filter(|(reason, _)| reason.action() == action);
            let sum = counts.fold(PacketCount::default(), |sum, (_, count)| PacketCount {
                packets: sum.packets + count.packets,
                bytes: sum.bytes + count.bytes,
            });
            by_action.push((&interface.name, action, sum));
        }
        for (reason, count) in &interface.by_reason {
            *by_reason.entry(*reason as u32).or_default() += count.packets;
        }
    }
    let labels = |interface, action: &Action| [("interface", interface), ("action", action.name())];
    let mut family = text.family(
        "lb_xdp_packets_total",
        Kind::Counter,
        "Packets received on an interface, by XDP action",
    );
    for (interface, action, sum) in &by_action {
        family.sample(&labels(*interface, action), sum.packets);
    }
    let mut family = text.family(
        "lb_xdp_bytes_total",
        Kind::Counter,
        "Bytes of frames received on an interface, by XDP action",
    );
    for (interface, action, sum) in &by_action {
        family.sample(&labels(*interface, action), sum.bytes);
    }
    let mut family = text.family(
        "lb_tunnels_ended_packets_total",
        Kind::Counter,
        "Packets received on an interface through a tunnel that ends at this machine (decap_from)",
    );
    each().for_each(|(labels, interface)| family.sample(&labels, interface.tunnels_ended.packets));
    let mut family = text.family(
        "lb_tunnels_ended_bytes_total",
        Kind::Counter,
        "Bytes of their frames with the outer headers",
    );
    each().for_each(|(labels, interface)| family.sample(&labels, interface.tunnels_ended.bytes));
    let count = |reason: &Reason| by_reason.get(&(*reason as u32)).copied().unwrap_or(0);
    let mut family = text.family("lb_drops_total", Kind::Counter, "Packets dropped, by reason");
    for reason in Reason::ALL.iter().filter(|reason| is_drop(reason.action())) {
        family.sample(&[("reason", reason.name())], count(reason));
    }
    let mut family = text.family(
        "lb_passes_total",
        Kind::Counter,
        "Packets given to the kernel, by reason",
    );
    for reason in Reason::ALL
        .iter()
        .filter(|reason| reason.action() == Action::Pass)
    {
        family.sample(&[("reason", reason.name())], count(reason));
    }
    let mut family = text.family(
        "lb_replies_total",
        Kind::Counter,
        "Packets that the balancer answered itself, by reason",
    );
    for reason in Reason::ALL.iter().filter(|reason| reason.is_reply()) {
        family.sample(&[("reason", reason.name())], count(reason));
    }
}

/// Whether the action discards the packet.
pub fn is_drop(action: Action) -> bool {
    match action {
        Action::Drop | Action::Aborted => true,
        Action::Tx | Action::Redirect | Action::Pass => false,
    }
}

fn services(text: &mut Text, view: &ControlView, health: &HealthView, seen: &Observation) {
    let traffic = || {
        seen.services
            .iter()
            .map(|(name, traffic)| ([("service", name.as_str())], traffic))
    };
    let mut family = text.family(
        "lb_service_packets_total",
        Kind::Counter,
        "Packets from clients that were forwarded",
    );
    traffic().for_each(|(labels, traffic)| family.sample(&labels, traffic.packets));
    let mut family = text.family(
        "lb_service_bytes_total",
        Kind::Counter,
        "Bytes of frames from clients that were forwarded",
    );
    traffic().for_each(|(labels, traffic)| family.sample(&labels, traffic.bytes));
    let mut family = text.family("lb_service_new_flows_total", Kind::Counter, "New flows");
    traffic().for_each(|(labels, traffic)| family.sample(&labels, traffic.new_flows));
    let mut family = text.family(
        "lb_service_flows_gave_way_total",
        Kind::Counter,
        "Half-open flows that were given up for new ones, because source ports or the flow table ran out",
    );
    for (name, gave_way) in &seen.gave_way {
        family.sample(&[("service", name.as_str())], gave_way.total);
    }
    let mut family = text.family(
        "lb_service_reply_packets_total",
        Kind::Counter,
        "Packets from backends that were sent to clients",
    );
    traffic().for_each(|(labels, traffic)| family.sample(&labels, traffic.reply_packets));
    let mut family = text.family(
        "lb_service_reply_bytes_total",
        Kind::Counter,
        "Bytes of frames from backends that were sent to clients",
    );
    traffic().for_each(|(labels, traffic)| family.sample(&labels, traffic.reply_bytes));
    let mut family = text.family(
        "lb_service_drops_total",
        Kind::Counter,
        "Packets of a service that were dropped, by reason",
    );
    let of_reasons = |replies: bool| {
        seen.drops
            .iter()
            .filter(move |((_, reason), _)| reason.is_reply() == replies)
            .map(|((service, reason), packets)| {
                (
                    [("service", service.as_str()), ("reason", reason.name())],
                    packets,
                )
            })
    };
    of_reasons(false).for_each(|(labels, packets)| family.sample(&labels, packets));
    let mut family = text.family(
        "lb_service_replies_total",
        Kind::Counter,
        "Packets of a service that the balancer answered itself, by reason",
    );
    of_reasons(true).for_each(|(labels, packets)| family.sample(&labels, packets));
    let mut family = text.family(
        "lb_service_healthy_backends",
        Kind::Gauge,
        "Backends that take new flows",
    );
    for (name, service) in &view.desired.services {
        let healthy = view.target_service(&service.key).map_or(0, |target| {
            target
                .backends
                .values()
                .filter(|backend| backend.weight > 0)
                .count()
        });
        family.sample(&[("service", name.as_str())], healthy);
    }
    let mut family = text.family(
        "lb_service_broken",
        Kind::Gauge,
        "1: none of its flows can work, whatever its checks say; `lb status` gives the reason",
    );
    for (name, service) in &view.desired.services {
        let has_fault = seen.fault_of(name).is_some();
        let is_broken = has_fault || broken(&view.desired, service, &seen.next_hops, forwards).is_some();
        family.sample(&[("service", name.as_str())], u8::from(is_broken));
    }
    let programmed = view.programmed.as_ref().unwrap_or(&view.wanted);
    let mut serving: BTreeMap<&ServiceName, usize> = BTreeMap::new();
    for (service, _) in backups::serving(&view.desired, programmed) {
        *serving.entry(service).or_default() += 1;
    }
    let mut family = text.family(
        "lb_service_serving_backups",
        Kind::Gauge,
        "Backups that take new flows because too few other backends can",
    );
    for name in view.desired.services.keys() {
        let backups = serving.get(name).copied().unwrap_or_default();
        family.sample(&[("service", name.as_str())], backups);
    }
    let mut family = text.family(
        "lb_service_group_backends",
        Kind::Gauge,
        "Backends of a group that take new flows; 0: its clients go to others",
    );
    for (name, service) in &view.desired.services {
        for clients in &service.clients {
            let of_group = service
                .backends
                .iter()
                .filter(|backend| backend.group.as_ref() == Some(&clients.group));
            let able = of_group.filter(|backend| {
                let target = view.target_backend(&service.key, backend.address);
                target.is_some_and(|target| target.weight > 0)
            });
            let labels = [("service", name.as_str()), ("group", clients.group.as_str())];
            family.sample(&labels, able.count());
        }
    }
    let overruled = removal::panic_mode(&view.desired, health, programmed);
    let mut family = text.family(
        "lb_service_overruled_backends",
        Kind::Gauge,
        "Backends that are down and take new flows because too many are down (panic mode)",
    );
    for name in view.desired.services.keys() {
        let backends = overruled.get(name).map_or(0, Vec::len);
        family.sample(&[("service", name.as_str())], backends);
    }
}

fn backends(text: &mut Text, view: &ControlView, health: &HealthView, seen: &Observation) {
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

fn maps(text: &mut Text, seen: &Observation) {
    let is_flows = |name: &str| map_names::OF_FLOWS.contains(&name);
    let mut family = text.family(
        "lb_flows",
        Kind::Gauge,
        "Entries of a flow table, two for each NAT flow",
    );
    for map in seen.maps.iter().filter(|map| is_flows(map.name)) {
        family.sample(&[("map", map.name)], map.entries);
    }
    let mut family = text.family("lb_map_entries", Kind::Gauge, "Entries of a map in use");
    for map in &seen.maps {
        family.sample(&[("map", map.name)], map.entries);
    }
    let mut family = text.family(
        "lb_map_capacity",
        Kind::Gauge,
        "Largest number of entries of a map",
    );
    for map in &seen.maps {
        family.sample(&[("map", map.name)], map.capacity);
    }
    let mut family = text.family(
        "lb_map_update_errors_total",
        Kind::Counter,
        "Writes to a map that failed",
    );
    for map in &seen.maps {
        family.sample(&[("map", map.name)], map.update_errors);
    }
}
