//! `lb doctor`: each broken set-up is recognised, with a remedy, and nothing false is said of those that work.

mod at_run_time;
mod certificates;
mod fitness;
mod probe;
mod users;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    http::HttpServer,
    lane::Lane,
    lb_cli::{LbCli, lb_binary},
    netns::Netns,
    scratch::Scratch,
    site::{HTTP_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape, Topology},
    udp::UdpEcho,
    wait,
    xdp_pass::PassProgram,
};
use serde_json::Value;

/// A machine that `lb doctor` looks at.
struct Patient {
    net: Topology,
    dir: Scratch,
}

impl Patient {
    fn new() -> Result<Self> {
        Ok(Self {
            net: Topology::new(Shape::TwoArmed, 2)?,
            dir: Scratch::new()?,
        })
    }

    fn lb(&self) -> &Netns {
        &self.net.lb.ns
    }

    /// Runs `lb doctor` on a file, through another program where `wrapper` has words, and returns its exit code and findings.
    fn diagnose(&self, wrapper: &[&str], config: &str, args: &[&str]) -> Result<(i32, Vec<Value>)> {
        let config = self.dir.write("lb.toml", config)?;
        let lb = lb_binary()?.display().to_string();
        let words: Vec<&str> = wrapper.iter().copied().chain([lb.as_str()]).collect();
        let output = self
            .lb()
            .command(words[0])
            .args(&words[1..])
            .args(["-o", "json", "--socket"])
            .arg(self.dir.join("no.sock"))
            .args(["doctor", "--config"])
            .arg(config)
            .args(args)
            .output()?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let findings = report["findings"].as_array().context("no findings")?.clone();
        Ok((output.status.code().context("killed")?, findings))
    }

    /// A service with one backend that exists.
    fn service(&self, address: &str) -> Result<Service> {
        let address = SocketAddr::new(address.parse()?, SERVICE_PORT);
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        Ok(Service::tcp("web", address).backend("b0", self.net.backends[0].socket(family, HTTP_PORT), 1))
    }

    /// A service in `mode` with one backend at `address`.
    fn with_backend(&self, mode: &str, address: &str) -> Result<Service> {
        let backend: SocketAddr = address.parse()?;
        let family = if backend.is_ipv4() { Family::V4 } else { Family::V6 };
        let vip = SocketAddr::new(self.net.vip(family, 1), SERVICE_PORT);
        Ok(Service::tcp("web", vip)
            .keys(&format!("mode = \"{mode}\""))
            .backend("b0", backend, 1))
    }
}

/// A file for the two interfaces of the balancer.
fn config(services: &[Service]) -> String {
    format!("[lb]\ninterfaces = [\"front\", \"back\"]\n{}", file(services))
}

/// The same file with a key more in its first table.
fn with_key(config: &str, line: &str) -> String {
    config.replacen("[lb]\n", &format!("[lb]\n{line}\n"), 1)
}

/// Findings that are not as they should be.
fn troubles(findings: &[Value]) -> Vec<String> {
    let bad = findings.iter().filter(|finding| finding["level"] != "ok");
    bad.map(ToString::to_string).collect()
}

/// Fails unless a finding has this check, level and subject, its text and remedies carry `words`, and the exit code fits the worst.
fn expect(
    name: &str,
    result: (i32, Vec<Value>),
    check: &str,
    level: &str,
    subject: &str,
    words: &[&str],
) -> Result<()> {
    let (code, findings) = result;
    let found = findings
        .iter()
        .find(|finding| {
            finding["check"] == check && finding["level"] == level && finding["subject"] == subject
        })
        .with_context(|| format!("{name}: no {level} of {check} about {subject}: {findings:#?}"))?;
    let text = found.to_string();
    for word in words {
        ensure!(text.contains(word), "{name}: {word:?} is not in {text}");
    }
    let has_remedy = found["do"]
        .as_array()
        .is_some_and(|remedies| !remedies.is_empty());
    ensure!(has_remedy, "{name}: no remedy in {text}");
    let has_failure = findings.iter().any(|finding| finding["level"] == "fail");
    ensure!(
        code == if has_failure { 1 } else { 10 },
        "{name}: exit code {code}: {findings:#?}"
    );
    Ok(())
}

/// The first remedy of a finding that is not `ok`.
fn remedy(findings: &[Value], check: &str, subject: &str) -> Result<String> {
    let found = findings.iter().find(|finding| {
        finding["check"] == check && finding["subject"] == subject && finding["level"] != "ok"
    });
    let remedy = found.and_then(|found| found["do"][0].as_str());
    remedy
        .map(str::to_owned)
        .with_context(|| format!("no remedy of {check} about {subject}: {findings:#?}"))
}

/// Exit code and findings of `lb doctor` beside a daemon.
fn doctor(cli: &LbCli, args: &[&str]) -> Result<(i32, Vec<Value>)> {
    let words: Vec<&str> = ["-o", "json", "doctor"].iter().chain(args).copied().collect();
    let outcome = cli.run(&words)?;
    let report: Value = serde_json::from_str(&outcome.stdout).with_context(|| format!("{outcome:?}"))?;
    let findings = report["findings"].as_array().context("no findings")?.clone();
    Ok((outcome.code.context("killed")?, findings))
}

#[test]
fn broken_interfaces_are_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    let (lb, net) = (patient.lb(), &patient.net);
    let plain = config(&[]);
    let of = |interface: &str| format!("[lb]\ninterfaces = [\"{interface}\"]\n");
    let (_, findings) = patient.diagnose(&[], &plain, &[])?;
    ensure!(
        troubles(&findings).is_empty(),
        "before anything is broken: {findings:#?}"
    );

    let result = patient.diagnose(&[], &of("nope"), &[])?;
    expect("missing", result, "interface", "fail", "nope", &["front", "back"])?;

    lb.ip("link set back down")?;
    expect(
        "down",
        patient.diagnose(&[], &plain, &[])?,
        "link",
        "fail",
        "back",
        &["ip link set dev back up"],
    )?;
    lb.ip("link set back up")?;

    net.middle.ip("link set lb down")?;
    expect(
        "no carrier",
        patient.diagnose(&[], &plain, &[])?,
        "link",
        "fail",
        "back",
        &["no carrier"],
    )?;
    net.middle.ip("link set lb up")?;

    let foreign = PassProgram::attach(lb, "front")?;
    let result = patient.diagnose(&[], &plain, &[])?;
    expect(
        "foreign program",
        result,
        "foreign_program",
        "fail",
        "front",
        &["ip link set dev front xdp off"],
    )?;
    drop(foreign);

    lb.ip("link add x0 type veth peer name x1\nlink set x0 up\nlink set x1 up")?;
    let result = patient.diagnose(&[], &of("x0"), &[])?;
    expect(
        "peer without a program",
        result,
        "veth_peer",
        "fail",
        "x0",
        &["x1", "ethtool -K x1 gro on"],
    )?;
    lb.run("ethtool", &["-K", "x1", "gro", "on"])?;
    lb.run("ethtool", &["-K", "x1", "tx", "off"])?;
    let (code, findings) = patient.diagnose(&[], &of("x0"), &[])?;
    ensure!(code == 0, "with the remedy: {findings:#?}");

    lb.ip("link add d0 type bridge\nlink set d0 up")?;
    expect(
        "generic only",
        patient.diagnose(&[], &of("d0"), &[])?,
        "xdp_mode",
        "warn",
        "d0",
        &["bridge", "generic"],
    )?;
    let native = format!("{}xdp_mode = \"native\"\n", of("d0"));
    expect(
        "native asked for",
        patient.diagnose(&[], &native, &[])?,
        "xdp_mode",
        "fail",
        "d0",
        &["--xdp-mode auto"],
    )?;

    net.client.ns.run("ethtool", &["-K", "eth0", "tx", "on"])?;
    let remedy = format!("ip netns exec {} ethtool -K eth0 tx off", net.client.ns.name());
    expect(
        "checksums",
        patient.diagnose(&[], &plain, &[])?,
        "tx_checksums",
        "warn",
        "front",
        &[&remedy],
    )?;
    net.client.ns.run("ethtool", &["-K", "eth0", "tx", "off"])?;

    lb.ip("tuntap add t0 mode tun\nlink set t0 up")?;
    expect(
        "no Ethernet",
        patient.diagnose(&[], &of("t0"), &[])?,
        "ethernet",
        "fail",
        "t0",
        &["Ethernet"],
    )?;

    let (code, findings) = patient.diagnose(&[], &plain, &[])?;
    ensure!(code == 0, "all is mended: {findings:#?}");
    Ok(())
}

#[test]
fn addresses_that_do_not_arrive_are_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    let (lb, net) = (patient.lb(), &patient.net);
    let check =
        |address: &str, args: &[&str]| patient.diagnose(&[], &config(&[patient.service(address)?]), args);

    let result = check("10.1.0.100", &[])?;
    expect(
        "not here",
        result,
        "address",
        "warn",
        "web",
        &["ARP", "ip addr add 10.1.0.100/32 dev front"],
    )?;
    let result = check("fd01::100", &[])?;
    expect(
        "IPv6 not here",
        result,
        "address",
        "warn",
        "web",
        &["neighbour discovery", "fd01::100/128"],
    )?;
    let result = patient.diagnose(&[], &config(&[]), &["--vip", "10.1.0.100"])?;
    expect(
        "no service has it",
        result,
        "address",
        "warn",
        "10.1.0.100",
        &["10.1.0.0/24"],
    )?;

    lb.ip("link add d1 type bridge\naddr add 203.0.113.5/32 dev d1")?;
    expect(
        "on a link that is down",
        check("203.0.113.5", &[])?,
        "address",
        "warn",
        "web",
        &["ip link set dev d1 up"],
    )?;

    // The kernel answers ARP for what it has a local route to, but no neighbour discovery.
    lb.ip("route add local 10.1.0.104/32 dev lo\nroute add local fd01::104/128 dev lo")?;
    let (code, findings) = check("10.1.0.104", &[])?;
    ensure!(
        code == 0
            && Value::from(findings.clone())
                .to_string()
                .contains("by a local route"),
        "{findings:#?}"
    );
    let asks = |address: &str| -> Result<bool> {
        let client = &net.client.ns;
        client.ip("neigh flush dev eth0")?;
        let to = SocketAddr::new(address.parse()?, 9);
        client.enter(|| -> Result<()> {
            let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(from)?.send_to(b"?", to)?;
            Ok(())
        })??;
        wait::until("its neighbour is known or not", Duration::from_secs(20), || {
            let shown = client.run("ip", &["neigh", "show", "to", address])?;
            let has_failed = shown.contains("FAILED");
            Ok((has_failed || shown.contains("lladdr")).then_some(!has_failed))
        })
    };
    ensure!(asks("10.1.0.104")?, "the kernel does not answer ARP");
    ensure!(!asks("fd01::104")?, "the kernel answers neighbour discovery");
    expect(
        "IPv6 by a local route",
        check("fd01::104", &[])?,
        "address",
        "warn",
        "web",
        &["has a local route alone", "ip addr add fd01::104/128 dev front"],
    )?;
    lb.sysctl("net/ipv4/conf/front/arp_ignore", "1")?;
    ensure!(
        !asks("10.1.0.104")?,
        "the kernel answers ARP in spite of arp_ignore"
    );
    expect(
        "arp_ignore with a local route",
        check("10.1.0.104", &[])?,
        "arp_ignore",
        "warn",
        "web",
        &["has a local route", "sysctl -w net/ipv4/conf/front/arp_ignore=0"],
    )?;
    lb.sysctl("net/ipv4/conf/front/arp_ignore", "0")?;

    lb.ip("addr add 10.1.0.101/32 dev lo")?;
    let (code, findings) = check("10.1.0.101", &[])?;
    ensure!(code == 0, "an address of lo is answered for: {findings:#?}");
    lb.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    expect(
        "arp_ignore",
        check("10.1.0.101", &[])?,
        "arp_ignore",
        "warn",
        "web",
        &["sysctl -w net/ipv4/conf/all/arp_ignore=0", "dev front"],
    )?;
    lb.sysctl("net/ipv4/conf/front/arp_ignore", "2")?;
    let (_, findings) = check("10.1.0.101", &[])?;
    let remedy = findings
        .iter()
        .filter(|finding| finding["check"] == "arp_ignore")
        .find_map(|finding| finding["do"].as_array()?.last()?.as_str())
        .context("no remedy")?;
    lb.run("sh", &["-c", remedy])?;
    let (code, findings) = check("10.1.0.101", &[])?;
    ensure!(code == 0, "with the remedy, {remedy}: {findings:#?}");
    lb.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    lb.ip("addr add 10.1.0.101/32 dev front")?;
    let (code, findings) = check("10.1.0.101", &[])?;
    ensure!(code == 0, "front answers for its own address: {findings:#?}");
    lb.ip("addr del 10.1.0.101/32 dev front")?;
    lb.sysctl("net/ipv4/conf/all/arp_ignore", "0")?;

    lb.ip("addr add 10.1.0.102/32 dev front\naddr add fd01::102/128 dev front nodad")?;
    net.client
        .ns
        .ip("addr add 10.1.0.102/32 dev eth0\naddr add fd01::102/128 dev eth0 nodad")?;
    for address in ["10.1.0.102", "fd01::102"] {
        let mac = net
            .client
            .ns
            .mac("eth0")?
            .map(|byte| format!("{byte:02x}"))
            .join(":");
        expect(
            "conflict",
            check(address, &["--probe"])?,
            "address_conflict",
            "fail",
            address,
            &[&mac],
        )?;
    }
    let backend = &net.backends[0];
    let _server = HttpServer::start(&backend.ns, "b0", &[backend.socket(Family::V4, HTTP_PORT)])?;
    let (code, findings) = check("10.1.0.101", &["--probe"])?;
    ensure!(code == 0, "no other machine has it: {findings:#?}");

    net.client.ns.ip("addr add fd01::103/64 dev eth0 nodad")?;
    lb.sysctl("net/ipv6/conf/front/accept_dad", "1")?;
    lb.sysctl("net/ipv6/conf/front/dad_transmits", "1")?;
    lb.ip("addr add fd01::103/64 dev front")?;
    wait::until_true("the duplicate is found", Duration::from_secs(10), || {
        Ok(lb
            .run("ip", &["addr", "show", "dadfailed"])?
            .contains("fd01::103"))
    })?;
    expect(
        "duplicate",
        check("fd01::103", &[])?,
        "address_conflict",
        "fail",
        "web",
        &["duplicate"],
    )?;

    let vip = SocketAddr::new(net.vip(Family::V4, 1), SERVICE_PORT);
    let server = HttpServer::start(lb, "own", &[vip])?;
    let result = check(&vip.ip().to_string(), &[])?;
    expect(
        "own server",
        result,
        "listener",
        "warn",
        "web",
        &["192.0.2.1:80", "ss -lnp"],
    )?;
    drop(server);
    let _echo = UdpEcho::start(lb, "own", &[vip])?;
    let udp = Service::udp("dns", vip).backend("b0", net.backends[0].socket(Family::V4, 7007), 1);
    expect(
        "own UDP server",
        patient.diagnose(&[], &config(&[udp]), &[])?,
        "listener",
        "warn",
        "dns",
        &[],
    )?;
    let (code, findings) = check(&vip.ip().to_string(), &[])?;
    ensure!(code == 0, "UDP hides no TCP: {findings:#?}");

    let snat = with_key(&config(&[]), "snat_addresses = [\"10.2.0.77\"]");
    let result = patient.diagnose(&[], &snat, &[])?;
    expect(
        "source address",
        result,
        "address",
        "warn",
        "snat_addresses",
        &["10.2.0.77/32 dev back"],
    )?;
    Ok(())
}

#[test]
fn backends_that_cannot_be_reached_are_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    let (lb, net) = (patient.lb(), &patient.net);
    let check = |mode: &str, address: &str| {
        patient.diagnose(&[], &config(&[patient.with_backend(mode, address)?]), &[])
    };
    let there = net.backends[0].socket(Family::V4, HTTP_PORT).to_string();
    let path = |name: &str, address: &str, words: &[&str]| {
        expect(name, check("nat", address)?, "path", "fail", "web/b0", words)
    };

    let one = |mode: &str| -> Result<String> {
        let config = config(&[patient.with_backend(mode, &there)?]);
        Ok(config.replace(", \"back\"", ""))
    };
    expect(
        "the clients' interface alone",
        patient.diagnose(&[], &one("nat")?, &[])?,
        "replies",
        "fail",
        "web/b0",
        &["come in by back", "name back"],
    )?;
    let (_, findings) = patient.diagnose(&[], &one("ipip")?, &[])?;
    ensure!(
        !findings.iter().any(|finding| finding["check"] == "replies"),
        "{findings:#?}"
    );

    let vip = SocketAddr::new(net.vip(Family::V4, 1), SERVICE_PORT);
    let result = patient.diagnose(&[], &config(&[Service::tcp("web", vip)]), &[])?;
    expect(
        "no backends",
        result,
        "backends",
        "warn",
        "web",
        &["lb backend add web"],
    )?;

    path("own address", "10.2.0.1:8080", &["address of another machine"])?;
    path("no route", "198.51.100.7:8080", &["ip route add 198.51.100.7"])?;
    path("silent", "10.2.0.99:8080", &["10.2.0.99", "arping -I back"])?;
    lb.ip("route add 198.51.100.0/24 via 10.2.0.98")?;
    path("silent router", "198.51.100.7:8080", &["10.2.0.98"])?;
    lb.ip("tuntap add t0 mode tun\nlink set t0 up\nroute replace 198.51.100.0/24 dev t0")?;
    path("not Ethernet", "198.51.100.7:8080", &["t0", "Ethernet"])?;

    lb.ip(&format!(
        "route replace 198.51.100.0/24 via {}",
        net.backends[0].v4
    ))?;
    let result = check("l2dsr", "198.51.100.7:80")?;
    expect(
        "l2dsr behind a router",
        result,
        "l2dsr",
        "fail",
        "web/b0",
        &["10.2.0.10", "ipip"],
    )?;
    // The gateway may be the backend, with the address on its loopback interface.
    for (address, route) in [
        ("198.51.100.8", "198.51.100.8/32"),
        ("2001:db8:8::8", "2001:db8:8::8/128"),
    ] {
        let address: IpAddr = address.parse()?;
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        lb.ip(&format!("route add {route} via {}", net.backends[0].ip(family)))?;
        let result = check("l2dsr", &SocketAddr::new(address, 80).to_string())?;
        expect(
            "l2dsr by a route of its own",
            result,
            "l2dsr",
            "warn",
            "web/b0",
            &["if that is a router", "ipip"],
        )?;
    }
    lb.ip(&format!("route add 2001:db8:8::/64 via {}", net.backends[0].v6))?;
    let result = check("l2dsr", "[2001:db8:8::7]:80")?;
    expect(
        "l2dsr behind a router, IPv6",
        result,
        "l2dsr",
        "fail",
        "web/b0",
        &[&net.backends[0].v6.to_string(), "ipip"],
    )?;

    let result = check("dnat", &there)?;
    expect(
        "no forwarding",
        result,
        "replies",
        "fail",
        "web",
        &["sysctl -w net.ipv4.ip_forward=1"],
    )?;
    lb.sysctl("net/ipv4/conf/all/forwarding", "1")?;
    let (code, findings) = check("dnat", &there)?;
    ensure!(code == 0, "with the remedy: {findings:#?}");
    lb.sysctl("net/ipv4/conf/back/rp_filter", "1")?;
    let routed = |mode: &str| {
        let service = Service::tcp("web", "203.0.113.9:80".parse()?)
            .keys(&format!("mode = \"{mode}\""))
            .backend("b0", there.parse()?, 1);
        patient.diagnose(&[], &config(&[service]), &[])
    };
    let remedy = "net/ipv4/conf/back/rp_filter=2";
    expect(
        "strict reverse path",
        routed("dnat")?,
        "rp_filter",
        "warn",
        "web",
        &[remedy],
    )?;
    let (code, findings) = routed("nat")?;
    ensure!(
        code == 0,
        "the program sends replies of mode nat itself: {findings:#?}"
    );
    lb.run("sysctl", &["-w", remedy])?;
    let (code, findings) = routed("dnat")?;
    ensure!(code == 0, "with the remedy: {findings:#?}");

    let result = check("ipip", &there.replace(":8080", ":80"))?;
    expect(
        "ipip",
        result,
        "headroom",
        "warn",
        "web/b0",
        &["1480", "mtu 1520"],
    )?;
    let result = check("gue", &there.replace(":8080", ":80"))?;
    expect("gue", result, "headroom", "warn", "web/b0", &["1472", "mtu 1528"])?;

    lb.ip(
        "link add br9 type bridge\nlink add d9 type veth peer name d8\nlink set d9 master br9\nlink set d8 up\nlink set d9 up\nlink set br9 up\n\
         addr add 10.9.0.1/24 dev br9\nneigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev br9 nud permanent",
    )?;
    let result = check("nat", "10.9.0.2:8080")?;
    expect(
        "exit without XDP",
        result,
        "redirect",
        "fail",
        "br9",
        &["bridge", "--iface br9"],
    )?;
    lb.ip(
        "link add x0 type veth peer name x1\nlink set x0 up\nlink set x1 up\naddr add 10.8.0.1/24 dev x0\n\
         neigh add 10.8.0.2 lladdr 02:00:00:00:00:08 dev x0 nud permanent",
    )?;
    let result = check("nat", "10.8.0.2:8080")?;
    expect(
        "exit whose peer takes nothing",
        result,
        "veth_peer",
        "fail",
        "x0",
        &["x1"],
    )?;
    Ok(())
}

#[test]
fn a_machine_that_is_not_fit_is_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    let web = patient.service(&patient.net.vip(Family::V4, 1).to_string())?;
    let good = config(std::slice::from_ref(&web));
    let (code, findings) = patient.diagnose(&[], &good, &[])?;
    ensure!(code == 0, "before anything is broken: {findings:#?}");

    let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let result = patient.diagnose(&powerless, &good, &[])?;
    expect(
        "no rights",
        result,
        "capabilities",
        "fail",
        "machine",
        &["CAP_BPF", "sudo"],
    )?;

    let pins = patient.dir.join("pins");
    let elsewhere = with_key(&good, &format!("pin_dir = \"{}\"", pins.display()));
    let (code, findings) = patient.diagnose(&[], &elsewhere, &[])?;
    ensure!(code == 0, "`lb run` mounts one: {findings:#?}");
    let no_mounts = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    expect(
        "pins",
        patient.diagnose(&no_mounts, &elsewhere, &[])?,
        "pin_dir",
        "fail",
        "machine",
        &["mount -t bpf"],
    )?;

    let checked = (1..20).fold(web.health("kind = \"tcp\""), |web, i| {
        web.backend(
            &format!("more-{i}"),
            patient.net.backends[0].socket(Family::V4, HTTP_PORT + i),
            1,
        )
    });
    let checked = config(&[checked]);
    let result = patient.diagnose(&["prlimit", "--nofile=64:64"], &checked, &[])?;
    expect(
        "few open files",
        result,
        "open_files",
        "warn",
        "machine",
        &["LimitNOFILE"],
    )?;

    patient
        .lb()
        .sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    let result = patient.diagnose(&[], &good, &[])?;
    expect(
        "ports",
        result,
        "snat_ports",
        "warn",
        "machine",
        &["ip_local_port_range"],
    )?;
    Ok(())
}

#[test]
fn what_the_daemon_knows_is_part_of_the_diagnosis() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 2)?;
    let vip = SocketAddr::new(site.net.vip(Family::V4, 1), SERVICE_PORT);
    let service = Service::tcp("web", vip)
        .health("kind = \"tcp\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"")
        .backend("b0", site.net.backends[0].socket(Family::V4, HTTP_PORT), 1)
        .backend("b1", site.net.backends[1].socket(Family::V4, HTTP_PORT), 1);
    site.daemon = site.daemon.config(&file(&[service]))?;
    site.daemon.start()?;
    let cli = site.daemon.cli();
    let doctor = |args: &str| doctor(&cli, &args.split_whitespace().collect::<Vec<_>>());
    wait::until_true("all is well", Duration::from_secs(10), || Ok(doctor("")?.0 == 0))?;
    let shown = cli.ok("doctor")?;
    ensure!(shown.contains("ok    front: veth, native XDP"), "{shown}");
    ensure!(
        shown.contains("ok    web: 2 of 2 backends can be reached"),
        "{shown}"
    );

    site.http.remove(1);
    wait::until_true("the dead server shows", Duration::from_secs(10), || {
        Ok(doctor("")?.0 != 0)
    })?;
    expect(
        "down",
        doctor("")?,
        "status",
        "warn",
        "web/b1",
        &["refused", "lb service show web"],
    )?;

    cli.ok("backend set web b0 --weight 7")?;
    let result = doctor("")?;
    expect(
        "by command",
        result,
        "config_by_command",
        "warn",
        "daemon",
        &["lb export"],
    )?;

    let edited = site.daemon.dir().join("lb.toml");
    let text = std::fs::read_to_string(&edited)?;
    std::fs::write(&edited, text.replace(":8080", ":8081"))?;
    expect(
        "an edited file",
        doctor("")?,
        "config_pending",
        "warn",
        "daemon",
        &["lb apply FILE"],
    )?;

    site.daemon.kill()?;
    let (code, findings) = doctor("")?;
    ensure!(
        code == 10
            && Value::from(findings.clone())
                .to_string()
                .contains("only the machine was looked at"),
        "{findings:#?}"
    );
    let result = doctor("--iface front")?;
    expect(
        "left behind",
        result,
        "daemon",
        "warn",
        "daemon",
        &["forwards on", "lb detach"],
    )?;
    Ok(())
}

/// The state of a service, and the remedies of its problem.
fn state(cli: &LbCli, service: &str) -> Result<(String, Vec<String>)> {
    let shown = cli.json(&format!("service show {service}"))?;
    let remedies = shown["remedies"].as_array().context("no remedies")?;
    let remedies = remedies.iter().filter_map(Value::as_str).map(str::to_owned);
    Ok((
        shown["state"].as_str().context("no state")?.to_owned(),
        remedies.collect(),
    ))
}

#[test]
fn service_that_cannot_work_is_never_ok_until_its_remedy_is_carried_out() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 2)?;
    let lb = site.net.lb.ns.clone();
    let service = |name: &str, mode: &str, address: &str| -> Result<Service> {
        let backend = |i: usize| site.net.backends[i].socket(Family::V4, HTTP_PORT);
        Ok(
            Service::tcp(name, SocketAddr::new(address.parse()?, SERVICE_PORT))
                .keys(&format!("mode = \"{mode}\""))
                .backend("b0", backend(0), 1)
                .backend("b1", backend(1), 1),
        )
    };
    lb.ip("addr add 10.1.0.101/32 dev lo")?;
    // A server's loopback interface has the address of its backend.
    lb.ip(&format!(
        "route add 198.51.100.8/32 via {}",
        site.net.backends[0].v4
    ))?;
    let services = [
        service("nat", "nat", "192.0.2.1")?,
        service("near", "nat", "10.1.0.101")?,
        service("dnat", "dnat", "192.0.2.2")?,
        Service::tcp("loopback", SocketAddr::new("192.0.2.3".parse()?, SERVICE_PORT))
            .keys("mode = \"l2dsr\"")
            .backend("b0", "198.51.100.8:80".parse()?, 1),
    ];
    site.daemon = site.daemon.config(&file(&services))?;
    site.daemon.start()?;
    let cli = site.daemon.cli();
    let is = |service: &str, expected: &str| {
        wait::until_true(
            &format!("{service} is {expected}"),
            Duration::from_secs(20),
            || Ok(state(&cli, service)?.0 == expected),
        )
    };
    let mend = |service: &str| -> Result<()> {
        let (_, remedies) = state(&cli, service)?;
        let remedy = remedies.last().context("no remedy")?;
        let status = cli.ok("status")?;
        ensure!(status.contains(remedy), "{remedy} is not in {status}");
        lb.run("sh", &["-c", remedy])?;
        is(service, "ok")
    };
    is("nat", "ok")?;
    is("near", "ok")?;

    is("dnat", "broken")?;
    let listed = cli.ok("service list")?;
    ensure!(listed.contains("broken"), "{listed}");
    let metrics = site.daemon.metrics()?;
    ensure!(metrics.count("lb_service_broken", &[("service", "dnat")]) == 1);
    mend("dnat")?;

    // Clients may come in by the other interface, and by a router with a route: only the other service is broken, which shows that the
    // daemon has looked.
    lb.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    lb.ip("link set front down")?;
    lb.sysctl("net/ipv4/conf/back/forwarding", "0")?;
    let events = || cli.ok("events");
    wait::until_true("the daemon looked", Duration::from_secs(20), || {
        Ok(events()?.matches("flows fail: b0: its replies").count() == 2)
    })?;
    is("dnat", "broken")?;
    for works in ["nat", "near", "loopback"] {
        ensure!(state(&cli, works)?.0 == "ok", "{works}: {}", cli.ok("status")?);
    }
    mend("dnat")?;
    wait::until_true("the end is an event", Duration::from_secs(20), || {
        Ok(events()?
            .matches("flows no longer fail for this reason: b0: its replies")
            .count()
            == 2)
    })?;
    Ok(())
}

#[test]
fn service_whose_only_interface_is_down_is_broken_until_it_is_up() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    let lb = site.net.lb.ns.clone();
    // Backends are reached by an interface without the program, which gets no replies of mode nat.
    let direct = Service::tcp(
        "direct",
        SocketAddr::new(site.net.vip(Family::V4, 1), SERVICE_PORT),
    )
    .keys("mode = \"l2dsr\"")
    .backend("b0", site.net.backends[0].socket(Family::V4, HTTP_PORT), 1);
    let services = file(&[site.web(Family::V4, &[1]), direct]);
    site.daemon = Daemon::new(&lb, &["front"])?.config(&services)?;
    site.daemon.start()?;
    let cli = site.daemon.cli();
    let service_is = |service: &str, expected: &str| {
        wait::until_true(
            &format!("{service} is {expected}"),
            Duration::from_secs(20),
            || Ok(state(&cli, service)?.0 == expected),
        )
    };
    service_is("web4", "broken")?;
    let (_, remedies) = state(&cli, "web4")?;
    ensure!(
        remedies.iter().any(|remedy| remedy.contains("name back")),
        "{remedies:?}"
    );
    let is = |expected: &str| service_is("direct", expected);
    is("ok")?;
    lb.ip("link set front down")?;
    is("broken")?;
    let (_, remedies) = state(&cli, "direct")?;
    lb.run("sh", &["-c", remedies.last().context("no remedy")?])?;
    is("ok")
}

#[test]
fn nothing_is_said_against_what_works() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    let net = &patient.net;
    net.forward_in_kernel()?;
    // Room for tunnel headers on the way to the backends.
    patient.lb().ip("link set back mtu 1600")?;
    let own = HttpServer::start(patient.lb(), "ssh", &["10.1.0.1:22".parse()?])?;
    let (mut servers, mut decaps) = (Vec::new(), Vec::new());
    for backend in 0..net.backends.len() {
        probe::hold(net, backend)?;
        servers.push(probe::serve(net, backend)?);
        decaps.push(probe::decap(net, backend, &probe::OWN)?);
    }
    let vip = |family| SocketAddr::new(net.vip(family, 1), SERVICE_PORT);
    let service = |family, mode: &str, port| {
        Service::tcp("web", vip(family))
            .keys(&format!("mode = \"{mode}\""))
            .backend("b0", net.backends[0].socket(family, port), 1)
            .backend("b1", net.backends[1].socket(family, port), 1)
    };
    let [v4, v6] = Family::BOTH;
    let prefix = file(&[service(v4, "nat", 80)]).replace("192.0.2.1", "192.0.2.0/28");
    let all_ports = file(&[service(v4, "nat", 0)]).replace("port = 80", "port = 0");
    let snat = with_key(
        &config(&[service(v4, "nat", 8080)]),
        "snat_addresses = [\"10.2.0.1\"]",
    );
    let cases = [
        ("nat", config(&[service(v4, "nat", 8080)])),
        ("nat, IPv6", config(&[service(v6, "nat", 8080)])),
        ("dnat", config(&[service(v4, "dnat", 8080)])),
        ("dnat, IPv6", config(&[service(v6, "dnat", 8080)])),
        ("l2dsr", config(&[service(v4, "l2dsr", 80)])),
        ("ipip", config(&[service(v4, "ipip", 80)])),
        ("gue, IPv6", config(&[service(v6, "gue", 80)])),
        ("a prefix", config(&[]) + &prefix),
        ("every port", config(&[]) + &all_ports),
        ("own source address", snat),
    ];
    for (name, config) in &cases {
        let (code, findings) = patient.diagnose(&[], config, &["--probe"])?;
        let troubles = troubles(&findings);
        ensure!(code == 0 && troubles.is_empty(), "{name}: {troubles:#?}");
        ensure!(!findings.is_empty(), "{name}: nothing was looked at");
    }
    drop(own);
    nothing_is_said_by_the_daemon(&patient, &cases)
}

/// Runs each set-up under a daemon, beside a service that is broken: once the daemon calls that so, it has looked at the other.
fn nothing_is_said_by_the_daemon(patient: &Patient, cases: &[(&str, String)]) -> Result<()> {
    let router = patient.net.backends[0].v4;
    patient
        .lb()
        .ip(&format!("route add 198.51.100.0/24 via {router}"))?;
    let mut daemon = Daemon::new(patient.lb(), patient.net.lb_interfaces())?.config(&file(&[]))?;
    daemon.start()?;
    let cli = daemon.cli();
    for (i, (name, config)) in cases.iter().enumerate() {
        let canary = format!("canary-{i}");
        let broken = Service::tcp(
            &canary,
            SocketAddr::new(patient.net.vip(Family::V4, 99), SERVICE_PORT),
        )
        .keys("mode = \"l2dsr\"")
        .backend("far", "198.51.100.7:80".parse()?, 1);
        let path = patient
            .dir
            .write("both.toml", &(config.clone() + &file(&[broken])))?;
        cli.ok(&format!("apply {}", path.display()))?;
        wait::until_true("the broken service shows", Duration::from_secs(20), || {
            Ok(state(&cli, &canary)?.0 == "broken")
        })?;
        let services = cli.json("service list")?;
        let services = services.as_array().context("no list")?;
        for service in services.iter().filter(|service| service["name"] != *canary) {
            ensure!(service["broken"].is_null(), "{name}: {service}");
            ensure!(service["faults"] == Value::Array(Vec::new()), "{name}: {service}");
        }
    }
    Ok(())
}
