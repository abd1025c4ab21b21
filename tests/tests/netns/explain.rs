//! Packets go where `lb explain` predicts.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use etherparse::PacketBuilder;
use lb_tests::{
    client::{KeepAlive, http_requests},
    config::{Service, file},
    daemon::Daemon,
    direct::Direct,
    lane::Lane,
    site::{HTTP_PORT, Site},
    test_run::Program,
    topology::{Family, Shape},
    wait,
};
use serde_json::Value;

/// Number of explained flows.
const FLOWS: u16 = 20;
const FIRST_PORT: u16 = 20_000;

fn text<'a>(explanation: &'a Value, key: &str) -> Result<&'a str> {
    explanation[key]
        .as_str()
        .with_context(|| format!("{key} in {explanation}"))
}

#[test]
fn flow_goes_where_explain_predicts_and_stays() -> Result<()> {
    let _lane = Lane::shared()?;
    for family in Family::BOTH {
        direct(family)?;
        translated(family)?;
    }
    Ok(())
}

/// Backends get packets as they come, and slots change hands.
fn direct(family: Family) -> Result<()> {
    let site = Direct::start(family, 3, 3, "", "")?;
    let cli = site.daemon.cli();
    let client = site.net.client.ip(family);
    let ask = |port: u16, more: &str| {
        let source = std::net::SocketAddr::new(client, port);
        cli.json(&format!("explain tcp {source} {} {more}", site.target))
    };
    let answered = |port: u16| -> Result<String> {
        let report = http_requests(&site.net.client.ns, site.target, port, 1, 1)?;
        report.ensure_complete(1)?;
        Ok(report.answers.into_keys().next().unwrap_or_default())
    };
    let mut before = Vec::new();
    for port in FIRST_PORT..FIRST_PORT + FLOWS {
        let explanation = ask(port, "")?;
        ensure!(
            text(&explanation, "verdict")? == "forward" && text(&explanation, "mode")? == "l2dsr",
            "{explanation}"
        );
        ensure!(
            explanation["tracked"] == false && explanation["slot"].is_u64(),
            "{explanation}"
        );
        let backend = text(&explanation, "backend")?.to_owned();
        ensure!(backend == answered(port)?, "{explanation}");
        before.push(backend);
    }
    ensure!(
        before.iter().any(|name| name == "b0"),
        "some flow leads to b0: {before:?}"
    );
    cli.ok("backend drain web b0")?;
    for (port, before) in (FIRST_PORT..).zip(&before) {
        let (new, old) = (ask(port, "")?, ask(port, "--established")?);
        ensure!(text(&old, "backend")? == before, "an older flow stays: {old}");
        ensure!(text(&new, "backend")? == answered(port)?, "{new}");
        ensure!(text(&new, "backend")? != "b0");
    }
    for backend in ["b1", "b2"] {
        cli.ok(&format!("backend disable web {backend}"))?;
    }
    cli.ok("backend disable web b0")?;
    let explanation = ask(FIRST_PORT, "")?;
    ensure!(
        text(&explanation, "verdict")? == "drop" && text(&explanation, "reason")? == "no_backend",
        "{explanation}"
    );
    Ok(())
}

/// Every flow is recorded, and its answers come back through the balancer.
fn translated(family: Family) -> Result<()> {
    let site = Site::new(Shape::TwoArmed, 2)?;
    let web = site.web(family, &[1, 1]);
    let site = site.start(&[web])?;
    let (cli, target) = (site.daemon.cli(), site.service_address(family));
    let client = site.net.client.ip(family);
    let ask = |port: u16| {
        let source = std::net::SocketAddr::new(client, port);
        cli.json(&format!("explain tcp {source} {target}"))
    };
    for port in FIRST_PORT..FIRST_PORT + FLOWS {
        let explanation = ask(port)?;
        ensure!(explanation["tracked"] == false, "{explanation}");
        ensure!(
            explanation["output"]["interface"] == site.net.lb_interfaces()[1],
            "out towards the backends: {explanation}"
        );
        let report = http_requests(&site.net.client.ns, target, port, 1, 1)?;
        let backend = text(&explanation, "backend")?;
        ensure!(report.answers_of(backend) == 1, "{explanation} {report:?}");
    }
    // A connection that stays: it is recorded, and belongs to the backend that answers it.
    let load = KeepAlive::start(&site.net.client.ns, target, 1)?;
    load.wait_rounds(2)?;
    let elsewhere = std::net::SocketAddr::new(target.ip(), 81);
    let explanation = cli.json(&format!("explain tcp {}:1 {elsewhere}", bracketed(client)))?;
    ensure!(
        text(&explanation, "verdict")? == "pass" && text(&explanation, "reason")? == "not_ours",
        "{explanation}"
    );
    load.stop()?;
    Ok(())
}

fn bracketed(ip: std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Modes, and whether a packet of one family can go to a backend of the other.
const MODES: [(&str, bool); 5] = [
    ("nat", false),
    ("dnat", false),
    ("l2dsr", false),
    ("ipip", true),
    ("gue", true),
];
/// XDP_TX and XDP_REDIRECT.
const LEAVES: [u32; 2] = [3, 4];
/// Offsets of the source port in a frame, and of TCP's checksum, in mode `nat` by family.
const PORT_AND_CHECKSUM: [[usize; 2]; 2] = [[34, 50], [54, 70]];

#[test]
fn frame_shown_by_explain_equals_the_programs_output() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let mut services = Vec::new();
    let mut cases = Vec::new();
    for (family, to, (mode, crosses)) in Family::BOTH
        .into_iter()
        .flat_map(|family| Family::BOTH.map(|to| (family, to)))
        .flat_map(|(family, to)| MODES.map(|mode| (family, to, mode)))
    {
        if family != to && !crosses {
            continue;
        }
        let name = format!("{mode}-{}-{}", family.keyword(), to.keyword());
        let port = 1_000 + u16::try_from(cases.len())?;
        let target = SocketAddr::new(site.net.vip(family, 10), port);
        let keeps = if ["nat", "dnat"].contains(&mode) {
            HTTP_PORT
        } else {
            port
        };
        let service = Service::tcp(&name, target)
            .keys(&format!("mode = \"{mode}\""))
            .health("kind = \"none\"");
        services.push(service.backend("b0", site.net.backends[0].socket(to, keeps), 1));
        cases.push((family, mode, target));
    }
    site.net.forward_in_kernel()?;
    let site = site.start(&services)?;
    let (cli, front) = (site.daemon.cli(), site.net.lb_interfaces()[0]);
    site.daemon.wait_for_whole_program()?;
    let id = cli.json("status")?["interfaces"][0]["program_id"].as_u64();
    let program = Program::by_id(id.context("no program")?.try_into()?)?;
    let (own, ifindex) = (site.net.lb.ns.mac(front)?, site.net.lb.ns.ifindex(front)?);
    for (index, (family, mode, target)) in cases.into_iter().enumerate() {
        // Opening and not; the first opens the flow of mode nat that the second belongs to.
        for (opens, more) in [(true, ""), (false, "--established --ttl 9 --length 100")] {
            let source = SocketAddr::new(site.net.client.ip(family), 30_000 + u16::try_from(index)?);
            let explanation = cli.json(&format!("explain tcp {source} {target} --iface {front} {more}"))?;
            let mut shown = unhex(
                explanation["output"]["packet_hex"]
                    .as_str()
                    .with_context(|| format!("{explanation}"))?,
            )?;
            let frame = incoming(own, source, target, opens)?;
            let (action, mut made) = site.net.lb.ns.enter(|| {
                let mut runner = program.runner_on(ifindex);
                runner.run(&frame).map(|(action, frame)| (action, frame.to_vec()))
            })??;
            ensure!(LEAVES.contains(&action), "action {action}: {explanation}");
            if mode == "nat" && opens {
                // The port is chosen when the packet comes, and explain shows 0.
                for at in PORT_AND_CHECKSUM[usize::from(target.is_ipv6())] {
                    for frame in [&mut shown, &mut made] {
                        frame[at..at + 2].fill(0);
                    }
                }
            }
            ensure!(
                shown == made,
                "{explanation}\nshown {shown:02x?}\nmade  {made:02x?}"
            );
        }
    }
    Ok(())
}

/// A frame as a client on the link sends it; a frame that opens no flow is 100 bytes long and has TTL 9.
fn incoming(own: [u8; 6], source: SocketAddr, target: SocketAddr, opens: bool) -> Result<Vec<u8>> {
    let ttl = if opens { 64 } else { 9 };
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], own);
    let (builder, headers) = match (source.ip(), target.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (ethernet.ipv4(from.octets(), to.octets(), ttl), 40),
        (IpAddr::V6(from), IpAddr::V6(to)) => (ethernet.ipv6(from.octets(), to.octets(), ttl), 60),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => bail!("two families"),
    };
    let tcp = builder.tcp(source.port(), target.port(), 0, u16::MAX);
    let (tcp, payload) = if opens {
        (tcp.syn(), Vec::new())
    } else {
        (tcp.ack(0), vec![0; 100 - headers])
    };
    let mut frame = Vec::new();
    tcp.write(&mut frame, &payload)?;
    Ok(frame)
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|two| Ok(u8::from_str_radix(std::str::from_utf8(two)?, 16)?))
        .collect()
}

#[test]
fn a_forwarded_packet_whose_flow_fails_is_explained_with_the_fault_and_its_remedy() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let direct = Service::tcp("direct", SocketAddr::new(site.net.vip(Family::V4, 2), HTTP_PORT))
        .keys("mode = \"l2dsr\"")
        .backend("b0", site.net.backends[0].socket(Family::V4, HTTP_PORT), 1);
    // Replies of mode nat come in by the other interface, where no program runs.
    site.daemon = Daemon::new(&site.net.lb.ns, &["front"])?.config(&file(&[web, direct]))?;
    site.daemon.start()?;
    let cli = site.daemon.cli();
    let client = SocketAddr::new(site.net.client.ip(Family::V4), FIRST_PORT);
    let target = site.service_address(Family::V4);
    wait::until_true("the daemon has looked", Duration::from_secs(20), || {
        Ok(cli.json("service show web4")?["state"] == "broken")
    })?;
    let explanation = cli.json(&format!("explain tcp {client} {target}"))?;
    ensure!(
        text(&explanation, "verdict")? == "forward" && explanation["output"]["interface"] == "back",
        "{explanation}"
    );
    ensure!(
        text(&explanation, "fault")?
            .contains("its replies come in by back, on which the program does not run")
            && text(&explanation, "remedy")?.contains("name back"),
        "{explanation}"
    );
    let shown = cli.ok(&format!("explain tcp {client} {target}"))?;
    let (_, verdict) = shown.split_once("forward out of back: ").context("no verdict")?;
    ensure!(
        verdict.starts_with("forwarded_redirect\nbut flows fail: b0: its replies")
            && verdict.contains("\nhint: name back"),
        "{shown}"
    );
    let other = SocketAddr::new(site.net.vip(Family::V4, 2), HTTP_PORT);
    let explanation = cli.json(&format!("explain tcp {client} {other}"))?;
    ensure!(
        explanation["fault"].is_null() && explanation["remedy"].is_null(),
        "{explanation}"
    );
    Ok(())
}

#[test]
fn a_reason_is_explained_without_a_daemon() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let cli = site.daemon.cli();
    ensure!(cli.ok("explain no_backend")?.contains("lb backend list"));
    ensure!(cli.ok("explain")?.contains("snat_ports_exhausted"));
    ensure!(cli.fails(2, "explain gremlins")?.contains("lists all reasons"));
    ensure!(cli.fails(2, "explain tcp")?.contains("192.0.2.10:80"));
    Ok(())
}
