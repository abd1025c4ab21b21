//! Effects and refusals of changes.

use std::net::IpAddr;

use lb_common::service::Mode;
use proptest::prelude::*;

use super::*;
use crate::state::{
    backend::Admin,
    service::{OnEmpty, Protocol, ServiceKey},
    testing,
};

fn web() -> Desired {
    Desired {
        revision: Revision(5),
        ..testing::desired([testing::service("web", 1, &[("a", 1), ("b", 2)])])
    }
}

fn name<N: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> N {
    text.parse().unwrap()
}

/// A service as it is, but for a change.
fn changed(desired: &Desired, service: &str, change: impl FnOnce(&mut Service)) -> Service {
    let mut service = desired.service(&name(service)).unwrap().clone();
    change(&mut service);
    service
}

/// Each change with the state it makes of [`web`], seen through its one effect.
#[test]
fn every_change_has_its_effect_and_raises_the_revision_once() {
    type Effect = fn(&Desired) -> bool;
    let set = |change: fn(&mut Service)| web().set_service(changed(&web(), "web", change));
    let set_a = |change: fn(&mut Backend)| web().set_backend(&name("web"), &name("a"), change);
    let cases: [(Result<Desired, ChangeError>, Effect); 11] = [
        (web().add_service(testing::service("api", 2, &[])), |d| {
            d.services.len() == 2
        }),
        (web().remove_service(&name("web")), |d| d.services.is_empty()),
        (
            set(|service| service.key = ServiceKey::new(IpAddr::from([192, 0, 2, 9]), 53, Protocol::Udp)),
            |d| {
                d.services
                    .values()
                    .all(|service| service.key.port == 53 && service.backends.len() == 2)
            },
        ),
        (set(|service| service.on_empty = OnEmpty::All), |d| {
            d.services
                .values()
                .all(|service| service.on_empty == OnEmpty::All && service.key.port == 80)
        }),
        (
            web().add_backend(&name("web"), testing::backend(1, 3, "c", 1)),
            |d| d.services.values().all(|service| service.backends.len() == 3),
        ),
        (web().remove_backend(&name("web"), &name("a")), |d| {
            d.services
                .values()
                .all(|service| service.backends.len() == 1 && service.backends[0].name.as_str() == "b")
        }),
        (set_a(|backend| backend.weight = 0), |d| {
            d.services
                .values()
                .all(|service| service.backends[0].weight == 0 && service.backends[1].weight == 2)
        }),
        (set_a(|backend| backend.mode = Some(Mode::Nat)), |d| {
            d.services
                .values()
                .all(|service| service.backends[0].mode == Some(Mode::Nat))
        }),
        (set_a(|backend| backend.admin = Admin::Draining), |d| {
            d.services
                .values()
                .all(|service| service.backends[0].admin == Admin::Draining)
        }),
        (
            set_a(|backend| backend.address = "10.0.1.9:1".parse().unwrap()),
            |d| {
                d.services
                    .values()
                    .all(|service| service.backends[0].address.port() == 1)
            },
        ),
        (web().replace(testing::desired([])), |d| d.services.is_empty()),
    ];
    for (place, (result, effect)) in cases.into_iter().enumerate() {
        let after = result.unwrap_or_else(|error| panic!("case {place}: {error}"));
        assert!(effect(&after), "case {place}: {after:#?}");
        assert_eq!(after.revision, Revision(6), "case {place}");
    }
}

#[test]
fn a_change_to_the_present_state_succeeds_and_changes_nothing() {
    let service = testing::service("web", 1, &[("a", 1), ("b", 2)]);
    let backend = service.backends[0].clone();
    let same = |backend: &mut Backend| {
        backend.weight = 1;
        backend.admin = Admin::Enabled
    };
    for result in [
        web().add_service(service),
        web().add_backend(&name("web"), backend),
        web().set_service(changed(&web(), "web", |service| service.mode = Mode::Nat)),
        web().set_backend(&name("web"), &name("a"), same),
        web().replace(Desired {
            revision: Revision(99),
            ..web()
        }),
    ] {
        assert_eq!(result, Ok(web()));
    }
}

#[test]
fn refused_changes_name_the_conflict() {
    let conflict = |result: Result<Desired, ChangeError>| matches!(result, Err(ChangeError::Conflict { .. }));
    let invalid = |result: Result<Desired, ChangeError>| matches!(result, Err(ChangeError::Invalid { .. }));
    let missing = |result: Result<Desired, ChangeError>, kind, name: &str| {
        result
            == Err(ChangeError::NotFound {
                kind,
                name: name.to_owned(),
            })
    };
    let (here, there): (ServiceName, ServiceName) = (name("web"), name("nope"));
    let (a, none): (BackendName, BackendName) = (name("a"), name("none"));
    let two = web().add_service(testing::service("api", 2, &[])).unwrap();

    assert!(missing(web().remove_service(&there), Kind::Service, "nope"));
    assert!(missing(
        web().set_service(testing::service("nope", 1, &[])),
        Kind::Service,
        "nope"
    ));
    assert!(missing(
        web().add_backend(&there, testing::backend(1, 3, "c", 1)),
        Kind::Service,
        "nope"
    ));
    assert!(missing(
        web().set_backend(&here, &none, |_| {}),
        Kind::Backend,
        "web/none"
    ));
    assert!(missing(
        web().remove_backend(&here, &none),
        Kind::Backend,
        "web/none"
    ));

    assert!(
        conflict(web().add_service(testing::service("web", 1, &[]))),
        "name taken"
    );
    assert!(
        conflict(web().add_service(testing::service("api", 1, &[]))),
        "endpoint taken"
    );
    assert!(conflict(two.set_service(changed(&two, "api", |service| {
        service.key = testing::service("web", 1, &[]).key;
    }))));
    assert!(
        conflict(web().add_backend(&here, testing::backend(1, 3, "a", 1))),
        "name taken"
    );
    assert!(
        conflict(web().add_backend(&here, testing::backend(1, 1, "c", 1))),
        "address taken"
    );
    let moved = |backend: &mut Backend| backend.address = "10.0.1.2:8080".parse().unwrap();
    assert!(conflict(web().set_backend(&here, &a, moved)), "address taken");

    let other_family = |backend: &mut Backend| backend.address = "[2001:db8::1]:80".parse().unwrap();
    assert!(invalid(web().set_backend(&here, &a, other_family)));
}

proptest! {
    /// The command line, the API and the file accept the same states.
    #[test]
    fn every_state_of_the_file_can_be_built_by_changes(wanted in testing::any_desired()) {
        let mut built = Desired { settings: wanted.settings.clone(), ..Desired::default() };
        for service in wanted.services.values() {
            built = built.add_service(Service { backends: Vec::new(), ..(**service).clone() }).unwrap();
            for backend in &service.backends {
                built = built.add_backend(&service.name, backend.clone()).unwrap();
            }
        }
        prop_assert_eq!(&built.services, &wanted.services);
        for name in wanted.services.keys() {
            built = built.remove_service(name).unwrap();
        }
        prop_assert_eq!(built.services.len(), 0);
    }
}
