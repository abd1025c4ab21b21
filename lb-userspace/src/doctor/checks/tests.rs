//! Checks on made-up machines: what no test can break on a real one.

use super::super::{
    Facts, Finding, Level, Setup, diagnose,
    facts::Device,
    testing::{facts, link, setup},
};
use crate::{
    datapath::host_network::XdpFeatures,
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
