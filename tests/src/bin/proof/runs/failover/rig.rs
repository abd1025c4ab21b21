//! A network with two backends for each kind of failure, and services over them: ours, and HAProxy's beside them.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    http::HttpServer,
    netns::Netns,
    nginx::Nginx,
    scratch::Scratch,
    topology::{Family, Host, Shape, Topology},
};

use super::Settings;

/// Port of the backends' servers.
const PORT: u16 = 8080;
/// Port of the first service.
const FIRST_SERVICE: u16 = 1_000;
/// Delay of a slow server: longer than any check and any client waits.
const SLOW: Duration = Duration::from_secs(2);
/// Loses everything that arrives.
const BLACK_HOLE: &str =
    "table inet hole { chain input { type filter hook input priority 0; policy drop; }; }";

/// A kind of failure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fault {
    /// The server is killed, and its machine refuses connections.
    Killed,
    /// The machine is off the network.
    HostDown,
    /// Packets to the machine are lost; link and neighbour stay.
    BlackHole,
    /// The server answers after [`SLOW`].
    Slow,
    /// The server is killed and started again, over and over.
    Flapping,
}

impl Fault {
    /// Those that last until the backend is healed.
    pub(super) const LASTING: [Self; 4] = [Self::Killed, Self::HostDown, Self::BlackHole, Self::Slow];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Killed => "process killed",
            Self::HostDown => "host down",
            Self::BlackHole => "black hole",
            Self::Slow => "slow answers",
            Self::Flapping => "flapping",
        }
    }
}

/// Who balances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum System {
    Lb,
    HaProxy,
}

impl System {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lb => "lb",
            Self::HaProxy => "HAProxy",
        }
    }
}

/// A service.
pub(super) struct Target {
    pub(super) system: System,
    pub(super) settings: &'static Settings,
    pub(super) fault: Fault,
    pub(super) address: SocketAddr,
}

enum Servers {
    Real(Vec<Nginx>),
    /// With a delay that can be set.
    Steered(Vec<HttpServer>),
}

/// Two backends, `b0` and `b1`, of which the first one fails.
struct Pair {
    fault: Fault,
    servers: Servers,
    addresses: [SocketAddr; 2],
}

/// Everything, running.
pub(super) struct Rig {
    pub(super) targets: Vec<Target>,
    pub(super) net: Topology,
    pairs: Vec<Pair>,
    _daemon: Daemon,
    _haproxy: Option<HaProxy>,
}

impl Rig {
    /// A service for each of these, and another one by HAProxy if that is asked for and its settings have the same.
    pub(super) fn start(wanted: &[(Fault, &'static Settings)], has_haproxy: bool) -> Result<Self> {
        let mut faults: Vec<Fault> = Vec::new();
        for (fault, _) in wanted {
            if !faults.contains(fault) {
                faults.push(*fault);
            }
        }
        let net = Topology::new(Shape::TwoArmed, u8::try_from(2 * faults.len())?)?;
        let mut pairs = Vec::new();
        for (place, fault) in faults.iter().enumerate() {
            pairs.push(Pair::start(*fault, &net.backends[2 * place..])?);
        }
        let ours = wanted.iter().map(|of| (System::Lb, of));
        let theirs = wanted
            .iter()
            .filter(|(_, settings)| has_haproxy && settings.haproxy.is_some());
        let all = ours.chain(theirs.map(|of| (System::HaProxy, of)));
        let targets: Vec<Target> = (FIRST_SERVICE..)
            .zip(all)
            .map(|(port, (system, (fault, settings)))| Target {
                system,
                settings,
                fault: *fault,
                address: SocketAddr::new(net.vip(Family::V4, 10), port),
            })
            .collect();
        let of = |system| targets.iter().filter(move |target| target.system == system);
        let services: Vec<Service> = of(System::Lb)
            .map(|target| target.service(&pairs))
            .collect::<Result<_>>()?;
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&file(&services))?;
        daemon.start()?;
        daemon.wait_for_whole_program()?;
        let theirs: Vec<String> = of(System::HaProxy)
            .map(|target| target.listener(&pairs))
            .collect::<Result<_>>()?;
        let haproxy = (!theirs.is_empty())
            .then(|| HaProxy::start(&net.lb.ns, &theirs.concat()))
            .transpose()?;
        Ok(Self {
            targets,
            net,
            pairs,
            _daemon: daemon,
            _haproxy: haproxy,
        })
    }

    /// The first backend of each pair fails.
    pub(super) fn fail(&mut self) -> Result<()> {
        for (place, pair) in self.pairs.iter_mut().enumerate() {
            pair.fail(&self.net, place)?;
        }
        Ok(())
    }

    /// It returns.
    pub(super) fn heal(&mut self) -> Result<()> {
        for (place, pair) in self.pairs.iter_mut().enumerate() {
            pair.heal(&self.net, place)?;
        }
        Ok(())
    }

    /// Flapping servers are there again, or not.
    pub(super) fn flap(&mut self, is_up: bool) -> Result<()> {
        for (place, pair) in self.pairs.iter_mut().enumerate() {
            match (pair.fault, is_up) {
                (Fault::Flapping, true) => pair.heal(&self.net, place)?,
                (Fault::Flapping, false) => pair.fail(&self.net, place)?,
                (Fault::Killed | Fault::HostDown | Fault::BlackHole | Fault::Slow, _) => {}
            }
        }
        Ok(())
    }

    /// Whether a kind of failure is among them.
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.pairs.iter().any(|pair| pair.fault == fault)
    }
}

impl Target {
    fn pair<'a>(&self, pairs: &'a [Pair]) -> Result<&'a Pair> {
        pairs
            .iter()
            .find(|pair| pair.fault == self.fault)
            .context("no backends")
    }

    fn service(&self, pairs: &[Pair]) -> Result<Service> {
        let service = Service::tcp(&format!("s{}", self.address.port()), self.address)
            .health(&format!("kind = \"http\"\n{}", self.settings.keys));
        let [first, second] = self.pair(pairs)?.addresses;
        Ok(service.backend("b0", first, 1).backend("b1", second, 1))
    }

    fn listener(&self, pairs: &[Pair]) -> Result<String> {
        let (timeout, words) = self.settings.haproxy.context("HAProxy has no such settings")?;
        let mut text = format!(
            "listen s{}\n  bind {}\n  option httpchk GET / HTTP/1.1\\r\\nHost:\\ a\n  timeout check {timeout}\n",
            self.address.port(),
            self.address
        );
        for (place, address) in self.pair(pairs)?.addresses.iter().enumerate() {
            writeln!(text, "  server b{place} {address} check {words}")?;
        }
        Ok(text)
    }
}

impl Pair {
    fn start(fault: Fault, hosts: &[Host]) -> Result<Self> {
        let [first, second, ..] = hosts else {
            anyhow::bail!("no two hosts for {fault:?}")
        };
        let hosts = [("b0", first), ("b1", second)];
        let address = |host: &Host| host.socket(Family::V4, PORT);
        let servers = match fault {
            Fault::Slow => Servers::Steered(
                hosts
                    .iter()
                    .map(|(name, host)| HttpServer::start(&host.ns, name, &[address(host)]))
                    .collect::<Result<_>>()?,
            ),
            Fault::Killed | Fault::HostDown | Fault::BlackHole | Fault::Flapping => Servers::Real(
                hosts
                    .iter()
                    .map(|(name, host)| Nginx::start(&host.ns, name, address(host)))
                    .collect::<Result<_>>()?,
            ),
        };
        Ok(Self {
            fault,
            servers,
            addresses: [address(first), address(second)],
        })
    }

    fn fail(&mut self, net: &Topology, place: usize) -> Result<()> {
        match (self.fault, &mut self.servers) {
            (Fault::HostDown, _) => net.middle.ip(&format!("link set b{} down", 2 * place)),
            (Fault::BlackHole, _) => net.backends[2 * place]
                .ns
                .run_with_input("nft", &["-f", "-"], BLACK_HOLE)
                .map(drop),
            (_, Servers::Steered(servers)) => {
                servers[0].set_delay(SLOW);
                Ok(())
            }
            (_, Servers::Real(servers)) => servers[0].kill(),
        }
    }

    fn heal(&mut self, net: &Topology, place: usize) -> Result<()> {
        match (self.fault, &mut self.servers) {
            (Fault::HostDown, _) => net.middle.ip(&format!("link set b{} up", 2 * place)),
            (Fault::BlackHole, _) => net.backends[2 * place]
                .ns
                .run("nft", &["delete", "table", "inet", "hole"])
                .map(drop),
            (_, Servers::Steered(servers)) => {
                servers[0].set_delay(Duration::ZERO);
                Ok(())
            }
            (_, Servers::Real(servers)) => servers[0].restart(),
        }
    }
}

/// A running HAProxy. Dropping it kills it.
struct HaProxy {
    child: Child,
    _scratch: Scratch,
}

impl HaProxy {
    /// With these listeners; retries and redispatch at their defaults.
    fn start(ns: &Netns, listeners: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let config = format!(
            "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             {listeners}"
        );
        let file = scratch.write("haproxy.cfg", config)?;
        let child = ns
            .command("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(Self {
            child: child.context("start haproxy")?,
            _scratch: scratch,
        })
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
