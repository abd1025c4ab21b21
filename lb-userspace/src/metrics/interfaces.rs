//! Families of the interfaces, and of what became of the packets that arrived there.

use std::collections::BTreeMap;

use lb_common::{
    counters::PacketCount,
    reason::{Action, Reason},
};

use super::text::{Kind, Text};
use crate::{control::Observation, datapath::LinkLosses};

const ACTIONS: [Action; 5] = [
    Action::Tx,
    Action::Redirect,
    Action::Pass,
    Action::Drop,
    Action::Aborted,
];

pub(super) fn render(text: &mut Text, seen: &Observation) {
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
        "lb_interface_native",
        Kind::Gauge,
        "1: the driver runs the program, 0: the network stack runs it (generic mode), or it does not run",
    );
    each().for_each(|(labels, interface)| family.sample(&labels, u8::from(interface.native)));
    let mut family = text.family(
        "lb_interface_losses_total",
        Kind::Counter,
        "Packets that the kernel and the driver of an interface count as lost, by counter of ip -s -s link",
    );
    for interface in &seen.interfaces {
        for (counter, packets) in interface.losses.into_iter().flat_map(LinkLosses::named) {
            family.sample(&[("interface", &interface.name), ("counter", counter)], packets);
        }
    }
    redirect_errors(text, seen);
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
    let mut by_cpu: Vec<u64> = Vec::new();
    for interface in &seen.interfaces {
        by_cpu.resize(by_cpu.len().max(interface.by_cpu.len()), 0);
        by_cpu
            .iter_mut()
            .zip(&interface.by_cpu)
            .for_each(|(sum, packets)| *sum += packets);
    }
    let mut family = text.family(
        "lb_cpu_packets_total",
        Kind::Counter,
        "Packets that the program saw on a CPU, of all interfaces",
    );
    for (cpu, packets) in by_cpu.iter().enumerate() {
        family.sample(&[("cpu", &cpu.to_string())], packets);
    }
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

/// A series for each interface of the program begins with 0, for the error of a device that takes no frames of programs.
fn redirect_errors(text: &mut Text, seen: &Observation) {
    const NOT_TAKEN: &str = "EOPNOTSUPP";
    let Some(errors) = &seen.redirect_errors else {
        return;
    };
    let own = seen
        .interfaces
        .iter()
        .map(|interface| ((interface.name.as_str(), NOT_TAKEN), 0));
    let mut counts: BTreeMap<(&str, &str), u64> = own.collect();
    for error in errors {
        *counts.entry((&error.interface, error.name())).or_default() += error.frames;
    }
    let mut family = text.family(
        "lb_xdp_redirect_errors_total",
        Kind::Counter,
        "Frames that the kernel could not redirect to an interface, by error: EOPNOTSUPP (it takes no frames from XDP), ENETDOWN, \
         EMSGSIZE",
    );
    for ((interface, error), frames) in counts {
        family.sample(&[("interface", interface), ("error", error)], frames);
    }
}

/// Whether the action discards the packet.
pub fn is_drop(action: Action) -> bool {
    match action {
        Action::Drop | Action::Aborted => true,
        Action::Tx | Action::Redirect | Action::Pass => false,
    }
}
