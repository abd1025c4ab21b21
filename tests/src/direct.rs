//! A network for direct return: all machines on one segment, servers on the service's address.

use std::net::SocketAddr;

use anyhow::Result;

use crate::{
    config::{Service, file},
    daemon::Daemon,
    http::HttpServer,
    topology::{Family, Shape, Topology},
};

/// Port of the service, and of the servers.
pub const PORT: u16 = 8080;

/// All machines on one segment, HTTP servers on the service's address, and a running daemon with a service `web` in
/// mode `l2dsr`.
pub struct Direct {
    /// The network.
    pub net: Topology,
    /// The daemon.
    pub daemon: Daemon,
    /// Where the service is.
    pub target: SocketAddr,
    _http: Vec<HttpServer>,
}

impl Direct {
    /// A daemon with the first `programmed` of `backends` backends, `settings` before the service, and `keys` in it.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub fn start(
        family: Family,
        backends: u8,
        programmed: usize,
        settings: &str,
        keys: &str,
    ) -> Result<Self> {
        let net = Topology::new(Shape::OneArmed, backends)?;
        let target = SocketAddr::new(net.vip(family, 20), PORT);
        let mut http = Vec::new();
        for (i, host) in net.backends.iter().enumerate() {
            host.ns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
            host.ns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
            let bits = if target.is_ipv4() { 32 } else { 128 };
            host.ns
                .ip(&format!("addr add {}/{bits} dev lo nodad", target.ip()))?;
            http.push(HttpServer::start(&host.ns, &format!("b{i}"), &[target])?);
        }
        let service = Service::tcp("web", target).keys(&format!("mode = \"l2dsr\"\n{keys}"));
        let backends = net.backends.iter().enumerate().take(programmed);
        let service = backends.fold(service, |service, (i, host)| {
            service.backend(&format!("b{i}"), host.socket(family, PORT), 1)
        });
        let text = format!("{settings}{}", file(&[service]));
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&text)?;
        daemon.start()?;
        Ok(Self {
            net,
            daemon,
            target,
            _http: http,
        })
    }

    /// Flows in a table, when last counted.
    ///
    /// # Errors
    /// When the metrics cannot be read.
    pub fn flows(&self, map: &str) -> Result<f64> {
        Ok(self.daemon.metrics()?.sum("lb_flows", &[("map", map)]))
    }

    /// Flows under way of a backend, when last counted.
    ///
    /// # Errors
    /// When the metrics cannot be read.
    pub fn active(&self, backend: &str) -> Result<f64> {
        let labels = [("service", "web"), ("backend", backend)];
        Ok(self.daemon.metrics()?.sum("lb_active_connections", &labels))
    }
}
