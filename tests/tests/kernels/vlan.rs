//! Every mode, with the backend behind the kernel's own VLAN devices.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    decap::Decap,
    http::HttpServer,
    lane::Lane,
    netns::Netns,
    topology::{Family, Shape, Topology},
};

use super::{MODES, PORT, keeps_address, print_verified, request_all, wait_for_backends};

/// Of the backends' link, and of their own network in it.
const VLAN: u16 = 10;
const HEALTH: &str = "kind = \"http\"\nthrough = \"vip\"\ntimeout = \"10s\"";

/// The address of host `n` in the VLAN.
fn in_vlan(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 10, 0, n].into(),
        Family::V6 => [0xfd10, 0, 0, 0, 0, 0, 0, n.into()].into(),
    }
}

/// Puts a VLAN device on a host's link.
fn join_vlan(ns: &Netns, n: u8) -> Result<()> {
    let (v4, v6) = (in_vlan(Family::V4, n), in_vlan(Family::V6, n));
    ns.ip(&format!(
        "link add link eth0 name vlan type vlan id {VLAN}\nlink set vlan up\n\
         addr add {v4}/24 dev vlan\naddr add {v6}/64 dev vlan nodad"
    ))
}

/// A balancer with a service of each mode in each family.
pub(super) struct World {
    pub(super) net: Topology,
    pub(super) daemon: Daemon,
    _servers: Vec<HttpServer>,
    _decap: Decap,
}

/// Begins to forward to a backend in the VLAN, whose checks succeed.
pub(super) fn world() -> Result<World> {
    let net = Topology::new(Shape::OneArmed, 1)?;
    let backend = &net.backends[0].ns;
    join_vlan(&net.lb.ns, 1)?;
    join_vlan(backend, 10)?;
    // It never announces services. Its answers go to clients themselves, which are not in the VLAN, but for those of mode dnat.
    backend.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    backend.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    for (family, option) in [(Family::V4, ""), (Family::V6, "-6 ")] {
        let [own, balancer] = [10, 1].map(|n| in_vlan(family, n));
        backend.run("sh", &["-ec", &format!(
            "ip {option}rule add from {own} table 100 && ip {option}route add default via {balancer} table 100"
        )])?;
    }
    // Replies of mode dnat are routed.
    net.forward_in_kernel()?;
    let mut services = Vec::new();
    let mut servers = Vec::new();
    for family in Family::BOTH {
        let address = SocketAddr::new(in_vlan(family, 10), PORT);
        let mut addresses = vec![address];
        for (mode, n) in MODES {
            let vip = SocketAddr::new(net.vip(family, n), PORT);
            if keeps_address(mode) {
                let bits = if vip.is_ipv4() { 32 } else { 128 };
                backend.ip(&format!("addr add {}/{bits} dev lo nodad", vip.ip()))?;
                addresses.push(vip);
            }
            // Two services cannot have one endpoint in mode dnat.
            let mut at = address;
            if mode == "dnat" {
                at.set_port(PORT + 1);
                addresses.push(at);
            }
            let service = Service::tcp(&format!("{mode}-{family:?}"), vip)
                .keys(&format!("mode = \"{mode}\""))
                .health(HEALTH);
            services.push(service.backend("b0", at, 1));
        }
        servers.push(HttpServer::start(backend, "b0", &addresses)?);
    }
    let balancer = Family::BOTH.map(|family| in_vlan(family, 1).to_string());
    // Attached to the link below the VLAN: that is where tagged frames arrive.
    let decap = Decap::start(backend, "eth0", &balancer)?;
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
    daemon.start()?;
    wait_for_backends(&daemon)?;
    Ok(World {
        net,
        daemon,
        _servers: servers,
        _decap: decap,
    })
}

#[test]
fn every_mode_reaches_a_backend_behind_a_vlan_of_the_kernel() -> Result<()> {
    let _lane = Lane::shared()?;
    let World { net, daemon, .. } = &mut world()?;
    request_all(net, &MODES)?;
    daemon.wait_for_whole_program()?;
    print_verified()?;
    let metrics = daemon.metrics()?;
    ensure!(metrics.count("lb_drops_total", &[]) == 0, "packets were dropped");
    daemon.stop()
}
