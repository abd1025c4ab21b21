//! The daemon restarts: changes made by command, health states and clients' connections stay.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_common::limits::LAYOUT_VERSION;
use lb_tests::{
    capture::Capture,
    client::{KeepAlive, http_requests, new_flows},
    config::{Service, file},
    lane::Lane,
    netns::checked,
    site::{HTTP_PORT, NGINX_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    wait,
};

/// Longest wait for a check's verdict to show.
const SOON: Duration = Duration::from_secs(20);
/// Answers that each connection must have got before the next step.
const ROUNDS: u64 = 3;

/// Checks so far apart that a restart has to do without for a while.
const RARE: &str = "kind = \"tcp\"\ninterval = \"10s\"\nfast_interval = \"200ms\"\ntimeout = \"10s\"";
/// Checks that find out soon.
const OFTEN: &str = "kind = \"tcp\"\ninterval = \"300ms\"\nfast_interval = \"100ms\"\ntimeout = \"300ms\"";

fn wait_health(site: &Site, service: &str, backend: &str, health: &str) -> Result<()> {
    let cli = site.daemon.cli();
    wait::until_true(&format!("{service}/{backend} is {health}"), SOON, || {
        Ok(cli.backend(service, backend)?["health"] == health)
    })
}

/// Commands, and established flows of a backend that they drained, outlive a crash in every mode; a changed file wins,
/// and the output lists the changes that it undoes.
#[test]
fn a_crash_undoes_no_command_and_cuts_no_flow() -> Result<()> {
    let _lane = Lane::shared()?;
    for mode in ["nat", "dnat"] {
        survive_a_crash(mode)?;
    }
    Ok(())
}

fn survive_a_crash(mode: &str) -> Result<()> {
    let family = Family::V4;
    let site = Site::new(Shape::TwoArmed, 2)?;
    // Mode dnat needs a router.
    site.net.forward_in_kernel()?;
    let _servers = site.nginx(family)?;
    let target = site.service_address(family);
    let web = |weights: &[u32]| {
        let service = Service::tcp("web", target)
            .keys(&format!("mode = \"{mode}\""))
            .health(RARE);
        site.with_backends(service, family, NGINX_PORT, weights)
    };
    let (first, second) = (web(&[1, 1]), file(&[web(&[1, 2])]));
    let mut site = site.start(&[first])?;
    let (cli, ns) = (site.daemon.cli(), site.net.client.ns.clone());
    for backend in ["b0", "b1"] {
        wait_health(&site, "web", backend, "up")?;
    }
    let load = KeepAlive::start(&ns, target, 40)?;
    load.wait_rounds(ROUNDS)?;
    cli.ok("backend drain web b0")?;
    cli.ok("backend set web b1 --weight 70")?;
    let status = cli.ok("status")?;
    ensure!(
        status.contains("differs from the file") && status.contains("draining"),
        "{status}"
    );
    let lines = cli.json("status")?["config"]["by_command"].clone();
    assert_eq!(lines.as_array().map(Vec::len), Some(2), "{lines}");

    site.daemon.kill()?;
    site.daemon.start()?;
    load.wait_rounds(ROUNDS)?;
    assert_eq!(cli.backend("web", "b0")?["admin"], "draining", "{mode}");
    assert_eq!(
        cli.backend("web", "b0")?["health"],
        "up",
        "{mode}: remembered, not guessed"
    );
    assert_eq!(cli.backend("web", "b1")?["weight"], 70, "{mode}");
    assert_eq!(new_flows(&ns, target, 20_000)?("b0"), 0, "{mode}: it is drained");

    // Killed again, with a state without health states, and a file that undoes the drain.
    let path = site.daemon.write_config(&second)?;
    let dry = cli.ok(&format!("apply {} --dry-run", path.display()))?;
    ensure!(
        dry.contains("replaces changes made by command") && dry.contains("enabled"),
        "{dry}"
    );
    let pending = cli.json("status")?["config"]["pending"].clone();
    assert_eq!(pending.as_array().map(Vec::len), Some(2), "{pending}");
    site.daemon.kill()?;
    fs::remove_file(site.daemon.state_dir().join("journal"))?;
    site.daemon.start()?;
    load.wait_rounds(ROUNDS)?;
    assert_eq!(
        cli.backend("web", "b0")?["admin"],
        "enabled",
        "{mode}: the file has changed"
    );
    let events = cli.ok("events")?;
    ensure!(events.contains("replaces a change made by command"), "{events}");
    for backend in ["b0", "b1"] {
        wait_health(&site, "web", backend, "up")?;
    }
    load.wait_rounds(ROUNDS)?;
    load.stop()?.ensure_flawless()
}

/// Pins removed while the daemon runs are restored: without a daemon packets find the stages of the program, and the next one finds
/// flows and links.
#[test]
fn removed_pins_are_restored_and_a_restart_loses_no_flow() -> Result<()> {
    let _lane = Lane::shared()?;
    let family = Family::V4;
    let mut site = Site::new(Shape::TwoArmed, 2)?;
    let mount = site.daemon.dir().join("bpf");
    fs::create_dir(&mount)?;
    checked(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&mount))?;
    site.daemon = site.daemon.pins_in(mount.join("lb"));
    let _servers = site.nginx(family)?;
    let target = site.service_address(family);
    let web = Service::tcp("web", target).health(RARE);
    let web = site.with_backends(web, family, NGINX_PORT, &[1, 1]);
    let mut site = site.start(&[web])?;
    let load = KeepAlive::start(&site.net.client.ns.clone(), target, 40)?;
    load.wait_rounds(ROUNDS)?;
    let base = site.daemon.pin_dir();
    let layout = base.join(format!("v{LAYOUT_VERSION}"));
    let pins = || -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for directory in [layout.clone(), layout.join("links"), layout.join("programs")] {
            for entry in fs::read_dir(directory)? {
                all.push(entry?.path());
            }
        }
        all.sort_unstable();
        Ok(all)
    };
    site.daemon.wait_for_whole_program()?;
    let before = pins()?;
    let remove = |path: &Path| format!("rm -r {}", path.display());
    let removals = [
        remove(&layout.join("FLOWS_V4")),
        remove(&layout.join("links/0")),
        remove(&layout.join("programs")),
        remove(&layout),
        remove(&base),
        format!("umount -l {}", mount.display()),
    ];
    for (round, removal) in removals.iter().enumerate() {
        checked(Command::new("sh").args(["-c", removal]))?;
        wait::until_true(&format!("after {removal} all is pinned again"), SOON, || {
            let events = site.daemon.cli().ok("events")?;
            Ok(pins().is_ok_and(|now| now == before) && events.matches("pinned again").count() > round)
        })?;
        let events = site.daemon.cli().ok("events")?;
        ensure!(
            events.matches("were removed from").count() == round + 1,
            "{events}"
        );
        assert_eq!(
            site.daemon.cli().json("status")?["problems"],
            serde_json::json!([])
        );
    }
    site.daemon.kill()?;
    load.wait_rounds(ROUNDS)?;
    site.daemon.start()?;
    load.wait_rounds(ROUNDS)?;
    load.stop()?.ensure_flawless()
}

/// A reload with the same file changes nothing, and a refused one is reported until one is accepted.
#[test]
fn unchanged_reload_keeps_commands_and_a_refused_one_is_reported() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 2)?;
    let web = site.web(Family::V4, &[1, 1]);
    let good = file(std::slice::from_ref(&web));
    let site = site.start(&[web])?;
    let cli = site.daemon.cli();
    cli.ok("backend drain web4 b0")?;
    site.daemon.signal(libc::SIGHUP)?;
    wait::until_true("the daemon has reloaded", SOON, || {
        Ok(site.daemon.log().contains("reloaded"))
    })?;
    assert_eq!(cli.backend("web4", "b0")?["admin"], "draining");

    for (bad, word) in [("[[service]]\nname = 1\n", "error"), ("", "no services")] {
        site.daemon.write_config(bad)?;
        site.daemon.signal(libc::SIGHUP)?;
        wait::until_true("status reports the refused file", SOON, || {
            let status = cli.ok("status")?;
            Ok(status.contains("refused") && status.contains(word) && status.contains("lb.toml"))
        })?;
        assert_eq!(cli.json("service list")?.as_array().map(Vec::len), Some(1));
        assert_eq!(
            site.daemon.metrics()?.sum("lb_config_last_apply_success", &[]),
            0.0
        );
    }
    let empty = site.daemon.dir().write("empty.toml", "")?;
    let stderr = cli.fails(1, &format!("apply {}", empty.display()))?;
    ensure!(
        stderr.contains("no services") && stderr.contains("--allow-empty"),
        "{stderr}"
    );

    site.daemon.write_config(&good)?;
    site.daemon.signal(libc::SIGHUP)?;
    wait::until_true("the mended file is taken", SOON, || {
        Ok(!cli.ok("status")?.contains("refused"))
    })?;
    assert_eq!(
        cli.backend("web4", "b0")?["admin"],
        "draining",
        "the file is unchanged"
    );
    cli.ok(&format!("apply {} --empty", empty.display()))?;
    assert_eq!(cli.json("service list")?.as_array().map(Vec::len), Some(0));
    Ok(())
}

/// `systemctl reload` must fail where the file does, and end only when the kernel forwards by the new one.
#[test]
fn reload_by_command_waits_for_the_kernel_or_fails_with_each_error() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 2)?;
    let web = site.web(Family::V4, &[1, 1]);
    let good = file(std::slice::from_ref(&web));
    let site = site.start(&[web])?;
    let (cli, target) = (site.daemon.cli(), site.service_address(Family::V4));
    site.daemon
        .write_config(&good.replacen("weight = 1", "weight = 0", 1))?;
    let output = cli.ok("reload")?;
    ensure!(
        output.contains("weight 1 -> 0") && output.contains("of new flows go elsewhere"),
        "{output}"
    );
    let answers = http_requests(&site.net.client.ns, target, 20_000, 40, 4)?;
    answers.ensure_complete(40)?;
    assert_eq!(
        answers.answers.len(),
        1,
        "the other backend has no slot: {answers:?}"
    );

    let bad = site
        .daemon
        .write_config("[lb]\ntransition = 7\n[[service]]\nname = 1\n")?;
    let reloaded = cli.fails(1, "reload")?;
    let checked = cli.fails(1, &format!("check-config {}", bad.display()))?;
    let errors: Vec<&str> = checked.lines().filter(|line| line.contains("lb.toml:")).collect();
    assert!(errors.len() >= 2, "{checked}");
    for error in errors {
        ensure!(reloaded.contains(error), "{error} is missing: {reloaded}");
    }
    ensure!(cli.ok("status")?.contains("reload refused"));
    let events = cli.ok("events -o json")?;
    let refused = events.lines().find(|line| line.contains("reload refused"));
    ensure!(
        refused.is_some_and(|event| event.contains("\"command\":\"lb\"")),
        "who reloaded: {events}"
    );
    site.daemon.write_config(&good)?;
    cli.ok("reload")?;
    ensure!(!cli.ok("status")?.contains("refused"));
    let metrics = site.daemon.metrics()?;
    for (result, count) in [("success", 2.0), ("refused", 1.0)] {
        assert_eq!(
            metrics.sum("lb_config_reloads_total", &[("result", result)]),
            count
        );
    }
    Ok(())
}

/// After a mistake in the file and a reboot a machine must continue with the last good state.
#[test]
fn a_file_that_is_wrong_at_a_restart_leaves_the_last_good_state_in_force() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let good = file(std::slice::from_ref(&web));
    let mut site = site.start(&[web])?;
    let (cli, target) = (site.daemon.cli(), site.service_address(Family::V4));
    for (bad, word) in [
        (good.clone() + "rubbish\n", "1 error"),
        (String::new(), "no services"),
    ] {
        site.daemon.write_config(&bad)?;
        site.daemon.kill()?;
        site.daemon.start()?;
        http_requests(&site.net.client.ns, target, 20_000, 20, 4)?.ensure_complete(20)?;
        let status = cli.ok("status")?;
        ensure!(
            status.contains("last good state") && status.contains(word),
            "{status}"
        );
        ensure!(cli.ok("events")?.contains("last good state"));
        ensure!(site.daemon.log().contains("last good state"));
        assert_eq!(
            site.daemon.metrics()?.sum("lb_config_last_apply_success", &[]),
            0.0
        );
    }
    site.daemon.write_config(&good)?;
    site.daemon.signal(libc::SIGHUP)?;
    wait::until_true("the mended file is taken", SOON, || {
        Ok(!cli.ok("status")?.contains("last good state"))
    })
}

/// A start with a file sets an unreadable state aside, and tolerates a directory that cannot be written.
#[test]
fn a_state_that_cannot_be_used_does_not_stop_a_start_with_a_file() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let mut site = site.start(&[web])?;
    let (cli, target) = (site.daemon.cli(), site.service_address(Family::V4));
    let (dir, ns) = (site.daemon.state_dir(), site.net.client.ns.clone());
    let state = dir.join("state.toml");
    let serves = |port| http_requests(&ns, target, port, 20, 4)?.ensure_complete(20);
    site.daemon.stop()?;
    let whole = fs::read(&state)?;
    let later = String::from_utf8_lossy(&whole).replacen("lb-state 1", "lb-state 99", 1);
    for (what, content) in [
        ("cut short", &whole[..whole.len() / 2]),
        ("empty", &[][..]),
        ("foreign", b"PNG not ours\n"),
        ("later", later.as_bytes()),
    ] {
        fs::write(&state, content)?;
        site.daemon.start()?;
        serves(20_000)?;
        let aside = fs::read_dir(&dir)?.flatten().map(|entry| entry.path());
        let aside: Vec<_> = aside
            .filter(|path| path.display().to_string().contains("set-aside"))
            .collect();
        assert_eq!(aside.len(), 1, "{what}");
        assert_eq!(fs::read(&aside[0])?, content, "{what}: kept unchanged");
        let status = cli.ok("status")?;
        ensure!(
            status.contains(&aside[0].display().to_string()),
            "{what}: {status}"
        );
        ensure!(cli.ok("events")?.contains("set aside"), "{what}");
        fs::remove_file(&aside[0])?;
        ensure!(!cli.ok("status")?.contains("set aside"), "{what}");
        site.daemon.stop()?;
    }

    let mount = |args: &[&str]| checked(Command::new("mount").args(args).arg(&dir));
    mount(&["--bind", &dir.display().to_string()])?;
    mount(&["-o", "remount,ro,bind"])?;
    site.daemon.start()?;
    serves(21_000)?;
    let status = cli.ok("status")?;
    ensure!(
        status.contains("not saved") && status.contains(&dir.display().to_string()),
        "{status}"
    );
    ensure!(cli.ok("backend set web4 b0 --weight 7")?.contains("not saved"));
    assert_eq!(site.daemon.metrics()?.sum("lb_state_saved", &[]), 0.0);
    // A broken disk can be unmounted without stopping the daemon. The directory below it can be written.
    checked(Command::new("umount").arg(&dir))?;
    wait::until_true("the state is saved", SOON, || {
        Ok(site.daemon.metrics()?.sum("lb_state_saved", &[]) == 1.0)
    })?;
    ensure!(!cli.ok("status")?.contains("not saved"));
    site.daemon.kill()?;
    site.daemon.start()?;
    assert_eq!(cli.backend("web4", "b0")?["weight"], 7);
    Ok(())
}

/// A backend whose machine only answers ARP: clients sent there would wait.
#[test]
fn a_fresh_start_sends_no_client_to_a_dead_backend() -> Result<()> {
    let _lane = Lane::shared()?;
    let family = Family::V4;
    let site = Site::new(Shape::TwoArmed, 3)?;
    let target = site.service_address(family);
    let service = Service::tcp("web", target).health("kind = \"tcp\"");
    let service = site.with_backends(service, family, HTTP_PORT, &[1, 1, 1]);
    site.net.backends[2]
        .ns
        .ip("route add blackhole default table 7\nrule add priority 1 table 7")?;
    let dead = site.net.backends[2].socket(family, HTTP_PORT);
    let mut site = site;
    site.daemon = site.daemon.config(&file(&[service]))?;
    let to_dead = Capture::start(&site.net.middle, "lb", move |frame| {
        frame.destination == dead && frame.is_syn() && frame.source.port() <= 32_767
    })?;
    site.daemon.start()?;
    http_requests(&site.net.client.ns, target, 20_000, 200, 8)?.ensure_complete(200)?;
    wait_health(&site, "web", "b2", "down")?;
    assert_eq!(to_dead.stop()?.len(), 0);
    Ok(())
}

/// Reports hold for their `ttl`, and a damped backend stays down for `flap_hold`.
#[test]
fn reports_and_damping_outlive_the_daemon() -> Result<()> {
    let _lane = Lane::shared()?;
    let family = Family::V4;
    let site = Site::new(Shape::OneArmed, 2)?;
    let push = Service::tcp("push", site.service_address(family)).health("kind = \"push\"\nttl = \"1s\"");
    let push = site.with_backends(push, family, HTTP_PORT, &[1, 1]);
    let other = (site.net.vip(family, 11), SERVICE_PORT).into();
    let flaps = Service::tcp("flaps", other).health(&format!(
        "{OFTEN}\nfall = 1\nrise = 1\nflap_limit = 1\nflap_window = \"10m\"\nflap_hold = \"10m\""
    ));
    let flaps = site.with_backends(flaps, family, NGINX_PORT, &[1, 1]);
    let mut servers = site.nginx(family)?;
    let mut site = site.start(&[push, flaps])?;
    let cli = site.daemon.cli();
    cli.ok("backend report push b0 up --ttl 600s")?;
    for backend in ["b0", "b1"] {
        wait_health(&site, "flaps", backend, "up")?;
    }
    servers[0].kill()?;
    wait_health(&site, "flaps", "b0", "down")?;
    servers[0].restart()?;
    wait_health(&site, "push", "b0", "up")?;
    site.daemon.kill()?;
    site.daemon.start()?;
    // Longer than a report's default `ttl`, and than an undamped recovery.
    let checks = |cli: &lb_tests::lb_cli::LbCli| {
        Ok::<_, anyhow::Error>(cli.backend("flaps", "b0")?["last_check"]["at"].clone())
    };
    let begin = std::time::Instant::now();
    let mut seen = std::collections::BTreeSet::new();
    wait::until_true("checks succeed for a while", SOON, || {
        seen.insert(checks(&cli)?.to_string());
        Ok(seen.len() > 5 && begin.elapsed() > Duration::from_secs(2))
    })?;
    let b0 = cli.backend("flaps", "b0")?;
    assert_eq!(
        (&b0["health"], &b0["damped"]),
        (&"down".into(), &true.into()),
        "{b0}"
    );
    assert_eq!(b0["last_check"]["ok"], true, "{b0}");
    assert_eq!(cli.backend("push", "b0")?["health"], "up");
    assert_eq!(
        cli.backend("push", "b1")?["health"],
        "unchecked",
        "it never reported"
    );
    Ok(())
}
