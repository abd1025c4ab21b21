//! Verdicts of packets during a change of ACLs.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    flow::IdleTimeouts,
    service::{Mode, TCP},
};
use proptest::prelude::*;

use super::*;
use crate::{
    plan,
    state::service::{Affinity, Algorithm, OnEmpty, Protocol, ServiceKey, Tracking},
    target::content::{Target, TargetService},
};

fn list(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn guard(allow: &[&str], deny: &[&str]) -> Guard {
    Guard {
        allow: list(allow),
        deny: list(deny),
        ..Guard::default()
    }
}

const V4: ServiceKey = ServiceKey::new(
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    80,
    Protocol::Tcp,
);

fn target(guards: impl IntoIterator<Item = (ServiceKey, Guard)>) -> Target {
    let service = |guard| TargetService {
        more_ports: Vec::new(),
        shares_address: false,
        quic: None,
        clients: BTreeMap::new(),
        mode: Mode::Nat,
        on_empty: OnEmpty::Drop,
        algorithm: Algorithm::Maglev,
        affinity: Affinity::None,
        tracking: Tracking::JustEnough,
        idle: IdleTimeouts::of(TCP),
        guard,
        ring_size: 251,
        backends: BTreeMap::new(),
    };
    Target {
        snat_addresses: Vec::new(),
        snat_ports: 1024..=32767,
        gue_port: 6080,
        tunnel_ends: std::collections::BTreeSet::new(),
        transition: Duration::from_secs(600),
        services: guards
            .into_iter()
            .map(|(key, guard)| (key, service(guard).into()))
            .collect(),
    }
}

fn converge(target: &Target, programmed: &mut Programmed) -> Vec<Step> {
    let steps = plan(target, programmed).unwrap();
    steps.iter().for_each(|step| programmed.apply(step));
    steps
}

/// Whether a client may send, as the data plane finds it.
fn admits(programmed: &Programmed, key: &ServiceKey, client: &str) -> Option<bool> {
    let service = programmed.services.get(key)?;
    if !service.has(GUARDS_CLIENTS) {
        return Some(true);
    }
    let client: IpAddr = client.parse().unwrap();
    let bits = |address: NetAddr| address.0.map(u32::from_be);
    let begins = |prefix: &PrefixKey| {
        let (mut left, mut same) = (prefix.bits - u32::BITS, true);
        for (a, b) in bits(prefix.address).into_iter().zip(bits(client.into())) {
            let count = left.min(u32::BITS);
            same &= (a ^ b).checked_shr(u32::BITS - count).unwrap_or(0) == 0;
            left -= count;
        }
        same
    };
    let longest = programmed
        .prefixes
        .iter()
        .filter(|(prefix, _)| prefix.service == service.id && begins(prefix))
        .max_by_key(|(prefix, _)| prefix.bits);
    Some(longest.is_none_or(|(_, verdict)| *verdict == ALLOW))
}

#[test]
fn the_longest_prefix_decides_and_deny_wins() {
    let v6 = ServiceKey {
        address: "2001:db8::1".parse().unwrap(),
        ..V4
    };
    for (key, guard, client, expected) in [
        (V4, guard(&[], &[]), "10.0.0.1", true),
        (V4, guard(&["10.0.0.0/8"], &[]), "10.0.0.1", true),
        (V4, guard(&["10.0.0.0/8"], &[]), "11.0.0.1", false),
        (V4, guard(&[], &["10.0.0.0/8"]), "10.0.0.1", false),
        (V4, guard(&[], &["10.0.0.0/8"]), "11.0.0.1", true),
        (V4, guard(&["10.0.0.0/8"], &["10.0.0.0/24"]), "10.0.0.1", false),
        (V4, guard(&["10.0.0.0/24"], &["10.0.0.0/8"]), "10.0.0.1", true),
        (V4, guard(&["10.0.0.0/24"], &["10.0.0.0/8"]), "10.0.1.1", false),
        (V4, guard(&["10.0.0.0/8"], &["10.0.0.0/8"]), "10.0.0.1", false),
        (V4, guard(&["0.0.0.0/0"], &[]), "10.0.0.1", true),
        (v6, guard(&["2001:db8:1::/48"], &[]), "2001:db8:1::7", true),
        (v6, guard(&["2001:db8:1::/48"], &[]), "2001:db8:2::7", false),
        (v6, guard(&["::/0"], &["2001:db8:1::/48"]), "2001:db8:2::7", true),
        (v6, guard(&["::/0"], &["::/0"]), "2001:db8:2::7", false),
    ] {
        let mut programmed = Programmed::default();
        let what = format!("{client} under {guard:?}");
        converge(&target([(key, guard)]), &mut programmed);
        assert_eq!(admits(&programmed, &key, client), Some(expected), "{what}");
    }
}

#[test]
fn a_service_without_a_guard_has_neither_prefix_nor_flag() {
    let mut programmed = Programmed::default();
    converge(&target([(V4, guard(&["10.0.0.0/8"], &[]))]), &mut programmed);
    assert_eq!(
        programmed.prefixes.len(),
        2,
        "and the prefix that denies all others"
    );
    converge(&target([(V4, Guard::default())]), &mut programmed);
    assert!(programmed.prefixes.is_empty());
    assert!(!programmed.services[&V4].has(GUARDS_CLIENTS));
}

/// A killed daemon may have left prefixes of a removed service.
#[test]
fn id_with_stale_prefixes_is_not_reused() {
    let mut programmed = Programmed::default();
    let left = PrefixKey::new(ServiceId(0), NetAddr::default(), 0);
    programmed.prefixes.insert(left, DENY);
    converge(&target([(V4, Guard::default())]), &mut programmed);
    assert_eq!(programmed.services[&V4].id, ServiceId(1));
    assert!(programmed.prefixes.is_empty());
}

fn any_guard() -> impl Strategy<Value = Guard> {
    let prefixes = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.0.0.0/24",
        "10.0.0.1",
        "11.0.0.0/8",
    ];
    let some = || {
        let len = 0..=prefixes.len();
        prop_oneof![
            Just(Vec::new()),
            prop::sample::subsequence(prefixes.to_vec(), len)
        ]
    };
    (some(), some()).prop_map(|(allow, deny)| guard(&allow, &deny))
}

proptest! {
    #[test]
    fn a_packet_sees_the_guard_of_before_or_of_after(
        first in any_guard(), second in any_guard(), there in any::<[bool; 2]>(), other in any_guard(),
    ) {
        let beside = ServiceKey { port: 81, ..V4 };
        let services = |guard, there: bool| {
            let own = there.then_some((V4, guard));
            target(own.into_iter().chain([(beside, other.clone())]))
        };
        let (before, after) = (services(first, there[0]), services(second, there[1]));
        let mut programmed = Programmed::default();
        converge(&before, &mut programmed);
        let mut end = programmed.clone();
        let steps = converge(&after, &mut end);
        let clients = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.1.1.1", "11.0.0.1", "12.0.0.1"];
        let verdicts = |programmed: &Programmed| {
            [V4, beside].map(|key| clients.map(|client| admits(programmed, &key, client)))
        };
        let ([old, unmoved], [new, _]) = (verdicts(&programmed), verdicts(&end));
        let mut last = old;
        for step in &steps {
            programmed.apply(step);
            let [now, neighbour] = verdicts(&programmed);
            prop_assert_eq!(neighbour, unmoved, "{:?} is about another service", step);
            for ((now, last), (old, new)) in now.iter().zip(last).zip(old.iter().zip(new)) {
                prop_assert!(*now == *old || *now == new, "{:?} makes {:?} of {:?}", step, now, old);
                prop_assert!(*now == last || *now == new, "{:?} goes back", step);
            }
            last = now;
        }
        prop_assert_eq!(last, new);
        prop_assert_eq!(plan(&after, &programmed), Ok(Vec::new()));
    }
}

#[test]
fn more_prefixes_than_fit_are_refused() {
    let addresses = (0..=65_536_u32).map(|n| SocketAddr::from((std::net::Ipv4Addr::from_bits(n), 0)).ip());
    let deny = addresses
        .map(|address| address.to_string().parse().unwrap())
        .collect();
    let many = Guard {
        deny,
        ..Guard::default()
    };
    let error = plan(&target([(V4, many)]), &Programmed::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "65537 prefixes in guards are more than the 65536 that fit"
    );
}

#[test]
fn budgets_come_before_the_service_that_has_them() {
    let limited = |per_second, burst, bits| Guard {
        new_flows: Rate { per_second, burst: 0 },
        source_new_flows: Rate {
            per_second: burst,
            burst: 7,
        },
        source_bits: bits,
        ..Guard::default()
    };
    let mut programmed = Programmed::default();
    let steps = converge(&target([(V4, limited(100, 5, 24))]), &mut programmed);
    let place = |wanted: fn(&Step) -> bool| steps.iter().position(wanted);
    assert!(
        place(|step| matches!(step, Step::WriteFlowGuard { .. }))
            < place(|step| matches!(step, Step::WriteService { .. }))
    );
    let service = programmed.services[&V4];
    assert!(service.has(GUARDS_FLOWS) && !service.has(GUARDS_CLIENTS));
    let FlowGuard {
        all,
        of_source,
        source_mask,
        ..
    } = programmed.flow_guards[&service.id];
    assert_eq!((all, of_source), (Budget::new(100, 100), Budget::new(5, 7)));
    assert_eq!(
        source_mask.v6().to_std().to_string(),
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"
    );

    let steps = converge(&target([(V4, limited(200, 5, 24))]), &mut programmed);
    assert_eq!(steps.len(), 1, "the service's record is as it was: {steps:?}");
    converge(&target([(V4, Guard::default())]), &mut programmed);
    assert!(!programmed.services[&V4].has(GUARDS_FLOWS));
    assert_eq!(
        plan(&target([(V4, Guard::default())]), &programmed),
        Ok(Vec::new())
    );
}

#[test]
fn source_defaults_to_an_ipv4_address_or_an_ipv6_network() {
    let v6 = "2001:db8::1".parse().unwrap();
    for (vip, bits, mask) in [
        (V4.address, 0, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (V4.address, 32, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (V4.address, 1, "ffff:ffff:ffff:ffff:ffff:ffff:8000:0"),
        (v6, 0, "ffff:ffff:ffff:ffff::"),
        (v6, 128, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (v6, 1, "8000::"),
    ] {
        let guard = Guard {
            source_bits: bits,
            ..Guard::default()
        };
        let got = flow_guard(vip, &guard).source_mask.v6().to_std();
        assert_eq!(got.to_string(), mask, "{vip} {bits}");
    }
}
