//! On the oldest kernel that `lb` promises to run on, in a virtual machine: the program loads, every mode forwards,
//! backends behind the kernel's own VLAN devices are reached, also by health checks through the path, and `lb doctor` sees what drivers
//! do to frames.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::http_requests,
    config::{Service, file},
    daemon::Daemon,
    decap::Decap,
    http::HttpServer,
    lane::Lane,
    lb_cli::lb_binary,
    netns::Netns,
    scratch::Scratch,
    topology::{Family, Shape, Topology},
    wait,
};
use serde_json::Value;

const PORT: u16 = 8080;
const REQUESTS: u16 = 20;
/// Of the backends' link, and of their own network in it.
const VLAN: u16 = 10;

/// Long enough for a processor in software.
const HEALTH: &str = "kind = \"http\"\nthrough = \"vip\"\ntimeout = \"10s\"";
const PLENTY: Duration = Duration::from_secs(60);

/// A mode, and the last part of its services' addresses.
const MODES: [(&str, u8); 4] = [("nat", 10), ("l2dsr", 11), ("ipip", 12), ("gue", 13)];

/// The address of host `n` in the VLAN.
fn in_vlan(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 10, 0, n].into(),
        Family::V6 => [0xfd10, 0, 0, 0, 0, 0, 0, n.into()].into(),
    }
}

/// Puts a VLAN device on a host's link.
fn join_vlan(ns: &Netns, n: u8) -> Result<()> {
    let (v4, v6) = (in_vlan(Family::V4, n), in_vlan(Family::V6, n));
    ns.ip(&format!(
        "link add link eth0 name vlan type vlan id {VLAN}\nlink set vlan up\n\
         addr add {v4}/24 dev vlan\naddr add {v6}/64 dev vlan nodad"
    ))
}

#[test]
fn every_mode_reaches_a_backend_behind_a_vlan_of_the_kernel() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let backend = &net.backends[0].ns;
    join_vlan(&net.lb.ns, 1)?;
    join_vlan(backend, 10)?;
    // Its answers go to clients themselves, which are not in the VLAN; it never announces services.
    backend.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    backend.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    let mut services = Vec::new();
    let mut servers = Vec::new();
    for family in Family::BOTH {
        let address = SocketAddr::new(in_vlan(family, 10), PORT);
        let mut addresses = vec![address];
        for (mode, n) in MODES {
            let vip = SocketAddr::new(net.vip(family, n), PORT);
            if mode != "nat" {
                let bits = if vip.is_ipv4() { 32 } else { 128 };
                backend.ip(&format!("addr add {}/{bits} dev lo nodad", vip.ip()))?;
                addresses.push(vip);
            }
            let service = Service::tcp(&format!("{mode}-{family:?}"), vip)
                .keys(&format!("mode = \"{mode}\""))
                .health(HEALTH);
            services.push(service.backend("b0", address, 1));
        }
        servers.push(HttpServer::start(backend, "b0", &addresses)?);
    }
    let balancer = Family::BOTH.map(|family| in_vlan(family, 1).to_string());
    // Attached to the link below the VLAN: that is where tagged frames arrive.
    let _decap = Decap::start(backend, "eth0", &balancer)?;
    let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
    daemon.start()?;
    wait::until_true("checks through the path succeed", PLENTY, || {
        let status = daemon.cli().json("status")?;
        let services = status["services"].as_array().context("no services")?;
        let up = |service: &Value| service["backends"][0]["health"] == "up";
        Ok(services.iter().all(up))
    })?;
    for ((mode, n), first_port) in MODES.into_iter().zip((20_000..).step_by(1000)) {
        for family in Family::BOTH {
            let vip = SocketAddr::new(net.vip(family, n), PORT);
            let report = http_requests(&net.client.ns, vip, first_port, REQUESTS, 4)?;
            report
                .ensure_complete(REQUESTS.into())
                .with_context(|| format!("{mode} for {vip}"))?;
        }
    }
    monitored(&net, &daemon)?;
    let metrics = daemon.metrics()?;
    ensure!(metrics.count("lb_drops_total", &[]) == 0, "packets were dropped");
    daemon.stop()
}

/// The program that records packets loads, takes the place of the usual one, and shows what each mode does.
fn monitored(net: &Topology, daemon: &Daemon) -> Result<()> {
    let mut first_port = 30_000;
    for (mode, n) in MODES {
        for family in Family::BOTH {
            let vip = SocketAddr::new(net.vip(family, n), PORT);
            let service = format!("{mode}-{family:?}");
            let mut command = net.lb.ns.command(lb_binary()?);
            let command = command
                .env("LB_SOCKET", daemon.socket())
                .args(["-o", "json", "monitor", "--count", "6", "--service", &service])
                .stdout(Stdio::piped());
            let mut monitor = command.spawn().context("start lb monitor")?;
            let status = wait::until("packets are shown", PLENTY, || {
                http_requests(&net.client.ns, vip, first_port, 1, 1)?.ensure_complete(1)?;
                first_port += 1;
                Ok(monitor.try_wait()?)
            })?;
            let mut shown = String::new();
            let output = monitor.stdout.as_mut().context("no output")?;
            output.read_to_string(&mut shown)?;
            ensure!(
                status.success() && shown.lines().count() == 6,
                "{service}: {status}: {shown}"
            );
            for line in shown.lines() {
                let packet: Value = serde_json::from_str(line)?;
                ensure!(
                    packet["backend"] == "b0" && packet["verdict"] == "tx",
                    "{service}: {packet}"
                );
            }
        }
    }
    Ok(())
}

/// Devices that not every kernel has: VLANs, and bonds, which join received packets.
#[test]
fn what_drivers_do_to_frames_is_recognised_and_mended_by_the_remedies() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let lb = &net.lb.ns;
    let dir = Scratch::new()?;
    let diagnose = |interface: &str, services: &[Service]| -> Result<Vec<Value>> {
        let config = format!("[lb]\ninterfaces = [\"{interface}\"]\n{}", file(services));
        let config = dir.write("lb.toml", config)?;
        let output = lb
            .command(lb_binary()?)
            .args(["-o", "json", "--socket", "/no.sock", "doctor", "--config"])
            .arg(config)
            .output()?;
        let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        report["findings"].as_array().context("no findings").cloned()
    };
    let found = |findings: &[Value], check: &str, level: &str, words: &str| -> Result<String> {
        let mut all = findings.iter();
        let finding = all.find(|finding| finding["check"] == check && finding["level"] == level);
        let finding = finding.with_context(|| format!("no {level} of {check}: {findings:#?}"))?;
        ensure!(
            finding.to_string().contains(words),
            "{words:?} is not in {finding}"
        );
        Ok(finding["do"][0].as_str().context("no remedy")?.to_owned())
    };
    let is_gone = |findings: &[Value], check: &str| -> Result<()> {
        ensure!(
            findings.iter().all(|finding| finding["check"] != check),
            "mended: {findings:#?}"
        );
        Ok(())
    };

    // The shell there has an `ip` of its own.
    let carry_out = |command: &str| -> Result<()> {
        let words: Vec<&str> = command.split(' ').collect();
        lb.run(words[0], &words[1..]).map(drop)
    };
    lb.ip(&format!(
        "link add link eth0 name vlan type vlan id {VLAN}\nlink set vlan up"
    ))?;
    net.middle.run("ethtool", &["-K", "lb", "txvlan", "on"])?;
    let mends = found(&diagnose("eth0", &[])?, "rx_vlan", "warn", "those of vlan apart")?;
    carry_out(&mends)?;
    is_gone(&diagnose("eth0", &[])?, "rx_vlan")?;

    lb.ip("link add bond9 type bond\nlink set bond9 up")?;
    lb.run("ethtool", &["-K", "bond9", "lro", "on"])?;
    let mends = found(&diagnose("bond9", &[])?, "lro", "warn", "joins packets")?;
    carry_out(&mends)?;
    is_gone(&diagnose("bond9", &[])?, "lro")?;

    // The program puts on two tags at most.
    lb.ip(
        "link add link vlan name vlan2 type vlan id 2\nlink add link vlan2 name vlan3 type vlan id 3\n\
         link set vlan2 up\nlink set vlan3 up\naddr add 10.11.0.1/24 dev vlan3",
    )?;
    let web = Service::tcp("web", SocketAddr::new(net.vip(Family::V4, 1), PORT));
    let web = web.backend("b0", "10.11.0.10:8080".parse()?, 1);
    found(&diagnose("eth0", &[web])?, "path", "fail", "at most two VLANs").map(drop)
}
