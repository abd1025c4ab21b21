//! What open pages cost the daemon: processor time, bytes and memory by their number, with 1,000 backends that are checked every
//! two seconds, and whose service is opened on each page.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    daemon::{Daemon, METRICS},
    http::HttpServer,
    topology::{Family, Shape, Topology},
    wait,
};

const BACKENDS: u32 = 1_000;
const PORT: u16 = 8080;
/// Numbers of pages: the last is more than the daemon serves at once.
const PAGES: [usize; 5] = [0, 1, 10, 16, 100];
/// For which each number is measured, after as long a time for it to settle.
const TIME: Duration = Duration::from_secs(10);
/// Limit until all backends are up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clock ticks a second in /proc (sysconf(_SC_CLK_TCK), 100 on every architecture).
const TICKS: f64 = 100.0;

fn main() -> Result<()> {
    let net = Topology::new(Shape::TwoArmed, 1)?;
    let host = &net.backends[0];
    // All backends are this host.
    host.ns.ip("route add local 10.64.0.0/16 dev lo")?;
    net.lb
        .ns
        .ip(&format!("route add 10.64.0.0/16 via {}", host.ip(Family::V4)))?;
    let _server = HttpServer::start(&host.ns, "host", &[([0, 0, 0, 0], PORT).into()])?;
    let mut text = format!(
        "[[service]]\nname = \"web\"\naddress = \"{}\"\nport = 80\nprotocol = \"tcp\"\n[service.health]\nkind = \"tcp\"\n",
        net.vip(Family::V4, 10)
    );
    for number in 1..=BACKENDS {
        let [.., high, low] = number.to_be_bytes();
        writeln!(
            text,
            "[[service.backend]]\nname = \"b{number}\"\naddress = \"10.64.{high}.{low}:{PORT}\""
        )?;
    }
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&text)?;
    daemon.start()?;
    let cli = daemon.cli();
    wait::until_true("all backends are up", PATIENCE, || {
        Ok(cli.json("service show web")?["healthy_backends"] == BACKENDS)
    })?;
    let pid = daemon.pid()?;
    println!(
        "{:>6} {:>7} {:>12} {:>18} {:>11}",
        "pages", "served", "CPU, %", "KB/s for a page", "daemon, MB"
    );
    for pages in PAGES {
        let bytes = Arc::new(AtomicU64::new(0));
        let mut streams = Vec::new();
        for _ in 0..pages {
            let mut stream = net.lb.ns.enter(|| TcpStream::connect(METRICS))??;
            write!(stream, "GET /live?open=web HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
            streams.push(stream.try_clone()?);
            let bytes = Arc::clone(&bytes);
            std::thread::spawn(move || {
                let mut buffer = [0; 64 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    bytes.fetch_add(read as u64, Ordering::Relaxed);
                }
            });
        }
        wait::pace(TIME);
        let (began, ticks, before) = (Instant::now(), ticks(pid)?, bytes.load(Ordering::Relaxed));
        wait::pace(TIME);
        let seconds = began.elapsed().as_secs_f64();
        let (used, sent) = (self::ticks(pid)? - ticks, bytes.load(Ordering::Relaxed) - before);
        // Others were answered 503.
        let served = pages.min(16);
        let each = if served > 0 {
            sent as f64 / served as f64
        } else {
            0.0
        };
        println!(
            "{pages:>6} {served:>7} {:>12.1} {:>18.1} {:>11.1}",
            100.0 * used / TICKS / seconds,
            each / 1e3 / seconds,
            resident(pid)?
        );
        for stream in streams {
            // The daemon may have closed it.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
    daemon.stop()
}

/// Processor time of a process, in clock ticks.
fn ticks(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces; user and system time are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    ensure!(fields.len() > 12, "{stat}");
    Ok(fields[11].parse::<f64>()? + fields[12].parse::<f64>()?)
}

/// Megabytes of a process that are in memory.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 = line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1e3)
}
