//! A way with its machines and servers. All machines of all ways have the same offload settings: senders compute checksums, and so cut
//! segments, too.

use std::{
    env,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    decap::Decap,
    http,
    metrics::Metrics,
    netns::Netns,
    nginx::Nginx,
    scratch::Scratch,
    topology::{Family, Shape, Topology},
    wait,
    xdp_pass::PassProgram,
};

use crate::{
    context::Context,
    peers::{CPUS, haproxy_config, nft_rules, nginx_config},
    ways::{OTHER, Way},
};

/// Servers.
const BACKENDS: u8 = 2;
/// Port of the service and of the servers, which some modes cannot change.
const PORT: u16 = 8080;
/// Bytes of a large transfer.
const LARGE: usize = 4 << 20;
/// Its path.
pub(crate) const LARGE_PATH: &str = "/large";
/// Time for a server or a balancer to come up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Ports that a proxy's machine and a client may connect from.
const PORTS: &str = "10000 65000";

/// What forwards.
enum Forwarder {
    /// The kernel alone.
    Kernel,
    /// The balancer, with the ends of its tunnels.
    Lb {
        daemon: Box<Daemon>,
        #[expect(dead_code, reason = "a guard")]
        decaps: Vec<Decap>,
    },
    /// A proxy's processes with their files.
    Proxy {
        processes: Vec<Child>,
        #[expect(dead_code, reason = "a guard")]
        files: Scratch,
    },
}

/// A way with all of its machines and servers. Dropping it takes it down.
pub(crate) struct World {
    /// Which.
    pub(crate) way: Way,
    /// The machines.
    pub(crate) net: Topology,
    /// Where clients send to.
    pub(crate) targets: Vec<SocketAddr>,
    forwarder: Forwarder,
    _passes: Vec<PassProgram>,
    _servers: Vec<Nginx>,
    _files: Scratch,
}

impl World {
    /// Builds a way, and waits until it answers.
    ///
    /// # Errors
    /// When a part cannot be made, or no answer comes.
    pub(crate) fn start(way: Way, context: &mut Context) -> Result<Self> {
        Self::build(way, context).with_context(|| format!("the way {}", way.name()))
    }

    fn build(way: Way, context: &mut Context) -> Result<Self> {
        let net = Topology::new(way.shape(), BACKENDS)?;
        let passes = context.tries.change(way, &net)?;
        for ns in [&net.client.ns, &net.lb.ns] {
            ns.sysctl("net/ipv4/ip_local_port_range", PORTS)?;
        }
        let vip = SocketAddr::new(net.vip(Family::V4, 10), PORT);
        let files = Scratch::new()?;
        files.write(
            LARGE_PATH.trim_start_matches('/'),
            vec![0; context.pick(LARGE / 64, LARGE)],
        )?;
        let mut servers = Vec::new();
        for (i, host) in net.backends.iter().enumerate() {
            let mut others = Vec::new();
            if way.shape() == Shape::OneArmed {
                hold(&host.ns, vip)?;
                others.push(vip);
            }
            let address = host.socket(Family::V4, PORT);
            let large = format!(
                "location = {LARGE_PATH} {{ root {}; sendfile on; }}",
                files.path().display()
            );
            servers.push(Nginx::start_on(
                &host.ns,
                &format!("b{i}"),
                address,
                &others,
                &large,
            )?);
        }
        let backends: Vec<SocketAddr> = net
            .backends
            .iter()
            .map(|host| host.socket(Family::V4, PORT))
            .collect();
        let forwarder = forward(way, &net, vip, &backends, context)?;
        let targets = match way {
            Way::Direct | Way::DirectReturn => backends,
            Way::Nat
            | Way::Dnat
            | Way::L2dsr
            | Way::Ipip
            | Way::Gue
            | Way::Other(_)
            | Way::Numgen
            | Way::Jhash
            | Way::Haproxy
            | Way::NginxStream => vec![vip],
        };
        let world = Self {
            way,
            net,
            targets,
            forwarder,
            _passes: passes,
            _servers: servers,
            _files: files,
        };
        for target in &world.targets {
            wait::until_true("an answer comes", PATIENCE, || {
                Ok(http::get(&world.net.client.ns, *target, "/").is_ok())
            })?;
        }
        if let Forwarder::Lb { daemon, .. } = &world.forwarder {
            daemon.wait_for_whole_program()?;
        }
        Ok(world)
    }

    /// Builds several ways.
    ///
    /// # Errors
    /// As [`World::start`].
    pub(crate) fn start_all(ways: &[Way], context: &mut Context) -> Result<Vec<Self>> {
        let mut worlds = Vec::new();
        for way in ways {
            context.progress(&format!("building {}", way.name()));
            worlds.push(Self::start(*way, context)?);
        }
        Ok(worlds)
    }

    /// Metrics of the balancer, where it is one.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn metrics(&self) -> Result<Option<Metrics>> {
        match &self.forwarder {
            Forwarder::Lb { daemon, .. } => daemon.metrics().map(Some),
            Forwarder::Kernel | Forwarder::Proxy { .. } => Ok(None),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Forwarder::Proxy { processes, .. } = &mut self.forwarder {
            for process in processes {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

/// Gives a server the service's address, which it never announces.
fn hold(ns: &Netns, vip: SocketAddr) -> Result<()> {
    ns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    ns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    ns.ip(&format!("addr add {}/32 dev lo", vip.ip()))
}

fn forward(
    way: Way,
    net: &Topology,
    vip: SocketAddr,
    backends: &[SocketAddr],
    context: &mut Context,
) -> Result<Forwarder> {
    if let Some(mode) = way.mode().or(way.other_mode()) {
        let service = Service::tcp("web", vip).keys(&format!("mode = \"{mode}\""));
        let named = (0..).zip(backends);
        let service = named.fold(service, |service, (i, backend)| {
            service.backend(&format!("b{i}"), *backend, 1)
        });
        // Mode `dnat` may need the kernel for a reply.
        net.forward_in_kernel()?;
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&[service]))?;
        if way.other_mode().is_some() {
            let binary = env::var_os(OTHER).context("no other program is named")?;
            context.add_version("other lb", Command::new(&binary).arg("--version"))?;
            daemon = daemon.binary(binary.into());
        }
        daemon.start()?;
        let mut decaps = Vec::new();
        if matches!(mode, "ipip" | "gue") {
            let from = [net.lb.v4.to_string()];
            for host in &net.backends {
                let start = if context.tries.has_generic_decap {
                    Decap::start_generic
                } else {
                    Decap::start
                };
                decaps.push(start(&host.ns, "eth0", &from)?);
            }
        }
        return Ok(Forwarder::Lb {
            daemon: Box::new(daemon),
            decaps,
        });
    }
    match way {
        Way::Direct => net.forward_in_kernel()?,
        Way::DirectReturn => {
            net.forward_in_kernel()?;
            // Client and servers are on one segment: without redirects, requests go through the balancer's machine.
            for device in ["all", "eth0"] {
                net.lb
                    .ns
                    .sysctl(&format!("net/ipv4/conf/{device}/send_redirects"), "0")?;
            }
            for backend in backends {
                let route = format!("route add {}/32 via {}", backend.ip(), net.lb.v4);
                net.client.ns.ip(&route)?;
            }
        }
        Way::Numgen | Way::Jhash => {
            net.forward_in_kernel()?;
            context.add_version("nftables", Command::new("nft").arg("--version"))?;
            net.lb
                .ns
                .run_with_input("nft", &["-f", "-"], &nft_rules(way == Way::Jhash, vip, backends))?;
        }
        Way::Haproxy => {
            context.add_version("HAProxy", Command::new("haproxy").arg("-v"))?;
            let config = haproxy_config(vip, backends);
            return proxy(&net.lb.ns, "haproxy", &["-q", "-f"], &config, 1);
        }
        Way::NginxStream => {
            context.add_version("nginx", Command::new("nginx-stream").arg("-v"))?;
            let config = nginx_config(vip, backends);
            return proxy(&net.lb.ns, "nginx-stream", &["-e", "stderr", "-c"], &config, CPUS);
        }
        Way::Nat | Way::Dnat | Way::L2dsr | Way::Ipip | Way::Gue | Way::Other(_) => {}
    }
    Ok(Forwarder::Kernel)
}

/// Starts processes of a proxy with a configuration.
fn proxy(ns: &Netns, program: &str, arguments: &[&str], config: &str, processes: usize) -> Result<Forwarder> {
    let files = Scratch::new()?;
    let config = files.write("config", config)?;
    let mut command = ns.command(program);
    command
        .args(arguments)
        .arg(config)
        .current_dir(files.path())
        .stdin(Stdio::null());
    let mut started = Vec::new();
    for _ in 0..processes {
        started.push(command.spawn().with_context(|| format!("start {program}"))?);
    }
    Ok(Forwarder::Proxy {
        processes: started,
        files,
    })
}
