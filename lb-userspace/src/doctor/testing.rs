//! Made-up machines for tests.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use lb_common::service::Mode;

use super::{
    Facts, Setup,
    facts::{Device, Machine},
};
use crate::{
    datapath::{
        LinkOperation, NextHopState, XdpMode,
        host_network::{HostLink, HostWay, Offloads, XdpFeatures},
    },
    state::{desired::Desired, testing, xdp_mode::XdpModeChoice},
};

/// What is to be diagnosed: eth0 and this state, without a daemon.
pub(super) fn setup(desired: Desired) -> Setup {
    Setup {
        interfaces: vec!["eth0".to_owned()],
        xdp_mode: XdpModeChoice::Auto,
        running: BTreeMap::new(),
        has_daemon: false,
        daemon_user: None,
        api_files: None,
        pin_dir: PathBuf::from("/sys/fs/bpf/lb"),
        desired,
        addresses: Vec::new(),
        only: Vec::new(),
    }
}

pub(super) fn link(ifindex: u32, name: &str, vlan_parent: Option<u32>) -> HostLink {
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
pub(super) fn facts() -> Facts {
    let device = Device {
        driver: "mlx5_core".to_owned(),
        features: Some(XdpFeatures {
            native: true,
            transmits: true,
            multi_buffer: true,
        }),
        offloads: Offloads::default(),
        queues: Some(4),
        spread_over: None,
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

/// A daemon on eth0, towards clients, and eth1, towards two backends of a service in this mode.
pub(super) fn running(mode: Mode) -> (Setup, Facts) {
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

/// The address of a backend of the only service.
pub(super) fn address_of(setup: &Setup, backend: usize) -> IpAddr {
    let service = setup.desired.services.values().next().unwrap();
    service.backends[backend].address.ip()
}

/// Makes an address reachable by an interface that has an address itself.
pub(super) fn reach(facts: &mut Facts, address: IpAddr, via: IpAddr, ifindex: u32) {
    let state = NextHopState::Reached {
        via,
        interface: format!("eth{}", ifindex - 2),
        answering: true,
        source: Some(IpAddr::from([10, 0, 0, 254])),
    };
    facts.ways.insert(
        address,
        HostWay {
            state,
            ifindex,
            mtu: 1500,
            mac: Some([2, 0, 0, 0, 0, 9]),
        },
    );
}

/// Makes an interface a veth whose peer takes no frames from programs.
pub(super) fn deafen(facts: &mut Facts, ifindex: u32) {
    let device = facts.devices.get_mut(&ifindex).unwrap();
    device.driver = "veth".to_owned();
    device.features = device.features.map(|features| XdpFeatures {
        transmits: false,
        ..features
    });
}
