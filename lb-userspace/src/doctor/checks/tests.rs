//! Checks on made-up machines: what no test can break on a real one.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use lb_common::service::Mode;

use crate::{
    datapath::{
        HostAddress, LinkOperation, NextHopState, XdpMode,
        host_network::{HostLink, HostWay, Offloads, XdpFeatures},
    },
    doctor::{
        Facts, Finding, Level, Setup, diagnose,
        facts::{Device, Machine},
        faults,
    },
    health::settings::{CheckKind, TlsCheck},
    state::{desired::Desired, testing, xdp_mode::XdpModeChoice},
};

fn setup(desired: Desired) -> Setup {
    Setup {
        interfaces: vec!["eth0".to_owned()],
        xdp_mode: XdpModeChoice::Auto,
        running: BTreeMap::new(),
        has_daemon: false,
        pin_dir: PathBuf::from("/sys/fs/bpf/lb"),
        desired,
        addresses: Vec::new(),
        only: Vec::new(),
    }
}

fn link(ifindex: u32, name: &str, vlan_parent: Option<u32>) -> HostLink {
    HostLink {
        ifindex,
        name: name.to_owned(),
        altnames: Vec::new(),
        framed: true,
        mac: Some([2; 6]),
        mtu: 1500,
        operation: LinkOperation::Up,
        xdp: None,
        vlan_parent,
        tied_to: None,
    }
}

/// A machine with one fast network card.
fn facts() -> Facts {
    let device = Device {
        driver: "mlx5_core".to_owned(),
        features: Some(XdpFeatures {
            native: true,
            transmits: true,
            multi_buffer: true,
        }),
        offloads: Offloads::default(),
        queues: Some(4),
        interrupts: ["0", "1", "2-3"].map(str::to_owned).to_vec(),
        peer: None,
    };
    Facts {
        machine: Machine {
            cpus: 4,
            ..Machine::default()
        },
        links: vec![link(2, "eth0", None)],
        devices: BTreeMap::from([(2, device)]),
        ..Facts::default()
    }
}

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

/// A daemon on eth0, towards clients, and eth1, towards two backends of a service in this mode.
fn running(mode: Mode) -> (Setup, Facts) {
    let mut service = testing::service("web", 1, &[("a", 1), ("b", 1)]);
    service.mode = mode;
    let (mut setup, mut facts) = (setup(testing::desired([service.clone()])), facts());
    setup.interfaces.push("eth1".to_owned());
    setup.has_daemon = true;
    for name in &setup.interfaces {
        setup.running.insert(name.clone(), XdpMode::Native);
    }
    facts.links.push(link(3, "eth1", None));
    facts.devices.insert(3, facts.devices[&2].clone());
    for backend in &service.backends {
        reach(&mut facts, backend.address.ip(), backend.address.ip(), 3);
    }
    (setup, facts)
}

fn reach(facts: &mut Facts, address: IpAddr, via: IpAddr, ifindex: u32) {
    let state = NextHopState::Reached {
        via,
        interface: format!("eth{}", ifindex - 2),
        answering: true,
        source: None,
    };
    facts.ways.insert(
        address,
        HostWay {
            state,
            ifindex,
            mtu: 1500,
        },
    );
}

/// Makes an interface a veth whose peer takes no frames from programs.
fn deafen(facts: &mut Facts, ifindex: u32) {
    let device = facts.devices.get_mut(&ifindex).unwrap();
    device.driver = "veth".to_owned();
    device.features = device.features.map(|features| XdpFeatures {
        transmits: false,
        ..features
    });
}

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
