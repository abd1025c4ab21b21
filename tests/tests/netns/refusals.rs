//! Bad input and bad environments: each gives a clear error that names the cause, and nothing is lost.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::http_requests,
    daemon::Daemon,
    lane::Lane,
    lb_cli::{LbCli, Outcome},
    netns::{Netns, checked},
    scratch::Scratch,
    site::Site,
    topology::{Family, Shape, veth},
    wait,
};

/// A namespace with one usable interface, `eth0`.
fn lone_balancer() -> Result<(Netns, Netns)> {
    let (lb, other) = (Netns::new("lb")?, Netns::new("other")?);
    veth(&lb, "eth0", &other, "eth0")?;
    lb.ip("addr add 10.1.0.1/24 dev eth0")?;
    Ok((lb, other))
}

/// An error as users see it: exit code 1, one clear message with these words, and no panic.
fn refused(outcome: &Outcome, words: &[&str]) -> Result<()> {
    let text = &outcome.stderr;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    ensure!(text.contains("error: "), "no error: {text}");
    ensure!(
        !text.contains("panicked") && !text.contains("RUST_BACKTRACE"),
        "{text}"
    );
    for word in words {
        ensure!(text.contains(word), "the message lacks {word:?}: {text}");
    }
    Ok(())
}

const SERVICE: &str = "[[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\nport = 80\n";

#[test]
fn every_class_of_config_error_is_reported_with_its_place() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("check")?;
    let dir = Scratch::new()?;
    let cli = LbCli::new(&ns, &dir.join("no.sock"));
    let backend = |keys: &str| format!("{SERVICE}[[service.backend]]\nname = \"b\"\n{keys}\n");
    let health = |keys: &str| format!("{SERVICE}[service.health]\n{keys}\n");
    let second = |keys: &str| format!("{SERVICE}{keys}\n");
    // Text, line and column of the fault, and a word that the message must carry.
    let cases = [
        ("[lb\n".to_owned(), 1, ""),
        ("[lb]\ninterface = [\"eth0\"]\n".to_owned(), 2, "interface"),
        ("[lb]\nxdp_mode = \"fast\"\n".to_owned(), 2, "fast"),
        ("[lb]\nsnat_ports = \"9-1\"\n".to_owned(), 2, "snat_ports"),
        ("[lb]\nmetrics = \"here\"\n".to_owned(), 2, "here"),
        ("[lb]\ntransition = \"soon\"\n".to_owned(), 2, "soon"),
        ("[lb]\nsnat_addresses = [\"10.0.0\"]\n".to_owned(), 2, "10.0.0"),
        (
            "[[service]]\naddress = \"192.0.2.10\"\nport = 80\n".to_owned(),
            1,
            "name",
        ),
        (
            "[[service]]\nname = \"a b\"\naddress = \"192.0.2.10\"\nport = 80\n".to_owned(),
            2,
            "a b",
        ),
        (
            "[[service]]\nname = \"web\"\naddress = \"192.0.2\"\nport = 80\n".to_owned(),
            3,
            "192.0.2",
        ),
        (
            "[[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\nport = 70000\n".to_owned(),
            4,
            "70000",
        ),
        (second("protocol = \"sctp\""), 5, "sctp"),
        (second("mode = \"magic\""), 5, "magic"),
        (second("algorithm = \"random\""), 5, "random"),
        (second("ring_size = 250"), 5, "250"),
        (second("on_empty = \"cry\""), 5, "cry"),
        (second("wieght = 3"), 5, "wieght"),
        (second(&SERVICE.replace("80", "81")), 6, "line 2"),
        (second(&SERVICE.replace("web", "web2")), 7, "overlaps"),
        (backend("address = \"10.0.0.11\""), 7, "web/b has no port"),
        (backend("address = \"10.0.0.11:80\"\nweight = 70000"), 8, "70000"),
        (backend("address = \"10.0.0.11:80\"\nweight = -1"), 8, "-1"),
        (backend("address = \"[fd00::1]:80\""), 7, "IPv"),
        (
            backend(
                "address = \"10.0.0.11:80\"\n[[service.backend]]\nname = \"b\"\naddress = \"10.0.0.12:80\"",
            ),
            9,
            "b",
        ),
        (health("kind = \"telepathy\""), 6, "telepathy"),
        (health("kind = \"tcp\"\ninterval = \"0s\""), 7, "interval"),
        (health("kind = \"tcp\"\nrise = 0"), 7, "rise"),
        (health("kind = \"tcp\"\njitter = 2.0"), 7, "jitter"),
        (health("kind = \"tcp\"\npath = \"/health\""), 7, "path"),
        (health("kind = \"http\"\nexpect_status = [99]"), 7, "99"),
    ];
    let mut wrong = Vec::new();
    for (text, line, word) in cases {
        let path = dir.write("bad.toml", &text)?;
        let outcome = cli.run(&["check-config", &path.display().to_string()])?;
        let place = format!("bad.toml:{line}:");
        let fine =
            outcome.code == Some(1) && outcome.stderr.contains(&place) && outcome.stderr.contains(word);
        if !fine {
            wrong.push(format!(
                "expected {place} and {word:?} for\n{text}got {outcome:?}\n"
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));

    let two = "[lb]\nxdp_mode = \"fast\"\nmetrics = \"here\"\n[[service]]\nport = -1\n";
    let path = dir.write("bad.toml", two)?;
    let stderr = cli.fails(1, &format!("check-config {}", path.display()))?;
    ensure!(
        [":2:", ":3:", ":5:"].iter().all(|place| stderr.contains(place)),
        "every error at once: {stderr}"
    );
    let path = dir.write("good.toml", SERVICE)?;
    cli.ok(&format!("check-config {}", path.display()))?;
    Ok(())
}

#[test]
fn wrong_commands_fail_with_their_exit_code_and_change_nothing() -> Result<()> {
    let _lane = Lane::shared()?;
    let (lb, _other) = lone_balancer()?;
    let mut daemon = Daemon::new(&lb, &["eth0"])?.config(SERVICE)?;
    let cli = daemon.cli();
    ensure!(
        cli.fails(5, "status")?.contains("lb.sock"),
        "it names the socket it tried"
    );
    daemon.start()?;
    cli.ok("backend add web b0 --address 10.1.0.9:80")?;
    let before = cli.ok("export")?;
    let cases = [
        (2, "frobnicate", "frobnicate"),
        (2, "backend add web", "required"),
        (2, "backend add web b1 --address nowhere", "nowhere"),
        (2, "service add x --address 192.0.2.11 --port 70000", "70000"),
        (3, "service show nope", "nope"),
        (3, "service remove nope", "nope"),
        (3, "backend drain web nope", "nope"),
        (3, "backend set nope b0 --weight 1", "nope"),
        (4, "service add web --address 192.0.2.10 --port 81", "web"),
        (
            4,
            "service add other --address 192.0.2.10 --port 80",
            "192.0.2.10",
        ),
        (4, "backend add web b0 --address 10.1.0.10:80", "b0"),
        (1, "apply /nonexistent/lb.toml", "/nonexistent/lb.toml"),
    ];
    let mut wrong = Vec::new();
    for (code, line, word) in cases {
        let outcome = cli.run(&line.split(' ').collect::<Vec<_>>())?;
        if outcome.code != Some(code) || !outcome.stderr.contains(word) || !outcome.stderr.contains("error: ")
        {
            wrong.push(format!(
                "lb {line}: expected {code} and {word:?}, got {outcome:?}"
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let path = daemon.dir().write("bad.toml", "[[service]]\nname = 1\n")?;
    ensure!(
        cli.fails(1, &format!("apply {}", path.display()))?
            .contains("bad.toml:2:")
    );
    assert_eq!(cli.ok("export")?, before);
    Ok(())
}

#[test]
fn impossible_start_fails_with_its_reason() -> Result<()> {
    let _lane = Lane::shared()?;
    let (lb, _other) = lone_balancer()?;
    lb.ip("tuntap add t0 mode tun\nlink set t0 up")?;

    refused(&Daemon::new(&lb, &["nope0"])?.run_to_end()?, &["nope0", "hint: "])?;
    refused(&Daemon::new(&lb, &[])?.run_to_end()?, &["interface", "hint: "])?;
    refused(&Daemon::new(&lb, &["t0"])?.run_to_end()?, &["t0"])?;

    let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let outcome = Daemon::new(&lb, &["eth0"])?.through(&powerless).run_to_end()?;
    refused(&outcome, &["CAP_", "hint: "])?;

    let bad_config = Daemon::new(&lb, &["eth0"])?
        .config("[[service]]\nname = 1\n")?
        .run_to_end()?;
    refused(&bad_config, &["lb.toml:2:"])?;

    let dir = Scratch::new()?;
    let file = dir.write("file", "")?;
    let outcome = Daemon::new(&lb, &["eth0"])?
        .state_in(file.join("state"))
        .run_to_end()?;
    refused(&outcome, &["file/state"])?;
    let outcome = Daemon::new(&lb, &["eth0"])?
        .pins_in(file.join("pins"))
        .run_to_end()?;
    refused(&outcome, &["file/pins"])?;

    let link = lb.run("ip", &["link", "show", "dev", "eth0"])?;
    ensure!(
        !link.contains("xdp"),
        "a refused start leaves nothing attached: {link}"
    );
    Ok(())
}

#[test]
fn a_damaged_or_foreign_state_file_is_refused_and_kept() -> Result<()> {
    let _lane = Lane::shared()?;
    let (lb, _other) = lone_balancer()?;
    let mut daemon = Daemon::new(&lb, &["eth0"])?;
    daemon.start()?;
    daemon
        .cli()
        .ok("service add web --address 192.0.2.10 --port 80")?;
    daemon.kill()?;
    let file = largest_file(&daemon.state_dir())?;
    let whole = fs::read(&file)?;
    let flipped: Vec<u8> = whole
        .iter()
        .enumerate()
        .map(|(i, b)| if i == whole.len() / 2 { b ^ 1 } else { *b })
        .collect();
    for (what, damaged) in [
        ("truncated", &whole[..whole.len() / 2]),
        ("empty", &[][..]),
        ("one bit flipped", &flipped[..]),
        ("foreign", b"PNG not ours\n"),
    ] {
        fs::write(&file, damaged)?;
        let outcome = daemon.run_to_end().with_context(|| what.to_owned())?;
        refused(&outcome, &[&file.display().to_string(), "hint: "]).with_context(|| what.to_owned())?;
        assert_eq!(fs::read(&file)?, damaged, "{what}: kept for repair");
    }
    fs::write(&file, &whole)?;
    daemon.start()?;
    daemon.cli().ok("service show web")?;
    Ok(())
}

/// The state itself, beside locks and the like.
fn largest_file(dir: &std::path::Path) -> Result<std::path::PathBuf> {
    let files = fs::read_dir(dir)?.flatten().filter(|e| e.path().is_file());
    let largest = files.max_by_key(|e| e.metadata().map(|m| m.len()).unwrap_or(0));
    Ok(largest
        .with_context(|| format!("no file in {}", dir.display()))?
        .path())
}

#[test]
fn unsaved_change_is_refused_and_forwarding_continues() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::OneArmed, 1)?;
    let disk = site.daemon.dir().join("disk");
    fs::create_dir(&disk)?;
    checked(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "lbt"])
            .arg(&disk),
    )?;
    site.daemon = site.daemon.state_in(disk.join("state"));
    let web = site.web(Family::V4, &[1]);
    let site = site.start(&[web])?;
    let (cli, before) = (site.daemon.cli(), site.daemon.cli().ok("export")?);

    // Not even a small file fits any more.
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 64 << 10])
        .err()
        .context("the disk took more than its size")?;
    let stderr = cli.fails(1, "backend set web4 b0 --weight 7")?;
    ensure!(stderr.contains("error: ") && stderr.contains("state"), "{stderr}");
    assert_eq!(cli.ok("export")?, before, "the old state stays");
    let target = site.service_address(Family::V4);
    http_requests(&site.net.client.ns, target, 20_000, 20, 4)?.ensure_complete(20)?;

    fs::remove_file(&filler)?;
    cli.ok("backend set web4 b0 --weight 7")?;
    ensure!(cli.ok("export")?.contains("weight = 7"));
    Ok(())
}

#[test]
fn second_daemon_is_refused_and_the_first_continues() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let site = site.start(&[web])?;
    let (first, ns) = (&site.daemon, &site.net.lb.ns);
    let elsewhere = "127.0.0.1:9901".parse()?;
    let second = || -> Result<Daemon> { Ok(Daemon::new(ns, &["front"])?.metrics_at(elsewhere)) };

    refused(&second()?.pins_in(first.pin_dir()).run_to_end()?, &["pins"])?;
    refused(&second()?.socket_at(first.socket()).run_to_end()?, &["lb.sock"])?;
    refused(&second()?.state_in(first.state_dir()).run_to_end()?, &["state"])?;
    refused(&second()?.run_to_end()?, &["front"])?;

    assert_eq!(first.cli().json("status")?["pid"], first.pid()?);
    let target = site.service_address(Family::V4);
    http_requests(&site.net.client.ns, target, 20_000, 20, 4)?.ensure_complete(20)?;
    Ok(())
}

#[test]
fn start_beside_a_foreign_program_is_refused() -> Result<()> {
    let _lane = Lane::shared()?;
    let (lb, _other) = lone_balancer()?;
    let theirs = lb_tests::xdp_pass::PassProgram::attach(&lb, "eth0")?;
    let before = program_id(&lb)?;
    refused(&Daemon::new(&lb, &["eth0"])?.run_to_end()?, &["eth0"])?;
    assert_eq!(program_id(&lb)?, before);
    drop(theirs);
    let mut daemon = Daemon::new(&lb, &["eth0"])?;
    daemon.start()?;
    wait::until_true("it is attached", Duration::from_secs(5), || {
        Ok(program_id(&lb)?.is_some())
    })
}

fn program_id(ns: &Netns) -> Result<Option<u64>> {
    let text = ns.run("ip", &["-j", "link", "show", "dev", "eth0"])?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    Ok(links[0]["xdp"]["prog"]["id"].as_u64())
}

#[test]
fn daemon_without_services_prints_the_next_commands() -> Result<()> {
    let _lane = Lane::shared()?;
    let (lb, _other) = lone_balancer()?;
    let mut daemon = Daemon::new(&lb, &["eth0"])?;
    daemon.start()?;
    let log = daemon.log();
    ensure!(
        log.contains("lb service add") && log.lines().count() <= 20,
        "{log}"
    );
    daemon.stop()
}
