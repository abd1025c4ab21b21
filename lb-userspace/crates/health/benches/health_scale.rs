//! Ten thousand targets on loopback, each checked every second: a thousand let every check time out, and a hundred
//! flap. Prints the cost, how late checks start, and which health states are wrong; fails if more checks run than are
//! allowed, or if a target that never answers succeeds. The servers run in this process, too: on a busy machine a good
//! one may really be late.
//!
//!     cargo bench -p lb-health-core --bench health_scale

#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_health_core::{
    CheckSpec, CheckStatus, CheckStatuses, Health, HealthConfig, HealthHandle, HealthMetrics, HealthTask,
    MAX_IN_FLIGHT,
    settings::{CheckKind, CheckSettings},
};
use prometheus::Registry;
use socket2::{Domain, Socket, Type};
use tokio_util::sync::CancellationToken;

/// A target, by its kind and its name.
type Id = (String, String);

const GOOD: u32 = 8_900;
const BLACK_HOLES: u32 = 1_000;
const FLAPPING: u32 = 100;
const INTERVAL: Duration = Duration::from_secs(1);
/// Time until all have their first verdict and the schedule has settled.
const WARM_UP: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(30);
/// Between looks at the number of checks in flight.
const LOOK: Duration = Duration::from_millis(5);
/// How long a flapping target stays up or down: long enough for either health state.
const FLAP: Duration = Duration::from_secs(5);
/// A good target that was not checked for so long was forgotten.
const STALE: Duration = Duration::from_secs(3);

/// A server on every loopback address that accepts and drops connections.
fn accepting() -> Result<u16> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    let port = listener.local_addr()?.port();
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(port)
}

/// A server on every loopback address that never accepts and whose queue is full: the kernel drops connection
/// requests. The returned sockets keep the queue full.
fn black_hole() -> Result<(u16, Socket, Vec<TcpStream>)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    socket.listen(0)?;
    let address = socket.local_addr()?.as_socket().context("no address")?;
    let here = (Ipv4Addr::LOCALHOST, address.port()).into();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&here, Duration::from_millis(200)) {
        queued.push(stream);
        ensure!(queued.len() < 100, "the queue does not fill");
    }
    Ok((address.port(), socket, queued))
}

/// A server on every loopback address that is there for [`FLAP`], then away for as long.
fn flapping() -> Result<u16> {
    let bind = |port| -> Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        Ok(socket)
    };
    let first = bind(0)?;
    let port = first.local_addr()?.as_socket().context("no address")?.port();
    thread::spawn(move || -> Result<()> {
        let mut bound = first;
        loop {
            bound.listen(1024)?;
            bound.set_nonblocking(true)?;
            let end = Instant::now() + FLAP;
            while Instant::now() < end {
                while bound.accept().is_ok() {}
                thread::sleep(LOOK);
            }
            // A bound socket that does not listen refuses connections and reserves the port.
            drop(bound);
            bound = bind(port)?;
            thread::sleep(FLAP);
        }
    });
    Ok(port)
}

fn specs(kind: &str, count: u32, network: u8, port: u16) -> Result<Vec<CheckSpec<Id>>> {
    let settings = CheckSettings {
        kind: CheckKind::Tcp,
        interval: INTERVAL,
        // No back-off: a target that is down costs as much as one that is up.
        down_interval_max: INTERVAL,
        timeout: INTERVAL,
        ..CheckSettings::default()
    };
    let spec = |n: u32| {
        let [_, _, high, low] = n.to_be_bytes();
        Ok(CheckSpec {
            id: (kind.to_owned(), format!("b{n}")),
            target: (IpAddr::from([127, network, high, low]), port).into(),
            path: None,
            settings: settings.clone(),
            initial: Health::Unchecked,
        })
    };
    (1..=count).map(spec).collect()
}

/// A snapshot of the registry.
#[derive(Default)]
struct Reading {
    /// Checks started, and how many of them within each bound in seconds.
    started: u64,
    within: Vec<(f64, u64)>,
    in_flight: f64,
    /// Results by service and kind of result.
    results: BTreeMap<(String, String), f64>,
}

fn read(registry: &Registry) -> Reading {
    let mut reading = Reading::default();
    for family in registry.gather() {
        for metric in family.get_metric() {
            match family.name() {
                "lb_health_scheduler_lag_seconds" => {
                    let lag = metric.get_histogram();
                    reading.started = lag.get_sample_count();
                    let buckets = lag.get_bucket().iter();
                    reading.within = buckets
                        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                        .collect();
                }
                "lb_health_checks_in_flight" => reading.in_flight = metric.get_gauge().get_value(),
                "lb_health_checks_total" => {
                    let [result, service] = metric.get_label() else {
                        continue;
                    };
                    let key = (service.value().to_owned(), result.value().to_owned());
                    reading.results.insert(key, metric.get_counter().get_value());
                }
                _ => {}
            }
        }
    }
    reading
}

/// The smallest bound of the histogram that `share` of the checks between two readings kept.
fn lag(before: &Reading, after: &Reading, share: f64) -> String {
    let wanted = (after.started - before.started) as f64 * share;
    let bounds = after.within.iter().zip(&before.within);
    bounds
        .map(|((bound, after), (_, before))| (bound, after - before))
        .find(|(_, count)| *count as f64 >= wanted)
        .map_or("more than 1 s".to_owned(), |(bound, _)| {
            format!("{} ms", bound * 1000.0)
        })
}

/// A line of `/proc/self/status`, in kB.
fn memory(key: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with(key))
        .context("no such line")?;
    let number = line.split_whitespace().nth(1).context("no number")?;
    Ok(number.parse()?)
}

/// Processor time of the engine's thread so far.
fn engine_time() -> Result<Duration> {
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm"))?.trim() == "lb-health" {
            // proc(5): nanoseconds on a processor come first.
            let stat = fs::read_to_string(path.join("schedstat"))?;
            let nanos = stat.split_whitespace().next().context("empty schedstat")?;
            return Ok(Duration::from_nanos(nanos.parse()?));
        }
    }
    anyhow::bail!("the engine's thread is gone")
}

/// Targets that always work or never do, and have another verdict or were forgotten.
fn wrong(statuses: &CheckStatuses<Id>) -> usize {
    let is_wrong = |((service, _), status): &(&Id, &CheckStatus<Id>)| {
        let expected = match service.as_str() {
            "good" => Health::Up,
            "hole" => Health::Down,
            _ => return false,
        };
        let age = status.last_check.as_ref().and_then(|last| last.at.elapsed().ok());
        status.health != expected || age.is_none_or(|age| age > STALE)
    };
    statuses.iter().filter(is_wrong).count()
}

/// Looks at the engine until [`MEASURED`] has passed. Returns the most checks that were in flight, and the most wrong
/// verdicts, at a look.
fn watch(registry: &Registry, handle: &HealthHandle<Id>) -> Result<(f64, usize)> {
    let end = Instant::now() + MEASURED;
    let mut most = 0.0_f64;
    let (mut looks, mut most_wrong) = (0_u32, 0);
    while Instant::now() < end {
        let in_flight = read(registry).in_flight;
        most = most.max(in_flight);
        ensure!(in_flight <= MAX_IN_FLIGHT as f64, "{in_flight} checks in flight");
        looks += 1;
        if looks % 200 == 0 {
            most_wrong = most_wrong.max(wrong(&handle.snapshot()));
        }
        thread::sleep(LOOK);
    }
    Ok((most, most_wrong))
}

fn main() -> Result<()> {
    let (hole, _full, _queued) = black_hole()?;
    let mut all = specs("good", GOOD, 1, accepting()?)?;
    all.extend(specs("hole", BLACK_HOLES, 2, hole)?);
    all.extend(specs("flap", FLAPPING, 3, flapping()?)?);
    let targets = all.len();

    let registry = Registry::new();
    let config = HealthConfig::new(1);
    let idle = memory("VmRSS")?;
    let cancel = CancellationToken::new();
    let (handle, mut events) =
        HealthTask::spawn::<Id>(config, HealthMetrics::register(&registry)?, cancel.clone())?;
    let changes = thread::spawn(move || {
        let mut changes: BTreeMap<String, u64> = BTreeMap::new();
        while let Some(event) = events.blocking_recv() {
            *changes.entry(event.id.0.to_string()).or_default() += 1;
        }
        changes
    });
    handle.update(all);
    thread::sleep(WARM_UP);
    println!("wrong after {WARM_UP:?}      {}", wrong(&handle.snapshot()));

    let (before, time, settled) = (read(&registry), engine_time()?, memory("VmRSS")?);
    let began = Instant::now();
    let (most, most_wrong) = watch(&registry, &handle)?;
    let (after, spent, elapsed) = (read(&registry), engine_time()? - time, began.elapsed());
    let (resident, peak) = (memory("VmRSS")?, memory("VmHWM")?);
    cancel.cancel();
    let changes = changes.join().ok().context("the receiver of events panicked")?;

    let checks = after.started - before.started;
    println!(
        "{targets} targets every {INTERVAL:?}: {GOOD} good, {BLACK_HOLES} black holes, {FLAPPING} flapping"
    );
    println!(
        "checks started       {:.0} a second",
        checks as f64 / elapsed.as_secs_f64()
    );
    for share in [0.5, 0.99, 0.999] {
        println!(
            "lag p{:<5}           at most {}",
            share * 100.0,
            lag(&before, &after, share)
        );
    }
    println!("in flight            {most} at most, {MAX_IN_FLIGHT} allowed");
    println!(
        "engine's processor   {:.1} % of a core",
        100.0 * spent.as_secs_f64() / elapsed.as_secs_f64()
    );
    println!(
        "memory               {idle} kB before, {settled} kB settled, {resident} kB after, {peak} kB peak"
    );
    for ((service, result), count) in &after.results {
        let new = count
            - before
                .results
                .get(&(service.clone(), result.clone()))
                .unwrap_or(&0.0);
        println!("results              {service} {result}: {new}");
    }
    println!("health transitions   {changes:?}");
    println!("wrong verdicts       {most_wrong} at most at a look");
    let answered = after.results.get(&("hole".to_owned(), "success".to_owned()));
    ensure!(answered == Some(&0.0), "a target that never answers succeeded");
    Ok(())
}
