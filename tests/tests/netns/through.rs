//! Checks through the VIP: they detect failures that only clients would see, and leave no traces of the daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    decap::Decap,
    http::{self, HttpServer},
    lane::Lane,
    netns::Netns,
    topology::{Family, Shape, Topology},
    udp::UdpEcho,
    wait,
};
use serde_json::Value;

/// Longer than any stall of the machine.
const PLENTY: Duration = Duration::from_secs(30);
/// Port of services, and of servers that get packets as they come or by mode `nat`.
const PORT: u16 = 8080;
/// Port of servers that get packets by mode `dnat`: no two services share an endpoint.
const DNAT_PORT: u16 = 8081;
/// Ports that the balancer translates to, which its own checks past the path do not use.
const SNAT_PORTS: &str = "1024-32767";

const HEALTH: &str = "through = \"vip\"\ninterval = \"300ms\"\nfast_interval = \"100ms\"\n\
                      down_interval_max = \"600ms\"\nrise = 2\nfall = 2\n";

/// A mode, and the family of its backends' addresses.
#[derive(Clone, Copy)]
struct Way {
    mode: &'static str,
    family: Family,
    outer: Family,
    /// The last part of its services' addresses.
    vip: u8,
}

impl Way {
    fn all() -> Vec<Self> {
        let mut ways = Vec::new();
        let modes = [("nat", 30), ("dnat", 31), ("l2dsr", 32)];
        for family in Family::BOTH {
            ways.extend(modes.map(|(mode, vip)| Self {
                mode,
                family,
                outer: family,
                vip,
            }));
            for outer in Family::BOTH {
                let tunnels = [("ipip", 40), ("gue", 42)];
                ways.extend(tunnels.map(|(mode, vip)| Self {
                    mode,
                    family,
                    outer,
                    vip: vip + u8::from(outer == Family::V6),
                }));
            }
        }
        ways
    }

    fn name(self, protocol: &str) -> String {
        format!("{}-{:?}-in-{:?}-{protocol}", self.mode, self.family, self.outer).to_lowercase()
    }

    fn translates(self) -> bool {
        matches!(self.mode, "nat" | "dnat")
    }

    /// Port of its servers.
    fn port(self) -> u16 {
        if self.mode == "dnat" { DNAT_PORT } else { PORT }
    }
}

/// All machines on one segment: two backends, of which `b1` cannot be reached through any service.
struct Site {
    net: Topology,
    daemon: Daemon,
    http: Vec<HttpServer>,
    echo: Vec<UdpEcho>,
    decaps: Vec<Decap>,
}

impl Site {
    fn start() -> Result<Self> {
        let net = Topology::new(Shape::OneArmed, 2)?;
        let mut services = Vec::new();
        for way in Way::all() {
            let vip = SocketAddr::new(net.vip(way.family, way.vip), PORT);
            let http = Service::tcp(&way.name("tcp"), vip).health("kind = \"http\"");
            let echo = Service::udp(&way.name("udp"), vip)
                .health("kind = \"udp\"\npayload = \"hello\"\nexpect_reply = \"hello\"");
            for service in [http, echo] {
                let service = service.keys(&format!("mode = \"{}\"", way.mode)).health(HEALTH);
                let backends = net.backends.iter().enumerate();
                services.push(backends.fold(service, |service, (i, host)| {
                    service.backend(&format!("b{i}"), host.socket(way.outer, way.port()), 1)
                }));
            }
        }
        let (mut http, mut echo) = (Vec::new(), Vec::new());
        for (i, host) in net.backends.iter().enumerate() {
            let addresses = addresses(&net, i)?;
            http.push(HttpServer::start(&host.ns, &format!("b{i}"), &addresses)?);
            echo.push(UdpEcho::start(&host.ns, &format!("b{i}"), &addresses)?);
        }
        let daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
        let mut site = Self {
            net,
            daemon,
            http,
            echo,
            decaps: Vec::new(),
        };
        hold_services(&site.net, 0)?;
        site.decap(0)?;
        site.refuse_translated()?;
        site.daemon.start()?;
        Ok(site)
    }

    /// Lets a backend end tunnels.
    fn decap(&mut self, backend: usize) -> Result<()> {
        let from = Family::BOTH.map(|family| self.net.lb.ip(family).to_string());
        let decap = Decap::start(&self.net.backends[backend].ns, "eth0", &from)?;
        self.decaps.push(decap);
        Ok(())
    }

    /// A firewall on `b1` that refuses translated packets.
    fn refuse_translated(&self) -> Result<()> {
        let rules = format!(
            "table inet refuse {{\n chain in {{\n type filter hook input priority 0;\n \
             tcp sport {SNAT_PORTS} drop\n udp sport {SNAT_PORTS} drop\n }}\n}}\n"
        );
        let ns = &self.net.backends[1].ns;
        ns.run_with_input("nft", &["-f", "-"], &rules).map(drop)
    }

    /// Mends all that is wrong with `b1`.
    fn mend(&mut self) -> Result<()> {
        hold_services(&self.net, 1)?;
        self.decap(1)?;
        let ns = &self.net.backends[1].ns;
        ns.run("nft", &["flush", "ruleset"]).map(drop)
    }

    /// Waits until `backend` has this health state in every service.
    fn wait_for(&self, backend: &str, health: &str) -> Result<()> {
        let mut others = Vec::new();
        let all = wait::until_true("backends have this health", PLENTY, || {
            others = self.others(backend, health)?;
            Ok(others.is_empty())
        });
        all.with_context(|| format!("{backend} is not {health}: {others:#?}"))
    }

    /// The services in which `backend` has another health state than `health`.
    fn others(&self, backend: &str, health: &str) -> Result<Vec<String>> {
        let status = self.daemon.cli().json("status")?;
        let mut others = Vec::new();
        for service in status["services"].as_array().context("no services")? {
            for found in service["backends"].as_array().context("no backends")? {
                if found["name"] == backend && found["health"] != health {
                    let detail = &found["last_check"]["detail"];
                    others.push(format!("{} {} {detail}", service["name"], found["health"]));
                }
            }
        }
        Ok(others)
    }

    /// Detail of the last check of a backend.
    fn detail(&self, service: &str, backend: &str) -> Result<String> {
        let backend = self.daemon.cli().backend(service, backend)?;
        Ok(backend["last_check"]["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }
}

/// Where the servers of a backend listen: also on the services' addresses, which it need not hold.
fn addresses(net: &Topology, backend: usize) -> Result<Vec<SocketAddr>> {
    let host = &net.backends[backend];
    for family in ["ipv4", "ipv6"] {
        host.ns.sysctl(&format!("net/{family}/ip_nonlocal_bind"), "1")?;
    }
    host.ns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    host.ns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    let mut addresses = BTreeSet::new();
    for way in Way::all() {
        addresses.insert(host.socket(way.outer, way.port()));
        if !way.translates() {
            addresses.insert(SocketAddr::new(net.vip(way.family, way.vip), PORT));
        }
    }
    Ok(addresses.into_iter().collect())
}

/// Gives a backend the services' addresses.
fn hold_services(net: &Topology, backend: usize) -> Result<()> {
    for way in Way::all().into_iter().filter(|way| !way.translates()) {
        let vip = net.vip(way.family, way.vip);
        let bits = if vip.is_ipv4() { 32 } else { 128 };
        net.backends[backend]
            .ns
            .ip(&format!("addr add {vip}/{bits} dev lo nodad"))?;
    }
    Ok(())
}

/// Interfaces of the daemon's own in a namespace.
fn own_interfaces(ns: &Netns) -> Result<Vec<String>> {
    let links: Value = serde_json::from_str(&ns.run("ip", &["-j", "link", "show"])?)?;
    let names = links.as_array().into_iter().flatten();
    Ok(names
        .filter_map(|link| link["ifname"].as_str())
        .filter(|name| name.starts_with("lb-"))
        .map(str::to_owned)
        .collect())
}

#[test]
fn backend_that_fails_only_through_the_vip_goes_down_in_every_mode_and_recovers() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::start()?;
    site.wait_for("b0", "up")?;
    site.wait_for("b1", "down")?;
    for family in Family::BOTH {
        for port in [PORT, DNAT_PORT] {
            let own = site.net.backends[1].socket(family, port);
            let answer = http::get(&site.net.lb.ns, own, "/")?;
            ensure!(answer.status == 200, "{own} does not work on its own address");
        }
    }
    let detail = site.detail("ipip-v4-in-v6-tcp", "b1")?;
    let path = format!(
        "from 192.0.2.41:{PORT}, through the path (ipip) of {}",
        site.net.backends[1].socket(Family::V6, PORT)
    );
    ensure!(detail.contains(&path), "{detail}");
    site.mend()?;
    site.wait_for("b1", "up")?;
    // Checks do not count as traffic.
    let metrics = site.daemon.metrics()?;
    for way in Way::all() {
        for protocol in ["tcp", "udp"] {
            let name = way.name(protocol);
            let labels = [("service", name.as_str())];
            let packets = metrics.count("lb_service_packets_total", &labels);
            let drops = metrics.count("lb_service_drops_total", &labels);
            let flows = metrics.sum("lb_active_connections", &labels);
            ensure!(
                (packets, drops) == (0, 0) && flows == 0.0,
                "{name}: {packets} packets, {drops} drops, {flows} flows"
            );
        }
    }
    Ok(())
}

/// A refusal returns by the path at once; for a datagram, as an ICMP error about a translated packet, or about a packet
/// that arrived in a tunnel.
#[test]
fn refusal_by_a_backend_is_reported_in_every_mode() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::start()?;
    site.wait_for("b0", "up")?;
    // Its kernel refuses each check.
    let ns = &site.net.backends[0].ns;
    ns.sysctl("net/ipv4/icmp_ratelimit", "0")?;
    ns.sysctl("net/ipv6/icmp/ratelimit", "0")?;
    site.http.clear();
    site.echo.clear();
    site.wait_for("b0", "down")?;
    for way in Way::all() {
        for protocol in ["tcp", "udp"] {
            let name = way.name(protocol);
            let detail = site.detail(&name, "b0")?;
            let vip = SocketAddr::new(site.net.vip(way.family, way.vip), PORT);
            let path = format!("through the path ({}) of", way.mode);
            ensure!(
                detail.contains(&format!("connection refused by {vip}, {path}")),
                "{name}: {detail}"
            );
        }
    }
    Ok(())
}

/// When the latest check of `b0` ended, by service; without failed ones.
fn successes(site: &Site) -> Result<BTreeMap<String, String>> {
    let status = site.daemon.cli().json("status")?;
    let services = status["services"].as_array().context("no services")?.iter();
    let backends = services.flat_map(|service| {
        let backends = service["backends"].as_array().into_iter().flatten();
        backends.map(|backend| (&service["name"], backend))
    });
    Ok(backends
        .filter(|(_, backend)| backend["name"] == "b0" && backend["last_check"]["ok"] == true)
        .map(|(name, backend)| (name.to_string(), backend["last_check"]["at"].to_string()))
        .collect())
}

/// Waits until checks of `b0` by every service have succeeded that end from now on.
fn checks_continue(site: &Site) -> Result<()> {
    let before = successes(site)?;
    wait::until_true("checks succeed again", PLENTY, || {
        let now = successes(site)?;
        let all = now.len() == 2 * Way::all().len();
        // In UTC, as texts they are in order.
        Ok(all
            && now
                .iter()
                .all(|(name, at)| before.get(name).is_none_or(|before| at > before)))
    })
}

#[test]
fn checks_through_the_vip_leave_no_traces_and_a_restart_has_no_gap() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::start()?;
    let ns = site.net.lb.ns.clone();
    site.wait_for("b0", "up")?;
    ensure!(own_interfaces(&ns)?.len() == 2, "{:?}", own_interfaces(&ns)?);

    // A removed interface is restored.
    let first = own_interfaces(&ns)?.into_iter().next().context("no interface")?;
    ns.ip(&format!("link del {first}"))?;
    checks_continue(&site)?;

    site.daemon.kill()?;
    ensure!(own_interfaces(&ns)?.len() == 2, "a killed daemon cannot clean up");
    site.daemon.start()?;
    checks_continue(&site)?;
    ensure!(site.others("b0", "up")?.is_empty(), "a verdict was lost");
    ensure!(own_interfaces(&ns)?.len() == 2, "{:?}", own_interfaces(&ns)?);
    let addresses = ns.run("ip", &["-o", "addr", "show"])?;
    ensure!(addresses.matches("169.254.76.66/30").count() == 1, "{addresses}");

    site.daemon.stop()?;
    ensure!(own_interfaces(&ns)?.is_empty(), "{:?}", own_interfaces(&ns)?);

    site.daemon.start()?;
    site.wait_for("b0", "up")?;
    site.daemon.kill()?;
    let pins = site.daemon.pin_dir();
    let output = site
        .daemon
        .cli()
        .ok(&format!("detach --pin-dir {}", pins.display()))?;
    ensure!(output.contains("interface lb-"), "{output}");
    ensure!(own_interfaces(&ns)?.is_empty(), "{:?}", own_interfaces(&ns)?);
    Ok(())
}
