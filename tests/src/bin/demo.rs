//! `cargo xtask demo`: a whole network in namespaces, to watch the balancer share, fail over and recover. The machine's
//! own network is not touched, and everything is removed at the end.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lb_tests::{
    client::{Report, http_requests},
    config::{Service, file},
    daemon::Daemon,
    lane::Lane,
    nginx::Nginx,
    topology::{Family, Shape, Topology},
    wait,
};

const WEIGHTS: [u32; 3] = [1, 2, 3];
const REQUESTS: u16 = 6_000;
const AT_A_TIME: u32 = 64;
/// Characters of a bar that stands for all answers.
const BAR: f64 = 40.0;
/// Longest wait for a change of health.
const PATIENCE: Duration = Duration::from_secs(30);
/// Check settings, and what they promise: interval + fall × (fast interval + timeout), the same with rise.
const HEALTH: &str = "kind = \"http\"\ninterval = \"500ms\"\nfast_interval = \"100ms\"\n\
                      down_interval_max = \"500ms\"\ntimeout = \"200ms\"\nfall = 2\nrise = 2";
const PROMISE: Duration = Duration::from_millis(500 + 2 * (100 + 200));

fn main() -> Result<()> {
    let _lane = Lane::shared()?;
    println!("A network in namespaces of its own. Your machine's network stays as it is.\n");
    let net = Topology::new(Shape::TwoArmed, 3)?;
    let target = SocketAddr::new(net.vip(Family::V4, 10), 80);
    let mut servers = Vec::new();
    let mut service = Service::tcp("web", target).health(HEALTH);
    for (i, (host, weight)) in net.backends.iter().zip(WEIGHTS).enumerate() {
        let (name, address) = (name(i), host.socket(Family::V4, 8080));
        servers.push(Nginx::start(&host.ns, &name, address)?);
        service = service.backend(&name, address, weight);
    }
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&[service]))?;
    let took = daemon.start()?;
    let status = daemon.cli().json("status")?;
    let mode = status["interfaces"][0]["xdp_mode"]
        .as_str()
        .unwrap_or("unknown")
        .to_owned();
    println!("  client 10.1.0.2 ─── lb ─┬─ web-1  10.2.0.10:8080  nginx, weight 1");
    println!(
        "                  {:>7} ├─ web-2  10.2.0.11:8080  nginx, weight 2",
        mode
    );
    println!("                      XDP └─ web-3  10.2.0.12:8080  nginx, weight 3\n");
    println!(
        "  lb run: forwards {} ms after its start; service \"web\" on {target}\n",
        took.as_millis()
    );

    for i in 0..WEIGHTS.len() {
        wait_health(&daemon, &name(i), "up")?;
    }
    share(&net, target, 20_000, &[0, 1, 2])?;

    println!("web-3 is killed.");
    let begin = Instant::now();
    servers[2].kill()?;
    wait_health(&daemon, "web-3", "down")?;
    println!(
        "  found after {} ms; its check settings promise {} ms\n",
        millis(begin),
        PROMISE.as_millis()
    );
    share(&net, target, 27_000, &[0, 1])?;

    println!("web-3 starts again.");
    let begin = Instant::now();
    servers[2].restart()?;
    wait_health(&daemon, "web-3", "up")?;
    println!(
        "  back after {} ms; promised {} ms\n",
        millis(begin),
        PROMISE.as_millis()
    );
    share(&net, target, 34_000, &[0, 1, 2])?;

    println!("{}", daemon.cli().ok("backend list web")?);
    daemon.stop()?;
    println!("Everything is removed again.");
    Ok(())
}

fn name(i: usize) -> String {
    format!("web-{}", i + 1)
}

fn millis(begin: Instant) -> u128 {
    begin.elapsed().as_millis()
}

/// Sends requests and shows which backends answered.
fn share(net: &Topology, target: SocketAddr, first_port: u16, serving: &[usize]) -> Result<()> {
    let begin = Instant::now();
    let report = http_requests(&net.client.ns, target, first_port, REQUESTS, AT_A_TIME)?;
    let seconds = begin.elapsed().as_secs_f64();
    let failed = report.errors.len();
    println!("{REQUESTS} requests, each on its own connection, in {seconds:.1} s: {failed} failed");
    println!("  backend   weight   answers    share   by weight");
    let sum: u32 = serving.iter().map(|i| WEIGHTS[*i]).sum();
    for (i, weight) in WEIGHTS.iter().enumerate() {
        let due = if serving.contains(&i) {
            f64::from(*weight) / f64::from(sum)
        } else {
            0.0
        };
        line(&report, i, *weight, due);
    }
    println!();
    report.ensure_complete(REQUESTS.into())
}

fn line(report: &Report, i: usize, weight: u32, due: f64) {
    let (name, share) = (name(i), report.share(&name(i)));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share is between 0 and 1"
    )]
    let bar = "█".repeat((share * BAR).round() as usize);
    let answers = report.answers_of(&name);
    let row = format!(
        "  {name:<9} {weight:>6} {answers:>9} {:>7.1}% {:>10.1}%  {bar}",
        share * 100.0,
        due * 100.0
    );
    println!("{}", row.trim_end());
}

fn wait_health(daemon: &Daemon, backend: &str, health: &str) -> Result<()> {
    let cli = daemon.cli();
    wait::until_true(&format!("{backend} is {health}"), PATIENCE, || {
        let service = cli.json("service show web")?;
        let backends = service["backends"]
            .as_array()
            .context("no backends in the service")?;
        Ok(backends
            .iter()
            .any(|b| b["name"] == backend && b["health"] == health))
    })
}
