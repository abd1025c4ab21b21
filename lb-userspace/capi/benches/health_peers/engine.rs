//! The engine of `lb` under more checks than it can make.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_health_core::{CheckSpec, Health, HealthConfig, HealthMetrics, HealthTask, settings::CheckSettings};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::ours::Kind;

pub(crate) const TARGETS: u32 = 1_000;
/// More often than one processor can.
pub(crate) const INTERVAL: Duration = Duration::from_millis(10);
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(5);

/// Nanoseconds of the engine's thread for each check.
pub(crate) fn measure(kind: Kind, web: SocketAddr) -> Result<f64> {
    let settings = CheckSettings {
        kind: kind.setting(),
        interval: INTERVAL,
        fast_interval: INTERVAL,
        timeout: Duration::from_secs(5),
        ..CheckSettings::default()
    };
    let spec = |n: u32| {
        let [_, _, high, low] = n.to_be_bytes();
        Ok(CheckSpec {
            id: ("s", format!("b{n}")),
            target: (IpAddr::from([127, 9, high, low]), web.port()).into(),
            path: None,
            settings: settings.clone(),
            initial: Health::Unchecked,
        })
    };
    let registry = Registry::new();
    let metrics = HealthMetrics::register(&registry)?;
    let cancel = CancellationToken::new();
    let (handle, _events) = HealthTask::spawn(HealthConfig::new(1), metrics, cancel.clone())?;
    handle.update((1..=TARGETS).map(spec).collect::<Result<_>>()?);
    thread::sleep(WARM_UP);
    let schedstat = thread_of("lb-health")?.join("schedstat");
    let (before, cpu) = (results(&registry), nanoseconds(&schedstat)?);
    thread::sleep(MEASURED);
    let (after, cpu) = (results(&registry), nanoseconds(&schedstat)? - cpu);
    let up = handle
        .snapshot()
        .values()
        .filter(|status| status.health == Health::Up)
        .count();
    ensure!(
        up == TARGETS as usize,
        "{}: {up} of {TARGETS} are up",
        kind.words()
    );
    drop(handle);
    cancel.cancel();
    let end = Instant::now() + WARM_UP;
    while thread_of("lb-health").is_ok() {
        ensure!(Instant::now() < end, "the engine does not end");
        thread::sleep(INTERVAL);
    }
    Ok(cpu / (after - before))
}

/// Checks that had a result so far.
fn results(registry: &Registry) -> f64 {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "lb_health_checks_total");
    family.map_or(0.0, |family| {
        family
            .get_metric()
            .iter()
            .map(|metric| metric.get_counter().get_value())
            .sum()
    })
}

fn thread_of(name: &str) -> Result<PathBuf> {
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            return Ok(path);
        }
    }
    anyhow::bail!("no thread {name}")
}

/// Processor time in a `schedstat` file: nanoseconds on a processor come first (proc(5)).
pub(crate) fn nanoseconds(schedstat: &std::path::Path) -> Result<f64> {
    let text = fs::read_to_string(schedstat)?;
    let first = text.split_whitespace().next().context("empty schedstat")?;
    Ok(first.parse()?)
}
