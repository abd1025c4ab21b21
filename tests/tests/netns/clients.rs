//! All kinds of clients of the daemon: people at a shell, scripts with a closed pipe, `--watch` over a restart, the
//! journal, and connections that never send a request.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    daemon::{Daemon, METRICS},
    lane::Lane,
    lb_cli::{LbCli, lb_binary},
    netns::Netns,
    scratch::Scratch,
    topology::veth,
    wait,
};
use serde_json::Value;

/// For operations that normally take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Descriptors of a daemon that has few.
const FEW: usize = 1_024;

/// A daemon on `eth0` of a namespace of its own, not started yet, and the other end.
fn daemon() -> Result<(Daemon, Netns, Netns)> {
    let (lb, other) = (Netns::new("lb")?, Netns::new("other")?);
    veth(&lb, "eth0", &other, "eth0")?;
    lb.ip("addr add 10.1.0.1/24 dev eth0")?;
    Ok((Daemon::new(&lb, &["eth0"])?, lb, other))
}

fn add_web(cli: &LbCli) -> Result<()> {
    cli.ok("service add web --address 192.0.2.10 --port 80")?;
    for n in 1..=2 {
        cli.ok(&format!(
            "backend add web web-{n} --address 10.1.0.{}:8080",
            n + 1
        ))?;
    }
    Ok(())
}

#[test]
fn commands_are_answered_beside_clients_that_never_finish() -> Result<()> {
    let _lane = Lane::shared()?;
    let (daemon, lb, _other) = daemon()?;
    let limit = format!("--nofile={FEW}:{FEW}");
    let mut daemon = daemon.through(&["prlimit", &limit]);
    daemon.start()?;
    let before = lb.enter(|| {
        let open = |_| -> Result<TcpStream> {
            let mut stream = TcpStream::connect(METRICS)?;
            stream.write_all(b"GET /metr")?;
            Ok(stream)
        };
        (0..FEW / 2).map(open).collect::<Result<Vec<_>>>()
    })??;
    let socket = daemon.socket();
    let silent: Vec<UnixStream> = (0..FEW / 4)
        .map(|_| UnixStream::connect(&socket))
        .collect::<Result<_, _>>()?;
    let cli = daemon.cli();
    cli.ok("status")?;
    let metrics = daemon.metrics()?;
    for listener in ["metrics", "api"] {
        let of = ("listener", listener);
        let displaced = metrics.count("lb_listener_ended_total", &[of, ("cause", "displaced")]);
        ensure!(displaced > 0, "{listener}: none gave way");
    }
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()?))?.count();
    ensure!(descriptors < FEW / 2, "{descriptors} descriptors are in use");
    // The oldest was closed first, and the remaining ones do not delay the daemon's exit.
    let mut oldest = before.first().context("none")?;
    oldest.set_read_timeout(Some(LIMIT))?;
    let ended = oldest.read(&mut [0; 1]);
    ensure!(!matches!(ended, Ok(1..)), "{ended:?}");
    daemon.stop()?;
    drop(silent);
    Ok(())
}

/// A pipe with a closed reader, as in `lb status | head -0`.
fn closed_pipe() -> Result<Stdio> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    Ok(writer.into())
}

#[test]
fn closed_pipe_changes_neither_exit_code_nor_effect() -> Result<()> {
    let _lane = Lane::shared()?;
    let (mut daemon, lb, _other) = daemon()?;
    daemon.start()?;
    add_web(&daemon.cli())?;
    let dir = Scratch::new()?;
    let bad = dir.write("bad.toml", "[lb]\nx = 1\n")?.display().to_string();
    let state = dir.join("state").display().to_string();
    for (line, code) in [
        ("status".to_owned(), 0),
        ("explain".to_owned(), 0),
        ("events --follow --since 1h".to_owned(), 0),
        ("status --watch".to_owned(), 0),
        ("completions bash".to_owned(), 0),
        ("backend drain web web-1".to_owned(), 0),
        ("service show nothing".to_owned(), 3),
        (format!("check-config {bad}"), 1),
        (format!("-o json check-config {bad}"), 1),
        (format!("apply {bad}"), 1),
        ("nonsense".to_owned(), 2),
        ("--socket /nowhere status".to_owned(), 5),
        (
            format!("run --iface nothing --socket /nowhere/lb.sock --config /nothing --state-dir {state}"),
            1,
        ),
    ] {
        let mut command = lb.command(lb_binary()?);
        let command = command
            .env("LB_SOCKET", daemon.socket())
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .stdout(closed_pipe()?)
            .stderr(closed_pipe()?);
        let mut child = command.spawn()?;
        let status = wait::until(&format!("lb {line} ends"), LIMIT, || Ok(child.try_wait()?))?;
        ensure!(status.code() == Some(code), "lb {line}: {status}");
    }
    ensure!(daemon.cli().backend("web", "web-1")?["admin"] == "draining");
    Ok(())
}

#[test]
fn a_daemon_works_on_when_the_reader_of_its_log_has_ended() -> Result<()> {
    let _lane = Lane::shared()?;
    let (daemon, _lb, _other) = daemon()?;
    // The reader of the pipe ends at once; `wait` makes sure of it before the daemon writes.
    let unread = "exec 2> >(exit); wait $!; exec \"$@\"";
    let mut daemon = daemon.through(&["bash", "-c", unread, "bash"]);
    daemon.start()?;
    // Each of these is logged.
    add_web(&daemon.cli())?;
    daemon.cli().ok("backend drain web web-1")?;
    daemon.stop()?;
    daemon.start()?;
    ensure!(daemon.cli().backend("web", "web-1")?["admin"] == "draining");
    daemon.stop()
}

/// A command that watches: its lines, and where its stderr goes.
struct Watcher {
    child: Child,
    lines: BufReader<ChildStdout>,
    remarks: std::path::PathBuf,
}

impl Watcher {
    fn start(daemon: &Daemon, ns: &Netns, dir: &Scratch, name: &str, line: &str) -> Result<Self> {
        let remarks = dir.join(name);
        let mut command = ns.command(lb_binary()?);
        let command = command
            .env("LB_SOCKET", daemon.socket())
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&remarks)?);
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self {
            child,
            lines,
            remarks,
        })
    }

    /// Reads until a line has `word`.
    fn wait_for(&mut self, word: &str) -> Result<()> {
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line)?;
            ensure!(
                read > 0,
                "it ended before {word}: {}",
                std::fs::read_to_string(&self.remarks)?
            );
            if line.contains(word) {
                return Ok(());
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watch_outlives_a_restart_and_reports_once_that_it_waits() -> Result<()> {
    let _lane = Lane::shared()?;
    let (daemon, lb, _other) = daemon()?;
    let mut daemon = daemon.args("--on-exit keep");
    daemon.start()?;
    let dir = Scratch::new()?;
    let mut events = Watcher::start(&daemon, &lb, &dir, "events", "events --follow --since 1h -o json")?;
    let mut status = Watcher::start(&daemon, &lb, &dir, "status", "status --watch=100ms -o json")?;
    events.wait_for("\"started\"")?;
    status.wait_for(&format!("\"pid\":{}", daemon.pid()?))?;
    for end in [Daemon::stop, Daemon::kill] {
        end(&mut daemon)?;
        for watcher in [&events, &status] {
            wait::until_true("it reports that it waits", LIMIT, || {
                Ok(std::fs::read_to_string(&watcher.remarks)?.ends_with("waiting for the daemon\n"))
            })?;
        }
        daemon.start()?;
        events.wait_for("\"started\"")?;
        status.wait_for(&format!("\"pid\":{}", daemon.pid()?))?;
        for watcher in [&events, &status] {
            let remarks = std::fs::read_to_string(&watcher.remarks)?;
            ensure!(remarks.ends_with("the daemon is back\n"), "{remarks}");
        }
    }
    let remarks = std::fs::read_to_string(&events.remarks)?;
    ensure!(remarks.matches("waiting").count() == 2, "{remarks}");
    Ok(())
}

#[test]
fn program_without_a_daemon_is_reported_and_can_be_removed() -> Result<()> {
    let _lane = Lane::shared()?;
    let (daemon, _lb, _other) = daemon()?;
    let mut daemon = daemon.args("--on-exit keep");
    daemon.start()?;
    let cli = daemon.cli();
    add_web(&cli)?;
    let pins = daemon.pin_dir().display().to_string();
    let busy = cli.fails(1, &format!("detach --pin-dir {pins}"))?;
    let stop = format!("kill {}", daemon.pid()?);
    ensure!(busy.contains(&stop) && !busy.contains("--pin-dir"), "{busy}");
    daemon.stop()?;
    let left = cli.fails(5, "status")?;
    for word in ["eth0 (XDP native)", "192.0.2.10:80/tcp", "lb detach"] {
        ensure!(left.contains(word), "{word} is missing: {left}");
    }
    let elsewhere = cli.ok("detach --pin-dir /sys/fs/bpf/no-such-directory")?;
    ensure!(elsewhere.contains("still runs on eth0"), "{elsewhere}");
    cli.ok(&format!("detach --pin-dir {pins}"))?;
    let gone = cli.fails(5, "status")?;
    ensure!(!gone.contains("forwarding goes on"), "{gone}");
    Ok(())
}

#[test]
fn the_journal_gets_a_priority_for_each_line() -> Result<()> {
    let _lane = Lane::shared()?;
    let (daemon, lb, _other) = daemon()?;
    // The file of the log stands for the journal's stream.
    let stream = fs::metadata(daemon.dir().write("log", "")?)?;
    let stream = format!("JOURNAL_STREAM={}:{}", stream.dev(), stream.ino());
    let daemon = daemon.through(&["env", &stream]);
    let mut daemon = daemon.config("[lb]\n")?;
    daemon.start()?;
    daemon.write_config("rubbish")?;
    daemon.signal(libc::SIGHUP)?;
    wait::until_true("the refusal is logged as an error", LIMIT, || {
        let log = daemon.log();
        let refusal = log.lines().filter(|line| line.contains("reload refused"));
        Ok(refusal.into_iter().any(|line| line.starts_with("<3>")))
    })?;
    let mut command = lb.command(lb_binary()?);
    let output = command.env("JOURNAL_STREAM", "1:1").arg("run").output()?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(text.lines().all(|line| line.starts_with("<3>")), "{text}");
    ensure!(text.starts_with("<3>error: no interface"), "{text}");
    Ok(())
}

#[test]
fn the_log_is_json_where_that_is_wanted_and_has_priorities_in_the_journal_alone() -> Result<()> {
    let _lane = Lane::shared()?;
    for (journal, is_option) in [(false, true), (true, false)] {
        let (daemon, _lb, _other) = daemon()?;
        let stream = fs::metadata(daemon.dir().write("log", "")?)?;
        let inode = if journal { stream.ino() } else { stream.ino() + 1 };
        let stream = format!("JOURNAL_STREAM={}:{inode}", stream.dev());
        let daemon = daemon.through(&["env", &stream]);
        let (file, option) = if is_option {
            ("[lb]\n", "--log-format json")
        } else {
            ("[lb]\nlog_format = \"json\"\n", "")
        };
        let mut daemon = daemon.config(file)?.args(option);
        daemon.start()?;
        daemon.write_config("rubbish")?;
        daemon.signal(libc::SIGHUP)?;
        let prefix = if journal { "<3>{" } else { "{" };
        wait::until_true("the refusal is an object", LIMIT, || {
            let log = daemon.log();
            let mut objects = log.lines().filter(|line| line.starts_with(prefix));
            Ok(objects.any(|line| {
                let object: Value = serde_json::from_str(line.trim_start_matches("<3>")).unwrap_or_default();
                let message = object["message"].as_str().unwrap_or_default();
                object["level"] == "ERROR"
                    && message.contains("reload refused")
                    && object["timestamp"].is_string()
            }))
        })
        .with_context(|| daemon.log())?;
    }
    Ok(())
}

#[test]
fn a_shell_is_offered_live_names() -> Result<()> {
    let _lane = Lane::shared()?;
    let (mut daemon, lb, _other) = daemon()?;
    daemon.start()?;
    add_web(&daemon.cli())?;
    daemon
        .cli()
        .ok("service add other --address 192.0.2.11 --port 80")?;
    let offered = |line: &str| -> Result<Vec<String>> {
        let words: Vec<&str> = line.split(' ').collect();
        let index = (words.len() - 1).to_string();
        let mut command = lb.command(lb_binary()?);
        let command = command
            .envs([
                ("COMPLETE", "bash"),
                ("_CLAP_COMPLETE_INDEX", &index),
                ("_CLAP_IFS", "\n"),
            ])
            .env("LB_SOCKET", daemon.socket())
            .arg("--")
            .args(words);
        let output = command.output()?;
        ensure!(output.status.success(), "{line}: {output:?}");
        let text = String::from_utf8(output.stdout)?;
        let values = text.lines().filter(|value| !value.starts_with('-'));
        Ok(values.map(str::to_owned).collect())
    };
    for (line, expected) in [
        ("lb backend drain ", &["other", "web"][..]),
        ("lb service show ", &["other", "web"]),
        ("lb backend drain web ", &["web-1", "web-2"]),
        ("lb backend drain other ", &[]),
        ("lb run --iface e", &["eth0"]),
        ("lb --socket /nowhere backend drain ", &[]),
    ] {
        let offered = offered(line)?;
        ensure!(offered == expected, "{line}: {offered:?}");
    }
    Ok(())
}

#[test]
fn the_end_of_a_drain_is_shown_wherever_the_drain_is() -> Result<()> {
    let _lane = Lane::shared()?;
    let (mut daemon, _lb, _other) = daemon()?;
    daemon.start()?;
    let cli = daemon.cli();
    add_web(&cli)?;
    cli.ok("backend drain web web-1 --deadline 10m")?;
    let until = cli.backend("web", "web-1")?["drain_until"].clone();
    let second = until
        .as_str()
        .and_then(|until| until.get(..19))
        .context("no end")?;
    for line in ["status", "backend list web", "service show web"] {
        let shown = cli.ok(line)?;
        ensure!(
            shown.contains(&format!("draining until {second}")),
            "lb {line}: {shown}"
        );
    }
    let why = cli.ok("explain tcp 198.51.100.7:40000 192.0.2.10:81")?;
    ensure!(why.contains("services of 192.0.2.10: 80/tcp (web)"), "{why}");
    Ok(())
}
