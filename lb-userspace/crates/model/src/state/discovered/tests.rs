use super::*;
use crate::{
    config::diff::diff,
    state::{
        backend::{Admin, Backend},
        testing,
    },
};
use lb_common::service::Mode;

fn name<N: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> N {
    text.parse().unwrap()
}

/// A file with service web, which has backend a at 10.0.1.1 and host name app.
fn file() -> Desired {
    let mut service = testing::service("web", 1, &[("a", 1)]);
    service.hosts.push(testing::host("app", "app.example.org"));
    testing::desired([service])
}

fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

fn after(desired: &Desired, list: &[&str]) -> (Desired, Vec<LeftOut>) {
    answered(desired, &name("web"), &name("app"), &addresses(list)).unwrap()
}

fn names(desired: &Desired) -> Vec<&str> {
    let backends = &desired.services[&name("web")].backends;
    backends.iter().map(|backend| backend.name.as_str()).collect()
}

fn admin(desired: &Desired, backend: &str, admin: Admin) -> Desired {
    let change = |backend: &mut Backend| backend.admin = admin;
    desired.set_backend(&name("web"), &name(backend), change).unwrap()
}

#[test]
fn an_answer_adds_new_backends_removes_missing_ones_and_keeps_the_rest() {
    let (first, left_out) = after(&file(), &["10.0.0.2", "10.0.0.1"]);
    assert_eq!(names(&first), ["a", "app-10.0.0.1", "app-10.0.0.2"]);
    assert_eq!(left_out, []);
    let drained = admin(&first, "app-10.0.0.2", Admin::Draining);
    let (second, _) = after(&drained, &["10.0.0.2", "10.0.0.3"]);
    assert_eq!(names(&second), ["a", "app-10.0.0.2", "app-10.0.0.3"]);
    let drained = second.backend(&name("web"), &name("app-10.0.0.2")).unwrap();
    assert_eq!(drained.admin, Admin::Draining, "the operator's word stands");
    assert_eq!(second.revision.0, first.revision.0 + 2);
    let (same, _) = after(&second, &["10.0.0.3", "10.0.0.2"]);
    assert_eq!(same.revision, second.revision, "the same answer is no change");
}

#[test]
fn addresses_that_cannot_be_used_are_left_out_with_a_reason() {
    let (found, left_out) = after(&file(), &["10.0.0.1", "2001:db8::1", "127.0.0.1", "10.0.1.1"]);
    assert_eq!(names(&found), ["a", "app-10.0.0.1"]);
    for (address, why) in [
        ("2001:db8::1", "mode nat cannot carry"),
        ("127.0.0.1", "is a loopback address"),
        ("10.0.1.1", "has the address of backend web/a"),
    ] {
        let address: IpAddr = address.parse().unwrap();
        let found = left_out.iter().find(|left| left.address == address).unwrap();
        assert!(found.why.contains(why), "{found:?}");
    }
    let (kept, left_out) = after(&found, &["127.0.0.1"]);
    assert_eq!(
        kept, found,
        "an answer of which nothing can be used changes nothing"
    );
    assert_eq!(left_out.len(), 1);
}

/// The service with the host name comes before and after the other one.
#[test]
fn an_address_gives_way_to_a_backend_of_another_service() {
    for other in ["api", "zone"] {
        let mut desired = file();
        let mut of_other = testing::service(other, 2, &[("b", 1)]);
        of_other.mode = Mode::Dnat;
        let taken = of_other.backends[0].address;
        desired.services.insert(of_other.name.clone(), of_other.into());
        desired.services.get_mut(&name("web")).unwrap().mode = Mode::Dnat;
        let (found, left_out) = after(&desired, &["10.0.0.1", &taken.ip().to_string()]);
        assert_eq!(names(&found), ["a", "app-10.0.0.1"], "beside {other}");
        assert!(left_out[0].why.contains("in mode dnat a reply"), "{left_out:?}");
    }
}

#[test]
fn backends_that_were_found_have_the_values_of_a_new_file() {
    let (found, _) = after(&file(), &["10.0.0.1", "10.0.0.9"]);
    let with = |change: fn(&mut Service)| {
        let mut next = file();
        change(next.services.get_mut(&name("web")).unwrap());
        carry(&next, &found)
    };
    let next = with(|service| {
        service.hosts[0].weight = 7;
        service.hosts[0].port = 9090;
    });
    let backends = &next.services[&name("web")].backends;
    assert_eq!(backends[1].address, "10.0.0.1:9090".parse().unwrap());
    assert_eq!((backends[1].weight, backends.len()), (7, 3));
    assert_eq!(
        names(&with(|service| service.hosts[0].host = name("db.example.org"))),
        ["a"]
    );
    assert_eq!(names(&with(|service| service.hosts.clear())), ["a"]);
    let next = with(|service| service.backends[0].address = ([10, 0, 0, 9], 8080).into());
    assert_eq!(
        names(&next),
        ["a", "app-10.0.0.1"],
        "a written backend has the address now"
    );
}

#[test]
fn an_old_export_brings_no_old_answer_back() {
    let (old, _) = after(&file(), &["10.0.0.1", "10.0.0.2"]);
    let export = admin(&old, "app-10.0.0.2", Admin::Disabled);
    let (now, _) = after(&old, &["10.0.0.2", "10.0.0.3"]);
    let next = carry(&export, &now);
    assert_eq!(names(&next), ["a", "app-10.0.0.2", "app-10.0.0.3"]);
    assert_eq!(next.services[&name("web")].backends[1].admin, Admin::Disabled);
    let first = carry(&export, &Desired::default());
    assert_eq!(
        names(&first),
        names(&export),
        "a daemon without an answer begins with the addresses of the file"
    );
}

#[test]
fn of_a_found_backend_only_weight_and_state_can_be_set_by_hand() {
    let (found, _) = after(&file(), &["10.0.0.1"]);
    let (web, backend): (ServiceName, BackendName) = (name("web"), name("app-10.0.0.1"));
    let set = |change: fn(&mut Backend)| found.set_backend(&web, &backend, change);
    let weight = |backend: &mut Backend| backend.weight = 3;
    assert!(set(weight).is_ok());
    let address = |backend: &mut Backend| backend.address = ([10, 0, 0, 7], 1).into();
    let backup = |backend: &mut Backend| backend.backup = true;
    for error in [
        set(address).unwrap_err(),
        set(backup).unwrap_err(),
        found.remove_backend(&web, &backend).unwrap_err(),
        found.remove_backend(&web, &name("app")).unwrap_err(),
    ] {
        assert!(matches!(error, ChangeError::Conflict { .. }), "{error:?}");
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("configuration file")),
            "{error:?}"
        );
    }
    let added = found.add_backend(&web, testing::backend(1, 2, "b", 1)).unwrap();
    assert_eq!(names(&added), ["a", "b", "app-10.0.0.1"], "found ones stay last");
    let mut changed = added.services[&web].clone().into_inner();
    changed.max_removed_percent = 50;
    assert_eq!(names(&added.set_service(changed).unwrap()).len(), 3);
}

#[test]
fn a_host_name_is_part_of_a_difference() {
    let mut without = file();
    without.services.get_mut(&name("web")).unwrap().hosts.clear();
    let text = diff(&without, &file()).to_string();
    assert_eq!(text, "+ backend web/app: address \"app.example.org:8080\"\n");
}
