//! Interfaces that go away and come back, change, or lose their program while the daemon runs.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_common::limits::LAYOUT_VERSION;
use lb_tests::{
    decap::Decap,
    http,
    lane::Lane,
    lb_cli::LbCli,
    netns::Netns,
    scratch::Scratch,
    site::Site,
    topology::{Family, Shape, veth},
    wait,
    xdp_pass::{PassProgram, detach_pinned, replace_pinned},
};
use serde_json::Value;

/// For operations that normally take some seconds.
const LIMIT: Duration = Duration::from_secs(30);
/// For one connection: without forwarding it never succeeds.
const CONNECT: Duration = Duration::from_millis(500);

fn start() -> Result<Site> {
    let site = Site::new(Shape::TwoArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let site = site.start(&[web])?;
    until_served(&site, "at first")?;
    Ok(site)
}

/// Waits until the daemon is ready and clients are served.
fn until_served(site: &Site, when: &str) -> Result<()> {
    let target = site.service_address(Family::V4);
    wait::until_true(&format!("clients are served {when}"), LIMIT, || {
        let connected = site
            .net
            .client
            .ns
            .enter(|| http::connect_within(target, 0, CONNECT))?;
        Ok(connected.is_ok() && site.daemon.http_status("/readyz")? == 200 && attached(site)? == 1)
    })
}

/// Waits until status, events, metrics and readiness report that `front` has no program, in these words.
fn until_reported(site: &Site, words: &str) -> Result<()> {
    wait::until_true(&format!("front {words}"), LIMIT, || {
        let status = site.daemon.cli().json("status")?;
        let front = &status["interfaces"][0];
        Ok(status["ready"] == false
            && front["xdp_mode"] == "none"
            && front["note"].as_str().is_some_and(|note| note.contains(words))
            && status["problems"][0]["message"]
                .as_str()
                .is_some_and(|message| message.contains("front") && message.contains(words))
            && site.daemon.http_status("/readyz")? == 503
            && attached(site)? == 0)
    })?;
    let text = site.daemon.cli().ok("status")?;
    ensure!(text.contains("not ready") && text.contains(words), "{text}");
    Ok(())
}

fn attached(site: &Site) -> Result<u64> {
    let metrics = site.daemon.metrics()?;
    Ok(metrics.count("lb_interface_attached", &[("interface", "front")]))
}

fn reattachments(site: &Site) -> Result<u64> {
    let metrics = site.daemon.metrics()?;
    Ok(metrics.count("lb_interface_reattachments_total", &[("interface", "front")]))
}

/// Kinds and messages of events about interfaces, since the daemon forwards.
fn events(site: &Site) -> Result<Vec<(String, String)>> {
    let lines = site.daemon.cli().ok("-o json events")?;
    let mut events = Vec::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line)?;
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        match text("kind").as_str() {
            "started" => events.clear(),
            "attached" | "detached" | "interface" => events.push((text("kind"), text("message"))),
            _ => {}
        }
    }
    Ok(events)
}

/// The pin of the link that holds the program on `front`.
fn front_link(site: &Site) -> PathBuf {
    site.daemon.pin_dir().join(format!("v{LAYOUT_VERSION}/links/0"))
}

#[test]
fn recreated_interface_is_served_again() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = start()?;
    let counted = |site: &Site| -> Result<f64> {
        Ok(site
            .daemon
            .metrics()?
            .sum("lb_xdp_packets_total", &[("interface", "front")]))
    };
    for round in 1..=2 {
        let before = counted(&site)?;
        site.net.lb.ns.ip("link del front")?;
        until_reported(&site, "is missing")?;
        site.net.recreate_front()?;
        until_served(&site, "on a recreated interface")?;
        ensure!(counted(&site)? > before, "it counts on under its name");
        ensure!(reattachments(&site)? == round);
    }
    let events = events(&site)?;
    // Coming up is reported, too, unless it was up from the start.
    let kinds = events
        .iter()
        .map(|(kind, _)| kind.as_str())
        .filter(|kind| *kind != "interface");
    let kinds: Vec<&str> = kinds.collect();
    ensure!(kinds == ["detached", "attached"].repeat(2), "{events:?}");
    // The next daemon finds no remains of the old ones.
    site.daemon.kill()?;
    site.daemon.start()?;
    until_served(&site, "by the next daemon")
}

#[test]
fn an_interface_in_another_namespace_has_no_program_and_gets_it_back() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = start()?;
    let elsewhere = Netns::new("elsewhere")?;
    site.net
        .lb
        .ns
        .ip(&format!("link set front netns {}", elsewhere.name()))?;
    until_reported(&site, "is missing")?;
    let there = elsewhere.run("ip", &["-d", "link", "show", "dev", "front"])?;
    ensure!(
        !there.contains("prog/xdp"),
        "redirection by index would use interfaces of another namespace: {there}"
    );
    elsewhere.ip(&format!("link set front netns {}", site.net.lb.ns.name()))?;
    site.net.lb.ns.ip("link set front up")?;
    site.net.address_front()?;
    until_served(&site, "on the interface that came back")
}

#[test]
fn a_renamed_interface_is_served_under_any_name() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = start()?;
    let rename = |from: &str, to: &str| site.net.lb.ns.ip(&format!("link set {from} name {to}"));
    rename("front", "moved")?;
    let cli = site.daemon.cli();
    wait::until_true("the new name is shown", LIMIT, || {
        let status = cli.json("status")?;
        let problem = status["problems"][0]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(status["interfaces"][0]["name"] == "moved"
            && problem.contains("moved was front")
            && status["ready"] == true)
    })?;
    let target = site.service_address(Family::V4);
    site.net
        .client
        .ns
        .enter(|| http::connect_within(target, 0, LIMIT))??;
    rename("moved", "front")?;
    wait::until_true("all is well again", LIMIT, || {
        Ok(cli.json("status")?["problems"] == Value::Array(Vec::new()))
    })?;
    // The name now means another interface.
    rename("front", "moved")?;
    site.net.lb.ns.ip("link del moved")?;
    site.net.recreate_front()?;
    until_served(&site, "on the interface that has the name now")
}

#[test]
fn removed_program_is_attached_again() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = start()?;
    for (round, (name, take)) in [
        ("detached", detach_pinned as fn(&std::path::Path) -> Result<()>),
        ("replaced", replace_pinned),
    ]
    .into_iter()
    .enumerate()
    {
        take(&front_link(&site))?;
        wait::until_true(&format!("{name}: put back"), LIMIT, || {
            Ok(reattachments(&site)? == round as u64 + 1)
        })?;
        until_served(&site, name)?;
        let events = events(&site)?;
        let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
        ensure!(kinds == ["detached", "attached"].repeat(round + 1), "{events:?}");
    }
    Ok(())
}

#[test]
fn foreign_program_is_reported_and_left_alone() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = start()?;
    // The daemon must not come between.
    site.daemon.signal(libc::SIGSTOP)?;
    detach_pinned(&front_link(&site))?;
    let other = PassProgram::attach(&site.net.lb.ns, "front")?;
    site.daemon.signal(libc::SIGCONT)?;
    until_reported(&site, "already has an XDP program")?;
    drop(other);
    until_served(&site, "once the other program is removed")
}

#[test]
fn interface_that_is_down_is_reported() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = start()?;
    let cli = site.daemon.cli();
    let note = |words: &str| -> Result<()> {
        wait::until_true(&format!("front {words}"), LIMIT, || {
            let line = cli.ok("status")?;
            let line = line
                .lines()
                .find(|line| line.starts_with("front"))
                .context("no line")?
                .to_owned();
            let up = site
                .daemon
                .metrics()?
                .count("lb_interface_up", &[("interface", "front")]);
            Ok(line.contains(words) && (up == 1) == words.is_empty())
        })
    };
    for (ns, device, words) in [
        (&site.net.lb.ns, "front", "is down"),
        (&site.net.client.ns, "eth0", "has no carrier"),
    ] {
        ns.ip(&format!("link set {device} down"))?;
        note(words)?;
        let status = cli.json("status")?;
        ensure!(
            status["problems"][0]["message"]
                .as_str()
                .is_some_and(|text| text.contains(words))
        );
        ensure!(status["ready"] == true, "the program is there: {status}");
        ns.ip(&format!("link set {device} up"))?;
        note("")?;
    }
    Ok(())
}

/// No counter of a device shows frames that the kernel does not redirect. Those of another balancer, in another namespace where
/// interfaces have the same indices, are not counted.
#[test]
fn frames_that_the_kernel_refuses_are_counted_and_named_with_a_remedy() -> Result<()> {
    let _lane = Lane::shared()?;
    let (mut site, other) = (start()?, start()?);
    let refused = |site: &Site| -> Result<Option<u64>> {
        let metrics = site.daemon.metrics()?;
        let labels = [("interface", "back"), ("error", "EOPNOTSUPP")];
        let counts = metrics.has("lb_xdp_redirect_errors_total");
        Ok(counts.then(|| metrics.count("lb_xdp_redirect_errors_total", &labels)))
    };
    for site in [&site, &other] {
        wait::until_true("frames are counted", LIMIT, || Ok(refused(site)? == Some(0)))?;
    }
    site.net.refuse_redirected_frames();
    let target = site.service_address(Family::V4);
    wait::until_true("a client's frames are refused", LIMIT, || {
        let connected = site
            .net
            .client
            .ns
            .enter(|| http::connect_within(target, 0, CONNECT))?;
        Ok(connected.is_err() && refused(&site)?.is_some_and(|frames| frames > 0))
    })?;
    let status = site.daemon.cli().json("status")?;
    let problems = status["problems"].as_array().context("no problems")?;
    let named = |problem: &&Value| {
        let message = problem["message"].as_str().unwrap_or_default();
        message.contains("leave by back") && message.contains("EOPNOTSUPP")
    };
    let problem = problems
        .iter()
        .find(named)
        .with_context(|| format!("not named: {status}"))?;
    ensure!(problem["hint"].is_string(), "{problem}");
    wait::until_true("the service is called broken", LIMIT, || {
        Ok(site.daemon.cli().ok("service list")?.contains("broken"))
    })?;
    ensure!(refused(&other)? == Some(0), "another balancer's are counted");
    Ok(())
}

#[test]
fn late_interface_is_served_if_configured() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    site.net.lb.ns.ip("link del front")?;
    let web = site.web(Family::V4, &[1]);
    let mut site = site;
    site.daemon = site.daemon.config(&lb_tests::config::file(&[web]))?;
    let refused = site.daemon.run_to_end()?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains("no interface \"front\""),
        "{refused:?}"
    );
    site.daemon = site.daemon.args("--wait-for-interfaces");
    site.daemon.start()?;
    until_reported(&site, "is missing")?;
    site.net.recreate_front()?;
    until_served(&site, "once it is there")
}

#[test]
fn an_alternative_name_is_as_good_as_the_name() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let long = "enp3s0f0np0-the-one-towards-the-clients";
    site.net
        .lb
        .ns
        .ip(&format!("link property add dev front altname {long}"))?;
    let web = site.web(Family::V4, &[1]);
    let mut daemon = lb_tests::daemon::Daemon::new(&site.net.lb.ns, &[long, "front", "back"])?
        .config(&lb_tests::config::file(&[web]))?;
    daemon.start()?;
    let status = daemon.cli().json("status")?;
    let names: Vec<&Value> = status["interfaces"]
        .as_array()
        .context("interfaces")?
        .iter()
        .map(|interface| &interface["name"])
        .collect();
    ensure!(names == ["front", "back"], "each once: {status}");
    ensure!(status["interfaces"][0]["altnames"][0] == long, "{status}");
    let target = site.service_address(Family::V4);
    site.net
        .client
        .ns
        .enter(|| http::connect_within(target, 0, LIMIT))??;
    Ok(())
}

#[test]
fn decap_is_attached_again_to_a_recreated_interface() -> Result<()> {
    let _lane = Lane::shared()?;
    let (backend, other) = (Netns::new("backend")?, Netns::new("other")?);
    veth(&backend, "eth0", &other, "eth0")?;
    let decap = Decap::start(&backend, "eth0", &["10.0.0.0/8".to_owned()])?;
    backend.ip("link del eth0")?;
    wait::until_true("its absence is reported", LIMIT, || {
        Ok(decap.log().contains("has no program"))
    })?;
    veth(&backend, "eth0", &other, "eth0")?;
    wait::until_true("attached again", LIMIT, || {
        Ok(decap.log().contains("attached to eth0 again") && has_program(&backend)?)
    })?;
    decap.stop()?;
    ensure!(
        !has_program(&backend)?,
        "a command that ends takes its program along"
    );
    Ok(())
}

#[test]
fn decap_outlives_its_command_until_detach() -> Result<()> {
    let _lane = Lane::shared()?;
    let (backend, other) = (Netns::new("backend")?, Netns::new("other")?);
    veth(&backend, "eth0", &other, "eth0")?;
    let scratch = Scratch::new()?;
    let (pins, from) = (scratch.join("pins"), ["10.0.0.0/8".to_owned()]);
    let start = || Decap::start_in(&backend, "eth0", &from, &pins);
    let first = start()?;
    let detach = || {
        LbCli::new(&backend, &scratch.join("no.sock")).run(&[
            "detach",
            "--pin-dir",
            &pins.display().to_string(),
        ])
    };
    let busy = detach()?;
    ensure!(
        busy.code == Some(1) && busy.stderr.contains("in use") && has_program(&backend)?,
        "the program of a running command stays: {busy:?}"
    );
    first.kill()?;
    ensure!(has_program(&backend)?, "a kill does not detach");
    let second = start()?;
    ensure!(second.log().contains("taken over"), "{}", second.log());
    second.kill()?;
    let removed = detach()?;
    ensure!(
        removed.code == Some(0) && removed.stdout.contains("decap") && !has_program(&backend)?,
        "{removed:?}"
    );
    // The remains of a removed interface are cleaned up by the next start on any other.
    start()?.kill()?;
    backend.ip("link del eth0")?;
    veth(&backend, "eth0", &other, "eth0")?;
    start()?.stop()?;
    ensure!(!pins.join("decap").exists(), "the pins are removed");
    Ok(())
}

/// Whether an XDP program is on `eth0`.
fn has_program(ns: &Netns) -> Result<bool> {
    let shown = ns.run("ip", &["-d", "link", "show", "dev", "eth0"])?;
    Ok(shown.contains("prog/xdp"))
}
