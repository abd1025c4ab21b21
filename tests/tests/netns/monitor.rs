//! `lb monitor`: what it shows is what backends get, and it leaves nothing behind.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_common::limits::LAYOUT_VERSION;
use lb_tests::{
    capture::Capture,
    client::http_requests,
    config::Service,
    daemon::Daemon,
    frames::Frame,
    lane::Lane,
    lb_cli::{Outcome, lb_binary},
    site::{HTTP_PORT, Site},
    test_run::Program,
    topology::{Family, Shape},
    wait,
};
use serde_json::Value;

/// For operations that normally take less than a second.
const LIMIT: Duration = Duration::from_secs(60);
/// Types of pcapng blocks: description of an interface, packet.
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

/// A command under way.
struct Running(Child);

impl Running {
    fn start(site: &Site, line: &str) -> Result<Self> {
        let mut command = site.net.lb.ns.command(lb_binary()?);
        command
            .env("LB_SOCKET", site.daemon.socket())
            .env("NO_COLOR", "1")
            .args(line.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Self(command.spawn().context("start lb monitor")?))
    }

    /// Waits for its end, with `meanwhile` again and again.
    fn outcome(mut self, mut meanwhile: impl FnMut() -> Result<()>) -> Result<Outcome> {
        let status = wait::until("lb monitor ends", LIMIT, || {
            meanwhile()?;
            Ok(self.0.try_wait()?)
        })?;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.0
            .stdout
            .take()
            .context("no output")?
            .read_to_string(&mut stdout)?;
        self.0
            .stderr
            .take()
            .context("no output")?
            .read_to_string(&mut stderr)?;
        Ok(Outcome {
            code: status.code(),
            stdout,
            stderr,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A balancer of two interfaces, with a service of mode `nat` that has a backend, and one without.
fn site() -> Result<Site> {
    let site = Site::new(Shape::TwoArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let empty = Service::tcp("empty", (site.net.vip(Family::V4, 11), 80).into());
    let site = site.start(&[web, empty])?;
    site.daemon.wait_for_whole_program()?;
    Ok(site)
}

fn programs(daemon: &Daemon) -> Result<Vec<u64>> {
    let status = daemon.cli().json("status")?;
    let interfaces = status["interfaces"].as_array().context("no interfaces")?;
    Ok(interfaces
        .iter()
        .filter_map(|interface| interface["program_id"].as_u64())
        .collect())
}

/// Pins of programs and their maps of stages.
fn pins(daemon: &Daemon) -> Result<usize> {
    Ok(fs::read_dir(daemon.pin_dir().join(format!("v{LAYOUT_VERSION}/programs")))?.count())
}

/// Waits until another program than these runs; returns those that do.
fn monitored(site: &Site, usual: &[u64]) -> Result<Vec<u64>> {
    wait::until("the monitored program runs", LIMIT, || {
        let now = programs(&site.daemon)?;
        Ok(now.iter().all(|id| !usual.contains(id)).then_some(now))
    })
}

/// Waits until nothing of a monitor is there any more.
fn nothing_left(site: &Site, usual: &[u64], monitored: &[u64]) -> Result<()> {
    wait::until_true("the usual program runs, and no other is there", LIMIT, || {
        let gone = |id: &u64| Ok::<_, anyhow::Error>(Program::by_id(u32::try_from(*id)?).is_err());
        let all_gone = monitored
            .iter()
            .map(gone)
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|gone| *gone);
        Ok(programs(&site.daemon)? == usual && all_gone && pins(&site.daemon)? == 2)
    })
}

/// Requests to the service that is answered, and one that is not.
fn traffic(site: &Site) -> Result<()> {
    let client = &site.net.client.ns;
    http_requests(client, site.service_address(Family::V4), 0, 1, 2)?.ensure_flawless()?;
    let empty = (site.net.vip(Family::V4, 11), 80).into();
    // No server answers: the SYN is all that the test needs.
    let _ = client.enter(|| lb_tests::http::connect_within(empty, 0, Duration::from_millis(20)))?;
    Ok(())
}

fn lines(outcome: &Outcome) -> Result<Vec<Value>> {
    ensure!(outcome.code == Some(0), "{outcome:?}");
    let lines = outcome.stdout.lines().map(|line| Ok(serde_json::from_str(line)?));
    lines.collect()
}

#[test]
fn packets_of_a_service_are_shown_in_both_directions() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    let client = site.net.client.ip(Family::V4).to_string();
    let command = "-o json monitor --service web4 --count 20";
    let shown = lines(&Running::start(&site, command)?.outcome(|| traffic(&site))?)?;
    ensure!(shown.len() == 20);
    let mut ways = BTreeMap::new();
    for packet in &shown {
        ensure!(
            packet["service"] == "web4" && packet["backend"] == "b0" && packet["protocol"] == "tcp",
            "{packet}"
        );
        let target = packet["destination"].as_str().context("no destination")?;
        ensure!(target == site.service_address(Family::V4).to_string(), "{packet}");
        let from = packet["client"].as_str().context("no client")?;
        ensure!(from.starts_with(&format!("{client}:")), "{packet}");
        ensure!(
            packet["verdict"] == "redirect" && packet["reason"] == "forwarded_redirect",
            "{packet}"
        );
        ensure!(
            packet.get("before").is_none(),
            "bytes that were not asked for: {packet}"
        );
        let direction = packet["direction"].as_str().context("no direction")?;
        let interface = packet["interface"].as_str().context("no interface")?;
        *ways
            .entry((direction.to_owned(), interface.to_owned()))
            .or_insert(0) += 1;
    }
    let [front, back] = site.net.lb_interfaces() else {
        anyhow::bail!("two interfaces");
    };
    let ways: Vec<_> = ways.into_keys().collect();
    let both = [
        ("reply".to_owned(), (*back).to_owned()),
        ("request".to_owned(), (*front).to_owned()),
    ];
    ensure!(ways == both, "{ways:?}");
    // For people: one line each.
    let text = Running::start(&site, "monitor --backend b0 --client 0.0.0.0/0 --count 5")?
        .outcome(|| traffic(&site))?;
    ensure!(
        text.code == Some(0) && text.stdout.lines().count() == 5,
        "{text:?}"
    );
    ensure!(
        text.stdout
            .lines()
            .all(|line| line.contains("(web4)") && line.contains("b0  forwarded_redirect")),
        "{text:?}"
    );
    Ok(())
}

#[test]
fn drops_are_shown_with_their_reason() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    for filter in [
        "--drops",
        "--reason no_backend",
        "--service empty",
        "--drops --sample 1/2",
    ] {
        let command = format!("-o json monitor {filter} --count 3");
        let shown = lines(&Running::start(&site, &command)?.outcome(|| traffic(&site))?)?;
        for packet in shown {
            ensure!(
                packet["verdict"] == "drop" && packet["reason"] == "no_backend",
                "{filter}: {packet}"
            );
            ensure!(
                packet["service"] == "empty" && packet["backend"].is_null(),
                "{filter}: {packet}"
            );
        }
    }
    Ok(())
}

/// A packet of a file.
struct InFile {
    comment: String,
    is_outbound: bool,
    frame: Vec<u8>,
    len: usize,
}

/// Reads a pcapng file of whole blocks; returns names of interfaces, and packets.
fn read_pcapng(path: &Path) -> Result<(Vec<String>, Vec<InFile>)> {
    let bytes = fs::read(path)?;
    let word = |bytes: &[u8], at: usize| -> Result<usize> {
        let bytes = bytes.get(at..at + 4).context("cut off")?;
        Ok(usize::try_from(u32::from_le_bytes(bytes.try_into()?))?)
    };
    let options = |mut rest: &[u8]| -> Result<BTreeMap<u16, Vec<u8>>> {
        let mut options = BTreeMap::new();
        while !rest.is_empty() {
            let head = word(rest, 0)?;
            let (kind, len) = (u16::try_from(head & 0xffff)?, head >> 16);
            options.insert(kind, rest.get(4..4 + len).context("cut off")?.to_vec());
            rest = &rest[4 + len.next_multiple_of(4)..];
        }
        Ok(options)
    };
    let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (kind, len) = (u32::try_from(word(rest, 0)?)?, word(rest, 4)?);
        let block = rest.get(..len).context("cut off")?;
        ensure!(word(block, len - 4)? == len, "two lengths");
        match kind {
            INTERFACE => interfaces.push(String::from_utf8(options(&block[16..len - 4])?[&2].clone())?),
            PACKET => {
                ensure!(
                    word(block, 8)? < interfaces.len(),
                    "an interface that was not described"
                );
                let captured = word(block, 20)?;
                let options = options(&block[28 + captured.next_multiple_of(4)..len - 4])?;
                packets.push(InFile {
                    comment: String::from_utf8(options[&1].clone())?,
                    is_outbound: options[&2][0] & 3 == 2,
                    frame: block[28..28 + captured].to_vec(),
                    len: word(block, 24)?,
                });
            }
            _ => ensure!(
                interfaces.is_empty() && packets.is_empty(),
                "a block of type {kind:#x}"
            ),
        }
        rest = &rest[len..];
    }
    Ok((interfaces, packets))
}

/// Wireshark's view is the backend's: what the file has as sent is what the backend received.
#[test]
fn a_file_has_each_packet_as_it_came_and_as_the_backend_got_it() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    let backend = &site.net.backends[0];
    let at_backend = Capture::start(&backend.ns, "eth0", |frame| frame.destination.port() == HTTP_PORT)?;
    let at_client = Capture::start(&site.net.client.ns, "eth0", |frame| {
        frame.destination.port() == 80
    })?;
    let file = site.daemon.dir().join("packets");
    let command = format!("monitor --service web4 --count 30 --pcap {}", file.display());
    let outcome = Running::start(&site, &command)?.outcome(|| traffic(&site))?;
    ensure!(
        outcome.code == Some(0) && outcome.stdout.is_empty(),
        "{outcome:?}"
    );
    let frames = |capture: Capture| -> Result<Vec<Frame>> {
        Ok(capture
            .stop()?
            .into_iter()
            .map(|captured| captured.frame)
            .collect())
    };
    let (received, sent) = (frames(at_backend)?, frames(at_client)?);
    let (interfaces, packets) = read_pcapng(&file)?;
    ensure!(interfaces.len() == 2, "{interfaces:?}");
    ensure!(
        packets.len() == 60,
        "{} packets, not 30 before and after",
        packets.len()
    );
    let mut compared = 0;
    for packet in &packets {
        ensure!(
            packet.comment == "redirect: forwarded_redirect, service web4, backend b0",
            "{}",
            packet.comment
        );
        ensure!(packet.frame.len() == packet.len.min(if packet.is_outbound { 192 } else { 128 }));
        // Longer packets are cut off.
        let Some(frame) = Frame::parse(&packet.frame).filter(|_| packet.frame.len() == packet.len) else {
            continue;
        };
        if packet.is_outbound && frame.destination.port() == HTTP_PORT {
            ensure!(received.contains(&frame), "not received: {frame:?}");
            compared += 1;
        }
        if !packet.is_outbound && frame.destination.port() == 80 {
            ensure!(sent.contains(&frame), "not sent: {frame:?}");
            compared += 1;
        }
    }
    ensure!(compared > 10, "{compared} packets were compared");
    Ok(())
}

/// The one that asked has gone without a word.
#[test]
fn a_killed_command_leaves_the_usual_program() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    let usual = programs(&site.daemon)?;
    let running = Running::start(&site, "monitor --drops")?;
    let monitored = monitored(&site, &usual)?;
    let refused = site.daemon.cli().fails(4, "monitor --count 1")?;
    ensure!(
        refused.contains("another monitor runs") && refused.contains("hint"),
        "{refused}"
    );
    // Dropping kills it.
    drop(running);
    nothing_left(&site, &usual, &monitored)?;
    traffic(&site)
}

#[test]
fn a_killed_daemon_ends_the_monitor_and_the_next_one_removes_what_is_left() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = site()?;
    let usual = programs(&site.daemon)?;
    let running = Running::start(&site, "monitor")?;
    let monitored = monitored(&site, &usual)?;
    site.daemon.kill()?;
    let outcome = running.outcome(|| Ok(()))?;
    ensure!(
        outcome.code == Some(5) && outcome.stderr.contains("hint"),
        "{outcome:?}"
    );
    // It forwards as before.
    traffic(&site)?;
    site.daemon.start()?;
    nothing_left(&site, &usual, &monitored)?;
    traffic(&site)
}

/// An upgrade, or a restart, while somebody looks.
#[test]
fn a_daemon_that_leaves_puts_the_usual_program_back() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = site()?;
    let usual = programs(&site.daemon)?;
    site.daemon.stop()?;
    site.daemon = site.daemon.args("--on-exit keep");
    site.daemon.start()?;
    site.daemon.wait_for_whole_program()?;
    let usual = if programs(&site.daemon)? == usual {
        usual
    } else {
        programs(&site.daemon)?
    };
    let running = Running::start(&site, "monitor")?;
    let monitored = monitored(&site, &usual)?;
    site.daemon.stop()?;
    let outcome = running.outcome(|| Ok(()))?;
    ensure!(outcome.code == Some(5), "{outcome:?}");
    ensure!(
        outcome.stderr.contains("the daemon has ended the monitor"),
        "{outcome:?}"
    );
    ensure!(pins(&site.daemon)? == 2, "pins of the monitor are left");
    for id in monitored {
        wait::until_true("the monitored program is gone", LIMIT, || {
            Ok(Program::by_id(u32::try_from(id)?).is_err())
        })?;
    }
    traffic(&site)?;
    site.daemon.start()?;
    ensure!(programs(&site.daemon)? == usual);
    Ok(())
}

#[test]
fn packets_beyond_the_rate_are_reported_as_not_shown() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    let outcome = Running::start(&site, "-o json monitor --rate 1 --count 3")?.outcome(|| traffic(&site))?;
    ensure!(lines(&outcome)?.len() == 3);
    ensure!(outcome.stderr.contains("packets are not shown"), "{outcome:?}");
    Ok(())
}

#[test]
fn a_monitor_ends_with_the_service_that_it_was_for() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    let usual = programs(&site.daemon)?;
    let file = site.daemon.dir().join("packets");
    let command = format!("monitor --service empty --pcap {}", file.display());
    let running = Running::start(&site, &command)?;
    let monitored = monitored(&site, &usual)?;
    wait::until_true("the file has begun", LIMIT, || Ok(fs::metadata(&file)?.len() > 0))?;
    // Another change ends nothing.
    site.daemon.cli().ok("backend drain web4 b0")?;
    site.daemon.cli().ok("service remove empty")?;
    let outcome = running.outcome(|| Ok(()))?;
    ensure!(
        outcome.code == Some(3)
            && outcome.stderr.contains("service empty was removed")
            && outcome.stderr.contains("hint"),
        "{outcome:?}"
    );
    // A reader takes the file, also without packets.
    let (interfaces, packets) = read_pcapng(&file)?;
    ensure!(packets.is_empty() && interfaces == site.net.lb_interfaces());
    nothing_left(&site, &usual, &monitored)
}

/// It may be the only record of an incident, or another command may be writing it.
#[test]
fn a_file_is_replaced_by_packets_and_not_by_a_refusal() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    let file = site.daemon.dir().join("packets");
    let old = vec![b'x'; 1 << 20];
    fs::write(&file, &old)?;
    let to_file = format!("--pcap {}", file.display());
    let cli = site.daemon.cli();
    cli.fails(3, &format!("monitor --service wob {to_file}"))?;
    cli.fails(2, &format!("monitor --count 0 {to_file}"))?;
    ensure!(fs::read(&file)? == old);
    let command = format!("monitor --service web4 --count 1 {to_file}");
    let outcome = Running::start(&site, &command)?.outcome(|| traffic(&site))?;
    ensure!(outcome.code == Some(0), "{outcome:?}");
    ensure!(read_pcapng(&file)?.1.len() == 2);
    Ok(())
}

/// Packets go on meanwhile, through the monitor's program.
#[test]
fn a_usual_program_that_cannot_be_put_back_is_reported_and_tried_again() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    let usual = programs(&site.daemon)?;
    let running = Running::start(&site, "monitor")?;
    let monitored = monitored(&site, &usual)?;
    let link = site.daemon.pin_dir().join(format!("v{LAYOUT_VERSION}/links/0"));
    // The daemon may pin the link again before the directory is there.
    wait::until_true("a directory is where the link was pinned", LIMIT, || {
        fs::remove_file(&link)?;
        Ok(fs::create_dir(&link).is_ok())
    })?;
    let what = "a monitor has ended, and its program still runs";
    let is_reported = || -> Result<bool> {
        let status = site.daemon.cli().json("status")?;
        Ok(status["problems"].to_string().contains(what))
    };
    // Dropping kills it.
    drop(running);
    wait::until_true("the failure is reported", LIMIT, &is_reported)?;
    ensure!(programs(&site.daemon)?[0] == monitored[0]);
    traffic(&site)?;
    fs::remove_dir(&link)?;
    wait::until_true("the usual program runs again", LIMIT, || {
        Ok(programs(&site.daemon)? == usual)
    })?;
    wait::until_true("the failure is over", LIMIT, || Ok(!is_reported()?))?;
    let events = site.daemon.cli().ok("events")?;
    ensure!(events.contains("the usual program runs again"), "{events}");
    traffic(&site)
}

/// Nothing would ever be shown.
#[test]
fn a_daemon_without_interfaces_says_so() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    for device in site.net.lb_interfaces() {
        site.net.lb.ns.ip(&format!("link del {device}"))?;
    }
    wait::until_true("the interfaces are gone", LIMIT, || {
        Ok(programs(&site.daemon)?.iter().all(|id| *id == 0))
    })?;
    let refused = site.daemon.cli().fails(4, "monitor")?;
    ensure!(
        refused.contains("runs on no interface") && refused.contains("lb status"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn what_does_not_exist_is_refused_with_the_names_that_do() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = site()?;
    let usual = programs(&site.daemon)?;
    let cli = site.daemon.cli();
    let refused = cli.fails(3, "monitor --service wob")?;
    ensure!(
        refused.contains("no such service") && refused.contains("empty, web4"),
        "{refused}"
    );
    let refused = cli.fails(3, "monitor --backend b7")?;
    ensure!(
        refused.contains("no such backend") && refused.contains("backends: b0"),
        "{refused}"
    );
    cli.fails(3, "monitor --reason none")?;
    cli.fails(2, "monitor --sample 1/0")?;
    cli.fails(2, "monitor --count 0")?;
    ensure!(programs(&site.daemon)? == usual, "nothing was loaded");
    site.daemon.stop()?;
    cli.fails(5, "monitor")?;
    Ok(())
}
