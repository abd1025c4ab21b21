//! Tables of flows that are full, in both families: flows of mode `nat`, and the recorded flows of the other modes.

use std::{
    net::SocketAddr,
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use lb_common::{
    limits::{LAYOUT_VERSION, MAX_SEEN, MAX_TRACKED},
    map_names::{TRACKED_V4, TRACKED_V6},
};
use lb_tests::{
    config::{Service, file},
    flood::{self, FlowFrame},
    test_run::Program,
    topology::Family,
    wait,
};

use crate::{
    fault::Fault,
    traffic::May,
    world::{DEVICE, World, configuration},
};

pub(crate) const ALL: [&Fault; 3] = [&SOURCE_PORTS, &FORGETTING, &TRACKED];

/// Modes that record flows in the same tables.
const RECORDING: [&str; 4] = ["dnat", "l2dsr", "ipip", "gue"];
/// Bytes of an entry at least: its head in the kernel's table, and a key.
const LEAST: u64 = 64;
/// Longest wait for packets of a flood.
const LIMIT: Duration = Duration::from_secs(60);
/// The last part of the first flooded service's address.
const FIRST: u8 = 30;
/// A port on which no server listens, and whose datagrams backends drop: their errors would take time from everything else.
const PORT: u16 = 9;
const DROP: &str =
    "table netdev full { chain c { type filter hook ingress device eth0 priority 0; udp dport 9 drop; }; }";

/// More flows of mode `nat` than there are source ports to three backends.
const SOURCE_PORTS: Fault = Fault {
    name: "source ports used up",
    may: May::LosePackets,
    act: |world| {
        flooded(world, |world| {
            for family in Family::BOTH {
                send(world, family, "nat", 120_000)?;
                let service = name("nat", family);
                let gave_way = world
                    .daemon
                    .metrics()?
                    .count("lb_service_flows_gave_way_total", &[("service", &service)]);
                println!("{service}: {gave_way} half-open flows gave way");
                ensure!(gave_way > 0, "{service}: none gave way");
            }
            Ok(())
        })
    },
};

/// The tables that forget the oldest: more flows with one datagram each than they hold.
pub(crate) const FORGETTING: Fault = Fault {
    name: "tables of single packets full",
    may: May::LosePackets,
    act: |world| {
        const FLOWS: u32 = MAX_SEEN / 2;
        flooded(world, |world| {
            for family in Family::BOTH {
                for mode in RECORDING {
                    send(world, family, mode, FLOWS)?;
                }
            }
            let services = Family::BOTH.map(|family| RECORDING.map(|mode| name(mode, family)));
            wait::until_true("half of them reach each service", LIMIT, || {
                let metrics = world.daemon.metrics()?;
                let packets =
                    |service: &String| metrics.count("lb_service_packets_total", &[("service", service)]);
                Ok(services
                    .iter()
                    .flatten()
                    .all(|service| packets(service) >= u64::from(FLOWS / 2)))
            })?;
            change_backends(world)
        })
    },
};

/// The tables of flows that go on: more than they hold, which take no more then.
const TRACKED: Fault = Fault {
    name: "tables of recorded flows full",
    may: May::LosePackets,
    act: |world| {
        const FLOWS: u32 = MAX_TRACKED / 4 + 1_000;
        flooded(world, |world| {
            for (family, table) in [(Family::V4, TRACKED_V4), (Family::V6, TRACKED_V6)] {
                for mode in RECORDING {
                    run(world, family, mode, 0..FLOWS)?;
                }
                let full = bytes(world, table)?;
                run(world, family, RECORDING[0], FLOWS..FLOWS + 1_000)?;
                println!("{table}: {} MB", full >> 20);
                ensure!(
                    full > u64::from(MAX_TRACKED) * LEAST && bytes(world, table)? == full,
                    "{table} has room at {full} bytes"
                );
            }
            change_backends(world)
        })
    },
};

/// Has services of every mode that record each flow, while `act` floods them.
fn flooded(world: &mut World, act: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    let apply = |name: &str, text: &str| {
        let file = world.daemon.dir().write(name, text)?;
        world.cli().ok(&format!("apply {} --wait --yes", file.display()))
    };
    let without = configuration(&world.net);
    let services: Vec<Service> = Family::BOTH
        .into_iter()
        .flat_map(|family| services(world, family))
        .collect();
    for host in &world.net.backends {
        host.ns.run_with_input("nft", &["-f", "-"], DROP)?;
    }
    apply("full.toml", &format!("{without}{}", file(&services)))?;
    let acted = act(world);
    apply("usual.toml", &without)?;
    for host in &world.net.backends {
        host.ns.run("nft", &["delete", "table", "netdev", "full"])?;
    }
    acted
}

fn services(world: &World, family: Family) -> impl Iterator<Item = Service> {
    let modes = RECORDING.into_iter().chain(["nat"]);
    modes.map(move |mode| {
        let tracking = if mode == "nat" { "" } else { "tracking = \"full\"" };
        let service = Service::udp(&name(mode, family), address(world, family, mode))
            .keys(&format!("mode = \"{mode}\"\n{tracking}"))
            .health("kind = \"none\"");
        let hosts = world.net.backends.iter().enumerate();
        hosts.fold(service, |service, (number, host)| {
            service.backend(&format!("b{number}"), host.socket(family, PORT), 1)
        })
    })
}

fn name(mode: &str, family: Family) -> String {
    format!("full-{mode}-{family:?}").to_lowercase()
}

fn address(world: &World, family: Family, mode: &str) -> SocketAddr {
    let place = RECORDING.iter().position(|other| *other == mode);
    let place = place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(0);
    SocketAddr::new(world.net.vip(family, FIRST + place), PORT)
}

/// Sends a datagram of this many flows to the service of a mode.
fn send(world: &World, family: Family, mode: &str, flows: u32) -> Result<()> {
    let to = address(world, family, mode);
    let next_hop = world.net.lb.ns.mac(DEVICE)?;
    flood::udp_flows(&world.net.client.ns, "eth0", next_hop, to, 0..flows)
}

/// Runs the program on two datagrams of this many flows to the service of a mode: as many over the network take minutes on a busy machine.
fn run(world: &World, family: Family, mode: &str, flows: Range<u32>) -> Result<()> {
    let ns = &world.net.lb.ns;
    let mut frame = FlowFrame::new(ns.mac(DEVICE)?, address(world, family, mode))?;
    let ifindex = ns.ifindex(DEVICE)?;
    let program = Program::by_id(world.program()?.parse()?)?;
    ns.enter(|| {
        let mut runner = program.runner_on(ifindex);
        for flow in flows {
            for _ in 0..2 {
                runner.run(frame.of(flow))?;
            }
        }
        Ok(())
    })?
}

/// Bytes of a table, which grows with its entries, as the kernel states them.
fn bytes(world: &World, table: &str) -> Result<u64> {
    let pin = world.daemon.pin_dir().join(format!("v{LAYOUT_VERSION}/{table}"));
    let map = MapData::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
    let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(info)?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.context("no memlock in fdinfo")?.trim().parse()?)
}

/// Slots change hands, and back, while no flow can be recorded: established flows stay where they are all the same.
fn change_backends(world: &World) -> Result<()> {
    let cli = world.cli();
    let services = || world.services.iter().filter(|name| !name.starts_with("nat"));
    for change in ["drain", "enable"] {
        for service in services() {
            cli.ok(&format!("backend {change} {service} b1"))?;
        }
        world.traffic.wait_rounds(3)?;
    }
    Ok(())
}
