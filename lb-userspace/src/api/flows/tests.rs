//! Flows in order and in groups.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    backend::{BackendId, Generation},
    vlan::{Vlan, Vlans},
};

use super::*;
use crate::{
    api::types::{FlowGroups, FlowOrder},
    control::{Inherited, testing::Rig},
    datapath::{Flow, FlowState, WayBack},
    state::{
        service::{Protocol, ServiceKey},
        testing,
        words::Word as _,
    },
};

fn flow(client: &str, age: Option<u32>, idle: u32) -> Flow {
    let backend = SocketAddr::from(([10, 0, 1, 1], 8080));
    let client: SocketAddr = client.parse().unwrap();
    let vip: IpAddr = [192, 0, 2, 1].into();
    Flow {
        protocol: Protocol::Tcp,
        client,
        destination: SocketAddr::new(vip, 80),
        service: ServiceKey::new(vip, 80, Protocol::Tcp),
        owner: (BackendId(1), Generation(1)),
        backend,
        to: backend,
        via: None,
        state: FlowState::Established,
        age,
        idle,
        slot: None,
        way_back: None,
    }
}

#[test]
fn a_limit_keeps_the_first_flows_in_order() {
    let flows = [
        flow("198.51.100.3:1", Some(5), 5),
        flow("198.51.100.1:1", Some(70), 1),
        flow("198.51.100.2:2", None, 90),
        flow("198.51.100.2:1", Some(9), 2),
        flow("[2001:db8::1]:1", Some(70), 1),
    ];
    let sorted = |order, limit| {
        let mut sorted = Sorted::new(order, limit).unwrap();
        // A flow at a time, so that later ones take the place of earlier ones.
        for flow in &flows {
            assert!(sorted.add(&[*flow]).is_continue());
        }
        let flows = sorted.into_flows().unwrap().into_iter();
        flows.map(|flow| flow.client.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        sorted(FlowOrder::Age, Some(3)),
        ["198.51.100.1:1", "[2001:db8::1]:1", "198.51.100.2:1"]
    );
    assert_eq!(sorted(FlowOrder::Age, None).last().unwrap(), "198.51.100.2:2");
    assert_eq!(
        sorted(FlowOrder::Idle, Some(2)),
        ["198.51.100.2:2", "198.51.100.3:1"]
    );
    assert_eq!(
        sorted(FlowOrder::Client, Some(3)),
        ["198.51.100.1:1", "198.51.100.2:1", "198.51.100.2:2"]
    );
    assert!(sorted(FlowOrder::Client, Some(0)).is_empty());
}

#[test]
fn more_flows_than_fit_are_sorted_with_a_limit_only() {
    let many = vec![flow("198.51.100.1:1", Some(1), 1); MAX_SORTED];
    for (limit, one_more, whole) in [(None, false, true), (None, true, false), (Some(2), true, true)] {
        let mut sorted = Sorted::new(FlowOrder::Age, limit).unwrap();
        let _ = sorted.add(&many);
        if one_more {
            let ends = sorted.add(&[flow("198.51.100.2:1", Some(1), 1)]).is_break();
            assert_eq!(ends, !whole, "the walk need not go on");
        }
        assert_eq!(sorted.into_flows().is_some(), whole);
    }
    assert!(Sorted::new(FlowOrder::Age, Some(MAX_SORTED + 1)).is_err());
}

async fn counter(by: FlowGroups) -> Counter {
    let desired = testing::desired([testing::service("web", 1, &[("a", 10)])]);
    let rig = Rig::start(desired, Inherited::default()).await;
    Counter::new(Some(by), Names::new(&rig.control.view()))
}

#[tokio::test]
async fn groups_beyond_the_limit_are_summed_up() {
    let mut by_client = counter(FlowGroups::Client).await;
    for (client, flows) in [("198.51.100.1", 3), ("198.51.100.2", 5), ("[2001:db8::1]", 4)] {
        for port in 0..flows {
            by_client.add(&flow(&format!("{client}:{port}"), None, 0));
        }
    }
    let counted = by_client.finish(2);
    let groups: Vec<_> = counted
        .groups
        .iter()
        .map(|group| (group.client.as_deref().unwrap(), group.flows))
        .collect();
    assert_eq!(groups, [("198.51.100.2", 5), ("2001:db8::1", 4)]);
    assert_eq!((counted.flows, counted.rest, counted.exact), (12, 3, true));
    assert_eq!(counted.states.established, 12);
}

#[tokio::test]
async fn clients_beyond_the_room_are_counted_together_and_said_to_be_left_out() {
    let mut by_client = counter(FlowGroups::Client).await.with_clients(1);
    for client in [
        "198.51.100.1:1",
        "198.51.100.2:1",
        "198.51.100.1:2",
        "[2001:db8::1]:1",
    ] {
        by_client.add(&flow(client, None, 0));
    }
    let counted = by_client.finish(10);
    // Each family has room of its own.
    let groups: Vec<_> = counted.groups.iter().map(|group| group.flows).collect();
    assert_eq!((groups, counted.rest, counted.exact), (vec![2, 1], 1, false));
}

#[tokio::test]
async fn a_backend_is_known_by_its_name_as_long_as_its_number_is_its_own() {
    let mut by_backend = counter(FlowGroups::Backend).await;
    let known = flow("198.51.100.1:1", None, 0);
    let unknown = Flow {
        owner: (BackendId(1), Generation(2)),
        backend: SocketAddr::from(([10, 9, 9, 9], 1)),
        ..known
    };
    for flow in [known, known, unknown] {
        by_backend.add(&flow);
    }
    let groups = by_backend.finish(10).groups;
    let names: Vec<_> = groups
        .iter()
        .map(|group| (group.service.as_deref(), group.backend.as_deref(), group.flows))
        .collect();
    assert_eq!(
        names,
        [(Some("web"), Some("a"), 2), (Some("web"), Some("10.9.9.9:1"), 1)]
    );
}

/// Scripts read these lines: what is written by hand must be what the type says.
#[tokio::test]
async fn a_line_is_the_flow_as_json() {
    let desired = testing::desired([testing::service("web", 1, &[("a", 10)])]);
    let rig = Rig::start(desired, Inherited::default()).await;
    let interfaces = [(2, "eth0".to_owned()), (3, "a\"b\\c".to_owned())].into_iter();
    let mut writer = line::LineWriter::new(Names::new(&rig.control.view()), interfaces);
    let vlan = |id| Some(Vlan { id, service: id == 7 });
    let plain = flow("198.51.100.1:40000", None, 0);
    let way_back = |ifindex, outer, inner| {
        Some(WayBack {
            ifindex,
            vlans: Vlans::new(outer, inner).unwrap(),
        })
    };
    for flow in [
        plain,
        Flow {
            client: "[2001:db8::7]:1".parse().unwrap(),
            via: Some("192.0.2.7:1024".parse().unwrap()),
            state: FlowState::Closing,
            age: Some(u32::MAX),
            idle: 7,
            slot: Some(0),
            way_back: way_back(2, None, None),
            ..plain
        },
        Flow {
            protocol: Protocol::Udp,
            owner: (BackendId(1), Generation(2)),
            backend: "10.9.9.9:53".parse().unwrap(),
            way_back: way_back(3, vlan(7), vlan(4_094)),
            ..plain
        },
        Flow {
            way_back: way_back(9, vlan(1), None),
            ..plain
        },
    ] {
        let mut out = Vec::new();
        writer.write(&flow, &mut out);
        let text = String::from_utf8(out).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        let read: types::Flow<'_> = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), line);
        let address = flow.client.to_string();
        assert_eq!(
            (&*read.client, read.via.map(str::to_owned)),
            (&*address, flow.via.map(|via| via.to_string()))
        );
        assert_eq!(
            (&*read.state, &*read.protocol),
            (flow.state.word(), flow.protocol.word())
        );
        assert_eq!((read.age, read.idle, read.slot), (flow.age, flow.idle, flow.slot));
        assert_eq!(
            &*read.backend,
            if flow.owner.1 == Generation(1) {
                "a"
            } else {
                "10.9.9.9:53"
            }
        );
        let (interface, vlans): (_, &[u16]) = match flow.way_back.map(|way| way.ifindex) {
            None => (None, &[]),
            Some(2) => (Some("eth0"), &[]),
            Some(3) => (Some("a\"b\\c"), &[7, 4_094]),
            Some(_) => (Some("interface 9"), &[1]),
        };
        assert_eq!((read.interface.as_deref(), &*read.vlans), (interface, vlans));
    }
}
