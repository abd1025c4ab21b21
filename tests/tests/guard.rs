//! Who is turned away, and how he learns of it.

use std::io::ErrorKind;

use anyhow::{Context, Result, ensure};
use lb_tests::{
    http::connect,
    lane::Lane,
    site::Site,
    topology::{Family, Shape},
    udp::open,
};

#[test]
fn clients_of_a_service_that_rejects_without_backends_learn_of_it_at_once() -> Result<()> {
    let _lane = Lane::shared()?;
    for shape in [Shape::OneArmed, Shape::TwoArmed] {
        let site = Site::new(shape, 1)?;
        let services: Vec<_> = Family::BOTH
            .into_iter()
            .flat_map(|family| [site.web(family, &[0]), site.echo_service(family, &[0])])
            .map(|service| service.keys("on_empty = \"reject\""))
            .collect();
        let site = site.start(&services)?;
        for (family, web, echo) in [(Family::V4, "web4", "echo4"), (Family::V6, "web6", "echo6")] {
            let target = site.service_address(family);
            let refused = site.net.client.ns.enter(|| connect(target, 0))?;
            let kind = refused.err().context("connected to nobody")?.kind();
            ensure!(kind == ErrorKind::ConnectionRefused, "tcp: {kind}");
            let answer = site.net.client.ns.enter(|| {
                let socket = open(target, 0)?;
                socket.send(b"anybody there?")?;
                socket.recv(&mut [0; 100])
            })?;
            let kind = answer.err().context("nobody answered")?.kind();
            ensure!(kind == ErrorKind::ConnectionRefused, "udp: {kind}");
            let metrics = site.daemon.metrics()?;
            for (service, reason) in [(web, "rejected_reset"), (echo, "rejected_unreachable")] {
                let labels = [("service", service), ("reason", reason)];
                let count = metrics.count("lb_service_replies_total", &labels);
                ensure!(count == 1, "{service} {reason}: {count}");
            }
        }
    }
    Ok(())
}
