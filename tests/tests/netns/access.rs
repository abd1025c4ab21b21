//! Who may use a daemon, and who used it: real users, groups and sockets.

use std::{io::Write, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{daemon::Daemon, lane::Lane, lb_cli::LbCli, netns::Netns, topology::veth, wait};
use serde_json::Value;

/// For files that the daemon writes soon.
const LIMIT: Duration = Duration::from_secs(30);
/// A user and two groups that every system has (`daemon`; `daemon`, `bin`).
const USER: u32 = 1;
const OWN_GROUP: u32 = 1;
const OTHER_GROUP: u32 = 2;

/// A balancer, and the far end of its cable.
fn balancer() -> Result<(Daemon, [Netns; 2])> {
    let (lb, other) = (Netns::new("lb")?, Netns::new("other")?);
    veth(&lb, "eth0", &other, "eth0")?;
    lb.ip("addr add 10.1.0.1/24 dev eth0")?;
    Ok((Daemon::new(&lb, &["eth0"])?, [lb, other]))
}

/// The latest event of a kind.
fn latest(daemon: &Daemon, kind: &str) -> Result<Value> {
    let lines = daemon.cli().ok("-o json events")?;
    let events = lines.lines().map(serde_json::from_str::<Value>);
    let events: Vec<Value> = events.collect::<Result<_, _>>()?;
    let latest = events.into_iter().rfind(|event| event["kind"] == kind);
    latest.with_context(|| format!("no event {kind}: {lines}"))
}

#[test]
fn a_change_names_its_author_in_events_and_log() -> Result<()> {
    let _lane = Lane::shared()?;
    let (mut daemon, _net) = balancer()?;
    daemon.start()?;
    daemon
        .cli()
        .ok("service add web --address 192.0.2.10 --port 80")?;
    let by = latest(&daemon, "applied")?["by"].clone();
    ensure!(
        by["user"] == "root" && by["group"] == "root" && by["command"] == "lb",
        "{by}"
    );
    let events = daemon.cli().ok("events")?;
    ensure!(
        events.contains("web: added") && events.contains("(by root, lb)"),
        "{events}"
    );
    ensure!(daemon.log().contains("by=root, lb"), "{}", daemon.log());
    let started = latest(&daemon, "started")?;
    ensure!(started["by"].is_null(), "a start has no author: {started}");
    Ok(())
}

#[test]
fn a_group_may_change_another_may_read_and_all_others_are_refused() -> Result<()> {
    let _lane = Lane::shared()?;
    let (daemon, net) = balancer()?;
    let reading = daemon.dir().join("read.sock");
    let mut daemon = daemon.args(&format!(
        "--socket-group {OTHER_GROUP} --socket-read {} --socket-read-group {OWN_GROUP}",
        reading.display()
    ));
    daemon.start()?;
    let [lb, _other] = &net;
    let via = |socket: &std::path::Path, group: u32| LbCli::new(lb, socket).run_by(USER, &[group]);

    let operator = via(&daemon.socket(), OTHER_GROUP);
    operator.ok("service add web --address 192.0.2.10 --port 80")?;
    daemon.cli().ok("service set web --on-empty reject")?;
    let history = daemon.cli().json("history")?;
    ensure!(
        history[0]["by"]["user"] == "root" && history[1]["by"]["user"] == "daemon",
        "{history}"
    );
    // Also for the next daemon, and over a change of which no command is the author.
    daemon.kill()?;
    daemon.start()?;
    let listed = daemon.cli().ok("history")?;
    ensure!(listed.contains("BY") && listed.contains("daemon, lb"), "{listed}");
    operator.ok("service set web --on-empty drop")?;
    let by = latest(&daemon, "applied")?["by"].clone();
    ensure!(by["user"] == "daemon" && by["group"] == "bin", "{by}");
    let outsider = via(&daemon.socket(), OWN_GROUP).fails(5, "status")?;
    ensure!(outsider.contains("permission denied"), "{outsider}");

    let reader = via(&reading, OWN_GROUP);
    ensure!(reader.ok("service list")?.contains("192.0.2.10"));
    reader.ok("flows list")?;
    reader.ok("events")?;
    for line in [
        "service remove web",
        "backend add web b --address 10.1.0.2:80",
        "flows flush --all --yes",
        "monitor",
        "rollback",
    ] {
        let refused = reader.fails(1, line)?;
        ensure!(refused.contains("for reading alone"), "{line}: {refused}");
        ensure!(refused.contains("hint: use"), "{line}: {refused}");
    }
    let refused = latest(&daemon, "refused")?;
    ensure!(refused["by"]["user"] == "daemon", "{refused}");
    via(&reading, OTHER_GROUP).fails(5, "status")?;
    ensure!(daemon.cli().ok("service list")?.contains("192.0.2.10"));
    Ok(())
}

#[test]
fn a_group_that_is_missing_is_reported_and_does_not_stop_the_start() -> Result<()> {
    let _lane = Lane::shared()?;
    let (daemon, _net) = balancer()?;
    let mut daemon = daemon.args("--socket-group no-such-group");
    daemon.start()?;
    ensure!(
        daemon.log().contains("no group \"no-such-group\""),
        "{}",
        daemon.log()
    );
    ensure!(!daemon.socket().exists(), "anybody else could use it");
    Ok(())
}

/// The events that a command prints as JSON.
fn events(daemon: &Daemon, line: &str) -> Result<Vec<Value>> {
    let lines = daemon.cli().ok(&format!("-o json events {line}"))?;
    lines
        .lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

#[test]
fn events_outlive_a_killed_daemon_and_a_torn_line() -> Result<()> {
    let _lane = Lane::shared()?;
    let (mut daemon, net) = balancer()?;
    daemon.start()?;
    let cli = LbCli::new(&net[0], &daemon.socket());
    cli.ok("service add web --address 192.0.2.10 --port 80")?;
    let before = events(&daemon, "")?;
    let last = before
        .last()
        .and_then(|event| event["seq"].as_u64())
        .context("seq")?;
    let journal = daemon.state_dir().join("events/current.jsonl");
    wait::until_true("events are on disk", LIMIT, || {
        Ok(std::fs::read_to_string(&journal)?.contains(&format!("{{\"seq\":{last},")))
    })?;
    daemon.kill()?;
    let mut file = std::fs::File::options().append(true).open(&journal)?;
    file.write_all(b"{\"seq\":99,\"at\":\"20")?;
    daemon.start()?;

    let own = events(&daemon, "")?;
    ensure!(
        own.iter().all(|event| event["seq"].as_u64() > Some(last)),
        "{own:?}"
    );
    let all = events(&daemon, "--since 1h")?;
    ensure!(all.starts_with(&before), "{all:?}");
    let numbers: Vec<u64> = all.iter().filter_map(|event| event["seq"].as_u64()).collect();
    ensure!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{numbers:?}"
    );
    let by_root = events(&daemon, "--who root")?;
    ensure!(
        !by_root.is_empty() && by_root.iter().all(|event| event["by"]["user"] == "root"),
        "{by_root:?}"
    );
    ensure!(events(&daemon, "--who daemon")?.is_empty());
    Ok(())
}
