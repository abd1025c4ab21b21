//! An operator changes the balancer under traffic, and the daemon dies and restarts: clients notice nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests, new_flows},
    config::file,
    lane::Lane,
    site::{HTTP_PORT, NGINX_PORT, Site},
    topology::{Family, Shape},
    wait,
};

const CONNECTIONS: usize = 200;
/// Answers that each connection must have got before the next change: it has been served in the state between.
const ROUNDS: u64 = 3;

#[test]
fn established_connections_survive_changes_and_a_killed_daemon() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        survive_everything(family)?;
    }
    Ok(())
}

fn survive_everything(family: Family) -> Result<()> {
    let site = Site::new(Shape::TwoArmed, 4)?;
    let _servers = site.nginx(family)?;
    let target = site.service_address(family);
    let web = |weights: &[u32]| {
        let service = lb_tests::config::Service::tcp("web", target)
            .health("kind = \"tcp\"\ninterval = \"500ms\"\nfast_interval = \"200ms\"\ntimeout = \"5s\"");
        site.with_backends(service, family, NGINX_PORT, weights)
    };
    let (at_first, later) = (web(&[1, 1, 1]), file(&[web(&[1, 3, 1, 1])]));
    let mut site = site.start(&[at_first])?;
    let cli = site.daemon.cli();
    let load = KeepAlive::start(&site.net.client.ns, target, CONNECTIONS)?;
    load.wait_rounds(ROUNDS)?;

    cli.ok("backend set web b0 --weight 5")?;
    load.wait_rounds(ROUNDS)?;

    cli.ok(&format!(
        "backend add web b3 --address {} --weight 2",
        site.net.backends[3].socket(family, NGINX_PORT)
    ))?;
    load.wait_rounds(ROUNDS)?;
    wait::until_true("the new backend takes flows", Duration::from_secs(10), || {
        Ok(new_flows(&site.net.client.ns, target, 10_000)?("b3") > 0)
    })?;

    cli.ok("backend drain web b3")?;
    load.wait_rounds(ROUNDS)?;
    assert_eq!(
        new_flows(&site.net.client.ns, target, 11_000)?("b3"),
        0,
        "a drained backend takes no new flow"
    );

    // It still carries its share of the busy connections: they finish where they are.
    cli.ok("backend remove web b2")?;
    load.wait_rounds(ROUNDS)?;
    assert_eq!(
        new_flows(&site.net.client.ns, target, 12_000)?("b2"),
        0,
        "a removed backend takes no new flow"
    );

    let path = site.daemon.write_config(&later)?;
    let dry = cli.ok(&format!("apply {} --dry-run", path.display()))?;
    assert!(dry.contains("b2"), "the diff lists the change: {dry}");
    let revision = cli.json("status")?["revision"].clone();
    load.wait_rounds(1)?;
    assert_eq!(
        cli.json("status")?["revision"],
        revision,
        "a dry run changes nothing"
    );
    cli.ok(&format!("apply {}", path.display()))?;
    load.wait_rounds(ROUNDS)?;

    let before = cli.json("status")?["revision"].clone();
    let services = cli.ok("export")?;
    site.daemon
        .write_config("[[service]]\nname = \"web\"\nweight = \"heavy\"\n")?;
    site.daemon.signal(libc::SIGHUP)?;
    wait::until_true("the daemon reports the bad file", Duration::from_secs(10), || {
        Ok(site.daemon.metrics()?.sum("lb_config_last_apply_success", &[]) == 0.0)
    })?;
    load.wait_rounds(ROUNDS)?;
    assert_eq!(cli.json("status")?["revision"], before);
    assert_eq!(cli.ok("export")?, services);
    assert!(site.daemon.log().contains("lb.toml"), "{}", site.daemon.log());

    // The connections of a removed backend outlive also the daemon that removed it.
    cli.ok("backend remove web b2")?;
    let exported = cli.ok("export")?;
    site.daemon.kill()?;
    load.wait_rounds(ROUNDS)?;
    ensure!(
        new_flows(&site.net.client.ns, target, 13_000)?("b1") > 0,
        "new flows are served while no daemon runs"
    );
    // A start with --config makes the file the desired state.
    site.daemon.write_config(&exported)?;
    let took = site.daemon.start()?;
    load.wait_rounds(ROUNDS)?;
    ensure!(new_flows(&site.net.client.ns, target, 14_000)?("b1") > 0);

    assert_eq!(site.daemon.metrics()?.sum("lb_drops_total", &[]), 0.0);
    let report = load.stop()?;
    println!(
        "{family:?}: {} answers, slowest {:?}; restarted in {took:?}",
        report.total(),
        report.slowest
    );
    report.ensure_flawless()
}

#[test]
fn backend_removed_now_loses_only_its_own_flows() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 3)?;
    let web = site.web(Family::V4, &[1, 1, 1]);
    let site = site.start(&[web])?;
    let load = KeepAlive::start(&site.net.client.ns, site.service_address(Family::V4), 60)?;
    load.wait_rounds(ROUNDS)?;
    let carried = connections_of(&site, "b1")?;
    assert!(carried > 0);
    site.daemon.cli().ok("backend remove web4 b1 --now")?;
    wait::until_true("its connections are reset", Duration::from_secs(20), || {
        Ok(load.failed() >= carried)
    })?;
    let report = load.stop()?;
    assert_eq!(report.errors.len() as u64, carried, "{:?}", report.errors);
    assert!(
        report.errors.iter().all(|e| e.contains("of Some(\"b1\")")),
        "{:?}",
        report.errors
    );
    Ok(())
}

#[test]
fn a_removed_backends_flows_end_when_the_transition_is_over() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 2)?;
    let web = site.web(Family::V4, &[1, 1]);
    site.daemon = site.daemon.config(&format!("[lb]\ntransition = \"2s\"\n{web}"))?;
    site.daemon.start()?;
    let load = KeepAlive::start(&site.net.client.ns, site.service_address(Family::V4), 40)?;
    load.wait_rounds(ROUNDS)?;
    let carried = connections_of(&site, "b1")?;
    site.daemon.cli().ok("backend remove web4 b1")?;
    // Served after the removal, then moved to a live backend, which resets unknown connections.
    load.wait_rounds(ROUNDS)?;
    wait::until_true("its connections are reset", Duration::from_secs(20), || {
        Ok(load.failed() >= carried)
    })?;
    let report = load.stop()?;
    assert!(
        report.errors.iter().all(|e| e.contains("of Some(\"b1\")")),
        "{:?}",
        report.errors
    );
    assert_eq!(report.errors.len() as u64, carried);
    Ok(())
}

#[test]
fn a_disabled_backend_serves_again_when_enabled() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 2)?;
    let web = site.web(Family::V6, &[1, 1]);
    let site = site.start(&[web])?;
    let (cli, target) = (site.daemon.cli(), site.service_address(Family::V6));
    cli.ok("backend disable web6 b0")?;
    assert_eq!(new_flows(&site.net.client.ns, target, 20_000)?("b0"), 0);
    cli.ok("backend enable web6 b0")?;
    ensure!(new_flows(&site.net.client.ns, target, 21_000)?("b0") > 0);
    cli.ok("backend set web6 b0 --weight 0")?;
    assert_eq!(new_flows(&site.net.client.ns, target, 22_000)?("b0"), 0);
    Ok(())
}

#[test]
fn a_service_made_by_hand_serves_and_outlives_the_daemon() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::OneArmed, 2)?;
    site.daemon.start()?;
    let (cli, target) = (site.daemon.cli(), site.service_address(Family::V4));
    let add = format!(
        "service add web --address {} --port {}",
        target.ip(),
        target.port()
    );
    cli.ok(&add)?;
    for (i, host) in site.net.backends.iter().enumerate() {
        cli.ok(&format!(
            "backend add web b{i} --address {}",
            host.socket(Family::V4, HTTP_PORT)
        ))?;
    }
    ensure!(new_flows(&site.net.client.ns, target, 20_000)?("b1") > 0);
    cli.ok(&add)?; // Adding an existing backend changes nothing.
    site.daemon.kill()?;
    site.daemon.start()?;
    let list = cli.json("backend list web")?;
    ensure!(
        list.to_string().contains("b0") && list.to_string().contains("b1"),
        "{list}"
    );
    ensure!(new_flows(&site.net.client.ns, target, 21_000)?("b1") > 0);

    let exported = cli.ok("export")?;
    let path = site.daemon.dir().write("export.toml", &exported)?;
    cli.ok(&format!("apply {}", path.display()))?;
    assert_eq!(cli.ok("export")?, exported, "export and apply are inverse");
    cli.ok("service remove web")?;
    assert!(new_flows(&site.net.client.ns, target, 22_000).is_err());
    Ok(())
}

#[test]
fn exit_with_keep_forwards_on_until_detach() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::OneArmed, 2)?;
    let web = site.web(Family::V4, &[1, 1]);
    site.daemon = site.daemon.args("--on-exit keep");
    let mut site = site.start(&[web])?;
    let target = site.service_address(Family::V4);
    site.daemon.stop()?;
    ensure!(
        new_flows(&site.net.client.ns, target, 20_000)?("b1") > 0,
        "it forwards without a daemon"
    );
    let pins = site.daemon.pin_dir();
    site.daemon
        .cli()
        .ok(&format!("detach --pin-dir {}", pins.display()))?;
    ensure!(
        http_requests(&site.net.client.ns, target, 21_000, 1, 1)?
            .errors
            .len()
            == 1
    );
    assert_detached(&site)
}

#[test]
fn default_exit_leaves_no_program() -> Result<()> {
    let _lane = Lane::shared()?;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let site = Site::new(Shape::TwoArmed, 1)?;
        let web = site.web(Family::V4, &[1]);
        let mut site = site.start(&[web])?;
        site.daemon.signal(signal)?;
        let status = site.daemon.wait_exit()?;
        ensure!(status.success(), "{status}: {}", site.daemon.log());
        assert_detached(&site)?;
        assert!(!site.daemon.socket().exists(), "its socket is removed");
    }
    Ok(())
}

/// No program on any interface, and no pin left.
fn assert_detached(site: &Site) -> Result<()> {
    for name in site.net.lb_interfaces() {
        let link = site.net.lb.ns.run("ip", &["link", "show", "dev", name])?;
        ensure!(!link.contains("xdp"), "{link}");
    }
    let mut left = Vec::new();
    files_below(&site.daemon.pin_dir(), &mut left);
    ensure!(left.is_empty(), "left in the pin directory: {left:?}");
    Ok(())
}

fn files_below(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // `maps.debug` and `progs.debug` are the file system's own.
        let own = path.extension().is_some_and(|extension| extension == "debug");
        if path.is_dir() {
            files_below(&path, found);
        } else if !own {
            found.push(path);
        }
    }
}

/// Flows that a backend of service `web4` has taken so far.
fn connections_of(site: &Site, backend: &str) -> Result<u64> {
    let labels = [("service", "web4"), ("backend", backend)];
    Ok(site
        .daemon
        .metrics()?
        .count("lb_backend_new_flows_total", &labels))
}
