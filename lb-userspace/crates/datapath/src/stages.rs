//! The loaded stages of the program: at a cold start only stages that packets of the services may enter, a moment later all.
//!
//! No packet meets a missing stage: [`of_steps`] returns the stages that the steps of a plan need, and [`Stages::ensure`] loads
//! them before the first of these steps.

use std::{
    ffi::CString,
    fmt, mem,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_common::{
    service::{FORWARDS, Mode, OnEmpty, QUIC, SHARES_ADDRESS, Service as ServiceRecord, TRANSLATES},
    stage::{Stage, StageSet},
};

use super::{
    error::chain,
    fill::{LoadError, load_into, slots},
    prepare::{Prepared, Ready},
};
use crate::{
    plan::{QuicStep, Step},
    state::{
        desired::Desired,
        service::{OnEmpty as OnEmptyPolicy, Service},
    },
};

/// The stages that packets of services may enter, by the desired state: a start loads them in parallel. `of_steps` finds the
/// rest.
pub fn stages_of(desired: &Desired) -> StageSet {
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
        let quic = if service.quic.is_empty() { 0 } else { QUIC };
        let on_empty = match service.on_empty {
            OnEmptyPolicy::Drop | OnEmptyPolicy::All => OnEmpty::Drop,
            OnEmptyPolicy::Reject => OnEmpty::Reject,
        };
        let record = ServiceRecord {
            flags: flags | quic,
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
        of_record(&record, service.key.address.is_ipv6())
            .and(of_dnat)
            .and(of_prefix)
    };
    let services = desired.services.values().map(|service| of_service(service));
    let of_tunnels = if desired.settings.decap_from.is_empty() {
        StageSet::NONE
    } else {
        of_tunnels()
    };
    services.fold(StageSet::of_any_packet().and(of_tunnels), StageSet::and)
}

/// The stages that packets may enter after these steps, beside [`StageSet::of_any_packet`].
pub(super) fn of_steps(steps: &[Step]) -> StageSet {
    steps.iter().map(of_step).fold(StageSet::NONE, StageSet::and)
}

fn of_step(step: &Step) -> StageSet {
    match step {
        Step::WriteService { key, service } => of_record(service, key.address.is_ipv6()),
        Step::WriteBackend { backend, .. } if backend.mode == Mode::Dnat => of_dnat(),
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
            asked_for.fold(StageSet::NONE, |set, (_, stages)| set.and(stages))
        }
        Step::WriteReply { .. } => of_dnat(),
        Step::Quic(QuicStep::WriteConfig { .. } | QuicStep::WriteServer { .. })
        | Step::Quic(QuicStep::RemoveConfig { .. } | QuicStep::RemoveServer { .. })
        | Step::WriteBackend { .. }
        | Step::WriteRing { .. }
        | Step::WritePrefix { .. }
        | Step::WriteFlowGuard { .. }
        | Step::WriteTunnelEnd { .. }
        | Step::RemoveService { .. }
        | Step::RemovePrefix { .. }
        | Step::RemoveReply { .. }
        | Step::RemoveTunnelEnd { .. }
        | Step::Barrier
        | Step::RemoveRing { .. }
        | Step::FreeBackend { .. } => StageSet::NONE,
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

/// The stages that packets to a service may enter.
fn of_record(service: &ServiceRecord, is_v6: bool) -> StageSet {
    let asks_for = [
        (true, Stage::TooBig),
        (service.has(TRANSLATES), Stage::NewFlow),
        (service.has(TRANSLATES), Stage::NoFlow),
        (!service.has(TRANSLATES) || service.has(FORWARDS), Stage::SlowPath),
        (service.has(QUIC), Stage::Quic),
        (service.has(SHARES_ADDRESS), Stage::HostSocket),
        (service.on_empty == OnEmpty::Reject as u8, Stage::Reject),
    ];
    let stages = asks_for.iter().filter(|(asks, _)| *asks);
    stages.fold(StageSet::NONE, |set, (_, stage)| set.with(*stage, is_v6))
}

/// The inputs of loading missing stages.
pub(super) struct Rest {
    pub(super) ready: Arc<Ready>,
    pub(super) license: CString,
    /// Maps of stages, with and without packets of several buffers; all of them hold the same stages.
    pub(super) maps: Vec<(OwnedFd, bool)>,
    pub(super) loaded: StageSet,
}

/// Loads stages that are missing.
fn fill(rest: &mut Rest, missing: StageSet) -> Result<(), String> {
    if missing.is_empty() {
        return Ok(());
    }
    let loads = |program: &Prepared| slots().any(|(slot, name)| name == program.name && missing.has(slot));
    for (map, frags) in &rest.maps {
        load_into(&rest.ready, &rest.license, map.as_fd(), *frags, loads).map_err(|error| match error {
            LoadError::Refused(reason) => reason,
            LoadError::Failed(error) => chain(&error),
        })?;
    }
    rest.loaded = rest.loaded.and(missing);
    Ok(())
}

/// How far loading has come.
enum State {
    /// No program runs yet; these stages are to be there when one does.
    Begun(StageSet),
    /// Some are there.
    Some(Rest),
    /// All are there.
    All,
}

/// The stages of the program that runs, in the hands of several. Once all of them are there, it holds nothing.
#[derive(Clone)]
pub(super) struct Stages(Arc<Mutex<State>>);

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stages").finish_non_exhaustive()
    }
}

impl Default for Stages {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State::Begun(StageSet::NONE))))
    }
}

impl Stages {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a program that an earlier daemon has left, with all stages.
    pub(super) fn take_over(&self) {
        *self.lock() = State::All;
    }

    /// Takes up a map of stages that is about to be used, and loads what has been asked for meanwhile.
    ///
    /// # Errors
    /// Why the kernel refuses a stage.
    pub(super) fn add(&self, mut new: Rest) -> Result<(), String> {
        let mut state = self.lock();
        let wanted = match &*state {
            State::Begun(wanted) => *wanted,
            State::Some(there) => there.loaded,
            State::All => StageSet::all(),
        };
        let missing = wanted.without(new.loaded);
        fill(&mut new, missing)?;
        match &mut *state {
            State::Begun(_) => *state = State::Some(new).settled(),
            State::Some(there) => there.maps.append(&mut new.maps),
            State::All => {}
        }
        drop(state);
        Ok(())
    }

    /// Has these stages there before packets can enter them.
    ///
    /// # Errors
    /// Why the kernel refuses one of them.
    pub(super) fn ensure(&self, wanted: StageSet) -> Result<(), String> {
        let mut state = self.lock();
        match &mut *state {
            State::Begun(asked) => *asked = asked.and(wanted),
            State::Some(there) => {
                let missing = wanted.without(there.loaded);
                let result = fill(there, missing);
                *state = mem::replace(&mut *state, State::All).settled();
                return result;
            }
            State::All => {}
        }
        Ok(())
    }

    /// Loads all that are missing, one after the other: a change that needs one of them waits for no more than that.
    ///
    /// # Errors
    /// As [`Self::ensure`], the first one; the others are there.
    pub(super) fn complete(&self) -> Result<(), String> {
        let results: Vec<_> = slots()
            .map(|(slot, _)| self.ensure(StageSet::of_slot(slot)))
            .collect();
        results.into_iter().collect()
    }
}

impl State {
    /// The state, once what is not needed any more is given back.
    fn settled(self) -> Self {
        match self {
            Self::Some(there) if StageSet::all().without(there.loaded).is_empty() => Self::All,
            Self::Some(_) | Self::Begun(_) | Self::All => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_asks_for_the_stages_that_its_packets_may_enter() {
        use Stage::{HostSocket, NewFlow, NoFlow, Quic, Reject, SlowPath, TooBig};
        let cases: [(&str, u16, OnEmpty, &[Stage]); 6] = [
            ("no backend", 0, OnEmpty::Drop, &[TooBig, SlowPath]),
            (
                "no backend, and reports it",
                0,
                OnEmpty::Reject,
                &[TooBig, SlowPath, Reject],
            ),
            ("nat", TRANSLATES, OnEmpty::Drop, &[TooBig, NewFlow, NoFlow]),
            ("ipip", FORWARDS, OnEmpty::Drop, &[TooBig, SlowPath]),
            (
                "both, with connection ids",
                TRANSLATES | FORWARDS | QUIC,
                OnEmpty::Drop,
                &[TooBig, NewFlow, NoFlow, SlowPath, Quic],
            ),
            (
                "beside sockets",
                TRANSLATES | SHARES_ADDRESS,
                OnEmpty::Drop,
                &[TooBig, NewFlow, NoFlow, HostSocket],
            ),
        ];
        for (what, flags, on_empty, expected) in cases {
            let service = ServiceRecord {
                flags,
                on_empty: on_empty as u8,
                ..ServiceRecord::default()
            };
            for is_v6 in [false, true] {
                let expected = expected
                    .iter()
                    .fold(StageSet::NONE, |set, stage| set.with(*stage, is_v6));
                assert_eq!(of_record(&service, is_v6), expected, "{what}");
            }
        }
    }

    #[test]
    fn tunnels_that_end_here_ask_for_their_stage() {
        let stages = of_tunnels();
        let mut desired = Desired::default();
        assert_eq!(stages_of(&desired), StageSet::of_any_packet());
        desired.settings.decap_from = vec!["10.0.0.0/30".parse().unwrap()];
        assert_eq!(stages_of(&desired), StageSet::of_any_packet().and(stages));
        let settings = |ends_tunnels| Step::WriteSettings {
            snat_addresses: Vec::new(),
            snat_ports: 1024..=2047,
            gue_port: 6080,
            wildcard: false,
            dnat: false,
            prefix_services: false,
            ends_tunnels,
        };
        assert_eq!(of_step(&settings(true)), stages);
        assert_eq!(of_step(&settings(false)), StageSet::NONE);
    }

    #[test]
    fn stages_asked_for_before_a_program_runs_are_remembered() {
        let stages = Stages::default();
        let nat = StageSet::NONE.with(Stage::Nat, false);
        stages.ensure(nat).unwrap();
        stages.ensure(StageSet::NONE.with(Stage::Dnat, true)).unwrap();
        match &*stages.lock() {
            State::Begun(asked) => assert_eq!(*asked, nat.with(Stage::Dnat, true)),
            State::Some(_) | State::All => unreachable!("no program was taken up"),
        }
        stages.take_over();
        assert!(matches!(&*stages.lock(), State::All));
    }
}
