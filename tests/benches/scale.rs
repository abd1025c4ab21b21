//! The balancer at its limits: 4,096 services with 65,535 backends, half of the services of each family. Packets
//! through the program reach backends of every service; times and memory are printed.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use lb_common::limits::{MAX_BACKENDS, MAX_SERVICES};
use lb_tests::{
    daemon::Daemon,
    lb_cli::LbCli,
    test_run::Program,
    topology::{Family, Shape, Topology},
    wait,
};

/// Backends, each of one service.
const BACKENDS: u32 = MAX_BACKENDS - 1;
/// Of each service but the last, which has one less.
const EACH: u32 = MAX_BACKENDS / MAX_SERVICES;
/// Packets to each service, of a flow each.
const PACKETS: u16 = 8;
/// Limit until the whole change is programmed.
const PATIENCE: Duration = Duration::from_secs(600);
/// After which the daemon has given back the memory of a change.
const SETTLED: Duration = Duration::from_secs(3);
/// XDP actions that send a packet (`enum xdp_action` of linux/bpf.h).
const SENT: [u32; 2] = [3, 4];

fn main() -> Result<()> {
    let net = Topology::new(Shape::TwoArmed, 1)?;
    // All backends behind one router.
    let router = net.backends[0].ip(Family::V4);
    net.lb.ns.ip(&format!("route add 10.64.0.0/16 via {router}"))?;
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?;
    daemon.start()?;
    let cli = daemon.cli();
    println!(
        "{:<34} {:>9} {:>12} {:>14} {:>11}",
        "", "seconds", "daemon, MB", "ring pages", "pages, MB"
    );
    let row = |what: &str, began: Instant| -> Result<()> {
        let seconds = began.elapsed().as_secs_f64();
        let (count, bytes) = ring_pages()?;
        println!(
            "{what:<34} {seconds:>9.2} {:>12.1} {count:>14} {:>11.1}",
            resident(daemon.pid()?)?,
            bytes / 1e6
        );
        Ok(())
    };
    row("no service", Instant::now())?;
    for services in [MAX_SERVICES / 16, MAX_SERVICES] {
        let began = Instant::now();
        apply(&daemon, &cli, services)?;
        row(&format!("{services} services applied"), began)?;
    }
    let began = Instant::now();
    let (flows, backends) = ask_all(&daemon, &net)?;
    row(&format!("{flows} flows to {backends} backends"), began)?;
    let began = Instant::now();
    cli.ok("backend set s7 b113 --weight 3")?;
    row("one backend's weight changed", began)?;
    let began = Instant::now();
    cli.ok("status")?;
    row("lb status", began)?;
    let began = Instant::now();
    daemon.metrics()?;
    row("/metrics", began)?;
    let began = Instant::now();
    apply(&daemon, &cli, 1)?;
    row("1 service left", began)?;
    let began = Instant::now();
    wait::pace(SETTLED);
    row("some time later", began)?;
    daemon.stop()
}

fn address(service: u32) -> IpAddr {
    let [.., high, low] = service.to_be_bytes();
    if service.is_multiple_of(2) {
        Ipv4Addr::new(10, 100, high, low).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, u16::from_be_bytes([high, low])).into()
    }
}

/// The numbers of a service's backends.
fn backends(service: u32) -> std::ops::RangeInclusive<u32> {
    1 + service * EACH..=((service + 1) * EACH).min(BACKENDS)
}

/// Makes the first services all there are, and waits until they are programmed.
fn apply(daemon: &Daemon, cli: &LbCli, services: u32) -> Result<()> {
    let mut text = String::new();
    for service in 0..services {
        writeln!(
            text,
            "[[service]]\nname = \"s{service}\"\naddress = \"{}\"\nport = 80\nprotocol = \"tcp\"\nmode = \"ipip\"\n\
             [service.health]\nkind = \"none\"",
            address(service)
        )?;
        for number in backends(service) {
            let [.., high, low] = number.to_be_bytes();
            writeln!(
                text,
                "[[service.backend]]\nname = \"b{number}\"\naddress = \"10.64.{high}.{low}:80\""
            )?;
        }
    }
    let file = daemon.write_config(&text)?;
    cli.ok(&format!("apply {} --wait", file.display()))?;
    wait::until_true("all of it is programmed", PATIENCE, || {
        let status = cli.json("status")?;
        let listed = status["services"].as_array().context("no services")?;
        Ok(listed.len() == services as usize && listed.iter().all(|service| service["programmed"] == true))
    })
}

/// Sends packets to every service, each of which must reach a backend of it. Returns the number of packets, and of
/// backends that got one.
fn ask_all(daemon: &Daemon, net: &Topology) -> Result<(u32, usize)> {
    daemon.wait_for_whole_program()?;
    let status = daemon.cli().json("status")?;
    let id = status["interfaces"][0]["program_id"]
        .as_u64()
        .context("no program")?;
    let program = Program::by_id(u32::try_from(id)?)?;
    let mut seen = std::collections::BTreeSet::new();
    let asked = net.lb.ns.enter(|| -> Result<u32> {
        let mut runner = program.runner();
        let mut asked = 0;
        for service in 0..MAX_SERVICES {
            for port in 40_000..40_000 + PACKETS {
                let (action, output) = runner.run(&syn(port, SocketAddr::new(address(service), 80))?)?;
                ensure!(SENT.contains(&action), "service {service}: action {action}");
                // The destination of the outer header.
                let to: [u8; 4] = output.get(30..34).context("no outer header")?.try_into()?;
                let [net, second, high, low] = to;
                let number = u32::from_be_bytes([0, 0, high, low]);
                ensure!(
                    (net, second) == (10, 64) && backends(service).contains(&number),
                    "service {service}: went to {}",
                    Ipv4Addr::from(to)
                );
                seen.insert(number);
                asked += 1;
            }
        }
        Ok(asked)
    })??;
    // Flows of a service spread.
    ensure!(seen.len() > asked as usize / 2, "only {} backends", seen.len());
    Ok((asked, seen.len()))
}

fn syn(port: u16, to: SocketAddr) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match to.ip() {
        IpAddr::V4(to) => ethernet.ipv4([198, 51, 100, 7], to.octets(), 64),
        IpAddr::V6(to) => {
            let from = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
            ethernet.ipv6(from.octets(), to.octets(), 64)
        }
    };
    let mut frame = Vec::new();
    ip.tcp(port, to.port(), 1, 4_096).syn().write(&mut frame, b"")?;
    Ok(frame)
}

/// Megabytes of a process that are in memory.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 = line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1e3)
}

/// Pages of rings in the kernel, of this machine's balancers together, and their bytes.
fn ring_pages() -> Result<(u32, f64)> {
    let (mut count, mut bytes) = (0, 0.0);
    for map in aya::maps::loaded_maps() {
        // Maps go while they are listed.
        let Ok(map) = map else { continue };
        if map.name_as_str() == Some("RING") {
            count += 1;
            bytes += f64::from(map.max_entries()) * f64::from(map.value_size());
        }
    }
    Ok((count, bytes))
}
