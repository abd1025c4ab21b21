//! A service that stops working while the daemon runs is not `ok` any more, without a command, and is again once that is mended.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    http::{self, HttpServer},
    lane::Lane,
    lb_cli::LbCli,
    netns::Netns,
    site::{HTTP_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    wait,
};

use super::state;

/// Longer than the daemon takes between two looks.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits until a service has a state, or until it has another one.
fn wait_for(cli: &LbCli, what: &str, service: &str, state_is: impl Fn(&str) -> bool) -> Result<()> {
    wait::until_true(what, LIMIT, || Ok(state_is(&state(cli, service)?.0)))
        .with_context(|| format!("{what}: {}", cli.ok("status").unwrap_or_default()))
}

/// A change that keeps a service from working, and its end.
struct Case<'a> {
    name: &'a str,
    service: &'a str,
    at: &'a Netns,
    breaks: &'a str,
    /// `None`: the last remedy that the daemon names.
    mends: Option<&'a str>,
}

#[test]
fn a_service_that_stops_working_leaves_ok_and_returns() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 2)?;
    let lb = site.net.lb.ns.clone();
    site.net.forward_in_kernel()?;
    let [b0, b1] = [0, 1].map(|i| site.net.backends[i].socket(Family::V4, HTTP_PORT));
    let service = |name: &str, mode: &str, vip: &str| -> Result<Service> {
        Ok(Service::tcp(name, SocketAddr::new(vip.parse()?, SERVICE_PORT))
            .keys(&format!("mode = \"{mode}\"")))
    };
    let checks = "kind = \"tcp\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"\ndown_interval_max = \"400ms\"\nrise = 1\nfall = 1";
    let router = site.net.backends[0].v4;
    lb.ip(&format!(
        "route add 198.51.100.8/32 via {router}\naddr add fd01::105/128 dev front"
    ))?;
    let services = [
        service("nat", "nat", "192.0.2.1")?
            .backend("b0", b0, 1)
            .backend("b1", b1, 1),
        service("checked", "nat", "192.0.2.5")?
            .health(checks)
            .backend("b0", b0, 1)
            .backend("b1", b1, 1),
        service("dnat", "dnat", "192.0.2.2")?.backend("b0", SocketAddr::new(b0.ip(), 8081), 1),
        service("loopback", "l2dsr", "192.0.2.3")?.backend("b0", "198.51.100.8:80".parse()?, 1),
        service("six", "nat", "fd01::105")?.backend(
            "b0",
            site.net.backends[0].socket(Family::V6, HTTP_PORT),
            1,
        ),
    ];
    site.daemon = site.daemon.config(&file(&services))?;
    site.daemon.start()?;
    let cli = site.daemon.cli();
    for service in ["nat", "checked", "dnat", "loopback", "six"] {
        wait_for(&cli, &format!("{service} works"), service, |state| state == "ok")?;
    }

    lb.sysctl("net/ipv6/conf/front/accept_dad", "1")?;
    lb.sysctl("net/ipv6/conf/front/dad_transmits", "1")?;
    let client = &site.net.client.ns;
    client.ip("addr add fd01::105/128 dev eth0 nodad")?;
    let at = &lb;
    let cases = [
        Case {
            name: "no forwarding",
            service: "dnat",
            at,
            breaks: "sysctl -w net/ipv4/conf/back/forwarding=0",
            mends: None,
        },
        Case {
            name: "interface down",
            service: "nat",
            at,
            breaks: "ip link set back down",
            mends: Some(
                "ip link set back up; ip addr add fd02::1/64 dev back nodad; ip route replace 198.51.100.8/32 via 10.2.0.10",
            ),
        },
        Case {
            name: "route lost",
            service: "nat",
            at,
            breaks: "ip route del 10.2.0.0/24",
            mends: Some(
                "ip route add 10.2.0.0/24 dev back src 10.2.0.1; ip route replace 198.51.100.8/32 via 10.2.0.10",
            ),
        },
        Case {
            name: "route to nowhere",
            service: "nat",
            at,
            breaks: "ip route add blackhole 10.2.0.10/32",
            mends: Some("ip route del blackhole 10.2.0.10/32"),
        },
        Case {
            name: "own address",
            service: "nat",
            at,
            breaks: "ip addr add 10.2.0.10/32 dev lo",
            mends: Some("ip addr del 10.2.0.10/32 dev lo"),
        },
        Case {
            name: "no Ethernet",
            service: "nat",
            at,
            breaks: "ip tuntap add t0 mode tun; ip link set t0 up; ip route add 10.2.0.10/32 dev t0",
            mends: Some("ip link del t0"),
        },
        Case {
            name: "the gateway of l2dsr is a router",
            service: "loopback",
            at,
            breaks: "ip route del 198.51.100.8/32; ip route add 198.51.100.0/24 via 10.2.0.10",
            mends: Some("ip route add 198.51.100.8/32 via 10.2.0.10; ip route del 198.51.100.0/24"),
        },
        Case {
            name: "the address is a duplicate",
            service: "six",
            at,
            breaks: "ip addr del fd01::105/128 dev front; ip addr add fd01::105/128 dev front",
            mends: Some("ip addr del fd01::105/128 dev front; ip addr add fd01::105/128 dev front nodad"),
        },
        Case {
            name: "a firewall keeps checks away",
            service: "checked",
            at: &site.net.backends[0].ns,
            breaks: "nft add table ip t; nft add chain ip t c '{ type filter hook input priority 0; }'; \
                     nft add rule ip t c tcp dport 8080 reject with tcp reset",
            mends: Some("nft delete table ip t"),
        },
    ];
    for case in &cases {
        case.at.run("sh", &["-ec", case.breaks])?;
        wait_for(&cli, case.name, case.service, |state| state != "ok")?;
        let status = cli.ok("status")?;
        let (_, remedies) = state(&cli, case.service)?;
        let mends = match (case.mends, remedies.last()) {
            (Some(mends), _) => mends.to_owned(),
            (None, Some(remedy)) => remedy.clone(),
            (None, None) => anyhow::bail!("{}: no remedy in {status}", case.name),
        };
        case.at.run("sh", &["-ec", &mends])?;
        wait_for(
            &cli,
            &format!("{}, mended by {mends}", case.name),
            case.service,
            |state| state == "ok",
        )?;
    }

    // The other ends of veths take no frames from XDP any more, in one place after the other.
    site.net.refuse_redirected_frames();
    wait_for(&cli, "frames are refused", "nat", |state| state != "ok")?;
    wait::until_true("all remedies are carried out", LIMIT, || {
        let (state, remedies) = state(&cli, "nat")?;
        if let Some(remedy) = remedies.iter().find(|remedy| remedy.contains("ethtool")) {
            lb.run("sh", &["-c", remedy])?;
        }
        Ok(state == "ok")
    })?;
    Ok(())
}

#[test]
fn a_service_without_an_interface_that_runs_the_program_is_broken() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    let lb = site.net.lb.ns.clone();
    let service = Service::tcp("web", SocketAddr::new("192.0.2.3".parse()?, SERVICE_PORT))
        .keys("mode = \"l2dsr\"")
        .backend("b0", site.net.backends[0].socket(Family::V4, HTTP_PORT), 1);
    site.daemon = Daemon::new(&lb, &["front"])?
        .args("--xdp-mode native")
        .config(&file(&[service]))?;
    site.daemon.start()?;
    let cli = site.daemon.cli();
    wait_for(&cli, "it works", "web", |state| state == "ok")?;
    let says = |what: &str, words: &str| {
        wait::until_true(what, LIMIT, || {
            let (state, remedies) = state(&cli, "web")?;
            Ok(state == "broken" && !remedies.is_empty() && cli.ok("status")?.contains(words))
        })
    };
    lb.ip("link del front")?;
    says("the interface is gone", "interface front: does not exist")?;
    // One whose driver cannot run it natively.
    lb.ip("link add front link back type macvlan\nlink set front up")?;
    says(
        "no program runs",
        "interface front: the program does not run on it",
    )
}

#[test]
fn a_service_whose_flows_get_no_replies_is_not_ok_although_its_checks_succeed() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    site.net.forward_in_kernel()?;
    let backend = site.net.backends[0].socket(Family::V4, 8081);
    let _server = HttpServer::start(&site.net.backends[0].ns, "b0", &[backend])?;
    let vip = SocketAddr::new(site.net.vip(Family::V4, 2), SERVICE_PORT);
    let service = Service::tcp("dnat", vip)
        .keys("mode = \"dnat\"")
        .health("kind = \"tcp\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"")
        .backend("b0", backend, 1);
    site.daemon = site.daemon.config(&file(&[service]))?;
    site.daemon.start()?;
    let cli = site.daemon.cli();
    wait_for(&cli, "it is well", "dnat", |state| state == "ok")?;

    // Replies to other networks have no way.
    site.net.backends[0].ns.ip("route del default")?;
    for _ in 0..10 {
        let answered = site
            .net
            .client
            .ns
            .enter(|| http::connect_within(vip, 0, Duration::from_millis(100)).is_ok())?;
        ensure!(!answered, "the client has an answer");
    }
    wait_for(&cli, "no replies", "dnat", |state| state == "degraded")?;
    let status = cli.ok("status")?;
    ensure!(status.contains("had a reply"), "{status}");
    let (_, findings) = super::doctor(&cli, &[])?;
    let remedy = super::remedy(&findings, "status", "dnat/b0")?.replace("ADDRESS", "10.2.0.1");
    site.net.backends[0].ns.run("sh", &["-c", &remedy])?;
    http::get(&site.net.client.ns, vip, "/")?;
    wait_for(&cli, "replies come", "dnat", |state| state == "ok")
}
