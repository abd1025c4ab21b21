//! Faults of services on made-up machines.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::service::Mode;

use crate::{
    datapath::{HostAddress, LinkOperation, XdpMode},
    doctor::{
        Facts, Setup, faults,
        testing::{deafen, link, reach, running},
    },
};

/// A broken set-up with the backend that a fault is about, and a word of its message.
type Broken = (
    &'static str,
    Mode,
    fn(&mut Setup, &mut Facts),
    Option<&'static str>,
    &'static str,
);

#[test]
fn every_way_to_lose_all_flows_is_a_fault_of_the_service() {
    fn of_a(setup: &Setup) -> IpAddr {
        setup.desired.services.values().next().unwrap().backends[0]
            .address
            .ip()
    }
    fn vip(setup: &Setup) -> IpAddr {
        setup.desired.services.values().next().unwrap().key.address
    }
    fn own(facts: &mut Facts, ifindex: u32, address: IpAddr, length: u8) {
        facts.addresses.push(HostAddress {
            ifindex,
            address,
            length,
            duplicate: false,
        });
    }
    let router = IpAddr::from([10, 0, 9, 9]);
    let cases: [Broken; 9] = [
        (
            "front down",
            Mode::Nat,
            |_, facts| facts.links[0].operation = LinkOperation::Down,
            None,
            "eth0: is down",
        ),
        (
            "front gone",
            Mode::L2dsr,
            |_, facts| _ = facts.links.remove(0),
            None,
            "eth0: does not exist",
        ),
        (
            "no program",
            Mode::L2dsr,
            |setup, _| _ = setup.running.remove("eth0"),
            None,
            "eth0: the program does not run",
        ),
        (
            "replies get lost",
            Mode::Dnat,
            |_, facts| deafen(facts, 2),
            None,
            "eth0: veth",
        ),
        (
            "no frame leaves",
            Mode::Ipip,
            |_, facts| deafen(facts, 3),
            None,
            "a: interface eth1: veth",
        ),
        (
            "an exit without XDP",
            Mode::Nat,
            |setup, facts| {
                setup.interfaces.pop();
                deafen(facts, 3);
                facts.devices.get_mut(&3).unwrap().driver = "bridge".to_owned();
            },
            None,
            "a: interface eth1: packets to backends",
        ),
        (
            "one of two behind a router",
            Mode::L2dsr,
            |setup, facts| reach(facts, of_a(setup), IpAddr::from([10, 0, 9, 9]), 3),
            Some("a"),
            "behind 10.0.9.9",
        ),
        (
            "a duplicate",
            Mode::Nat,
            |setup, facts| {
                own(facts, 2, vip(setup), 32);
                facts.addresses[0].duplicate = true;
            },
            None,
            "is a duplicate",
        ),
        (
            "ARP is not answered",
            Mode::Nat,
            |setup, facts| {
                own(facts, 9, vip(setup), 32);
                let IpAddr::V4(vip) = vip(setup) else { return };
                let [a, b, c, _] = vip.octets();
                own(facts, 2, IpAddr::from([a, b, c, 254]), 24);
                facts
                    .settings
                    .insert("ipv4/conf/all/arp_ignore".to_owned(), "1".to_owned());
            },
            None,
            "arp_ignore",
        ),
    ];
    for (name, mode, damage, backend, word) in cases {
        let (mut setup, mut facts) = running(mode);
        assert_eq!(faults::all(&setup, &facts), BTreeMap::new(), "{name}, before");
        damage(&mut setup, &mut facts);
        let found = faults::all(&setup, &facts);
        let [fault] = found.values().next().map_or(&[][..], Vec::as_slice) else {
            panic!("{name}: {found:#?}");
        };
        assert_eq!(
            fault.backend.as_ref().map(ToString::to_string).as_deref(),
            backend,
            "{name}"
        );
        assert!(fault.message.contains(word), "{name}: {fault:?}");
        assert!(!fault.remedies.is_empty(), "{name}");
    }
    // Tunnels and NAT go through routers, replies of direct return pass elsewhere, and one of two uplinks is enough.
    let (setup, mut facts) = running(Mode::Ipip);
    reach(&mut facts, of_a(&setup), router, 3);
    deafen(&mut facts, 2);
    assert_eq!(faults::all(&setup, &facts), BTreeMap::new());
    let (mut setup, mut facts) = running(Mode::Nat);
    setup.interfaces.push("eth2".to_owned());
    setup.running.insert("eth2".to_owned(), XdpMode::Native);
    facts.links.push(link(4, "eth2", None));
    facts.links[0].operation = LinkOperation::NoCarrier;
    assert_eq!(faults::all(&setup, &facts), BTreeMap::new());
}
