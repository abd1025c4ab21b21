//! Backends that cannot be reached, and the control task.

use std::{net::IpAddr, sync::Arc};

use lb_common::decap::EndKey;

use super::{
    Change, ControlError, ControlView, Inherited,
    reach::ROUTE_LOST_AFTER,
    testing::{Rig, pass},
};
use crate::{
    datapath::{HostAddresses, NextHopState, NextHops},
    events::EventKind,
    state::{desired::Desired, testing},
};

const A: &str = "10.0.1.1:8080";
const B: &str = "10.0.1.2:8080";

fn desired() -> Desired {
    testing::desired([testing::service("web", 1, &[("a", 10), ("b", 10)])])
}

/// How the backend `a` is reached from now on.
fn a_is(rig: &Rig, way: &NextHopState) {
    let ways = NextHops::from([("10.0.1.1".parse().unwrap(), way.clone())]);
    rig.ways.send_replace(Arc::new(ways));
}

fn reached() -> NextHopState {
    NextHopState::Reached {
        via: "10.0.1.1".parse().unwrap(),
        interface: "eth0".to_owned(),
        answering: true,
        source: None,
    }
}

/// Whether `a` is programmed with this weight.
fn a_weighs(weight: u32) -> impl Fn(&Arc<ControlView>) -> bool {
    move |view| {
        let services = view.programmed.iter().flat_map(|target| target.services.values());
        let mut there = services.filter_map(|service| service.backends.get(&A.parse().unwrap()));
        there.next().is_some_and(|there| there.weight == weight)
    }
}

fn events_of(rig: &Rig) -> Vec<String> {
    let events = rig.events.list(0, None).into_iter();
    let of_ways = events.filter(|event| event.kind == EventKind::Reach);
    of_ways
        .map(|event| format!("{} {}", event.backend.unwrap(), event.message))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_backend_on_the_own_host_takes_no_flows_until_it_is_elsewhere() {
    let rig = Rig::start(desired(), Inherited::default()).await;
    a_is(&rig, &NextHopState::Local);
    rig.until(a_weighs(0)).await;
    assert_eq!(
        (rig.programmed(A), rig.programmed(B)),
        (Some((0, true)), Some((10, true)))
    );
    a_is(&rig, &reached());
    rig.until(a_weighs(10)).await;
    let events = events_of(&rig);
    assert!(
        events[0].starts_with("a cannot be reached: the address is one of this host"),
        "{events:?}"
    );
    assert_eq!(events[1..], ["a can be reached again"]);
    // Its next hop is unknown now.
    a_is(&rig, &NextHopState::Local);
    rig.until(a_weighs(0)).await;
    rig.ways.send_replace(Arc::default());
    rig.until(a_weighs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn briefly_lost_route_changes_nothing() {
    let rig = Rig::start(desired(), Inherited::default()).await;
    a_is(&rig, &NextHopState::Unreachable);
    pass(ROUTE_LOST_AFTER / 2).await;
    a_is(&rig, &reached());
    pass(2 * ROUTE_LOST_AFTER).await;
    assert_eq!(rig.world.take_log(), Vec::<String>::new());
    a_is(&rig, &NextHopState::Unreachable);
    pass(ROUTE_LOST_AFTER / 2).await;
    assert_eq!(rig.programmed(A), Some((10, true)));
    pass(ROUTE_LOST_AFTER).await;
    assert_eq!(rig.programmed(A), Some((0, true)));
    assert_eq!(events_of(&rig), ["a cannot be reached: no route to it"]);
}

#[tokio::test]
async fn a_change_that_brings_a_backend_on_the_own_host_is_refused() {
    let rig = Rig::start(desired(), Inherited::default()).await;
    let own = HostAddresses::of(["10.0.1.9".parse().unwrap()]);
    rig.host.send_replace(Arc::new(own));
    let mut backend = testing::backend(1, 9, "self", 1);
    backend.address = "10.0.1.9:80".parse().unwrap();
    let add = |backend| Change::AddBackend("web".parse().unwrap(), backend);
    for dry_run in [true, false] {
        let refused = rig.control.change(add(backend.clone()), None, dry_run).await;
        assert!(
            matches!(refused, Err(ControlError::OwnAddress { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(rig.world.take_log(), Vec::<String>::new());
    backend.address = "10.0.1.8:80".parse().unwrap();
    rig.control.change(add(backend), None, false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tunnels_end_at_the_addresses_that_the_machine_has_now() {
    let mut desired = desired();
    desired.settings.decap_from = vec!["10.0.0.0/30".parse().unwrap()];
    let rig = Rig::start(desired, Inherited::default()).await;
    let ends = |view: &Arc<ControlView>| {
        let keys = view.programmed.iter().flat_map(|target| &target.tunnel_ends);
        let ends = keys.filter(|key| key.kind == u32::from(EndKey::END));
        ends.map(|key| key.address.to_ip()).collect::<Vec<_>>()
    };
    for own in [vec![], vec!["10.0.1.9"], vec!["10.0.1.9", "2001:db8::9"], vec![]] {
        let own: Vec<IpAddr> = own.iter().map(|address| address.parse().unwrap()).collect();
        rig.host
            .send_replace(Arc::new(HostAddresses::of(own.iter().copied())));
        rig.until(|view| ends(view) == own).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_on_every_port_shares_its_address_while_that_is_the_own_hosts() {
    let mut all = testing::service("all", 1, &[("a", 10)]);
    all.key.port = 0;
    let one = testing::service("one", 2, &[("b", 10)]);
    let addresses = [all.key.address, one.key.address];
    let rig = Rig::start(testing::desired([all, one]), Inherited::default()).await;
    let shared = |view: &Arc<ControlView>| {
        let services = view.programmed.iter().flat_map(|target| target.services.iter());
        let shared = services.filter(|(_, service)| service.shares_address);
        shared.map(|(key, _)| (key.address, key.port)).collect::<Vec<_>>()
    };
    assert_eq!(shared(&rig.control.view()), []);
    rig.host.send_replace(Arc::new(HostAddresses::of(addresses)));
    rig.until(|view| shared(view) == [(addresses[0], 0)]).await;
    rig.host.send_replace(Arc::new(HostAddresses::default()));
    rig.until(|view| shared(view).is_empty()).await;
}
