//! What needs which part of the program.

use lb_common::{backend::BackendId, service::RingId};

use super::*;

#[test]
fn a_service_asks_for_the_stages_that_its_packets_may_enter() {
    use Stage::{Clients, HostSocket, NewFlow, NoFlow, Quic, Reject, SlowPath, TooBig};
    let cases: [(&str, u16, OnEmpty, &[Stage]); 7] = [
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
            "groups of backends",
            FORWARDS | BY_CLIENTS,
            OnEmpty::Drop,
            &[TooBig, SlowPath, Clients],
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
            assert_eq!(of_record(&service, is_v6), Needs::of(expected), "{what}");
        }
    }
}

pub(crate) fn settings(dnat: bool, ends_tunnels: bool) -> Step {
    Step::WriteSettings {
        snat_addresses: Vec::new(),
        snat_ports: 1024..=2047,
        gue_port: 6080,
        wildcard: false,
        dnat,
        prefix_services: false,
        ends_tunnels,
    }
}

#[test]
fn tunnels_that_end_here_ask_for_their_stage() {
    let stages = of_tunnels();
    let mut desired = Desired::default();
    assert_eq!(needs_of(&desired), Needs::of(StageSet::of_any_packet()));
    desired.settings.decap_from = vec!["10.0.0.0/30".parse().unwrap()];
    let needs = Needs::of(StageSet::of_any_packet().and(stages));
    assert_eq!(needs_of(&desired), needs);
    assert_eq!(of_step(&settings(false, true)), Needs::of(stages));
    assert_eq!(of_step(&settings(false, false)), Needs::NONE);
}

/// A ring of a backend's slot and this one.
pub(crate) fn ring(slot: RingSlot) -> Step {
    Step::WriteRing {
        ring: RingId(1),
        slots: vec![STABLE, slot].into(),
    }
}

pub(crate) const STABLE: RingSlot = RingSlot::stable(BackendId(1));
pub(crate) const CHANGING: RingSlot = RingSlot {
    previous: BackendId(2),
    ..STABLE
};

#[test]
fn slots_that_change_hands_ask_for_the_tables_of_flow_records() {
    assert!(of_step(&ring(CHANGING)).late_maps);
    assert!(!of_step(&ring(STABLE)).late_maps);
    for (flag, late_maps) in [(TRACKS_ALL, true), (GUARDS_FLOWS, true), (QUIC, false)] {
        let service = ServiceRecord {
            flags: FORWARDS | flag,
            ..ServiceRecord::default()
        };
        assert_eq!(of_record(&service, false).late_maps, late_maps, "{flag}");
    }
}
