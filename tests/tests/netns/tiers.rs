//! Two tiers of balancers: what one sends through a tunnel, the other balances on.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::{
    client::{KeepAlive, http_requests},
    config::{Service, file},
    daemon::Daemon,
    http::HttpServer,
    lane::Lane,
    topology::{Family, Shape, Topology},
    wait,
};

/// Port of services and servers.
const PORT: u16 = 8080;
/// Longest wait for packets under way.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_balancer_takes_packets_out_of_the_tunnels_of_another_and_balances_them() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 3)?;
    let vips = Family::BOTH.map(|family| SocketAddr::new(net.vip(family, 20), PORT));
    let (second, servers) = (&net.backends[0], &net.backends[1..]);
    let mut http = Vec::new();
    for (i, host) in servers.iter().enumerate() {
        host.ns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
        host.ns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
        for vip in vips {
            let bits = if vip.is_ipv4() { 32 } else { 128 };
            host.ns
                .ip(&format!("addr add {}/{bits} dev lo nodad", vip.ip()))?;
        }
        http.push(HttpServer::start(&host.ns, &format!("s{i}"), &vips)?);
    }
    // The first tier sends over the other family, so that both kinds of outer headers are seen.
    let others = [Family::V6, Family::V4];
    let tiers = |(family, other, mode): (Family, Family, &str)| {
        let vip = SocketAddr::new(net.vip(family, 20), PORT);
        let name = format!("web{family:?}");
        let first = Service::tcp(&name, vip)
            .keys(&format!("mode = \"{mode}\""))
            .backend("tier", second.socket(other, PORT), 1);
        let direct = Service::tcp(&name, vip).keys("mode = \"l2dsr\"");
        let direct = servers.iter().enumerate().fold(direct, |service, (i, host)| {
            service.backend(&format!("s{i}"), host.socket(family, PORT), 1)
        });
        (first, direct)
    };
    let families = [(Family::V4, others[0], "ipip"), (Family::V6, others[1], "gue")];
    let (firsts, seconds): (Vec<Service>, Vec<Service>) = families.into_iter().map(tiers).unzip();
    let from = Family::BOTH
        .map(|family| format!("\"{}\"", net.lb.ip(family)))
        .join(", ");
    let settings = format!("[lb]\nxdp_mode = \"generic\"\ndecap_from = [{from}]\n");
    let mut inner = Daemon::new(&second.ns, &["eth0"])?.config(&format!("{settings}{}", file(&seconds)))?;
    inner.start()?;
    let mut outer = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&firsts))?;
    outer.start()?;
    for (vip, first_port) in vips.into_iter().zip([20_000, 21_000]) {
        let report = http_requests(&net.client.ns, vip, first_port, 200, 8)?;
        report.ensure_complete(200)?;
        ensure!(
            (0.3..0.7).contains(&report.share("s0")),
            "s0 has {}",
            report.share("s0")
        );
    }
    // The last FIN may still be on its way when the last answer has been read.
    wait::until_true("both tiers have counted each packet", LIMIT, || {
        let sent = outer.metrics()?.sum("lb_service_packets_total", &[]);
        let inside = inner.metrics()?;
        let counts =
            ["lb_service_packets_total", "lb_tunnels_ended_packets_total"].map(|name| inside.sum(name, &[]));
        Ok(sent > 0.0 && counts == [sent, sent])
    })?;
    let status = inner.cli().ok("status")?;
    ensure!(status.contains("FROM TUNNELS"), "{status}");
    for ((vip, family), (_, other, kind)) in vips.into_iter().zip(Family::BOTH).zip(families) {
        let client = SocketAddr::new(net.client.ip(family), 30_000);
        let (from, to) = (net.lb.ip(other), second.ip(other));
        let ask = |from| {
            format!("explain tcp {client} {vip} --tunnel {kind} --tunnel-from {from} --tunnel-to {to}")
        };
        let taken = inner.cli().json(&ask(from))?;
        ensure!(
            taken["tunnel_ends"] == true && taken["verdict"] == "forward" && taken["mode"] == "l2dsr",
            "{taken}"
        );
        let refused = inner.cli().json(&ask(net.client.ip(other)))?;
        ensure!(
            refused["tunnel_ends"] == false && refused["verdict"] == "pass",
            "{refused}"
        );
    }
    ensure!(
        inner.cli().ok("export")?.contains("decap_from"),
        "the key is exported"
    );
    // The second tier goes on without its daemon, and takes up where it was.
    let stays = KeepAlive::start(&net.client.ns, vips[0], 8)?;
    stays.wait_rounds(2)?;
    inner.kill()?;
    stays.wait_rounds(2)?;
    inner.start()?;
    stays.wait_rounds(2)?;
    stays.stop()?.ensure_flawless()
}
