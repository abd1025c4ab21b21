//! A network with servers on every backend and a daemon for it: the start of most tests.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::{
    config::{Service, file},
    daemon::Daemon,
    http::HttpServer,
    lb_cli::lb_binary,
    nginx::Nginx,
    terminal::{Left, Terminal},
    topology::{Family, Shape, Topology, device_counters},
    udp::UdpEcho,
};

/// Port of the services.
pub const SERVICE_PORT: u16 = 80;
/// Port of the backends' HTTP servers.
pub const HTTP_PORT: u16 = 8080;
/// Port of the backends' nginx servers, where a test has some.
pub const NGINX_PORT: u16 = 8081;
/// Port of the backends' UDP echo servers.
pub const ECHO_PORT: u16 = 7007;

/// Everything together. Each backend `b0`, `b1`, … answers HTTP and UDP in both families with its name.
pub struct Site {
    /// The daemon, not started yet.
    pub daemon: Daemon,
    /// HTTP servers by backend.
    pub http: Vec<HttpServer>,
    /// UDP servers by backend.
    pub echo: Vec<UdpEcho>,
    /// The network.
    pub net: Topology,
}

impl Site {
    /// Builds all of it, without a configuration.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub fn new(shape: Shape, backends: u8) -> Result<Self> {
        let net = Topology::new(shape, backends)?;
        let daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?;
        let (mut http, mut echo) = (Vec::new(), Vec::new());
        for (i, host) in net.backends.iter().enumerate() {
            let name = format!("b{i}");
            http.push(HttpServer::start(
                &host.ns,
                &name,
                &Family::BOTH.map(|f| host.socket(f, HTTP_PORT)),
            )?);
            echo.push(UdpEcho::start(
                &host.ns,
                &name,
                &Family::BOTH.map(|f| host.socket(f, ECHO_PORT)),
            )?);
        }
        Ok(Self {
            daemon,
            http,
            echo,
            net,
        })
    }

    /// Where the services of a family are reached.
    pub fn service_address(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.net.vip(family, 10), SERVICE_PORT)
    }

    /// The TCP service `web4` or `web6` with one weight for each backend, from the first on.
    pub fn web(&self, family: Family, weights: &[u32]) -> Service {
        let name = match family {
            Family::V4 => "web4",
            Family::V6 => "web6",
        };
        self.with_backends(
            Service::tcp(name, self.service_address(family)),
            family,
            HTTP_PORT,
            weights,
        )
    }

    /// The UDP service `echo4` or `echo6`, as [`Site::web`].
    pub fn echo_service(&self, family: Family, weights: &[u32]) -> Service {
        let name = match family {
            Family::V4 => "echo4",
            Family::V6 => "echo6",
        };
        self.with_backends(
            Service::udp(name, self.service_address(family)),
            family,
            ECHO_PORT,
            weights,
        )
    }

    /// The service with one backend for each weight, from the first on, at this port.
    #[must_use]
    pub fn with_backends(&self, service: Service, family: Family, port: u16, weights: &[u32]) -> Service {
        let backends = self.net.backends.iter().zip(weights).enumerate();
        backends.fold(service, |service, (i, (host, weight))| {
            service.backend(&format!("b{i}"), host.socket(family, port), *weight)
        })
    }

    /// Starts an nginx on each backend.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn nginx(&self, family: Family) -> Result<Vec<Nginx>> {
        let hosts = self.net.backends.iter().enumerate();
        hosts
            .map(|(i, host)| Nginx::start(&host.ns, &format!("b{i}"), host.socket(family, NGINX_PORT)))
            .collect()
    }

    /// Starts the daemon with these services.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(mut self, services: &[Service]) -> Result<Self> {
        self.daemon = self.daemon.config(&file(services))?;
        self.daemon.start()?;
        Ok(self)
    }

    /// Packets that each interface of the balancer received and that the daemon has no verdict for. A constant once
    /// the program is attached, if every packet is counted once.
    ///
    /// # Errors
    /// When counters cannot be read, or traffic never pauses.
    pub fn uncounted(&self) -> Result<Vec<i128>> {
        let received = || -> Result<Vec<u64>> {
            let read = |name: &&str| Ok(device_counters(&self.net.lb.ns, name)?.rx_packets);
            self.net.lb_interfaces().iter().map(read).collect()
        };
        for _ in 0..1000 {
            let before = received()?;
            let metrics = self.daemon.metrics()?;
            // A frame in between would be in one count only; look again then.
            if before == received()? {
                let judged = self.net.lb_interfaces().iter();
                let judged = judged.map(|name| metrics.count("lb_xdp_packets_total", &[("interface", name)]));
                return Ok(before
                    .iter()
                    .zip(judged)
                    .map(|(a, b)| i128::from(*a) - i128::from(b))
                    .collect());
            }
        }
        ensure!(false, "the balancer's interfaces never fall silent");
        Ok(Vec::new())
    }

    /// Runs a command of `lb` on a terminal, and answers its question with `keys`.
    ///
    /// # Errors
    /// When it cannot be run, or does not ask.
    pub fn on_terminal(&self, line: &str, keys: &str) -> Result<Left> {
        let mut command = self.net.lb.ns.command(lb_binary()?);
        command
            .env("LB_SOCKET", self.daemon.socket())
            .args(line.split(' '));
        let mut terminal = Terminal::start(&mut command, 24, 200)?;
        terminal.wait_for("[y/N]")?;
        terminal.send(keys)?;
        terminal.end()
    }
}
