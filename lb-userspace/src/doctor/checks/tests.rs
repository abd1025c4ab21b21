//! Checks on made-up machines: what no test can break on a real one.

use std::net::IpAddr;

use lb_common::service::Mode;

use super::super::{
    Facts, Finding, Level, Setup, diagnose,
    facts::Device,
    testing::{address_of, deafen, facts, link, reach, running, setup},
};
use crate::{
    datapath::{
        HostAddress, LinkOperation, XdpMode,
        host_network::{Offloads, Peer, Place, XdpFeatures},
    },
    health::settings::{CheckKind, TlsCheck},
    state::{desired::Desired, testing, xdp_mode::XdpModeChoice},
};

/// The only finding that is not as it should be.
fn only_trouble(setup: &Setup, facts: &Facts) -> Finding {
    let findings = diagnose(setup, facts);
    let mut bad = findings.iter().filter(|finding| finding.level > Level::Ok);
    let (Some(one), None) = (bad.next(), bad.next()) else {
        panic!("{findings:#?}");
    };
    assert!(!one.remedies.is_empty(), "{one}");
    one.clone()
}

#[test]
fn a_good_machine_is_described_without_a_complaint() {
    let text: String = diagnose(&setup(Desired::default()), &facts())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        text,
        "ok    machine: Linux 6.1.0, BTF\n\
         ok    eth0: mlx5_core, native XDP, multi-buffer, 4 receive queues, 3 interrupts on 4 CPUs\n"
    );
}

#[test]
fn old_kernels_fail_and_interpreted_programs_are_slow() {
    for (release, level) in [
        ("5.15.0-91-generic", Level::Fail),
        ("6.0.19", Level::Fail),
        ("6.1.0-18-amd64", Level::Ok),
        ("7.0", Level::Ok),
        ("unknown", Level::Ok),
    ] {
        let mut facts = facts();
        facts.machine.release = release.to_owned();
        let findings = diagnose(&setup(Desired::default()), &facts);
        let worst = findings.iter().map(|finding| finding.level).max();
        assert_eq!(worst, Some(level), "{release}");
    }
    let mut facts = facts();
    facts.machine.compiles_bpf = Some(false);
    assert_eq!(only_trouble(&setup(Desired::default()), &facts).check, "jit");
}

#[test]
fn a_wrong_clock_matters_where_certificates_are_verified() {
    let mut service = testing::service("web", 1, &[]);
    service.hosts.clear();
    let mut facts = facts();
    facts.machine.has_time = false;
    let is_found = |verify: bool| {
        let mut service = service.clone();
        service.health.kind = CheckKind::Tls(TlsCheck {
            verify,
            ..TlsCheck::default()
        });
        let findings = diagnose(&setup(testing::desired([service])), &facts);
        findings.iter().any(|finding| finding.check == "clock")
    };
    assert!(is_found(true));
    assert!(!is_found(false));
}

#[test]
fn what_a_driver_does_to_frames_is_found() {
    let setup = setup(Desired::default());
    let with = |change: &dyn Fn(&mut Device)| {
        let mut facts = facts();
        change(facts.devices.get_mut(&2).unwrap());
        facts
    };
    let trouble = only_trouble(&setup, &with(&|device| device.offloads.lro = Some(true)));
    assert_eq!((trouble.check, trouble.level), ("lro", Level::Warn));
    assert_eq!(trouble.remedies, ["ethtool -K eth0 lro off"]);

    let tagged = with(&|device| device.offloads.rx_vlan = Some(true));
    let findings = diagnose(&setup, &tagged);
    assert!(
        findings.iter().all(|finding| finding.level == Level::Ok),
        "no VLAN is there"
    );
    let mut with_vlan = tagged;
    with_vlan.links.push(link(3, "eth0.7", Some(2)));
    let trouble = only_trouble(&setup, &with_vlan);
    assert_eq!(trouble.check, "rx_vlan");
    assert!(trouble.message.contains("eth0.7"), "{trouble}");

    let peer = |tx_vlan| Peer {
        place: Place::Named("sw".to_owned()),
        name: "u0".to_owned(),
        offloads: Offloads {
            tx_vlan: Some(tx_vlan),
            ..Offloads::default()
        },
        is_port: false,
    };
    for beside in [true, false] {
        let mut veth = with_vlan.clone();
        let device = veth.devices.get_mut(&2).unwrap();
        device.driver = "veth".to_owned();
        device.peer = Some(peer(beside));
        if beside {
            let trouble = only_trouble(&setup, &veth);
            assert_eq!(trouble.remedies, ["ip netns exec sw ethtool -K u0 txvlan off"]);
        } else {
            let findings = diagnose(&setup, &veth);
            assert!(
                findings.iter().all(|finding| finding.level == Level::Ok),
                "{findings:?}"
            );
        }
    }

    let mut jumbo = with(&|device| {
        device.features = Some(XdpFeatures {
            native: true,
            transmits: true,
            multi_buffer: false,
        });
    });
    jumbo.links[0].mtu = 9000;
    assert_eq!(only_trouble(&setup, &jumbo).check, "mtu");
    let mut generic = setup.clone();
    generic.xdp_mode = XdpModeChoice::Generic;
    assert!(
        diagnose(&generic, &jumbo)
            .iter()
            .all(|finding| finding.level == Level::Ok)
    );
}

#[test]
fn queues_that_the_indirection_table_leaves_out_are_found() {
    let setup = setup(Desired::default());
    let with = |queues, spread_over: Option<&[u32]>| {
        let mut facts = facts();
        let device = facts.devices.get_mut(&2).unwrap();
        device.queues = queues;
        device.spread_over = spread_over.map(|queues| queues.iter().copied().collect());
        facts
    };
    let found = only_trouble(&setup, &with(Some(4), Some(&[0, 2])));
    assert_eq!(found.check, "rss");
    assert!(
        found.message.contains("2 of 4 receive queues (1, 3)"),
        "{found:?}"
    );
    assert_eq!(found.remedies[0], "ethtool -X eth0 equal 4");
    for facts in [
        with(Some(4), Some(&[0, 1, 2, 3])),
        with(Some(1), Some(&[0])),
        with(Some(4), None),
        with(None, Some(&[0])),
        // Fewer queues than before, and a table that the driver has not made anew yet.
        with(Some(2), Some(&[0, 1, 2, 3])),
    ] {
        let findings = diagnose(&setup, &facts);
        assert!(
            findings.iter().all(|finding| finding.level == Level::Ok),
            "{findings:#?}"
        );
    }
}

#[test]
fn queues_whose_interrupts_share_a_cpu_are_found() {
    let setup = setup(Desired::default());
    let with = |queues, interrupts: &[&str]| {
        let mut facts = facts();
        let device = facts.devices.get_mut(&2).unwrap();
        device.queues = Some(queues);
        device.interrupts = interrupts.iter().map(|&list| list.to_owned()).collect();
        facts
    };
    assert_eq!(
        only_trouble(&setup, &with(4, &["1", "1", "1"])).check,
        "interrupts"
    );
    for facts in [
        with(1, &["1"]),
        with(4, &["0", "1"]),
        with(4, &["0-3"]),
        with(4, &[]),
    ] {
        let findings = diagnose(&setup, &facts);
        assert!(
            findings.iter().all(|finding| finding.level == Level::Ok),
            "{findings:#?}"
        );
    }
}

/// Copies of an address: interface, prefix length, whether a duplicate.
type Copies = &'static [(u32, u8, bool)];

/// Interfaces with their `arp_ignore`.
type Settings = &'static [(&'static str, i64)];

/// Copies of an address with settings, and the check that finds something and one of its remedies.
type Case = (&'static str, Copies, Settings, Option<&'static str>, &'static str);

#[test]
fn every_copy_of_an_address_and_every_interface_counts() {
    const ON_ALL: &str = "all";
    let all_and_dot = "sysctl -w net/ipv4/conf/all/arp_ignore=0 net/ipv4/conf/eth0.7/arp_ignore=0";
    // eth0.7 and eth1 run the program and have addresses in networks that the address is in; lo has none of these, and eth9 is down.
    let cases: [Case; 15] = [
        ("on lo, answered", &[(1, 32, false)], &[], None, ""),
        (
            "only the interface ignores, not the other",
            &[(1, 32, false)],
            &[("eth0.7", 1)],
            None,
            "",
        ),
        (
            "both ignore",
            &[(1, 32, false)],
            &[("eth0.7", 1), ("eth1", 2)],
            Some("arp_ignore"),
            "sysctl -w net/ipv4/conf/eth0.7/arp_ignore=0",
        ),
        (
            "all ignore, and the interface",
            &[(1, 32, false)],
            &[(ON_ALL, 1), ("eth0.7", 1)],
            Some("arp_ignore"),
            all_and_dot,
        ),
        (
            "all ignore",
            &[(1, 32, false)],
            &[(ON_ALL, 8)],
            Some("arp_ignore"),
            "sysctl -w net/ipv4/conf/all/arp_ignore=0",
        ),
        (
            "addresses of a link's scope alone are ignored",
            &[(1, 32, false)],
            &[(ON_ALL, 3)],
            None,
            "",
        ),
        ("on one of both", &[(3, 32, false)], &[(ON_ALL, 1)], None, ""),
        (
            "on one of both, with its network",
            &[(3, 24, false)],
            &[(ON_ALL, 1)],
            None,
            "",
        ),
        (
            "on lo and on one of both",
            &[(1, 32, false), (3, 32, false)],
            &[(ON_ALL, 2)],
            None,
            "",
        ),
        (
            "no address is answered for",
            &[(3, 32, false)],
            &[(ON_ALL, 8)],
            Some("arp_ignore"),
            "sysctl -w net/ipv4/conf/all/arp_ignore=0",
        ),
        (
            "on a link that is down",
            &[(9, 32, false)],
            &[],
            Some("address"),
            "ip link set dev eth9 up",
        ),
        (
            "also on a link that is down",
            &[(9, 32, false), (2, 32, false)],
            &[],
            None,
            "",
        ),
        (
            "a duplicate",
            &[(9, 32, false), (2, 32, true)],
            &[],
            Some("address_conflict"),
            "take it off the other machine",
        ),
        (
            "also a duplicate",
            &[(1, 32, false), (2, 32, true)],
            &[],
            Some("address_conflict"),
            "take it off the other machine",
        ),
        (
            "nowhere",
            &[],
            &[],
            Some("address"),
            "ip addr add 10.1.0.100/32 dev eth0.7",
        ),
    ];
    let (address, own) = (IpAddr::from([10, 1, 0, 100]), [[10, 1, 0, 1], [10, 1, 0, 2]]);
    for (name, copies, settings, check, remedy) in cases {
        let mut setup = setup(Desired::default());
        setup.interfaces = vec!["eth0.7".to_owned(), "eth1".to_owned()];
        setup.addresses = vec![address];
        let mut facts = facts();
        facts.links = vec![
            link(1, "lo", None),
            link(2, "eth0.7", None),
            link(3, "eth1", None),
        ];
        facts.links.push(link(9, "eth9", None));
        facts.links[3].operation = LinkOperation::Down;
        facts.devices.insert(3, facts.devices[&2].clone());
        let own = [2, 3]
            .into_iter()
            .zip(own)
            .map(|(ifindex, own)| (own.into(), (ifindex, 24, false)));
        let copies = copies.iter().map(|copy| (address, *copy));
        facts
            .addresses
            .extend(
                own.chain(copies)
                    .map(|(address, (ifindex, length, duplicate))| HostAddress {
                        ifindex,
                        address,
                        length,
                        duplicate,
                    }),
            );
        let settings = settings
            .iter()
            .map(|(interface, value)| (format!("ipv4/conf/{interface}/arp_ignore"), value.to_string()));
        facts.settings.extend(settings);
        let findings = diagnose(&setup, &facts);
        let bad: Vec<&Finding> = findings
            .iter()
            .filter(|finding| finding.level > Level::Ok)
            .collect();
        assert_eq!(
            bad.first().map(|finding| finding.check),
            check,
            "{name}: {bad:#?}"
        );
        if let Some(finding) = bad.first() {
            assert!(
                finding.remedies.iter().any(|one| one == remedy),
                "{name}: {finding:?}"
            );
            let is_failure = name == "a duplicate";
            assert_eq!(finding.level == Level::Fail, is_failure, "{name}");
        }
    }
}

#[test]
fn frames_are_lost_at_an_exit_without_xdp_only_in_native_mode() {
    for (modes, level) in [
        ([XdpMode::Native, XdpMode::Native], Some(Level::Fail)),
        ([XdpMode::Native, XdpMode::Generic], Some(Level::Warn)),
        ([XdpMode::Generic, XdpMode::Native], Some(Level::Warn)),
        ([XdpMode::Generic, XdpMode::Generic], None),
    ] {
        let (mut setup, mut facts) = running(Mode::Nat);
        for (name, mode) in setup.interfaces.iter().zip(modes) {
            setup.running.insert(name.clone(), mode);
        }
        facts.links.push(link(4, "eth2", None));
        facts.devices.insert(4, facts.devices[&3].clone());
        deafen(&mut facts, 4);
        facts.devices.get_mut(&4).unwrap().driver = "bridge".to_owned();
        for backend in [0, 1] {
            let address = address_of(&setup, backend);
            reach(&mut facts, address, address, 4);
        }
        let findings = diagnose(&setup, &facts);
        let found = findings.iter().find(|finding| finding.check == "redirect");
        assert_eq!(
            found.map(|finding| finding.level),
            level,
            "{modes:?}: {findings:#?}"
        );
    }
}
