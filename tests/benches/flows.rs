//! A million flows in the tables, put there by hand, and `lb flows` about them: seconds, and the daemon's memory before and
//! after. Flows of mode `nat`, as many as fit, half of them of each family.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData},
};
use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    backend::{Backend, BackendId, IN_USE, IPV6},
    flow::{FORWARD, LastHop, NatFlow, NatFlowV4, NatFlowV6, PROVEN, REPLY, Tuple, TupleV4, TupleV6},
    limits::{LAYOUT_VERSION, MAX_FLOWS},
    map_names,
    service::{Mode, TCP},
};
use lb_tests::{
    daemon::Daemon,
    lb_cli::lb_binary,
    site::Site,
    topology::{Family, Shape},
};

/// Flows of each family: what fits beside a few of the bench's own.
const FLOWS: u32 = MAX_FLOWS / 2 - 1_024;
/// Ports of each client.
const PORTS: u32 = 16;
/// Backends of each service.
const BACKENDS: u32 = 4;
/// Runs of each command; the fastest counts.
const RUNS: usize = 3;

fn main() -> Result<()> {
    let site = Site::new(Shape::TwoArmed, 4)?;
    let services = Family::BOTH.map(|family| site.web(family, &[1; BACKENDS as usize]));
    let site = site.start(&services)?;
    site.daemon.wait_for_whole_program()?;
    let began = Instant::now();
    fill(&site)?;
    println!(
        "{} flows of each family put into the tables in {:.1} s",
        FLOWS,
        began.elapsed().as_secs_f64()
    );
    let pid = site.daemon.pid()?;
    println!(
        "{:<44} {:>9} {:>12} {:>16} {:>16}",
        "", "seconds", "output, MB", "daemon, MB", "its most, MB"
    );
    let before = memory(pid, "VmRSS")?;
    println!("{:<44} {:>9} {:>12} {before:>16.1}", "before", "", "");
    for line in [
        "flows list",
        "flows list -o json",
        "flows list --state closing",
        "flows list --client 10.2.0.0/24",
        "flows list --sort age --limit 20",
        "flows count",
        "flows count --by backend",
        "flows count --by client --limit 20",
        "flows flush --all --dry-run",
        "flows flush --all --yes",
    ] {
        let runs = if line.ends_with("--yes") { 1 } else { RUNS };
        // What a command took at most, not one before it.
        fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        let (mut least, mut bytes) = (f64::MAX, 0);
        for _ in 0..runs {
            let path = site.daemon.dir().join("flows");
            let began = Instant::now();
            run(&site.daemon, line, &path)?;
            least = least.min(began.elapsed().as_secs_f64());
            bytes = fs::metadata(&path)?.len();
        }
        println!(
            "lb {line:<41} {least:>9.2} {:>12.1} {:>16.1} {:>16.1}",
            bytes as f64 / 1e6,
            memory(pid, "VmRSS")?,
            memory(pid, "VmHWM")?
        );
    }
    Ok(())
}

/// Runs a command with its output in a file.
fn run(daemon: &Daemon, line: &str, path: &Path) -> Result<()> {
    let mut command = std::process::Command::new(lb_binary()?);
    command
        .env("LB_SOCKET", daemon.socket())
        .args(line.split(' '))
        .stdin(Stdio::null())
        .stdout(File::create(path)?);
    ensure!(command.status()?.success(), "lb {line} failed");
    Ok(())
}

/// An address of a family.
trait Address: Copy {
    fn of(address: IpAddr) -> Self;
    fn check(tuple: &Tuple<Self>) -> u32;
    /// A client of its own for each number.
    fn client(number: u32) -> Self;
}

impl Address for NetV4 {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
    fn check(tuple: &Tuple<Self>) -> u32 {
        tuple.check()
    }
    fn client(number: u32) -> Self {
        Ipv4Addr::from_bits((10 << 24) + (2 << 16) + number).into()
    }
}

impl Address for NetV6 {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V6(v6) => v6.into(),
            IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
    fn check(tuple: &Tuple<Self>) -> u32 {
        tuple.check()
    }
    fn client(number: u32) -> Self {
        Ipv6Addr::from_bits((0x2001_0db8_0002 << 80) + u128::from(number)).into()
    }
}

fn fill(site: &Site) -> Result<()> {
    let pins = site.daemon.pin_dir().join(format!("v{LAYOUT_VERSION}"));
    let map = |name: &str| -> Result<Map> { Ok(Map::from_map_data(MapData::from_pin(pins.join(name))?)?) };
    let records: Array<_, Backend> = Array::try_from(map(map_names::BACKENDS)?)?;
    for family in Family::BOTH {
        let flag = match family {
            Family::V4 => 0,
            Family::V6 => IPV6,
        };
        let mut backends = Vec::new();
        for id in 1..=2 * BACKENDS {
            let record = records.get(&id, 0)?;
            if record.flags & IN_USE != 0 && record.flags & IPV6 == flag && record.mode == Mode::Nat as u8 {
                backends.push((BackendId(u16::try_from(id)?), record));
            }
        }
        ensure!(
            backends.len() == BACKENDS as usize,
            "{family:?}: backends are missing"
        );
        let (vip, port) = (
            site.service_address(family).ip(),
            site.service_address(family).port(),
        );
        match family {
            Family::V4 => {
                let mut table: HashMap<_, TupleV4, NatFlowV4> = HashMap::try_from(map(map_names::FLOWS_V4)?)?;
                fill_table::<NetV4>(&mut table, &backends, (vip, port))?;
            }
            Family::V6 => {
                let mut table: HashMap<_, TupleV6, NatFlowV6> = HashMap::try_from(map(map_names::FLOWS_V6)?)?;
                fill_table::<NetV6>(&mut table, &backends, (vip, port))?;
            }
        }
    }
    Ok(())
}

/// Established flows, as the program records them.
fn fill_table<A: Address>(
    table: &mut HashMap<MapData, Tuple<A>, NatFlow<A>>,
    backends: &[(BackendId, Backend)],
    (vip, port): (IpAddr, u16),
) -> Result<()>
where
    Tuple<A>: Pod,
    NatFlow<A>: Pod,
{
    let now = monotonic()?;
    for number in 0..FLOWS {
        let at = number as usize % backends.len();
        let (id, record) = backends.get(at).context("no backend")?;
        let client = A::client(number / PORTS);
        let client_port = NetPort::new(u16::try_from(40_000 + number % PORTS)?);
        // Of each backend another source address would be needed; here the address varies with the port.
        let source = A::client(number / 30_000 + (1 << 16));
        let source_port = NetPort::new(u16::try_from(1_024 + number % 30_000)?);
        let tuple = Tuple::new(client, A::of(vip), client_port, NetPort::new(port), TCP);
        let forward = NatFlow {
            src: source,
            dst: A::of(record.address.to_ip()),
            src_port: source_port,
            dst_port: record.port,
            ip_delta: 0,
            l4_delta: 0,
            check: A::check(&tuple),
            backend: *id,
            generation: record.generation,
            service: record.service,
            direction: FORWARD,
            state: PROVEN,
            last_seen: now,
            last_hop: LastHop::default(),
            handshake: now.wrapping_mul(1_000),
        };
        let reply_tuple = forward.peer(TCP);
        let reply = NatFlow {
            src: tuple.dst,
            dst: tuple.src,
            src_port: tuple.dst_port,
            dst_port: tuple.src_port,
            check: A::check(&reply_tuple),
            direction: REPLY,
            handshake: 1,
            ..forward
        };
        table.insert(reply_tuple, reply, 0)?;
        table.insert(tuple, forward, 0)?;
    }
    Ok(())
}

/// Seconds on the clock of flows.
fn monotonic() -> Result<u32> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split('.').next().context("no uptime")?;
    Ok(seconds.parse()?)
}

/// Megabytes of a field of a process's status.
fn memory(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes: f64 = line
        .context("no such field")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kilobytes / 1e3)
}
