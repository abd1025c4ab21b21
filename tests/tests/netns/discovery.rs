//! Backends by host name, from the clients' side: names change, resolvers die and the daemon restarts.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests},
    config::{Service, file},
    lane::Lane,
    netns::Netns,
    scratch::Scratch,
    site::{HTTP_PORT, Site},
    topology::{Family, Shape},
    wait,
};

/// Longest wait for an answer to count, on a busy machine.
const SOON: Duration = Duration::from_secs(40);
/// Answers that each connection must have got before the next step.
const ROUNDS: u64 = 3;
/// Checks that find out soon.
const OFTEN: &str = "kind = \"tcp\"\ninterval = \"300ms\"\nfast_interval = \"100ms\"\ntimeout = \"300ms\"";
const HOST: &str = "app.example";

/// A process that ends with its guard.
struct Running(Child);

impl Running {
    /// Has dnsmasq read its hosts again.
    fn read_again(&self) -> Result<()> {
        // SAFETY: kill takes numbers; the child is ours and not yet waited for, so the id cannot be another's.
        let result = unsafe { libc::kill(self.0.id().cast_signed(), libc::SIGHUP) };
        ensure!(result == 0, "kill: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mount namespace in which `/etc/resolv.conf` names the server at 127.0.0.1. It outlives daemons that run in it.
fn with_resolver(ns: &Netns, scratch: &Scratch) -> Result<Running> {
    let conf = scratch.write(
        "resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    )?;
    let script = format!(
        "mount --bind {} /etc/resolv.conf && echo ready && exec sleep infinity",
        conf.display()
    );
    let mut child = ns
        .command("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .context("start unshare")?;
    let stdout = child.stdout.take().context("no output of unshare")?;
    let holder = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line == "ready\n", "cannot mount a resolv.conf: {line:?}");
    Ok(holder)
}

/// dnsmasq with these addresses of [`HOST`], each good for a second.
fn dnsmasq(ns: &Netns, scratch: &Scratch, addresses: &[IpAddr]) -> Result<Running> {
    let lines: String = addresses
        .iter()
        .map(|address| format!("{address} {HOST}\n"))
        .collect();
    let hosts = scratch.write("hosts", lines)?;
    let child = ns
        .command("dnsmasq")
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ])
        .args([
            "--user=root",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--pid-file",
        ])
        .args(["--local=/example/", "--local-ttl=1"])
        .arg(format!("--addn-hosts={}", hosts.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start dnsmasq")?;
    Ok(Running(child))
}

/// Every change of the name's addresses takes effect for new flows and cuts no established one. A resolver that is dead
/// or has no answer changes nothing, also with a restart, a reload or `lb apply` meanwhile.
#[test]
fn host_names_are_followed_and_resolver_failures_change_nothing() -> Result<()> {
    let _lane = Lane::shared()?;
    let family = Family::V4;
    let mut site = Site::new(Shape::OneArmed, 3)?;
    let scratch = Scratch::new()?;
    let ns = site.net.lb.ns.clone();
    let holder = with_resolver(&ns, &scratch)?;
    let mounts = format!("--mount=/proc/{}/ns/mnt", holder.0.id());
    // Also where the tests run in a root of their own.
    let root = format!("--root=/proc/{}/root", holder.0.id());
    let target = site.service_address(family);
    let at: Vec<SocketAddr> = site
        .net
        .backends
        .iter()
        .map(|host| host.socket(family, HTTP_PORT))
        .collect();
    let ip = |which: &[usize]| -> Vec<IpAddr> { which.iter().map(|i| at[*i].ip()).collect() };
    let text = file(&[Service::tcp("web", target).health(OFTEN)])
        + &format!("[[service.backend]]\nname = \"app\"\naddress = \"{HOST}:{HTTP_PORT}\"\n");
    site.daemon = site.daemon.through(&["nsenter", &mounts, &root]).config(&text)?;

    // The name is not resolved yet: the service shows it.
    site.daemon.start()?;
    let cli = site.daemon.cli();
    wait::until_true("status reports the unknown name", SOON, || {
        let status = cli.ok("status")?;
        Ok(status.contains("cannot be looked up") && status.contains("it has no backends yet"))
    })?;

    let wait_addresses = |site: &Site, which: &[usize]| {
        let expected: BTreeSet<String> = which.iter().map(|i| at[*i].to_string()).collect();
        let cli = site.daemon.cli();
        wait::until_true(&format!("backends are {expected:?}, and up"), SOON, || {
            let list = cli.json("backend list web")?;
            let list = list.as_array().context("a list")?.iter();
            let mut there = list.filter(|backend| backend["removed"] != true);
            let mut found = BTreeSet::new();
            let up = there.all(|backend| {
                found.insert(backend["address"].as_str().unwrap_or_default().to_owned());
                backend["health"] == "up" && backend["discovered_by"] == "app"
            });
            Ok(up && found == expected)
        })
    };
    let wait_status = |site: &Site, words: &[&str]| {
        let cli = site.daemon.cli();
        wait::until_true(&format!("status says {words:?}"), SOON, || {
            let status = cli.ok("status")?;
            Ok(words.iter().all(|word| status.contains(word)))
        })
    };

    let server = dnsmasq(&ns, &scratch, &ip(&[0, 1]))?;
    wait_addresses(&site, &[0, 1])?;
    let client = site.net.client.ns.clone();
    let load = KeepAlive::start(&client, target, 40)?;
    load.wait_rounds(ROUNDS)?;

    // The name changes while flows are under way.
    scratch.write("hosts", format!("{} {HOST}\n{} {HOST}\n", at[1].ip(), at[2].ip()))?;
    server.read_again()?;
    wait_addresses(&site, &[1, 2])?;
    load.wait_rounds(ROUNDS)?;
    let report = http_requests(&client, target, 20_000, 200, 8)?;
    report.ensure_flawless()?;
    assert_eq!(
        report.answers_of("b0"),
        0,
        "the name has not that address any more"
    );
    assert_eq!(site.daemon.metrics()?.sum("lb_host_resolved", &[]), 1.0);

    // The resolver dies. A restart, a reload and the same file again change nothing.
    drop(server);
    wait_status(
        &site,
        &[
            "cannot be looked up",
            "its last answer stays in force: 2 addresses",
        ],
    )?;
    assert_eq!(site.daemon.metrics()?.sum("lb_host_resolved", &[]), 0.0);
    let revision = cli.json("status")?["revision"].clone();
    site.daemon.kill()?;
    site.daemon.start()?;
    wait_addresses(&site, &[1, 2])?;
    let path = site.daemon.write_config(&text)?;
    let applied = cli.ok(&format!("apply {}", path.display()))?;
    ensure!(applied.contains("no change"), "{applied}");
    site.daemon.signal(libc::SIGHUP)?;
    wait::until_true("the daemon has reloaded", SOON, || {
        Ok(site.daemon.log().contains("reloaded"))
    })?;
    assert_eq!(cli.json("status")?["revision"], revision);
    ensure!(!cli.ok("status")?.contains("differs from the file"));
    wait_addresses(&site, &[1, 2])?;
    load.wait_rounds(ROUNDS)?;

    // It comes back, without an address that the service could use.
    let empty = dnsmasq(&ns, &scratch, &["2001:db8::7".parse()?])?;
    wait_status(&site, &["the name has no A records"])?;
    wait_addresses(&site, &[1, 2])?;
    drop(empty);
    let _server = dnsmasq(&ns, &scratch, &ip(&[0]))?;
    wait_addresses(&site, &[0])?;
    load.wait_rounds(ROUNDS)?;
    http_requests(&client, target, 30_000, 100, 8)?.ensure_flawless()?;
    let events = cli.ok("events")?;
    let reports = events.matches("cannot be looked up").count();
    ensure!(
        reports == 1,
        "reported once since the restart, though the reason changed: {events}"
    );
    load.stop()?.ensure_flawless()
}
