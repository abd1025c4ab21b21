//! What the kernel says about this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    datapath::{
        HostAddress, NextHopState, NextHops,
        host_network::{HostLink, HostNetwork, HostWay, Offloads, Peer, XdpFeatures, interrupt_cpus},
        left_forwarding, missing_capabilities, other_layout, pin_obstacle, sees_programs,
    },
    descriptors,
    doctor::{listeners::listeners, pem::PemFacts, setup::Setup},
    state::{guard::Prefix, service::Protocol},
};

/// Facts about this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The kernel and this process.
    pub machine: Machine,
    /// All links.
    pub links: Vec<HostLink>,
    /// More about the interfaces of the setup, and those by which backends are reached, by index.
    pub devices: BTreeMap<u32, Device>,
    /// Interfaces on which a program of `lb` runs, by name.
    pub ours: BTreeSet<String>,
    /// All addresses.
    pub addresses: Vec<HostAddress>,
    /// Addresses of services whose packets end on this machine.
    pub local: BTreeSet<IpAddr>,
    /// Links by which packets to addresses of services leave, by index; addresses without one are missing.
    pub links_to: BTreeMap<IpAddr, u32>,
    /// The way to each backend.
    pub ways: BTreeMap<IpAddr, HostWay>,
    /// Backends of mode l2dsr behind a gateway that leads to other addresses, too.
    pub routed: BTreeSet<IpAddr>,
    /// The kernel's network settings, by path below `/proc/sys/net`; those that cannot be read are missing.
    pub settings: BTreeMap<String, String>,
    /// Sockets of this machine that wait for packets.
    pub listeners: Vec<(Protocol, SocketAddr)>,
    /// Files of certificates and keys.
    pub pem: PemFacts,
}

/// The kernel and this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The kernel's release, such as `6.1.0-18-amd64`.
    pub release: String,
    /// Whether the kernel describes its own types.
    pub has_btf: bool,
    /// Whether BPF programs are compiled; `None` if that cannot be read.
    pub compiles_bpf: Option<bool>,
    /// Capabilities that `lb run` needs and this process lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// Whether this process may see which programs are loaded.
    pub sees_programs: bool,
    /// Why nothing can be pinned in the directory of pins: it is in no BPF file system, and none can be mounted.
    pub pin_obstacle: Option<String>,
    /// Directory of pins that another version of the map layouts has there.
    pub other_pins: Option<PathBuf>,
    /// CPUs in use.
    pub cpus: usize,
    /// Open files that a process may have.
    pub open_files: u64,
    /// Whether the clock is synchronised.
    pub has_time: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            release: "6.1.0".to_owned(),
            has_btf: true,
            compiles_bpf: Some(true),
            missing_capabilities: Vec::new(),
            sees_programs: true,
            pin_obstacle: None,
            other_pins: None,
            cpus: 2,
            open_files: 1 << 20,
            has_time: true,
        }
    }
}

/// An interface's device and driver.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Device {
    /// Name of the driver.
    pub driver: String,
    /// What it can do with XDP; `None` if the kernel does not say.
    pub features: Option<XdpFeatures>,
    /// What it does to frames.
    pub offloads: Offloads,
    /// Receive queues; `None` for devices without.
    pub queues: Option<u32>,
    /// Receive queues among which it spreads packets by their hash; `None` where it does not say.
    pub spread_over: Option<BTreeSet<u32>>,
    /// CPUs of its interrupts.
    pub interrupts: Vec<String>,
    /// The other end of a veth.
    pub peer: Option<Peer>,
}

impl Facts {
    /// Asks the kernel. Waits up to three seconds for backends that do not answer ARP or neighbour discovery.
    ///
    /// # Errors
    /// When the kernel does not answer at all.
    pub fn gather(setup: &Setup) -> io::Result<Self> {
        let mut network = HostNetwork::open()?;
        let mut facts = Self {
            machine: Machine::read(&setup.pin_dir),
            ways: network.ways(&setup.backend_addresses().collect())?,
            ours: left_forwarding()
                .interfaces
                .into_iter()
                .map(|(name, _)| name)
                .collect(),
            listeners: listeners(),
            pem: PemFacts::gather(setup),
            ..Self::of_network(&mut network)?
        };
        for address in setup.service_addresses() {
            if network.is_local(address)? {
                facts.local.insert(address);
            } else if let Some(ifindex) = network.link_to(address)? {
                facts.links_to.insert(address, ifindex);
            }
        }
        let routes = facts.ways.values().filter_map(|way| way.state.interface());
        for link in facts.used(setup, routes) {
            facts.devices.insert(link.ifindex, device(&mut network, &link));
            facts.settings.extend(settings_of(&link.name));
        }
        facts.routed = routed(&mut network, setup, |address| {
            Some(&facts.ways.get(&address)?.state)
        });
        for key in [
            "ipv4/conf/all/arp_ignore",
            "ipv4/conf/all/rp_filter",
            "ipv4/ip_local_port_range",
        ] {
            facts.settings.extend(setting(key));
        }
        Ok(facts)
    }

    /// Links and addresses alone.
    fn of_network(network: &mut HostNetwork) -> io::Result<Self> {
        Ok(Self {
            links: network.links()?,
            addresses: network.addresses()?,
            ..Self::default()
        })
    }

    /// What the checks of [`super::faults`] need, without ways to backends, and without waiting. Asks about no backend by itself, so it
    /// takes as long for thousands of them, except for those in mode l2dsr behind a gateway. Of a veth that was there at the `last` look, it does not look for the peer again, which
    /// takes a walk over all processes.
    ///
    /// # Errors
    /// When the kernel does not answer at all.
    pub(super) fn gather_cheap(setup: &Setup, next_hops: &NextHops, last: Option<&Self>) -> io::Result<Self> {
        let mut network = HostNetwork::open()?;
        let mut facts = Self::of_network(&mut network)?;
        let routes = next_hops.values().filter_map(NextHopState::interface);
        for link in facts.used(setup, routes) {
            let features = network.xdp_features(link.ifindex);
            let driver = network.driver(&link.name).unwrap_or_default();
            let drops = driver == "veth" && features.is_some_and(|features| !features.transmits);
            let device = Device {
                peer: drops
                    .then(|| match last.and_then(|last| last.deaf_veth(&link)) {
                        Some(known) => known.peer.clone(),
                        None => network.peer(&link),
                    })
                    .flatten(),
                driver,
                features,
                ..Device::default()
            };
            facts.devices.insert(link.ifindex, device);
            facts.settings.extend(settings_of(&link.name));
        }
        facts.settings.extend(setting("ipv4/conf/all/arp_ignore"));
        facts.routed = routed(&mut network, setup, |address| next_hops.get(&address));
        Ok(facts)
    }

    /// The device of a veth that dropped what programs send, if the link is still the same.
    fn deaf_veth(&self, link: &HostLink) -> Option<&Device> {
        let is_same = |known: &&HostLink| {
            (known.ifindex, &known.name, known.tied_to) == (link.ifindex, &link.name, link.tied_to)
        };
        self.links.iter().find(is_same)?;
        let device = self.devices.get(&link.ifindex)?;
        let dropped = device.features.is_some_and(|features| !features.transmits);
        (device.driver == "veth" && dropped).then_some(device)
    }

    /// Adds the ways to backends as the daemon knows them.
    pub(super) fn add_ways(&mut self, next_hops: &NextHops) {
        for (address, state) in next_hops {
            let link = state.interface().and_then(|name| self.link(name));
            let way = HostWay {
                state: state.clone(),
                ifindex: link.map_or(0, |link| self.carrier(link).ifindex),
                mtu: link.map_or(0, |link| link.mtu),
                // Only the packets of a probe need it.
                mac: None,
            };
            self.ways.insert(*address, way);
        }
    }

    /// Whether the kernel forwards, by a setting's path below `/proc/sys`; true where it cannot be read.
    pub fn forwards(&self, setting: &str) -> bool {
        self.number(setting.trim_start_matches("net/")) != Some(0)
    }

    /// The link with this name, which may be an alternative one.
    pub fn link(&self, name: &str) -> Option<&HostLink> {
        let mut links = self.links.iter();
        links.find(|link| link.name == name || link.altnames.iter().any(|other| other == name))
    }

    /// The links of the setup's interfaces.
    pub fn interfaces<'a>(&'a self, setup: &'a Setup) -> impl Iterator<Item = &'a HostLink> {
        setup.interfaces.iter().filter_map(|name| self.link(name))
    }

    /// The link that carries the frames of a link: its own, unless it is the link of a VLAN.
    fn carrier<'a>(&'a self, link: &'a HostLink) -> &'a HostLink {
        let below = |link: &'a HostLink| {
            let parent = link.vlan_parent?;
            self.links.iter().find(|link| link.ifindex == parent)
        };
        // Routes through more tags lead to no way.
        let lower = below(link).unwrap_or(link);
        below(lower).unwrap_or(lower)
    }

    /// The setup's interfaces, the links of `routes`, and those that carry their frames.
    fn used<'a>(&self, setup: &Setup, routes: impl Iterator<Item = &'a str>) -> Vec<HostLink> {
        // Many routes share a few links.
        let routes: BTreeSet<&str> = routes.collect();
        let routes = routes.into_iter().filter_map(|name| self.link(name));
        let links = routes.flat_map(|link| [link, self.carrier(link)]);
        let used: BTreeSet<u32> = links
            .chain(self.interfaces(setup))
            .map(|link| link.ifindex)
            .collect();
        let links = self.links.iter().filter(|link| used.contains(&link.ifindex));
        links.cloned().collect()
    }

    /// Whether the network of an address of this machine has another address, too.
    pub fn shares_network(&self, own: IpAddr, other: IpAddr) -> bool {
        let mut owns = self.addresses.iter().filter(|address| address.address == own);
        owns.any(|own| Prefix::around(own.address, own.length).contains(other))
    }

    /// A numeric setting; `None` if it cannot be read.
    pub fn number(&self, setting: &str) -> Option<i64> {
        self.settings.get(setting)?.parse().ok()
    }
}

/// The gateway on the way to an address.
pub(super) fn gateway(address: IpAddr, state: &NextHopState) -> Option<IpAddr> {
    match state {
        NextHopState::Reached { via, .. } | NextHopState::Waiting { via, .. } => {
            (*via != address).then_some(*via)
        }
        NextHopState::Local
        | NextHopState::Unreachable
        | NextHopState::NotEthernet { .. }
        | NextHopState::TooManyTags { .. } => None,
    }
}

/// Backends of mode l2dsr behind a gateway that leads to other addresses, too.
fn routed<'a>(
    network: &mut HostNetwork,
    setup: &Setup,
    way: impl Fn(IpAddr) -> Option<&'a NextHopState>,
) -> BTreeSet<IpAddr> {
    let mut direct = setup.direct_addresses();
    direct.retain(|address| {
        let gateway = way(*address).and_then(|state| gateway(*address, state));
        gateway.is_some() && network.shares_route(*address)
    });
    direct
}

/// Settings of an interface.
fn settings_of(interface: &str) -> impl Iterator<Item = (String, String)> {
    let keys = [
        "ipv4/conf/{}/arp_ignore",
        "ipv4/conf/{}/rp_filter",
        "ipv4/conf/{}/forwarding",
        "ipv6/conf/{}/forwarding",
    ];
    keys.into_iter()
        .filter_map(move |key| setting(&key.replace("{}", interface)))
}

/// A command that sets settings by their paths below `/proc/sys/net`. With slashes, since the names of interfaces may have dots.
pub(super) fn sysctl(settings: &[String], value: i64) -> String {
    let words = settings.iter().map(|setting| format!(" net/{setting}={value}"));
    format!("sysctl -w{}", words.collect::<String>())
}

fn setting(key: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(Path::new("/proc/sys/net").join(key)).ok()?;
    Some((key.to_owned(), text.trim().to_owned()))
}

fn device(network: &mut HostNetwork, link: &HostLink) -> Device {
    let driver = network.driver(&link.name).unwrap_or_default();
    Device {
        features: network.xdp_features(link.ifindex),
        offloads: network.offloads(&link.name),
        queues: network.receive_queues(&link.name),
        spread_over: network.spread_over(&link.name),
        interrupts: interrupt_cpus(&link.name),
        peer: (driver == "veth").then(|| network.peer(link)).flatten(),
        driver,
    }
}

impl Machine {
    fn read(pin_dir: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        Self {
            release: text("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            compiles_bpf: text("/proc/sys/net/core/bpf_jit_enable").map(|value| value.trim() != "0"),
            missing_capabilities: missing_capabilities(),
            sees_programs: sees_programs(),
            pin_obstacle: pin_obstacle(pin_dir),
            other_pins: other_layout(pin_dir),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            open_files: descriptors::limit().map_or(u64::MAX, |limit| limit.rlim_max),
            has_time: has_time(),
        }
    }
}

/// Whether something keeps the clock right (adjtimex(2)).
fn has_time() -> bool {
    // SAFETY: a structure of numbers, for which zero is a value: nothing is to be changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one structure to the place it is given, which lives until the call returns.
    unsafe { libc::adjtimex(&raw mut state) != libc::TIME_ERROR }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        datapath::host_network::{Place, TiedTo},
        doctor::testing::{deafen, facts},
    };

    #[test]
    fn the_peer_of_a_veth_is_remembered_as_long_as_it_is_the_same_pair() {
        let mut last = facts();
        deafen(&mut last, 2);
        let peer = Peer {
            place: Place::Here,
            name: "x1".to_owned(),
            offloads: Offloads::default(),
            is_port: false,
        };
        last.devices.get_mut(&2).unwrap().peer = Some(peer.clone());
        let link = last.links[0].clone();
        assert_eq!(last.deaf_veth(&link).unwrap().peer, Some(peer));
        let tied_to = Some(TiedTo {
            ifindex: 9,
            namespace: None,
        });
        for other in [
            HostLink {
                tied_to,
                ..link.clone()
            },
            HostLink {
                ifindex: 3,
                ..link.clone()
            },
            HostLink {
                name: "x0".to_owned(),
                ..link.clone()
            },
        ] {
            assert_eq!(last.deaf_veth(&other), None, "{other:?}");
        }
        last.devices.get_mut(&2).unwrap().features = None;
        assert_eq!(last.deaf_veth(&link), None, "no peer was looked for");
    }
}
