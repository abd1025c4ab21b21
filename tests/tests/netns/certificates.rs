//! Certificates of backends are seen to end before they do.

use std::{
    net::SocketAddr,
    process::Child,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::Service,
    lane::Lane,
    netns::Netns,
    nginx,
    scratch::Scratch,
    site::Site,
    topology::{Family, Shape},
    wait,
};
use serde_json::Value;

const DAY: Duration = Duration::from_secs(86_400);
/// For operations that normally take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Port of the nginx server for HTTP/1.1, and of that for HTTP/2.
const PORTS: [u16; 2] = [8443, 8444];

/// A certificate for a.example from a day ago on, and its key, in the directory of a server.
fn certificate(scratch: &Scratch, expires: SystemTime) -> Result<()> {
    let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()])?;
    params.not_before = (SystemTime::now() - 2 * DAY).into();
    params.not_after = expires.into();
    let key = rcgen::KeyPair::generate()?;
    let own = params.self_signed(&key)?;
    scratch.write("key.pem", key.serialize_pem())?;
    scratch.write("cert.pem", own.pem())?;
    Ok(())
}

/// nginx with TLS. Dropping it kills it.
struct Server {
    ns: Netns,
    scratch: Scratch,
    child: Child,
}

impl Server {
    fn start(ns: &Netns, addresses: [SocketAddr; 2], expires: SystemTime) -> Result<Self> {
        let scratch = Scratch::new()?;
        certificate(&scratch, expires)?;
        let dir = scratch.path().display();
        let [one, two] = addresses;
        let server = format!(
            "server {{
                listen {one} ssl; listen {two} ssl http2;
                ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
                location / {{ return 200 \"well\"; }}
             }}"
        );
        nginx::configure(&scratch, &server)?;
        let child = nginx::spawn(ns, &scratch)?;
        Ok(Self {
            ns: ns.clone(),
            scratch,
            child,
        })
    }

    /// Replaces its certificate and restarts it.
    fn renew(&mut self, expires: SystemTime) -> Result<()> {
        self.kill()?;
        certificate(&self.scratch, expires)?;
        self.child = nginx::spawn(&self.ns, &self.scratch)?;
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A service for each kind of check with TLS that nginx answers, over both servers.
const KINDS: [(&str, &str, u16); 3] = [
    ("tls", "kind = \"tls\"", PORTS[0]),
    ("https", "kind = \"https\"", PORTS[0]),
    ("http2", "kind = \"http2\"\ntls = true", PORTS[1]),
];

struct Rig {
    site: Site,
    servers: Vec<Server>,
}

impl Rig {
    fn start(ends: [SystemTime; 2]) -> Result<Self> {
        let site = Site::new(Shape::TwoArmed, 2)?;
        let family = Family::V4;
        let mut servers = Vec::new();
        for (host, end) in site.net.backends.iter().zip(ends) {
            let addresses = PORTS.map(|port| host.socket(family, port));
            servers.push(Server::start(&host.ns, addresses, end)?);
        }
        let mut services = Vec::new();
        for (number, (name, kind, port)) in (10..).zip(KINDS) {
            let health = format!(
                "{kind}\nverify = false\ninterval = \"100ms\"\nfast_interval = \"100ms\"\n\
                 down_interval_max = \"100ms\"\nport = {port}"
            );
            let address = SocketAddr::new(site.net.vip(family, number), 80);
            let mut service = Service::tcp(name, address).health(&health);
            for (i, host) in site.net.backends.iter().enumerate() {
                service = service.backend(&format!("b{i}"), host.socket(family, 80), 1);
            }
            services.push(service);
        }
        let site = site.start(&services)?;
        Ok(Self { site, servers })
    }

    fn backends(&self, service: &str) -> Result<[Value; 2]> {
        let shown = self.site.daemon.cli().json(&format!("service show {service}"))?;
        let backends = shown["backends"].as_array().context("backends")?;
        let [b0, b1] = &backends[..] else {
            anyhow::bail!("{shown}")
        };
        Ok([b0.clone(), b1.clone()])
    }

    fn wait_for(&self, what: &str, is: impl Fn(&[Value; 2]) -> bool) -> Result<()> {
        for (name, ..) in KINDS {
            wait::until_true(&format!("{name}: {what}"), LIMIT, || {
                Ok(is(&self.backends(name)?))
            })?;
        }
        Ok(())
    }

    /// Waits until each service's b0 has had `times` events about certificates, and returns all events.
    fn wait_events(&self, times: usize) -> Result<Vec<Value>> {
        wait::until("events about certificates", LIMIT, || {
            let lines = self.site.daemon.cli().ok("-o json events")?;
            let events: Vec<Value> = lines
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?;
            let found: Vec<Value> = events
                .into_iter()
                .filter(|event| event["kind"] == "certificate")
                .collect();
            Ok((found.len() >= times * KINDS.len()).then_some(found))
        })
    }
}

#[test]
fn approaching_expiry_is_shown_and_reported_once() -> Result<()> {
    let _lane = Lane::shared()?;
    let now = SystemTime::now();
    let (soon, late) = (now + 3 * DAY + DAY / 2, now + 90 * DAY);
    let mut rig = Rig::start([soon, late])?;
    let days = |backend: &Value| backend["certificate"]["days_left"].as_i64();
    rig.wait_for("both certificates are seen", |[b0, b1]| {
        days(b0) == Some(3) && days(b1) == Some(89)
    })?;
    let [b0, b1] = rig.backends("https")?;
    ensure!(b0["certificate"]["expires_soon"] == true, "{b0}");
    ensure!(b1["certificate"]["expires_soon"] == false, "{b1}");
    ensure!(b0["health"] == "up", "{b0}");
    let found = rig.wait_events(1)?;
    for event in &found {
        let message = event["message"].as_str().unwrap_or_default();
        ensure!(
            event["backend"] == "b0" && message.starts_with("certificate expires in 3days"),
            "{event}"
        );
    }
    let end = soon.duration_since(UNIX_EPOCH)?.as_secs();
    let labels = [("service", "tls"), ("backend", "b0")];
    let metrics = rig.site.daemon.metrics()?;
    ensure!(metrics.count("lb_backend_certificate_expiry_seconds", &labels) == end);
    let cli = rig.site.daemon.cli();
    let wide = cli.ok("backend list -o wide")?;
    ensure!(wide.contains("3 days") && wide.contains("89 days"), "{wide}");
    let status = cli.ok("status")?;
    ensure!(status.contains("its certificate expires in 3 days"), "{status}");

    // Renewed, then expired: one event each, with any number of checks in between.
    rig.servers[0].renew(late)?;
    rig.wait_for("b0 has a new certificate", |[b0, _]| days(b0) == Some(89))?;
    let found = rig.wait_events(2)?;
    ensure!(found.len() == 2 * KINDS.len(), "{found:?}");
    rig.servers[0].renew(now - DAY)?;
    rig.wait_for("b0's certificate has expired", |[b0, _]| days(b0) < Some(0))?;
    let found = rig.wait_events(3)?;
    ensure!(found.len() == 3 * KINDS.len(), "{found:?}");
    for (event, words) in found.iter().zip(
        [
            ["certificate expires in"; 3],
            ["certificate is renewed"; 3],
            ["certificate has expired"; 3],
        ]
        .as_flattened(),
    ) {
        ensure!(
            event["message"]
                .as_str()
                .is_some_and(|message| message.starts_with(words)),
            "{found:?}"
        );
    }
    let log = rig.site.daemon.log();
    ensure!(
        log.matches("certificate expires in").count() == KINDS.len(),
        "{log}"
    );
    Ok(())
}
