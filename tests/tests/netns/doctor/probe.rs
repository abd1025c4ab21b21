//! `lb doctor --probe`: what backends answer through the path of clients' packets.

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::Service,
    decap::Decap,
    http::HttpServer,
    lane::Lane,
    netns::Netns,
    site::{HTTP_PORT, SERVICE_PORT},
    topology::{Family, Topology},
};
use serde_json::Value;
use std::net::SocketAddr;

use super::{Patient, config, expect, remedy, troubles, with_key};

/// Lets a backend hold the services' addresses, without answering ARP for them.
pub(super) fn hold(net: &Topology, backend: usize) -> Result<()> {
    let ns = &net.backends[backend].ns;
    ns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    ns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    ns.ip(&format!(
        "addr add {}/32 dev lo\naddr add {}/128 dev lo nodad",
        net.vip(Family::V4, 1),
        net.vip(Family::V6, 1)
    ))
}

/// Servers of a backend, at its own addresses and at those of services.
pub(super) fn serve(net: &Topology, backend: usize) -> Result<HttpServer> {
    let host = &net.backends[backend];
    let own = Family::BOTH.map(|family| host.socket(family, HTTP_PORT));
    let services = Family::BOTH.map(|family| SocketAddr::new(net.vip(family, 1), SERVICE_PORT));
    HttpServer::start(&host.ns, "web", &[own, services].concat())
}

/// The end of tunnels of a backend.
pub(super) fn decap(net: &Topology, backend: usize, from: &[&str]) -> Result<Decap> {
    let from: Vec<String> = from.iter().map(|&from| from.to_owned()).collect();
    Decap::start(&net.backends[backend].ns, "eth0", &from)
}

/// Addresses of the balancer towards backends.
pub(super) const OWN: [&str; 2] = ["10.2.0.1", "fd02::1"];

struct Clinic {
    patient: Patient,
}

impl Clinic {
    fn new() -> Result<Self> {
        let patient = Patient::new()?;
        patient.net.forward_in_kernel()?;
        patient.lb().ip("link set back mtu 1600")?;
        Ok(Self { patient })
    }

    fn net(&self) -> &Topology {
        &self.patient.net
    }

    /// The first backend.
    fn there(&self) -> &Netns {
        &self.net().backends[0].ns
    }

    fn config(&self, mode: &str, family: Family) -> String {
        let port = if mode.ends_with("nat") {
            HTTP_PORT
        } else {
            SERVICE_PORT
        };
        let vip = SocketAddr::new(self.net().vip(family, 1), SERVICE_PORT);
        let service = Service::tcp("web", vip)
            .keys(&format!("mode = \"{mode}\""))
            .backend("b0", self.net().backends[0].socket(family, port), 1);
        config(&[service])
    }

    fn probe(&self, mode: &str) -> Result<(i32, Vec<Value>)> {
        self.patient
            .diagnose(&[], &self.config(mode, Family::V4), &["--probe"])
    }

    /// Fails unless a probe of `mode` finds this, and nothing once the first remedy was carried out at the backend.
    fn is_mended(&self, name: &str, mode: &str, check: &str, words: &[&str]) -> Result<()> {
        let result = self.probe(mode)?;
        let command = remedy(&result.1, check, "web/b0")?;
        expect(name, result, check, "fail", "web/b0", words)?;
        self.there().run("sh", &["-c", &command])?;
        self.is_well(&format!("{name}, with the remedy, {command}"), mode)
    }

    fn is_well(&self, name: &str, mode: &str) -> Result<()> {
        let (code, findings) = self.probe(mode)?;
        ensure!(
            code == 0 && troubles(&findings).is_empty(),
            "{name}: {findings:#?}"
        );
        let said = findings.iter().find(|finding| finding["check"] == "probe");
        said.with_context(|| format!("{name}: nothing was asked: {findings:#?}"))?;
        Ok(())
    }
}

#[test]
fn backends_that_do_not_end_tunnels_or_lack_the_address_are_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let clinic = Clinic::new()?;
    let (net, there) = (clinic.net(), clinic.there());
    let is = |name: &str, mode: &str, check: &str, words: &[&str]| {
        expect(name, clinic.probe(mode)?, check, "fail", "web/b0", words)
    };

    is(
        "l2dsr without the address",
        "l2dsr",
        "backend_address",
        &["ip addr add 192.0.2.1/32 dev lo # on 10.2.0.10"],
    )?;
    // Machines need not answer pings, by which a UDP service is probed.
    let udp = |mode: &str| {
        let vip = SocketAddr::new(net.vip(Family::V4, 1), SERVICE_PORT);
        let place = net.backends[0].socket(Family::V4, SERVICE_PORT);
        let service = Service::udp("web", vip)
            .keys(&format!("mode = \"{mode}\""))
            .backend("b0", place, 1);
        clinic.patient.diagnose(&[], &config(&[service]), &["--probe"])
    };
    expect(
        "UDP by l2dsr without the address",
        udp("l2dsr")?,
        "backend_address",
        "warn",
        "web/b0",
        &["does not answer for 192.0.2.1"],
    )?;
    is(
        "no end of ipip",
        "ipip",
        "tunnel",
        &["refuses them", "lb decap --iface eth0 --from 10.2.0.1"],
    )?;
    is(
        "no end of gue",
        "gue",
        "tunnel",
        &["refuses them", "ip fou add port 6080 gue"],
    )?;

    let other = decap(net, 0, &["10.2.0.77"])?;
    for mode in ["ipip", "gue"] {
        is(
            "an end for another balancer",
            mode,
            "tunnel",
            &["--from 10.2.0.1"],
        )?;
    }
    other.stop()?;

    let server = |addresses: &[SocketAddr]| HttpServer::start(there, "b0", addresses);
    let vip = SocketAddr::new(net.vip(Family::V4, 1), SERVICE_PORT);
    let any = "0.0.0.0:80".parse()?;
    let decap = decap(net, 0, &OWN)?;
    // A server on every address of its machine, which does not have the service's.
    let everywhere = server(&[any])?;
    clinic.is_mended(
        "tunnels without the address",
        "ipip",
        "backend_address",
        &["ends tunnels"],
    )?;
    for mode in ["gue", "l2dsr"] {
        clinic.is_well("all is there", mode)?;
    }
    let conflict = "sysctl -w net.ipv4.conf.all.arp_ignore=1";
    there.sysctl("net/ipv4/conf/all/arp_ignore", "0")?;
    let balancer = clinic.patient.lb();
    balancer.ip("route del local 192.0.2.0/24 dev lo\naddr add 192.0.2.1/24 dev back")?;
    clinic.is_mended(
        "the backend answers ARP",
        "l2dsr",
        "address_conflict",
        &[conflict, "answers ARP"],
    )?;
    balancer.ip("addr del 192.0.2.1/24 dev back\nroute add local 192.0.2.0/24 dev lo")?;

    // Over IPv6 a machine answers for what the asked interface has.
    there.ip("addr add 2001:db8:9::1/128 dev eth0 nodad")?;
    balancer.ip("route del local 2001:db8:9::/64 dev lo\naddr add 2001:db8:9::1/64 dev back nodad")?;
    let result = clinic
        .patient
        .diagnose(&[], &clinic.config("l2dsr", Family::V6), &["--probe"])?;
    let command = remedy(&result.1, "address_conflict", "web/b0")?;
    expect(
        "the backend answers neighbour discovery",
        result,
        "address_conflict",
        "fail",
        "web/b0",
        &["answers neighbour discovery for 2001:db8:9::1"],
    )?;
    there.run("sh", &["-ec", &command])?;
    let (_, findings) = clinic
        .patient
        .diagnose(&[], &clinic.config("l2dsr", Family::V6), &["--probe"])?;
    ensure!(
        findings
            .iter()
            .all(|finding| finding["check"] != "address_conflict"),
        "with the remedy, {command}: {findings:#?}"
    );
    balancer.ip("addr del 2001:db8:9::1/64 dev back\nroute add local 2001:db8:9::/64 dev lo")?;

    drop(everywhere);
    for mode in ["ipip", "gue", "l2dsr"] {
        is(
            "no server",
            mode,
            "backend_port",
            &["no server listens there", "ss -ltn 'sport = :80' # on 10.2.0.10"],
        )?;
    }
    let _server = server(&[vip])?;
    clinic.is_well("a server on the address", "ipip")?;
    for (name, verdict, words) in [
        ("a firewall drops", "drop", "has the address, and does not answer"),
        (
            "a firewall rejects",
            "reject with icmp admin-prohibited",
            "are refused: by a firewall",
        ),
    ] {
        firewall(there, &format!("ip daddr 192.0.2.1 tcp dport 80 {verdict}"))?;
        for mode in ["ipip", "l2dsr"] {
            is(name, mode, "backend_port", &[words])?;
        }
        there.run("nft", &["delete", "table", "ip", "t"])?;
    }
    clinic.is_well("without a firewall", "gue")?;
    decap.stop()?;
    firewall(there, "ip protocol 4 drop")?;
    expect(
        "tunnels of UDP are dropped",
        udp("ipip")?,
        "tunnel",
        "warn",
        "web/b0",
        &["it is dropped there"],
    )?;
    is(
        "tunnels are dropped",
        "ipip",
        "tunnel",
        &["it is dropped there", "rp_filter"],
    )?;
    Ok(())
}

/// A rule of a firewall for packets that arrive.
fn firewall(ns: &Netns, rule: &str) -> Result<()> {
    let rules = format!("table ip t {{ chain c {{ type filter hook input priority 0; {rule}; }}; }}");
    ns.run("nft", &[&rules]).map(drop)
}

#[test]
fn backends_whose_answers_do_not_come_back_are_recognised() -> Result<()> {
    let _lane = Lane::shared()?;
    let clinic = Clinic::new()?;
    let (net, there) = (clinic.net(), clinic.there());
    for mode in ["nat", "dnat"] {
        expect(
            "no server",
            clinic.probe(mode)?,
            "backend_port",
            "fail",
            "web/b0",
            &["no server listens there", "ss -ltn 'sport = :8080'"],
        )?;
    }
    hold(net, 0)?;
    let _server = serve(net, 0)?;
    for mode in ["nat", "dnat"] {
        clinic.is_well("a server", mode)?;
    }

    there.ip("route del default")?;
    clinic.is_well("nat needs no route to clients", "nat")?;
    clinic.is_mended(
        "no way back",
        "dnat",
        "backend_way",
        &[
            "not to 10.1.0.1",
            "ip route replace default via 10.2.0.1 # on 10.2.0.10",
        ],
    )?;

    // The other backend is a router to the balancer.
    let other = &net.backends[1];
    other.ns.sysctl("net/ipv4/conf/all/forwarding", "1")?;
    other.ns.sysctl("net/ipv4/conf/all/send_redirects", "0")?;
    other.ns.sysctl("net/ipv4/conf/eth0/send_redirects", "0")?;
    there.ip(&format!("route replace default via {}", other.v4))?;
    let mac = other.ns.mac("eth0")?.map(|byte| format!("{byte:02x}")).join(":");
    clinic.is_mended(
        "by another router",
        "dnat",
        "backend_way",
        &[&mac, "past this machine"],
    )?;

    // Source NAT with an address to which the backend has no route.
    let config = with_key(
        &clinic.config("nat", Family::V4),
        "snat_addresses = [\"203.0.113.9\"]",
    );
    let probe = || clinic.patient.diagnose(&[], &config, &["--probe"]);
    let (code, findings) = probe()?;
    ensure!(code == 0, "it is reached by the default route: {findings:#?}");
    there.ip("route del default")?;
    let result = probe()?;
    let command = remedy(&result.1, "backend_way", "web/b0")?;
    expect(
        "no route to source NAT",
        result,
        "backend_way",
        "fail",
        "web/b0",
        &["203.0.113.9"],
    )?;
    there.run("sh", &["-c", &command])?;
    let (code, findings) = probe()?;
    ensure!(code == 0, "with the remedy, {command}: {findings:#?}");

    firewall(there, "tcp dport 8080 drop")?;
    expect(
        "dropped",
        clinic.probe("nat")?,
        "backend_way",
        "fail",
        "web/b0",
        &["does not answer to 10.2.0.1"],
    )?;
    there.run("nft", &["delete", "table", "ip", "t"])?;

    // A sender on a veth that leaves checksums to the driver.
    there.run("ethtool", &["-K", "eth0", "tx", "on"])?;
    let result = clinic.probe("nat")?;
    let command = remedy(&result.1, "backend_checksum", "web/b0")?;
    expect(
        "checksums",
        result,
        "backend_checksum",
        "warn",
        "web/b0",
        &["wrong checksum"],
    )?;
    there.run("sh", &["-c", &command])?;
    clinic.is_well(&format!("with the remedy, {command}"), "nat")
}
