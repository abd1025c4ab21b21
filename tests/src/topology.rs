//! Whole networks: a client, the balancer, N backends, both families, on veth pairs.
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | services (local to the balancer) | 192.0.2.0/24 | 2001:db8:9::/64 |
//! | client | 10.1.0.2 | fd01::2 |
//! | backend i, from 0 | 10.2.0.(10+i) | fd02::(10+i) |
//!
//! On one segment (`OneArmed`) all machines are in 10.1.0.0/24 and fd01::/64, backends there at (10+i).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{netns::Netns, ping::ping, xdp_pass::PassProgram};

/// How the parts are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// All on one segment; the balancer has one interface, `eth0`.
    OneArmed,
    /// The balancer stands between: `front` towards the client, `back` towards the backends' segment.
    TwoArmed,
    /// Client, balancer (`eth0`) and backends each on a segment of their own behind one router.
    Routed,
}

/// Address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// How `nft` and `ip` name it in matches.
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// A machine of the network.
pub struct Host {
    /// Where it lives.
    pub ns: Netns,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Host {
    fn new(role: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Self> {
        let ns = Netns::new(role)?;
        Ok(Self { ns, v4, v6 })
    }

    /// Its address of one family.
    pub fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Its address with a port.
    pub fn socket(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }
}

/// A network that stands. Dropping it takes it down.
pub struct Topology {
    /// How it is joined.
    pub shape: Shape,
    /// The client, with `eth0`.
    pub client: Host,
    /// The balancer.
    pub lb: Host,
    /// The backends, each with `eth0`.
    pub backends: Vec<Host>,
    /// The bridge or router in the middle. Its ports are `client`, `lb` and `b0`, `b1`, …
    pub middle: Netns,
    passes: Vec<PassProgram>,
}

impl Topology {
    /// Builds a network with this number of backends (at most 200).
    ///
    /// # Errors
    /// Without root, or when the kernel refuses a part.
    pub fn new(shape: Shape, backends: u8) -> Result<Self> {
        Self::joined(shape, backends, None)
    }

    /// Builds a network on one segment, to which two network cards of this machine join the balancer: its own, and the segment's, with a
    /// link between them outside of the machine.
    ///
    /// # Errors
    /// As [`Topology::new`], and when there are no such cards.
    pub fn with_cards(cards: [&str; 2], backends: u8) -> Result<Self> {
        Self::joined(Shape::OneArmed, backends, Some(cards))
    }

    fn joined(shape: Shape, backends: u8, cards: Option<[&str; 2]>) -> Result<Self> {
        let backend_net = if shape == Shape::OneArmed { 1 } else { 2 };
        let lb_net = if shape == Shape::Routed { 3 } else { 1 };
        let lb_host = if shape == Shape::Routed { 2 } else { 1 };
        let mut topology = Self {
            shape,
            client: Host::new("client", v4(1, 2), v6(1, 2))?,
            lb: Host::new("lb", v4(lb_net, lb_host), v6(lb_net, lb_host))?,
            backends: (0..backends)
                .map(|i| Host::new(&format!("b{i}"), v4(backend_net, 10 + i), v6(backend_net, 10 + i)))
                .collect::<Result<_>>()?,
            middle: Netns::new("middle")?,
            passes: Vec::new(),
        };
        match shape {
            Shape::OneArmed => topology.join_one_armed(cards)?,
            Shape::TwoArmed => topology.join_two_armed()?,
            Shape::Routed => topology.join_routed()?,
        }
        topology.make_services_local()?;
        topology.let_senders_compute_checksums()?;
        topology.make_links_lossless()?;
        topology.fill_neighbours()?;
        Ok(topology)
    }

    /// Interfaces of the balancer, the client's first.
    pub fn lb_interfaces(&self) -> &'static [&'static str] {
        match self.shape {
            Shape::OneArmed | Shape::Routed => &["eth0"],
            Shape::TwoArmed => &["front", "back"],
        }
    }

    /// Takes the XDP programs from the other ends of the balancer's links, so that the kernel refuses frames which the balancer
    /// redirects there.
    pub fn refuse_redirected_frames(&mut self) {
        self.passes.clear();
    }

    /// An address for a service; `n` at least 1.
    pub fn vip(&self, family: Family, n: u8) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(192, 0, 2, n).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, n.into()).into(),
        }
    }

    /// Lets the balancer's kernel forward packets that its XDP program passes.
    ///
    /// # Errors
    /// When a sysctl refuses.
    pub fn forward_in_kernel(&self) -> Result<()> {
        self.lb.ns.sysctl("net/ipv4/conf/all/forwarding", "1")?;
        self.lb.ns.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    fn join_one_armed(&mut self, cards: Option<[&str; 2]>) -> Result<()> {
        bridge(&self.middle)?;
        for (host, port) in self.hosts() {
            match cards {
                Some([own, other]) if port == "lb" => {
                    take_card(own, &host.ns, "eth0")?;
                    take_card(other, &self.middle, &port)?;
                }
                _ => veth(&host.ns, "eth0", &self.middle, &port)?,
            }
            self.middle.ip(&format!("link set {port} master br0"))?;
            address(&host.ns, "eth0", host.v4, host.v6)?;
        }
        route_services(&self.client.ns, self.lb.v4, self.lb.v6)?;
        match cards {
            Some(_) => Ok(()),
            None => self.pass_at_middle("lb"),
        }
    }

    /// Recreates the pair between the client and the balancer of [`Shape::TwoArmed`], with its configuration.
    ///
    /// # Errors
    /// When the old one is still there.
    pub fn recreate_front(&mut self) -> Result<()> {
        veth(&self.client.ns, "eth0", &self.lb.ns, "front")?;
        address(&self.client.ns, "eth0", self.client.v4, self.client.v6)?;
        self.address_front()?;
        default_route(&self.client.ns, 1)?;
        for (ns, device) in [(&self.client.ns, "eth0"), (&self.lb.ns, "front")] {
            ns.run("ethtool", &["-K", device, "tx", "off"])?;
        }
        self.passes.push(PassProgram::attach(&self.client.ns, "eth0")?);
        Ok(())
    }

    /// Recreates the balancer's interface of [`Shape::OneArmed`], with its configuration and this link-layer address.
    ///
    /// # Errors
    /// When the old one is still there.
    pub fn recreate_one_arm(&mut self, mac: &str) -> Result<()> {
        veth(&self.lb.ns, "eth0", &self.middle, "lb")?;
        self.middle.ip("link set lb master br0")?;
        self.lb.ns.ip(&format!("link set eth0 address {mac}"))?;
        address(&self.lb.ns, "eth0", self.lb.v4, self.lb.v6)?;
        self.lb.ns.run("ethtool", &["-K", "eth0", "tx", "off"])?;
        for (ns, device) in [(&self.lb.ns, "eth0"), (&self.middle, "lb")] {
            ns.run(
                "tc",
                &["qdisc", "add", "dev", device, "root", "pfifo", "limit", "10000"],
            )?;
        }
        self.pass_at_middle("lb")
    }

    /// Has the kernel take frames that a program redirects out of the client's interface.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_frames_of_client(&mut self) -> Result<()> {
        self.pass_at_middle("client")
    }

    /// Gives the balancer's interface towards the client of [`Shape::TwoArmed`] its addresses.
    ///
    /// # Errors
    /// When it has them.
    pub fn address_front(&self) -> Result<()> {
        address(&self.lb.ns, "front", v4(1, 1), v6(1, 1))
    }

    fn join_two_armed(&mut self) -> Result<()> {
        bridge(&self.middle)?;
        veth(&self.client.ns, "eth0", &self.lb.ns, "front")?;
        veth(&self.lb.ns, "back", &self.middle, "lb")?;
        self.middle.ip("link set lb master br0")?;
        address(&self.client.ns, "eth0", self.client.v4, self.client.v6)?;
        address(&self.lb.ns, "front", v4(1, 1), v6(1, 1))?;
        address(&self.lb.ns, "back", v4(2, 1), v6(2, 1))?;
        default_route(&self.client.ns, 1)?;
        for (i, backend) in self.backends.iter().enumerate() {
            let port = format!("b{i}");
            veth(&backend.ns, "eth0", &self.middle, &port)?;
            self.middle.ip(&format!("link set {port} master br0"))?;
            address(&backend.ns, "eth0", backend.v4, backend.v6)?;
            default_route(&backend.ns, 2)?;
        }
        self.pass_at_middle("lb")?;
        self.passes.push(PassProgram::attach(&self.client.ns, "eth0")?);
        Ok(())
    }

    fn join_routed(&mut self) -> Result<()> {
        bridge(&self.middle)?;
        self.middle.sysctl("net/ipv4/conf/all/forwarding", "1")?;
        self.middle.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        for (host, port) in self.hosts() {
            veth(&host.ns, "eth0", &self.middle, &port)?;
            if port.starts_with('b') {
                self.middle.ip(&format!("link set {port} master br0"))?;
            }
            address(&host.ns, "eth0", host.v4, host.v6)?;
        }
        for (device, net) in [("client", 1), ("br0", 2), ("lb", 3)] {
            address(&self.middle, device, v4(net, 1), v6(net, 1))?;
        }
        default_route(&self.client.ns, 1)?;
        default_route(&self.lb.ns, 3)?;
        for backend in &self.backends {
            default_route(&backend.ns, 2)?;
        }
        route_services(&self.middle, self.lb.v4, self.lb.v6)?;
        self.pass_at_middle("lb")
    }

    /// Every host with the name of its port in the middle.
    fn hosts(&self) -> impl Iterator<Item = (&Host, String)> {
        let ends = [(&self.client, "client".to_owned()), (&self.lb, "lb".to_owned())];
        let backends = self
            .backends
            .iter()
            .enumerate()
            .map(|(i, host)| (host, format!("b{i}")));
        ends.into_iter().chain(backends)
    }

    fn pass_at_middle(&mut self, port: &str) -> Result<()> {
        self.passes.push(PassProgram::attach(&self.middle, port)?);
        Ok(())
    }

    /// Packets that pass the program arrive at the balancer's own sockets, as on a machine that holds the VIP.
    fn make_services_local(&self) -> Result<()> {
        self.lb
            .ns
            .ip("route add local 192.0.2.0/24 dev lo\nroute add local 2001:db8:9::/64 dev lo")
    }

    /// Between namespaces no device completes a partial checksum, so the senders compute it.
    fn let_senders_compute_checksums(&self) -> Result<()> {
        let lb = self.lb_interfaces().iter().map(|device| (&self.lb.ns, *device));
        let ends = self
            .backends
            .iter()
            .chain([&self.client])
            .map(|host| (&host.ns, "eth0"));
        for (ns, device) in ends.chain(lb) {
            ns.run("ethtool", &["-K", device, "tx", "off"])?;
        }
        Ok(())
    }

    /// A full veth ring drops packets, which would disturb tests. A queue in front of it slows the sender instead.
    fn make_links_lossless(&self) -> Result<()> {
        for (host, port) in self.hosts() {
            let devices: &[&str] = if port == "lb" {
                self.lb_interfaces()
            } else {
                &["eth0"]
            };
            for device in devices {
                host.ns.run(
                    "tc",
                    &["qdisc", "add", "dev", device, "root", "pfifo", "limit", "10000"],
                )?;
            }
            if self.shape != Shape::TwoArmed || port != "client" {
                self.middle.run(
                    "tc",
                    &["qdisc", "add", "dev", &port, "root", "pfifo", "limit", "10000"],
                )?;
            }
        }
        Ok(())
    }

    /// Fills neighbour tables of all pairs, so that the first packet of a test is not special.
    fn fill_neighbours(&self) -> Result<()> {
        for (host, _) in self.hosts() {
            host.ns.wait_for_addresses()?;
        }
        for family in Family::BOTH {
            ping(&self.client.ns, self.vip(family, 1))?;
            for backend in &self.backends {
                ping(&self.lb.ns, backend.ip(family))?;
            }
        }
        Ok(())
    }
}

/// Counters of a device as the kernel keeps them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
}

/// Reads a device's counters.
///
/// # Errors
/// When the device is not there.
pub fn device_counters(ns: &Netns, device: &str) -> Result<DeviceCounters> {
    let links: serde_json::Value =
        serde_json::from_str(&ns.run("ip", &["-s", "-j", "link", "show", "dev", device])?)?;
    let read = |direction: &str| {
        links[0]["stats64"][direction]["packets"]
            .as_u64()
            .with_context(|| format!("no {direction} counter of {device}"))
    };
    Ok(DeviceCounters {
        rx_packets: read("rx")?,
        tx_packets: read("tx")?,
    })
}

/// Joins two namespaces by a veth pair, both ends up.
///
/// # Errors
/// When a name is taken.
pub fn veth(a: &Netns, a_device: &str, b: &Netns, b_device: &str) -> Result<()> {
    a.ip(&format!(
        "link add {a_device} type veth peer name {b_device} netns {}\nlink set {a_device} up",
        b.name()
    ))?;
    b.ip(&format!("link set {b_device} up"))
}

/// Moves a network card of this machine into a namespace, under another name. It comes back when the namespace ends.
fn take_card(card: &str, ns: &Netns, device: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(["link", "set", card, "netns", ns.name(), "name", device])
        .output()
        .context("start ip")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "move {card} into a namespace: {errors}");
    ns.ip(&format!("link set {device} up"))
}

fn bridge(ns: &Netns) -> Result<()> {
    // No multicast querier and no spanning tree: the bridge itself sends nothing.
    ns.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up")
}

fn address(ns: &Netns, device: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    ns.ip(&format!(
        "addr add {v4}/24 dev {device}\naddr add {v6}/64 dev {device} nodad"
    ))
}

fn default_route(ns: &Netns, net: u8) -> Result<()> {
    ns.ip(&format!(
        "route add default via {}\nroute add ::/0 via {}",
        v4(net, 1),
        v6(net, 1)
    ))
}

fn route_services(ns: &Netns, via4: Ipv4Addr, via6: Ipv6Addr) -> Result<()> {
    ns.ip(&format!(
        "route add 192.0.2.0/24 via {via4}\nroute add 2001:db8:9::/64 via {via6}"
    ))
}

fn v4(net: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, net, 0, host)
}

fn v6(net: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00 + u16::from(net), 0, 0, 0, 0, 0, 0, host.into())
}
