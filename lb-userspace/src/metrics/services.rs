//! Families of the services.

use std::collections::BTreeMap;

use super::text::{Kind, Text};
use crate::{
    control::{ControlView, Observation, broken, forwards},
    health::settings::CheckKind,
    state::{backups, effective::HealthView, names::ServiceName, removal, words::Word as _},
};

pub(super) fn render(text: &mut Text, view: &ControlView, health: &HealthView, seen: &Observation) {
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
        "lb_service_info",
        Kind::Gauge,
        "Always 1; the labels tell where a service is and how it works",
    );
    for (name, service) in &view.desired.services {
        let port = match service.key.port {
            0 => "*".to_owned(),
            port => port.to_string(),
        };
        let labels = [
            ("service", name.as_str()),
            ("address", &service.key.address_text()),
            ("port", &port),
            ("protocol", service.key.protocol.word()),
            ("mode", service.mode.word()),
            ("algorithm", service.algorithm.word()),
        ];
        family.sample(&labels, 1);
    }
    let mut family = text.family("lb_service_backends", Kind::Gauge, "Configured backends");
    for (name, service) in &view.desired.services {
        family.sample(&[("service", name.as_str())], service.backends.len());
    }
    let mut family = text.family(
        "lb_service_check_interval_seconds",
        Kind::Gauge,
        "Longest time between two checks of a backend, as configured: interval, or down_interval_max if that is longer",
    );
    let checked = view.desired.services.iter();
    for (name, service) in checked.filter(|(_, service)| !matches!(service.health.kind, CheckKind::None)) {
        let longest = service.health.interval.max(service.health.down_interval_max);
        family.sample(&[("service", name.as_str())], longest.as_secs_f64());
    }
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
