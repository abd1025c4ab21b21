//! The network around the balancer changes: link-layer addresses, MTU, neighbours, routes, addresses.

use anyhow::Result;
use lb_tests::topology::Family;

use crate::{
    fault::Fault,
    traffic::May,
    world::{DEVICE, World},
};

pub(crate) const ALL: [&Fault; 6] = [&NEW_MAC, &MTU, &NEIGHBOURS, &BACKEND_MAC, &NO_ROUTE, &NO_ADDRESS];

/// The balancer's interface gets another link-layer address, announces it, and goes back.
const NEW_MAC: Fault = Fault {
    name: "MAC address changed",
    may: May::LosePackets,
    act: |world| {
        let ns = world.net.lb.ns.clone();
        there_and_back(world, &ns)
    },
};

/// A backend's does.
const BACKEND_MAC: Fault = Fault {
    name: "MAC address of a backend changed",
    may: May::LosePackets,
    act: |world| {
        let ns = world.net.backends[1].ns.clone();
        for (family, key) in [("ipv4", "arp_notify"), ("ipv6", "ndisc_notify")] {
            ns.sysctl(&format!("net/{family}/conf/all/{key}"), "1")?;
        }
        there_and_back(world, &ns)
    },
};

fn there_and_back(world: &World, ns: &lb_tests::netns::Netns) -> Result<()> {
    let old = ns.mac(DEVICE)?;
    let text = |last: u8| {
        let [a, b, c, d, e, _] = old;
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")
    };
    for last in [old[5] ^ 0x55, old[5]] {
        ns.ip(&format!("link set {DEVICE} address {}", text(last)))?;
        world.traffic.wait_rounds(2)?;
    }
    Ok(())
}

/// The interface takes larger packets for a while, in which tunnels fit without smaller packets from clients.
const MTU: Fault = Fault {
    name: "MTU changed",
    may: May::LosePackets,
    act: |world| {
        // The segment takes them before and after.
        let others = world
            .net
            .backends
            .iter()
            .map(|host| (&host.ns, DEVICE.to_owned()));
        let ports = (0..world.net.backends.len()).map(|number| format!("b{number}"));
        let ports = ports
            .chain(["lb".to_owned()])
            .map(|port| (&world.net.middle, port));
        for (ns, device) in others.chain(ports) {
            ns.ip(&format!("link set {device} mtu {LARGE}"))?;
        }
        for mtu in [LARGE, 1_500] {
            world.net.lb.ns.ip(&format!("link set {DEVICE} mtu {mtu}"))?;
            world.traffic.wait_rounds(3)?;
        }
        Ok(())
    },
};

/// Takes a tunnel's headers around a packet of 1,500 bytes.
const LARGE: u32 = 1_600;

/// The kernel forgets all neighbours.
const NEIGHBOURS: Fault = Fault {
    name: "neighbours forgotten",
    may: May::LoseNothing,
    act: |world| {
        let ns = world.net.lb.ns.clone();
        for _ in 0..3 {
            ns.run("ip", &["-4", "neigh", "flush", "all"])?;
            ns.run("ip", &["-6", "neigh", "flush", "all"])?;
            world.traffic.wait_rounds(1)?;
        }
        Ok(())
    },
};

/// A backend has no route for a while: it takes no new flows, and its flows wait.
const NO_ROUTE: Fault = Fault {
    name: "route to a backend gone and back",
    may: May::LosePackets,
    act: |world| {
        let ns = world.net.lb.ns.clone();
        let routes = Family::BOTH.map(|family| {
            let bits = if family == Family::V4 { 32 } else { 128 };
            format!("unreachable {}/{bits}", world.net.backends[2].ip(family))
        });
        for route in &routes {
            ns.ip(&format!("route add {route}"))?;
        }
        let reported = world
            .wait_event("\"reach\"")
            .and_then(|()| world.wait_status("no route"));
        for route in &routes {
            ns.ip(&format!("route del {route}"))?;
        }
        reported
    },
};

/// The balancer's own addresses, which mode `nat` sends from, are gone for a while.
const NO_ADDRESS: Fault = Fault {
    name: "address gone and back",
    may: May::LosePackets,
    act: |world| {
        let ns = world.net.lb.ns.clone();
        let addresses = Family::BOTH.map(|family| {
            let bits = if family == Family::V4 { 24 } else { 64 };
            format!("{}/{bits} dev {DEVICE}", world.net.lb.ip(family))
        });
        for address in &addresses {
            ns.ip(&format!("addr del {address}"))?;
        }
        let reported = world.wait_event("\"fault\"");
        for address in &addresses {
            let suffix = if address.contains(':') { " nodad" } else { "" };
            ns.ip(&format!("addr add {address}{suffix}"))?;
        }
        reported
    },
};
