//! Faults of services on made-up machines.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::service::Mode;

use crate::{
    datapath::{HostAddress, LinkOperation, NextHopState, NextHops, XdpMode, host_network::XdpFeatures},
    doctor::{
        Facts, Setup, faults,
        testing::{address_of, deafen, link, reach, running},
    },
    state::{backend::Admin, service::Service, testing},
};

/// A change of a machine.
type Change = fn(&mut Setup, &mut Facts);

/// A broken set-up with the backend that a fault is about, `None` if all flows fail, and a word of its reason.
type Broken = (&'static str, Mode, Change, Option<&'static str>, &'static str);

fn router() -> IpAddr {
    IpAddr::from([10, 0, 9, 9])
}

/// The address that packets leave with.
fn source() -> IpAddr {
    IpAddr::from([10, 0, 0, 254])
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

/// Gives an interface an address beside the service's, in a network of 256.
fn near_vip(setup: &Setup, facts: &mut Facts, ifindex: u32) {
    let IpAddr::V4(vip) = vip(setup) else { return };
    let [a, b, c, _] = vip.octets();
    own(facts, ifindex, IpAddr::from([a, b, c, 254]), 24);
}

fn ignore_arp(facts: &mut Facts, interface: &str) {
    let key = format!("ipv4/conf/{interface}/arp_ignore");
    facts.settings.insert(key, "1".to_owned());
}

fn with_service(setup: &mut Setup, change: impl FnOnce(&mut Service)) {
    let mut service = (**setup.desired.services.values().next().unwrap()).clone();
    change(&mut service);
    setup.desired = testing::desired([service]);
}

fn unreachable(setup: &Setup, facts: &mut Facts, backend: usize) {
    let way = facts.ways.get_mut(&address_of(setup, backend)).unwrap();
    way.state = NextHopState::Unreachable;
    way.ifindex = 0;
}

fn without_source(setup: &Setup, facts: &mut Facts, backend: usize) {
    let via = address_of(setup, backend);
    facts.ways.get_mut(&via).unwrap().state = NextHopState::Reached {
        via,
        interface: "eth1".to_owned(),
        answering: true,
        source: None,
    };
}

/// Routes backends over a VLAN of eth1, or over one within it, which the daemon's next hops name.
fn over_vlans(setup: &Setup, facts: &mut Facts, vlans: u32) {
    let names = ["eth1.7", "eth1.7.8"];
    for (n, name) in (0..vlans).zip(names) {
        facts.links.push(link(4 + n, name, Some(3 + n)));
        // As the kernel tells of VLAN links: programs cannot send there.
        let mut device = facts.devices[&3].clone();
        device.driver = "802.1Q VLAN Support".to_owned();
        device.features = device.features.map(|features| XdpFeatures {
            transmits: false,
            ..features
        });
        facts.devices.insert(4 + n, device);
    }
    let interface = names[vlans as usize - 1];
    let next_hops: NextHops = [0, 1]
        .map(|backend| {
            let via = address_of(setup, backend);
            let state = NextHopState::Reached {
                via,
                interface: interface.to_owned(),
                answering: true,
                source: Some(IpAddr::from([10, 0, 0, 254])),
            };
            (via, state)
        })
        .into();
    facts.ways.clear();
    facts.add_ways(&next_hops);
}

#[test]
fn every_way_to_lose_flows_is_a_fault() {
    let cases: [Broken; 17] = [
        (
            "all interfaces down",
            Mode::Nat,
            |_, facts| {
                for link in &mut facts.links {
                    link.operation = LinkOperation::Down;
                }
            },
            None,
            "eth0: is down",
        ),
        (
            "all interfaces gone",
            Mode::L2dsr,
            |_, facts| facts.links.clear(),
            None,
            "eth0: does not exist",
        ),
        (
            "no program, or no carrier",
            Mode::L2dsr,
            |setup, facts| {
                setup.running.remove("eth0");
                facts.links[1].operation = LinkOperation::NoCarrier;
            },
            None,
            "eth0: the program does not run",
        ),
        (
            "replies get lost",
            Mode::Dnat,
            |_, facts| {
                deafen(facts, 2);
                deafen(facts, 3);
            },
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
            "no frame leaves to a VLAN",
            Mode::Ipip,
            |setup, facts| {
                over_vlans(setup, facts, 1);
                deafen(facts, 3);
            },
            None,
            "a: interface eth1: veth",
        ),
        (
            "an exit without XDP",
            Mode::Nat,
            |setup, facts| {
                setup.interfaces.pop();
                setup.running.remove("eth1");
                deafen(facts, 3);
                facts.devices.get_mut(&3).unwrap().driver = "bridge".to_owned();
            },
            None,
            "a: interface eth1: packets to backends",
        ),
        (
            "replies come in where no program runs",
            Mode::Nat,
            |setup, facts| {
                setup.interfaces.pop();
                setup.running.remove("eth1");
                own(facts, 3, source(), 24);
            },
            None,
            "a: its replies come in by eth1, on which the program does not run",
        ),
        (
            "replies of one of two come in where no program runs",
            Mode::Ipip,
            |setup, facts| {
                setup.interfaces.pop();
                setup.running.remove("eth1");
                own(facts, 3, source(), 24);
                with_service(setup, |service| service.backends[0].mode = Some(Mode::Nat));
            },
            Some("a"),
            "its replies come in by eth1",
        ),
        (
            "one of two behind a router",
            Mode::L2dsr,
            |setup, facts| {
                reach(facts, address_of(setup, 0), router(), 3);
                facts.routed.insert(address_of(setup, 0));
            },
            Some("a"),
            "behind 10.0.9.9",
        ),
        (
            "one of two without a source",
            Mode::Nat,
            |setup, facts| without_source(setup, facts, 1),
            Some("b"),
            "no IPv4 source address",
        ),
        (
            "the one of two that is enabled",
            Mode::Nat,
            |setup, facts| {
                without_source(setup, facts, 1);
                with_service(setup, |service| service.backends[0].admin = Admin::Draining);
            },
            None,
            "b: no IPv4 source address",
        ),
        (
            "each for its own reason",
            Mode::Nat,
            |setup, facts| {
                without_source(setup, facts, 0);
                reach(facts, address_of(setup, 1), router(), 3);
                facts.routed.insert(address_of(setup, 1));
                with_service(setup, |service| service.backends[1].mode = Some(Mode::L2dsr));
            },
            None,
            "a: no IPv4 source address",
        ),
        (
            "one unreachable, the other without a source",
            Mode::Nat,
            |setup, facts| {
                unreachable(setup, facts, 0);
                without_source(setup, facts, 1);
            },
            None,
            "a: no route",
        ),
        (
            "one unreachable, frames to the other get lost",
            Mode::Ipip,
            |setup, facts| {
                unreachable(setup, facts, 0);
                deafen(facts, 3);
            },
            None,
            "a: no route",
        ),
        (
            "no forwarding by an interface with a dot in its name",
            Mode::Dnat,
            |setup, facts| {
                over_vlans(setup, facts, 1);
                let key = "ipv4/conf/eth1.7/forwarding".to_owned();
                facts.settings.insert(key, "0".to_owned());
            },
            None,
            "a: its replies are not forwarded: net.ipv4.conf.eth1/7.forwarding is 0",
        ),
        (
            "duplicates alone",
            Mode::Nat,
            |setup, facts| {
                own(facts, 2, vip(setup), 32);
                own(facts, 3, vip(setup), 32);
                facts.addresses.iter_mut().for_each(|own| own.duplicate = true);
            },
            None,
            "is a duplicate",
        ),
    ];
    for (name, mode, damage, backend, word) in cases {
        let (mut setup, mut facts) = running(mode);
        assert_eq!(faults::all(&setup, &facts), BTreeMap::new(), "{name}, before");
        damage(&mut setup, &mut facts);
        let found = faults::all(&setup, &facts);
        let found = found.values().next().map_or(&[][..], Vec::as_slice);
        let is_total = backend.is_none();
        assert!(!found.is_empty(), "{name}");
        for fault in found {
            assert_eq!(fault.is_total, is_total, "{name}: {found:#?}");
            assert!(!fault.remedies.is_empty(), "{name}");
        }
        let fault = &found[0];
        assert!(fault.reason().contains(word), "{name}: {fault:?}");
        if let Some(backend) = backend {
            let named: Vec<_> = found.iter().map(|fault| fault.backend.clone()).collect();
            assert_eq!(named, [Some(backend.parse().unwrap())], "{name}");
        }
    }
}

#[test]
fn machines_that_work_in_part_have_no_faults() {
    let cases: [(&str, Mode, Change); 18] = [
        (
            "an address of a server's loopback interface",
            Mode::L2dsr,
            |setup, facts| {
                reach(facts, address_of(setup, 0), router(), 3);
            },
        ),
        ("clients may be behind eth1, too", Mode::Nat, |_, facts| {
            facts.links[0].operation = LinkOperation::Down;
        }),
        ("replies may leave by eth1", Mode::Dnat, |_, facts| {
            deafen(facts, 2)
        }),
        ("direct returns pass elsewhere", Mode::Ipip, |_, facts| {
            deafen(facts, 2)
        }),
        ("one interface is missing", Mode::Ipip, |_, facts| {
            _ = facts.links.remove(0);
        }),
        ("one of two uplinks", Mode::Nat, |setup, facts| {
            setup.interfaces.push("eth2".to_owned());
            setup.running.insert("eth2".to_owned(), XdpMode::Native);
            facts.links.push(link(4, "eth2", None));
            facts.links[0].operation = LinkOperation::NoCarrier;
            setup.running.remove("eth1");
        }),
        ("one of two modes needs no replies", Mode::Ipip, |setup, facts| {
            setup.interfaces.pop();
            setup.running.remove("eth1");
            with_service(setup, |service| service.backends[0].mode = Some(Mode::Nat));
            deafen(facts, 2);
        }),
        ("tunnels pass routers", Mode::Ipip, |setup, facts| {
            reach(facts, address_of(setup, 0), router(), 3);
        }),
        ("a VLAN", Mode::Nat, |setup, facts| {
            over_vlans(setup, facts, 1);
        }),
        ("a VLAN within a VLAN", Mode::L2dsr, |setup, facts| {
            over_vlans(setup, facts, 2);
        }),
        ("one of two unreachable", Mode::Nat, |setup, facts| {
            unreachable(setup, facts, 0);
        }),
        ("frames leave in generic mode", Mode::Ipip, |setup, facts| {
            deafen(facts, 3);
            setup.running.insert("eth0".to_owned(), XdpMode::Generic);
        }),
        (
            "an exit without XDP, and one interface in generic mode",
            Mode::Nat,
            |setup, facts| {
                facts.links.push(link(4, "br0", None));
                facts.devices.insert(4, facts.devices[&3].clone());
                deafen(facts, 4);
                facts.devices.get_mut(&4).unwrap().driver = "bridge".to_owned();
                for way in facts.ways.values_mut() {
                    way.ifindex = 4;
                }
                setup.running.insert("eth0".to_owned(), XdpMode::Generic);
            },
        ),
        (
            "replies come in by the port of a bridge",
            Mode::Nat,
            |setup, facts| {
                setup.interfaces.pop();
                setup.running.remove("eth1");
                own(facts, 3, source(), 24);
                facts.devices.get_mut(&3).unwrap().driver = "bridge".to_owned();
            },
        ),
        (
            "replies come in by the other interface",
            Mode::Nat,
            |setup, facts| {
                setup.interfaces.pop();
                setup.running.remove("eth1");
                own(facts, 2, source(), 24);
            },
        ),
        (
            "a router may send replies by the other interface",
            Mode::Nat,
            |setup, facts| {
                setup.interfaces.pop();
                setup.running.remove("eth1");
                own(facts, 3, source(), 24);
                for backend in [0, 1] {
                    reach(facts, address_of(setup, backend), router(), 3);
                }
            },
        ),
        ("a static route leads here", Mode::Nat, |setup, facts| {
            own(facts, 9, vip(setup), 32);
            near_vip(setup, facts, 2);
            ignore_arp(facts, "all");
        }),
        ("one of two copies is a duplicate", Mode::Nat, |setup, facts| {
            own(facts, 2, vip(setup), 32);
            facts.addresses[0].duplicate = true;
            own(facts, 3, vip(setup), 32);
        }),
    ];
    for (name, mode, change) in cases {
        let (mut setup, mut facts) = running(mode);
        change(&mut setup, &mut facts);
        assert_eq!(faults::all(&setup, &facts), BTreeMap::new(), "{name}");
    }
}
