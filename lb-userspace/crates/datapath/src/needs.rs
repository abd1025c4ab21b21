//! What packets may need of the program, by the desired state and by the steps of a plan.

use lb_common::{
    ring_slot::{Pick, RingSlot},
    service::{
        BY_CLIENTS, FORWARDS, GUARDS_FLOWS, Mode, OnEmpty, QUIC, SHARES_ADDRESS, Service as ServiceRecord,
        TRACKS_ALL, TRANSLATES,
    },
    stage::{Stage, StageSet},
};

use crate::{
    plan::{QuicStep, Step},
    state::{
        desired::Desired,
        service::{OnEmpty as OnEmptyPolicy, Service, Tracking},
    },
};

/// What packets may need of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs {
    /// The stages that they may enter.
    pub stages: StageSet,
    /// Whether they may use one of [`lb_common::map_names::LATE`].
    pub late_maps: bool,
}

impl Needs {
    /// Nothing beside the entry.
    pub const NONE: Self = Self {
        stages: StageSet::NONE,
        late_maps: false,
    };

    pub(super) const fn of(stages: StageSet) -> Self {
        Self {
            stages,
            late_maps: false,
        }
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            stages: self.stages.and(other.stages),
            late_maps: self.late_maps || other.late_maps,
        }
    }

    /// Whether these cover all of `other`.
    pub(super) const fn cover(self, other: Self) -> bool {
        other.stages.without(self.stages).is_empty() && (self.late_maps || !other.late_maps)
    }
}

/// What packets of services may need, by the desired state: a cold start loads that first. `of_steps` finds the rest.
pub fn needs_of(desired: &Desired) -> Needs {
    let of_service = |service: &Service| {
        let modes = service
            .backends
            .iter()
            .map(|backend| backend.mode.unwrap_or(service.mode));
        let flags = modes.fold(0, |flags, mode| {
            flags
                | match mode {
                    Mode::Nat => TRANSLATES,
                    Mode::Dnat | Mode::L2dsr | Mode::Ipip | Mode::Gue => FORWARDS,
                }
        });
        let asks_for = [
            (!service.quic.is_empty(), QUIC),
            (!service.clients.is_empty(), BY_CLIENTS),
            // Whether the address is one of this machine is not known yet.
            (service.key.port == 0, SHARES_ADDRESS),
            (service.tracking == Tracking::Full, TRACKS_ALL),
            (
                service.guard.new_flows.per_second != 0 || service.guard.source_new_flows.per_second != 0,
                GUARDS_FLOWS,
            ),
        ];
        let asked_for = asks_for.iter().filter(|(asks, _)| *asks);
        let flags = asked_for.fold(flags, |flags, (_, flag)| flags | flag);
        let on_empty = match service.on_empty {
            OnEmptyPolicy::Drop | OnEmptyPolicy::All => OnEmpty::Drop,
            OnEmptyPolicy::Reject => OnEmpty::Reject,
        };
        let record = ServiceRecord {
            flags,
            on_empty: on_empty as u8,
            ..ServiceRecord::default()
        };
        let of_dnat = if service
            .backends
            .iter()
            .any(|backend| backend.mode.unwrap_or(service.mode) == Mode::Dnat)
        {
            of_dnat()
        } else {
            StageSet::NONE
        };
        let of_prefix = if service.key.is_prefix() {
            of_prefix()
        } else {
            StageSet::NONE
        };
        let of_record = of_record(&record, service.key.address.is_ipv6());
        of_record.and(Needs::of(of_dnat.and(of_prefix)))
    };
    let services = desired.services.values().map(|service| of_service(service));
    let of_tunnels = if desired.settings.decap_from.is_empty() {
        StageSet::NONE
    } else {
        of_tunnels()
    };
    let of_all = Needs::of(StageSet::of_any_packet().and(of_tunnels));
    services.fold(of_all, Needs::and)
}

/// What packets may need after these steps, beside [`StageSet::of_any_packet`].
pub(super) fn of_steps(steps: &[Step]) -> Needs {
    steps.iter().map(of_step).fold(Needs::NONE, Needs::and)
}

fn of_step(step: &Step) -> Needs {
    match step {
        Step::WriteService { key, service } => of_record(service, key.address.is_ipv6()),
        Step::WriteRing { slots, .. } => Needs {
            late_maps: slots.iter().any(looks_up),
            ..Needs::NONE
        },
        Step::WriteBackend { backend, .. } if backend.mode == Mode::Dnat => Needs::of(of_dnat()),
        Step::WriteSettings {
            dnat,
            prefix_services,
            ends_tunnels,
            ..
        } => {
            let asked_for = [
                (*dnat, of_dnat()),
                (*prefix_services, of_prefix()),
                (*ends_tunnels, of_tunnels()),
            ];
            let asked_for = asked_for.into_iter().filter(|(asks, _)| *asks);
            Needs::of(asked_for.fold(StageSet::NONE, |set, (_, stages)| set.and(stages)))
        }
        Step::WriteReply { .. } => Needs::of(of_dnat()),
        Step::Quic(QuicStep::WriteConfig { .. } | QuicStep::WriteServer { .. })
        | Step::Quic(QuicStep::RemoveConfig { .. } | QuicStep::RemoveServer { .. })
        | Step::WriteBackend { .. }
        | Step::WritePrefix { .. }
        | Step::WriteFlowGuard { .. }
        | Step::WriteTunnelEnd { .. }
        | Step::WriteClients { .. }
        | Step::RemoveClients { .. }
        | Step::RemoveService { .. }
        | Step::RemovePrefix { .. }
        | Step::RemoveReply { .. }
        | Step::RemoveTunnelEnd { .. }
        | Step::Barrier
        | Step::RemoveRing { .. }
        | Step::FreeBackend { .. } => Needs::NONE,
    }
}

/// Whether flows in a slot are looked up and recorded.
fn looks_up(slot: &RingSlot) -> bool {
    match slot.pick() {
        Pick::LookUp => true,
        Pick::Owner(_) => false,
    }
}

/// That of prefixes as addresses: any packet for no service may enter it, of both families.
fn of_prefix() -> StageSet {
    StageSet::NONE
        .with(Stage::Prefix, false)
        .with(Stage::Prefix, true)
}

/// The stage of tunnels that end here: one program, in the slots of both families.
fn of_tunnels() -> StageSet {
    StageSet::NONE
        .with(Stage::EndTunnel, false)
        .with(Stage::EndTunnel, true)
}

/// The stages of mode `dnat`. A backend's packet may have the other family: the filter of endpoints does not know families.
fn of_dnat() -> StageSet {
    [Stage::Dnat, Stage::DnatReply]
        .into_iter()
        .fold(StageSet::NONE, |set, stage| {
            set.with(stage, false).with(stage, true)
        })
}

/// What packets to a service may need.
fn of_record(service: &ServiceRecord, is_v6: bool) -> Needs {
    let asks_for = [
        (true, Stage::TooBig),
        (service.has(TRANSLATES), Stage::NewFlow),
        (service.has(TRANSLATES), Stage::NoFlow),
        (!service.has(TRANSLATES) || service.has(FORWARDS), Stage::SlowPath),
        (service.has(QUIC), Stage::Quic),
        (service.has(BY_CLIENTS), Stage::Clients),
        (service.has(SHARES_ADDRESS), Stage::HostSocket),
        (service.on_empty == OnEmpty::Reject as u8, Stage::Reject),
    ];
    let stages = asks_for.iter().filter(|(asks, _)| *asks);
    Needs {
        stages: stages.fold(StageSet::NONE, |set, (_, stage)| set.with(*stage, is_v6)),
        late_maps: service.has(TRACKS_ALL) || service.has(GUARDS_FLOWS),
    }
}

#[cfg(test)]
pub(super) mod tests;
