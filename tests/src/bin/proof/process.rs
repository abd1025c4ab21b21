//! What processes and maps take: from /proc.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use lb_common::limits::LAYOUT_VERSION;
use lb_tests::daemon::Daemon;

/// Clock ticks a second in /proc (`sysconf(_SC_CLK_TCK)`, 100 on every architecture).
const TICKS: f64 = 100.0;

/// Bytes of a process that are in memory.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    field(Path::new(&format!("/proc/{pid}/status")), "VmRSS:").map(|kilobytes| kilobytes * 1024.0)
}

/// CPU seconds of all threads that a process has had.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold spaces: user and system time are fields 14 and 15 of the line (proc(5)).
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    ensure!(fields.len() > 12, "cannot read {stat}");
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS)
}

/// Bytes of a daemon's maps, by name, as the kernel states them.
pub(crate) fn map_bytes(daemon: &Daemon, name: &str) -> Result<f64> {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let pin = daemon.pin_dir().join(format!("v{LAYOUT_VERSION}/{name}"));
    let map = MapData::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
    let fd = map.fd().as_fd().as_raw_fd();
    field(Path::new(&format!("/proc/self/fdinfo/{fd}")), "memlock:")
}

fn field(path: &Path, name: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number
        .with_context(|| format!("no {name} in {}", path.display()))?
        .parse()?)
}
