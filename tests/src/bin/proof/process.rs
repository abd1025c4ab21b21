//! What processes and maps take: from /proc.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData, of_maps::ArrayOfMaps};
use lb_common::{
    limits::{LAYOUT_VERSION, MAX_RINGS},
    map_names::{PINNED, RINGS},
    ring_page::{self, RingPage},
    service::RingId,
};
use lb_tests::daemon::Daemon;

/// Clock ticks a second in /proc (`sysconf(_SC_CLK_TCK)`, 100 on every architecture).
const TICKS: f64 = 100.0;

/// Bytes of a process that are in memory.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    field(Path::new(&format!("/proc/{pid}/status")), "VmRSS:").map(|kilobytes| kilobytes * 1024.0)
}

/// Threads of a process.
pub(crate) fn threads(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Whether a child of this process has ended that nothing has waited for yet.
pub(crate) fn has_ended(pid: u32) -> bool {
    // Its state stands behind the name (proc(5)).
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
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

/// Bytes of a daemon's map, as the kernel states them.
pub(crate) fn map_bytes(daemon: &Daemon, name: &str) -> Result<f64> {
    let map = pinned(daemon, name)?;
    let fd = map.fd().as_fd().as_raw_fd();
    field(Path::new(&format!("/proc/self/fdinfo/{fd}")), "memlock:")
}

/// Bytes of all maps of a daemon, with the pages of its rings, which have no pins.
pub(crate) fn all_map_bytes(daemon: &Daemon) -> Result<f64> {
    let maps: f64 = PINNED
        .iter()
        .map(|name| map_bytes(daemon, name))
        .sum::<Result<f64>>()?;
    let rings = Map::from_map_data(pinned(daemon, RINGS)?)?;
    let rings: ArrayOfMaps<MapData, Array<MapData, RingPage>> = rings.try_into()?;
    let mut pages = 0;
    for ring in 0..u16::try_from(MAX_RINGS)? {
        if let Ok(first) = rings.get(&ring_page::first_entry(RingId(ring)), 0) {
            pages += first.get(&0, 0)?.ring_pages();
        }
    }
    Ok(maps + f64::from(pages) * size_of::<RingPage>() as f64)
}

/// A map of a daemon.
pub(crate) fn pinned(daemon: &Daemon, name: &str) -> Result<MapData> {
    let pin = daemon.pin_dir().join(format!("v{LAYOUT_VERSION}/{name}"));
    MapData::from_pin(&pin).with_context(|| format!("open {}", pin.display()))
}

fn field(path: &Path, name: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number
        .with_context(|| format!("no {name} in {}", path.display()))?
        .parse()?)
}
