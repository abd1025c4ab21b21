//! The time from `lb run` to READY, for a fresh start and for a take-over: services of modes `nat` and `ipip` in both
//! families, with backends that answer. With `LB_OTHER`, the path of another `lb`, both in turn, and their ratio.

use std::{
    env,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    lane::Lane,
    lb_cli::lb_binary,
    site::{NGINX_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    wait,
};

/// Starts of each kind and binary.
const ROUNDS: usize = 9;
/// Time that a daemon runs before it is taken over: by then it has loaded all of its program.
const RUNS_FOR: Duration = Duration::from_secs(2);
/// Time before a fresh start. The kernel frees the tables of the daemon before after its end, on the CPUs that the start needs.
const RESTS_FOR: Duration = Duration::from_secs(1);

/// One daemon's start.
#[derive(Clone, Copy)]
struct Start {
    millis: f64,
    /// CPU time of the process until READY, in milliseconds.
    cpu: f64,
}

fn main() -> Result<()> {
    let _lane = Lane::alone()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let services = services(&site);
    let _servers = [site.nginx(Family::V4)?, site.nginx(Family::V6)?];
    let mut binaries = vec![lb_binary()?];
    binaries.extend(env::var_os("LB_OTHER").map(PathBuf::from));
    let mut cold = vec![Vec::new(); binaries.len()];
    let mut taken_over = vec![Vec::new(); binaries.len()];
    for _ in 0..ROUNDS {
        for (place, binary) in binaries.iter().enumerate() {
            let daemon = Daemon::new(&site.net.lb.ns, site.net.lb_interfaces())?;
            let mut daemon = daemon.binary(binary.clone()).config(&file(&services))?;
            let_pass(RESTS_FOR)?;
            cold[place].push(start(&mut daemon)?);
            let_pass(RUNS_FOR)?;
            daemon.kill()?;
            taken_over[place].push(start(&mut daemon)?);
            daemon.stop()?;
        }
    }
    println!(
        "start to READY with services of modes nat and ipip in both families, {ROUNDS} in turn, medians (least to most), ms"
    );
    for (what, starts) in [("cold", &cold), ("take-over", &taken_over)] {
        let mut medians = Vec::new();
        for (binary, starts) in binaries.iter().zip(starts) {
            let (millis, cpu) = (
                sorted(starts, |start| start.millis),
                sorted(starts, |start| start.cpu),
            );
            let median = |values: &[f64]| values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
            let (least, most) = (millis.first(), millis.last());
            println!(
                "  {what:<10} {:>6.0} ({:.0} to {:.0})   CPU {:>5.0}   {}",
                median(&millis),
                least.copied().unwrap_or(f64::NAN),
                most.copied().unwrap_or(f64::NAN),
                median(&cpu),
                binary.display()
            );
            medians.push(median(&millis));
        }
        if let [ours, other] = medians[..] {
            println!("  {what:<10} ratio {:.2}", ours / other);
        }
    }
    Ok(())
}

fn let_pass(time: Duration) -> Result<()> {
    let begin = Instant::now();
    wait::until_true("a while has passed", 2 * time, || Ok(begin.elapsed() > time))
}

fn services(site: &Site) -> Vec<Service> {
    let mut services = Vec::new();
    for (family, word) in [(Family::V4, "4"), (Family::V6, "6")] {
        for (host, mode) in [(10, "nat"), (11, "ipip")] {
            let address = (site.net.vip(family, host), SERVICE_PORT).into();
            let service = Service::tcp(&format!("{mode}{word}"), address).keys(&format!("mode = \"{mode}\""));
            services.push(site.with_backends(service, family, NGINX_PORT, &[1]));
        }
    }
    services
}

fn start(daemon: &mut Daemon) -> Result<Start> {
    let millis = daemon.start()?.as_secs_f64() * 1e3;
    let cpu = cpu_millis(daemon.pid()?)?;
    Ok(Start { millis, cpu })
}

/// CPU time of all threads that a process has.
fn cpu_millis(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold spaces: user and system time are fields 14 and 15 of the line.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    ensure!(fields.len() > 12, "cannot read {stat}");
    // In hundredths of a second, on all machines that Linux runs on.
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) * 10.0)
}

fn sorted(starts: &[Start], value: impl Fn(&Start) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = starts.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values
}
