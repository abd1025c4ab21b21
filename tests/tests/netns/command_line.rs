//! The command line as people and scripts meet it: tables that fit into a terminal, data for programs, completions of real shells, and
//! what it says while it waits or is refused.

use std::{fs, os::unix::net::UnixListener, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::KeepAlive,
    daemon::Daemon,
    lane::Lane,
    lb_cli::{LbCli, lb_binary},
    netns::Netns,
    scratch::Scratch,
    site::Site,
    terminal::Terminal,
    topology::{Family, Shape, veth},
    wait,
};
use serde_json::Value;

/// For operations that normally take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Backends of a large service.
const MANY: usize = 500;

/// A daemon on `eth0` of a namespace of its own, not started yet, and the other end.
fn daemon() -> Result<(Daemon, Netns, Netns)> {
    let (lb, other) = (Netns::new("lb")?, Netns::new("other")?);
    veth(&lb, "eth0", &other, "eth0")?;
    lb.ip("addr add 10.1.0.1/16 dev eth0\naddr add 2001:db8:1::1/64 dev eth0 nodad")?;
    Ok((Daemon::new(&lb, &["eth0"])?, lb, other))
}

fn add_web(cli: &LbCli, name: &str, last: u8) -> Result<()> {
    cli.ok(&format!("service add {name} --address 192.0.2.{last} --port 80"))?;
    for n in 1..=2 {
        cli.ok(&format!(
            "backend add {name} {name}-{n} --address 10.1.{last}.{n}:8080"
        ))?;
    }
    Ok(())
}

/// What a command shows on a terminal of this size. Lines that are wrapped are one line of the text.
fn shown(lb: &Netns, daemon: &Daemon, line: &str, columns: u16) -> Result<String> {
    let mut command = lb.command(lb_binary()?);
    command
        .env("LB_SOCKET", daemon.socket())
        .env("TERM", "xterm-256color")
        .env_remove("COLUMNS")
        .args(line.split(' '));
    let left = Terminal::start(&mut command, 1_200, columns)?.end()?;
    ensure!(left.code == Some(0), "lb {line}: {left:?}");
    Ok(left.text)
}

#[test]
fn tables_fit_into_the_terminal_and_are_whole_in_a_pipe() -> Result<()> {
    let _lane = Lane::shared()?;
    let (daemon, lb, _other) = daemon()?;
    let long = "a-service-with-a-name-that-is-as-long-as-a-label-of-dns-may-be1";
    let backend = |n: usize| format!("a-backend-with-a-name-that-is-as-long-as-a-label-of-dns-may-{n:03}");
    ensure!((long.len(), backend(0).len()) == (63, 63));
    let mut file = format!(
        "[[service]]\nname = \"{long}\"\naddress = \"2001:db8:1111:2222:3333:4444:5555:6666\"\nport = 65535\n"
    );
    for n in 0..3 {
        let address = format!("[2001:db8:1:0:aaaa:bbbb:cccc:{n:04x}]:65535");
        file.push_str(&format!(
            "[[service.backend]]\nname = \"{}\"\naddress = \"{address}\"\n",
            backend(n)
        ));
    }
    file.push_str("[[service]]\nname = \"many\"\naddress = \"192.0.2.10\"\nport = 80\n[service.health]\nkind = \"tcp\"\n");
    for n in 0..MANY {
        let address = format!("10.1.{}.{}:8080", 1 + n / 250, 1 + n % 250);
        file.push_str(&format!(
            "[[service.backend]]\nname = \"b{n}\"\naddress = \"{address}\"\n"
        ));
    }
    let mut daemon = daemon.config(&file)?;
    daemon.start()?;
    let cli = daemon.cli();
    cli.ok(&format!("backend drain {long} {} --deadline 10m", backend(1)))?;
    let of_one = format!("backend list {long}");
    let show = format!("service show {long}");
    for line in [
        "status",
        "service list",
        &of_one,
        "backend list",
        &show,
        "events",
        "history",
        "history 2",
        "flows list",
        "flows count --by backend",
        "top --once --interval 100ms",
        "explain",
    ] {
        let piped = cli.ok(line)?;
        ensure!(!piped.contains('…'), "lb {line} is cut in a pipe:\n{piped}");
        for columns in [80, 200] {
            let text = shown(&lb, &daemon, line, columns)?;
            let longest = text.lines().map(|line| line.chars().count()).max();
            ensure!(
                longest.is_some_and(|longest| longest <= columns.into()),
                "lb {line} at {columns} columns:\n{text}"
            );
        }
    }
    ensure!(cli.ok("service list")?.contains(long));
    ensure!(cli.ok(&of_one)?.contains(&backend(2)));
    let narrow = shown(&lb, &daemon, &of_one, 80)?;
    // Names differ at their ends.
    for mark in ["…", "-001", "-002", "draining"] {
        ensure!(narrow.contains(mark), "{mark}: {narrow}");
    }
    let heads = |text: &str| {
        text.lines()
            .next()
            .map_or(0, |line| line.split("  ").filter(|head| !head.is_empty()).count())
    };
    let wide = shown(&lb, &daemon, "service list", 200)?;
    let narrow = shown(&lb, &daemon, "service list", 80)?;
    ensure!(wide.contains(long), "{wide}");
    ensure!(heads(&wide) > heads(&narrow), "{wide}\n{narrow}");
    let status = shown(&lb, &daemon, "status", 80)?;
    ensure!(status.contains(" ago"), "{status}");
    Ok(())
}

#[test]
fn lists_are_selected_sorted_and_printed_for_programs() -> Result<()> {
    let _lane = Lane::shared()?;
    let (mut daemon, _lb, _other) = daemon()?;
    daemon.start()?;
    let cli = daemon.cli();
    add_web(&cli, "web", 10)?;
    add_web(&cli, "api", 11)?;
    cli.ok("backend disable web web-2")?;
    for (line, expected) in [
        ("status -o name", "api\nweb\n"),
        ("service list -o name --sort -name", "web\napi\n"),
        ("service list -o name --selector name!=web", "api\n"),
        ("service show web -o name", "web\n"),
        ("backend list web -o name", "web-1\nweb-2\n"),
        (
            "backend list -o name --sort -name,service",
            "web/web-2\nweb/web-1\napi/api-2\napi/api-1\n",
        ),
        ("backend list -o name --selector admin=disabled", "web/web-2\n"),
        ("backend list web -o name --selector address=10.1.10.1", "web-1\n"),
        ("history -o name --limit 1", "7\n"),
    ] {
        let printed = cli.ok(line)?;
        ensure!(printed == expected, "lb {line}: {printed}");
    }
    let yaml = cli.ok("service list -o yaml --selector name=web")?;
    ensure!(
        yaml.starts_with("- name: web\n  address: \"192.0.2.10\"\n  port: 80\n"),
        "{yaml}"
    );
    let selected = cli.json("backend list --selector admin=disabled")?;
    let of_web = &selected[0]["backends"];
    ensure!(of_web[0]["name"] == "web-2" && selected.as_array().is_some_and(|all| all.len() == 1));
    let unknown = cli.fails(2, "backend list --selector colour=red")?;
    ensure!(
        unknown.contains("\"colour\"") && unknown.contains("admin, "),
        "{unknown}"
    );
    let refused = cli.fails(2, "backend enable web web-2 -o name")?;
    ensure!(refused.contains("no list of names"), "{refused}");
    ensure!(cli.backend("web", "web-2")?["admin"] == "disabled");
    ensure!(!cli.ok("status")?.contains('\x1b'));
    ensure!(cli.ok("--color always status")?.contains("\x1b[32mnative"));
    Ok(())
}

/// An operator who finds that a change is not in force looks at the events.
#[test]
fn a_refused_change_is_found_among_the_events() -> Result<()> {
    let _lane = Lane::shared()?;
    let (mut daemon, _lb, _other) = daemon()?;
    daemon.start()?;
    let cli = daemon.cli();
    add_web(&cli, "web", 10)?;
    cli.fails(4, "backend set web web-1 --weight 5 --revision 999")?;
    cli.fails(1, "backend report web web-2 up")?;
    let events = cli.ok("events")?;
    for words in [
        "web/web-1: change refused: the desired state is at revision 3, not at 999",
        "web/web-2: report refused: service web does not wait for reports",
    ] {
        let line = events.lines().find(|line| line.contains(words));
        let line = line.with_context(|| format!("{words}: {events}"))?;
        ensure!(line.contains("(by root, "), "{line}");
    }
    Ok(())
}

#[test]
fn a_drain_that_is_waited_for_says_how_far_it_is() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let services = [site.web(Family::V4, &[1])];
    let site = site.start(&services)?;
    let load = KeepAlive::start(&site.net.client.ns, site.service_address(Family::V4), 3)?;
    load.wait_rounds(2)?;
    let mut command = site.net.lb.ns.command(lb_binary()?);
    command
        .env("LB_SOCKET", site.daemon.socket())
        .env("TERM", "xterm-256color")
        .args(["backend", "drain", "web4", "b0", "--deadline", "10m", "--wait"]);
    let terminal = Terminal::start(&mut command, 24, 200)?;
    let text = terminal.wait_for("3 flows left; then it is disabled and they move")?;
    ensure!(text.contains("is disabled after 10m0s"), "{text}");
    ensure!(text.contains("(9m") && text.contains(" left)"), "{text}");
    let status = site.daemon.cli().ok("status")?;
    ensure!(status.contains("3 flows left; then it is disabled"), "{status}");
    load.stop()?;
    let left = terminal.end()?;
    ensure!(left.code == Some(0), "{left:?}");
    ensure!(left.text.contains("web4/b0 has no flows left"), "{left:?}");
    ensure!(!left.text.contains("3 flows left"), "its line stays: {left:?}");
    Ok(())
}

/// A shell for the tests.
struct Shell {
    name: &'static str,
    options: &'static [&'static str],
    /// How it sets a variable of its programs.
    set: fn(&str, &str) -> String,
    /// The command that reads a script of completions.
    read: &'static str,
}

const SHELLS: [Shell; 3] = [
    Shell {
        name: "bash",
        options: &["--norc", "--noprofile", "-i"],
        set: |name, value| format!("export {name}={value}; "),
        read: "source",
    },
    Shell {
        name: "zsh",
        options: &["-f", "-i"],
        set: |name, value| format!("export {name}={value}; "),
        read: "autoload -U compinit; compinit -D -u; source",
    },
    Shell {
        name: "fish",
        options: &["--no-config", "-i"],
        set: |name, value| format!("set -x {name} {value}; "),
        read: "source",
    },
];

/// Types a line and TAB into a real shell on a terminal, with `lb` and its scripts of completions in `dir`; what is on the screen once
/// all of the words are. Shells may have another root and environment: they share the directory for temporary files.
fn offered(
    lb: &Netns,
    dir: &Scratch,
    socket: &Path,
    shell: &Shell,
    line: &str,
    words: &[&str],
) -> Result<String> {
    let Shell {
        name,
        options,
        set,
        read,
    } = shell;
    let mut command = lb.command(name);
    command.args(*options).env("TERM", "xterm");
    let mut terminal = Terminal::start(&mut command, 50, 160)
        .with_context(|| format!("no {name}: see `cargo xtask setup`"))?;
    let dir = dir.path().display();
    let set = [
        set("TERM", "xterm"),
        set("LB_SOCKET", &socket.display().to_string()),
        set("PATH", &format!("{dir}:/usr/bin:/bin")),
    ];
    terminal.send(&format!("{} {read} {dir}/{name}; echo rea''dy\n", set.concat()))?;
    let begun = |text: &str| text.split_once("\nready").map(|(_, shown)| shown.to_owned());
    terminal.wait_until("ready", |text| begun(text).is_some())?;
    terminal.send(&format!("{line}\t\t"))?;
    let is_shown = |text: &str| {
        let shown = begun(text).unwrap_or_default();
        words.iter().all(|word| shown.contains(word))
    };
    let text = terminal.wait_until(line, is_shown)?;
    terminal.signal(libc::SIGKILL)?;
    terminal.end()?;
    Ok(begun(&text).unwrap_or_default())
}

#[test]
fn real_shells_offer_names_and_choices() -> Result<()> {
    let _lane = Lane::shared()?;
    let (mut daemon, lb, _other) = daemon()?;
    daemon.start()?;
    let cli = daemon.cli();
    add_web(&cli, "web", 10)?;
    add_web(&cli, "api", 11)?;
    let dir = Scratch::new()?;
    fs::copy(lb_binary()?, dir.join("lb"))?;
    for Shell { name, .. } in &SHELLS {
        dir.write(name, &cli.ok(&format!("completions {name}"))?)?;
    }
    for shell in &SHELLS {
        for (line, words, others) in [
            ("lb service show ", &["api", "web"][..], "web-1"),
            ("lb backend drain web ", &["web-1", "web-2"], "api-1"),
            ("lb backend list api --sort ", &["health", "weight"], "web-1"),
            ("lb run --iface ", &["eth0", "lo"], "web-1"),
            ("lb rollback ", &["4", "6"], "no_backend"),
            ("lb status --color ", &["always", "never"], "web-1"),
        ] {
            let text = offered(&lb, &dir, &daemon.socket(), shell, line, words).context(shell.name)?;
            ensure!(!text.contains(others), "{}: {line}:\n{text}", shell.name);
        }
    }
    Ok(())
}

/// A shell must not hang because the daemon does.
#[test]
fn completions_are_silent_and_end_where_the_daemon_does_not_answer() -> Result<()> {
    let _lane = Lane::shared()?;
    let dir = Scratch::new()?;
    let lb = Netns::new("lb")?;
    let hangs = dir.join("hangs");
    let _listener = UnixListener::bind(&hangs)?;
    for socket in [hangs, dir.join("nothing")] {
        let mut command = lb.command(lb_binary()?);
        let command = command
            .envs([
                ("COMPLETE", "bash"),
                ("_CLAP_COMPLETE_INDEX", "3"),
                ("_CLAP_IFS", "\n"),
            ])
            .env("LB_SOCKET", &socket)
            .args(["--", "lb", "backend", "drain", ""]);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let has_names = text.lines().any(|word| !word.starts_with('-'));
        ensure!(
            output.status.success() && output.stderr.is_empty() && !has_names,
            "{output:?}"
        );
    }
    Ok(())
}

/// At night the first question is what still works.
#[test]
fn status_without_a_daemon_shows_what_forwards_on() -> Result<()> {
    let _lane = Lane::shared()?;
    let (daemon, _lb, _other) = daemon()?;
    let mut daemon = daemon.args("--on-exit keep");
    daemon.start()?;
    let cli = daemon.cli();
    add_web(&cli, "web", 10)?;
    cli.ok("backend disable web web-2")?;
    wait::until_true("it is programmed", LIMIT, || {
        Ok(cli.json("service show web")?["programmed"] == true)
    })?;
    daemon.stop()?;
    let outcome = cli.run(&["status"])?;
    ensure!(outcome.code == Some(5), "{outcome:?}");
    for words in [
        "no daemon",
        "eth0       native",
        "192.0.2.10:80/tcp",
        "10.1.10.1:8080",
        "100.0 %  stay",
        "0.0 %  move to others",
        "no longer happens",
        "health checks",
    ] {
        ensure!(outcome.stdout.contains(words), "{words}: {outcome:?}");
    }
    ensure!(outcome.stderr.contains("hint: `lb run`"), "{outcome:?}");
    let outcome = cli.run(&["-o", "json", "status"])?;
    let report: Value = serde_json::from_str(&outcome.stdout)?;
    let left = &report["without_daemon"];
    ensure!(
        outcome.code == Some(5) && left["pin_dir"] == daemon.pin_dir().display().to_string(),
        "{report}"
    );
    ensure!(left["interfaces"][0]["loaded_at"].is_string(), "{report}");
    ensure!(
        left["services"][0]["backends"][0]["new_flows_share"] == 1.0,
        "{report}"
    );
    cli.ok(&format!("detach --pin-dir {}", daemon.pin_dir().display()))?;
    Ok(())
}
