//! Content of diffs.

use proptest::prelude::*;

use super::*;
use crate::{
    health::settings::{CheckKind, CheckSettings},
    state::{
        backend::Admin,
        quic::QuicKey,
        service::{OnEmpty, Protocol},
        testing,
    },
};

fn web() -> Desired {
    testing::desired([testing::service("web", 1, &[("a", 1), ("b", 100)])])
}

fn changed(change: impl FnOnce(&mut Service)) -> Desired {
    let mut desired = web();
    change(desired.services.values_mut().next().unwrap());
    desired
}

#[test]
fn a_diff_names_each_change_with_both_values() {
    let checked = CheckSettings {
        kind: CheckKind::Tcp,
        rise: 5,
        ..CheckSettings::default()
    };
    let mut transition = web();
    transition.settings.transition = std::time::Duration::from_secs(5);
    for (after, text) in [
        (web(), ""),
        (
            changed(|service| service.on_empty = OnEmpty::All),
            "~ service web: on_empty \"drop\" -> \"all\"\n",
        ),
        (
            changed(|service| service.key.port = 81),
            "~ service web: port 80 -> 81\n",
        ),
        (
            changed(|service| service.health = checked),
            "~ service web: health.kind \"none\" -> \"tcp\", health.rise 2 -> 5\n",
        ),
        (
            changed(|service| service.backends[0].weight = 7),
            "~ backend web/a: weight 1 -> 7\n",
        ),
        (
            changed(|service| service.backends[0].admin = Admin::Disabled),
            "~ backend web/a: admin \"enabled\" -> \"disabled\"\n",
        ),
        (
            changed(|service| service.backends.truncate(1)),
            "- backend web/b\n",
        ),
        (
            changed(|service| service.backends.push(testing::backend(1, 3, "c", 100))),
            "+ backend web/c: address \"10.0.1.3:8080\"\n",
        ),
        (testing::desired([]), "- service web\n"),
        (transition, "~ settings: transition \"10m\" -> \"5s\"\n"),
    ] {
        assert_eq!(diff(&web(), &after).to_string(), text);
    }
    assert_eq!(
        diff(&testing::desired([]), &web()).to_string(),
        "+ service web: address \"192.0.2.1\", port 80\n\
         + backend web/a: address \"10.0.1.1:8080\", weight 1\n\
         + backend web/b: address \"10.0.1.2:8080\"\n"
    );
}

#[test]
fn services_with_their_backends_are_told_from_changes_of_others() {
    let service = |id, name: &str, backends: &[(&str, u16)]| testing::service(name, id, backends);
    let from = testing::desired([service(1, "web", &[("a", 1)])]);
    let only_adds = |services: Vec<Service>| diff(&from, &testing::desired(services)).only_adds_services();
    let web = || service(1, "web", &[("a", 1)]);
    assert!(only_adds(vec![web()]));
    assert!(only_adds(vec![web(), service(2, "dns", &[("x", 1)])]));
    for other in [
        vec![],
        vec![service(1, "web", &[("a", 2)])],
        vec![service(1, "web", &[("a", 1), ("b", 1)])],
        vec![service(2, "dns", &[("x", 1)])],
    ] {
        assert!(!only_adds(other.clone()), "{other:?}");
    }
}

proptest! {
    #[test]
    fn a_diff_is_empty_exactly_if_the_states_say_the_same(a in testing::any_desired(), b in testing::any_desired()) {
        prop_assert!(diff(&a, &a).is_empty());
        let same = a.settings == b.settings && a.services == b.services;
        prop_assert_eq!(diff(&a, &b).is_empty(), same);
    }
}

#[test]
fn a_diff_reports_a_changed_secret_key_and_shows_neither_value() {
    let with = |key: &[u8; 16]| {
        changed(|service| {
            service.key.protocol = Protocol::Udp;
            service.quic = vec![QuicSettings {
                config_id: 2,
                server_id_length: 8,
                nonce_length: 8,
                key: Some(QuicKey(*key)),
            }];
        })
    };
    let (old, new) = (with(b"the first secret"), with(b"the other secret"));
    let names = [&old, &new].map(|desired| {
        let service = desired.services.values().next().unwrap();
        service.quic[0].key.unwrap().fingerprint().to_string()
    });
    let [before, after] = names;
    assert_eq!(
        diff(&old, &new).to_string(),
        format!("~ quic web/2: key \"{before}\" -> \"{after}\"\n")
    );
    assert_eq!(
        diff(&new, &web()).to_string().lines().last(),
        Some("- quic web/2")
    );
}
