//! What is reported of faults that come, go and move, on made-up machines.

use std::{io, sync::Arc};

use lb_common::service::Mode;
use tokio::sync::watch;

use super::{Diagnosis, Look, Reports};
use crate::{
    control::FaultsByService,
    datapath::{NextHopState, XdpMode, host_network::XdpFeatures},
    doctor::{
        Facts, Setup, faults,
        testing::{address_of, running},
    },
    events::{EventKind, EventLog},
    parts::{Part, PartBoard},
    state::{backend::Admin, service::Service, testing},
};

/// A diagnosis of a machine with a service whose backends are a and b, and where it goes.
struct Watched {
    diagnosis: Diagnosis,
    faults: watch::Receiver<Arc<FaultsByService>>,
    events: Arc<EventLog>,
    parts: PartBoard,
    setup: Setup,
    facts: Facts,
    seen: u64,
}

impl Watched {
    fn new() -> Self {
        let events = Arc::new(EventLog::default());
        let parts = PartBoard::new(Arc::clone(&events));
        let (publish, faults) = watch::channel(Arc::default());
        let reports = Reports {
            faults: publish,
            events: Arc::clone(&events),
            parts: parts.clone(),
        };
        let (setup, facts) = running(Mode::Nat);
        Self {
            diagnosis: Diagnosis::new(reports),
            faults,
            events,
            parts,
            setup,
            facts,
            seen: 0,
        }
    }

    /// Looks at the machine, and returns new events: about which backend, and their messages.
    fn look(&mut self) -> Vec<(Option<String>, String)> {
        let look = Look {
            faults: Arc::new(faults::all(&self.setup, &self.facts)),
            facts: self.facts.clone(),
            desired: Arc::new(self.setup.desired.clone()),
            next_hops: Arc::default(),
        };
        self.diagnosis.update(Ok(Some(look)));
        let new = self.events.list(self.seen, None);
        self.seen += new.len() as u64;
        new.into_iter()
            .map(|event| {
                assert_eq!(event.kind, EventKind::Fault, "{event:?}");
                (event.backend, event.message)
            })
            .collect()
    }

    /// Gives a source address towards a backend, or takes it away.
    fn give_source(&mut self, backend: usize, given: Option<&str>) {
        let address = address_of(&self.setup, backend);
        let way = self.facts.ways.get_mut(&address).unwrap();
        way.state = NextHopState::Reached {
            via: address,
            interface: format!("eth{backend}"),
            answering: true,
            source: given.map(|given| given.parse().unwrap()),
        };
    }

    /// Changes the service, or removes it.
    fn change(&mut self, change: impl FnOnce(&mut Service)) {
        let mut service = (**self.setup.desired.services.values().next().unwrap()).clone();
        change(&mut service);
        self.setup.desired = testing::desired([service]);
    }
}

const NO_SOURCE_A: &str = "no IPv4 source address: give eth0 one, or set snat_addresses";
const NO_SOURCE_B: &str = "no IPv4 source address: give eth1 one, or set snat_addresses";

fn of(backend: &str, message: String) -> (Option<String>, String) {
    (Some(backend.to_owned()), message)
}

#[test]
fn faults_that_move_between_backend_and_service_do_not_end_while_they_hold() {
    let mut watched = Watched::new();
    assert_eq!(watched.look(), []);
    watched.give_source(0, None);
    assert_eq!(watched.look(), [of("a", format!("flows fail: {NO_SOURCE_A}"))]);
    assert_eq!(watched.look(), [], "the same again");
    watched.give_source(1, None);
    assert_eq!(watched.look(), [(None, format!("flows fail: a: {NO_SOURCE_A}"))]);
    watched.give_source(1, Some("10.0.0.1"));
    assert_eq!(
        watched.look(),
        [of(
            "a",
            format!("other flows work again, those of a still fail: {NO_SOURCE_A}")
        )]
    );
    watched.give_source(0, Some("10.0.0.1"));
    assert_eq!(
        watched.look(),
        [of(
            "a",
            format!("flows no longer fail for this reason: {NO_SOURCE_A}")
        )]
    );
}

#[test]
fn faults_of_what_is_no_longer_wanted_do_not_end() {
    let mut watched = Watched::new();
    watched.give_source(0, None);
    watched.give_source(1, None);
    assert_eq!(watched.look(), [(None, format!("flows fail: a: {NO_SOURCE_A}"))]);
    watched.change(|service| service.backends[0].admin = Admin::Draining);
    assert_eq!(
        watched.look(),
        [(None, format!("flows fail: b: {NO_SOURCE_B}"))],
        "the other one stands for the service now"
    );
    watched.change(|service| service.backends[0].admin = Admin::Enabled);
    assert_eq!(watched.look(), [], "the service was reported, by b");
    watched.setup.desired = testing::desired([]);
    assert_eq!(watched.look(), [], "the service was removed");
}

#[test]
fn other_remedies_make_no_other_fault() {
    let mut watched = Watched::new();
    for device in watched.facts.devices.values_mut() {
        device.driver = "veth".to_owned();
        device.features = Some(XdpFeatures {
            native: true,
            transmits: false,
            multi_buffer: true,
        });
    }
    watched
        .setup
        .running
        .values_mut()
        .for_each(|mode| *mode = XdpMode::Native);
    assert!(!watched.look().is_empty());
    let look = |faults: &FaultsByService| {
        let mut faults = faults.clone();
        faults
            .values_mut()
            .flatten()
            .for_each(|fault| fault.remedies.push("another".to_owned()));
        faults
    };
    let published = Arc::clone(&watched.faults.borrow());
    let changed = look(&published);
    let desired = watched.setup.desired.clone();
    watched.diagnosis.report(&desired, &changed);
    assert_eq!(watched.events.list(watched.seen, None), []);
}

#[test]
fn without_facts_no_fault_is_shown_and_operators_hear_of_it_once() {
    let mut watched = Watched::new();
    watched.give_source(0, None);
    watched.look();
    assert_eq!(watched.faults.borrow().len(), 1);
    for _ in 0..3 {
        watched.diagnosis.update(Err(io::ErrorKind::OutOfMemory.into()));
        assert!(watched.faults.borrow().is_empty());
    }
    assert!(
        watched.diagnosis.last.is_none(),
        "the next look counts as a change"
    );
    assert!(watched.parts.missing().contains_key(&Part::Diagnosis));
    watched.diagnosis.update(Ok(None));
    assert!(watched.parts.missing().is_empty());
    let kinds: Vec<EventKind> = watched
        .events
        .list(watched.seen, None)
        .iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(kinds, [EventKind::PartMissing, EventKind::PartRecovered]);
    watched.seen += kinds.len() as u64;
    assert_eq!(watched.look(), [], "it was reported before");
    assert_eq!(watched.faults.borrow().len(), 1);
}
