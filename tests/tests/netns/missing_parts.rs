//! Missing parts stop neither a start nor a change.

use std::{fs, net::TcpListener, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::METRICS,
    http,
    lane::Lane,
    site::Site,
    topology::{Family, Shape},
    wait,
};

/// For operations that are retried every few seconds.
const LIMIT: Duration = Duration::from_secs(60);

fn site() -> Result<Site> {
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    site.daemon = site.daemon.config(&file(&[web]))?;
    Ok(site)
}

fn is_served(site: &Site) -> Result<()> {
    let target = site.service_address(Family::V4);
    site.net
        .client
        .ns
        .enter(|| http::connect_within(target, 0, LIMIT))??;
    Ok(())
}

/// Events of these kinds.
fn events(site: &Site, kind: &str) -> Result<String> {
    let lines = site.daemon.cli().ok("-o json events")?;
    Ok(lines.lines().filter(|line| line.contains(kind)).collect())
}

#[test]
fn a_metrics_address_that_is_taken_stops_no_start() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = site()?;
    let taken = site.net.lb.ns.enter(|| TcpListener::bind(METRICS))??;
    site.daemon.start()?;
    is_served(&site)?;
    let status = site.daemon.cli().json("status")?;
    let problem = &status["problems"][0];
    ensure!(
        problem["message"]
            .as_str()
            .is_some_and(|text| text.contains("9900"))
            && problem["hint"].is_string(),
        "{status}"
    );
    ensure!(status["metrics"].is_null() && status["ready"] == true, "{status}");
    ensure!(events(&site, "part_missing")?.contains("9900"));
    drop(taken);
    wait::until_true("metrics are served", LIMIT, || {
        Ok(http::get(&site.net.lb.ns, METRICS.parse()?, "/readyz").is_ok_and(|answer| answer.status == 200))
    })?;
    let status = site.daemon.cli().json("status")?;
    ensure!(
        status["problems"] == serde_json::json!([]) && status["metrics"] == METRICS,
        "{status}"
    );
    ensure!(events(&site, "part_recovered")?.contains("9900"));
    Ok(())
}

#[test]
fn a_socket_that_cannot_be_made_stops_no_start() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = site()?;
    // Not even root makes a directory where a file stands.
    let blocked = site.daemon.dir().write("blocked", "")?;
    site.daemon = site.daemon.socket_at(blocked.join("lb.sock"));
    site.daemon.start()?;
    is_served(&site)?;
    let missing = || -> Result<u64> {
        Ok(site
            .daemon
            .metrics()?
            .count("lb_part_missing", &[("part", "admin_socket")]))
    };
    ensure!(missing()? == 1 && site.daemon.log().contains("no command reaches the daemon"));
    fs::remove_file(&blocked)?;
    wait::until_true("commands are served", LIMIT, || {
        Ok(missing()? == 0 && site.daemon.cli().json("status").is_ok())
    })
}

#[test]
fn changes_and_commands_work_when_no_thread_can_start() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = site()?;
    site.daemon.start()?;
    let group = Group::of(site.daemon.pid()?)?;
    let threads = fs::read_dir(format!("/proc/{}/task", site.daemon.pid()?))?.count();
    group.limit(threads)?;
    let many = (0..1_000_u16).map(|number| {
        let address = (site.net.vip(Family::V4, 20), 1_000 + number).into();
        Service::tcp(&format!("s{number}"), address).backend(
            "b0",
            site.net.backends[0].socket(Family::V4, 80),
            1,
        )
    });
    let mut services = vec![site.web(Family::V4, &[1])];
    services.extend(many);
    let path = site.daemon.dir().write("many.toml", file(&services))?;
    let cli = site.daemon.cli();
    cli.ok(&format!("apply {} --wait", path.display()))?;
    for _ in 0..20 {
        ensure!(cli.json("status")?["ready"] == true);
        site.daemon.metrics()?;
    }
    is_served(&site)?;
    let log = site.daemon.log();
    ensure!(!log.contains("panicked"), "{log}");
    site.daemon.stop()
}

#[test]
fn start_without_threads_fails_with_a_reason() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = site()?;
    let group = Group::new()?;
    group.limit(2)?;
    let enter = format!("echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"", group.0.display());
    site.daemon = site.daemon.through(&["sh", "-c", &enter]);
    let outcome = site.daemon.run_to_end()?;
    ensure!(
        outcome.code == Some(1)
            && outcome.stderr.contains("cannot start the daemon's threads")
            && outcome.stderr.contains("TasksMax")
            && !outcome.stderr.contains("panicked"),
        "{outcome:?}"
    );
    Ok(())
}

/// A control group that limits the number of tasks. It goes with its guard, once it is empty.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Self> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Version 1 has a hierarchy for each controller.
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(PathBuf::from);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists());
        let root = root.context("no control groups are mounted")?;
        let controllers = root.join("cgroup.subtree_control");
        if controllers.exists() {
            fs::write(&controllers, "+pids").context("no pids controller")?;
        }
        let path = root.join(format!("lbt-{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// A group with a process in it.
    fn of(pid: u32) -> Result<Self> {
        let group = Self::new()?;
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).context("enter the group")?;
        Ok(group)
    }

    fn limit(&self, tasks: usize) -> Result<()> {
        fs::write(self.0.join("pids.max"), tasks.to_string()).context("limit tasks")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group that is not empty yet stays; it limits only dead processes.
        let _ = fs::remove_dir(&self.0);
    }
}
