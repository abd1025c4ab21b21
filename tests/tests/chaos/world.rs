//! A balancer with services of every mode and family on one segment, servers, and clients that never pause.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    decap::Decap,
    lb_cli::LbCli,
    netns::checked,
    topology::{Family, Host, Shape, Topology},
    trap::{Calls, Trap},
    wait,
};
use serde_json::Value;

use crate::{
    left::{Host as LeftOnHost, Objects},
    process::STATE_BYTES,
    servers::Server,
    traffic::{Target, Traffic},
};

/// Backends of each service.
const BACKENDS: u8 = 3;
/// Port of all services, and of the servers that have a service's address.
pub(crate) const PORT: u16 = 8080;
/// The target that the state converges within; printed, not asserted.
const TARGET: Duration = Duration::from_secs(2);
/// Longest wait for it.
const LIMIT: Duration = Duration::from_secs(90);
/// The balancer's interface.
pub(crate) const DEVICE: &str = "eth0";
/// Lines of the daemon's log that a failure shows.
const LINES: usize = 30;
/// Where backends look for their way to the client in mode `dnat`.
const TABLE: &str = "100";

/// A mode, the last part of its services' addresses, and the port of its backends.
struct Way {
    mode: &'static str,
    vip: u8,
    port: u16,
}

const WAYS: [Way; 4] = [
    Way {
        mode: "nat",
        vip: 10,
        port: 8081,
    },
    Way {
        mode: "dnat",
        vip: 11,
        port: 8082,
    },
    Way {
        mode: "l2dsr",
        vip: 12,
        port: PORT,
    },
    Way {
        mode: "ipip",
        vip: 13,
        port: PORT,
    },
];

/// Checks that find out soon, and that a busy machine passes. Flows of a backend that seems to be down stay: a fault of the balancer's own
/// network makes all of them seem so.
const HEALTH: &str =
    "kind = \"tcp\"\ninterval = \"500ms\"\nfast_interval = \"200ms\"\ntimeout = \"3s\"\nfall = 3\nrise = 1\n";
const KEYS: &str = "on_down = \"keep\"\n";

/// Everything together.
pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) traffic: Traffic,
    pub(crate) rng: Rng,
    /// Names of the services, those of TCP first.
    pub(crate) services: Vec<String>,
    /// What the daemons have had in the kernel.
    objects: Objects,
    /// The network of the balancer's host as it was.
    before: LeftOnHost,
    last_event: u64,
    /// The trap that is set for each daemon.
    pub(crate) trap: Option<Arc<Trap>>,
    _servers: Vec<Server>,
    _decaps: Vec<Decap>,
    pub(crate) net: Topology,
}

impl World {
    /// Builds it, and starts daemon and clients. A trap for the calls that `trap` picks is set for each daemon.
    pub(crate) fn start(
        seed: u64,
        pace: Duration,
        trap: impl FnOnce(&Daemon) -> Option<Calls>,
    ) -> Result<Self> {
        let mut net = Topology::new(Shape::OneArmed, BACKENDS)?;
        net.forward_in_kernel()?;
        net.take_frames_of_client()?;
        prepare_balancer(&net)?;
        let (mut servers, mut decaps) = (Vec::new(), Vec::new());
        let balancer = Family::BOTH.map(|family| net.lb.ip(family).to_string());
        for (number, host) in net.backends.iter().enumerate() {
            let addresses = prepare_backend(&net, host)?;
            servers.push(Server::start(&host.ns, &format!("b{number}"), &addresses)?);
            decaps.push(Decap::start(&host.ns, "eth0", &balancer)?);
        }
        let targets = targets(&net);
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&configuration(&net))?;
        mount_state(&daemon.state_dir())?;
        let trap = trap(&daemon).map(Trap::new);
        if let Some(trap) = &trap {
            daemon = daemon.with_trap(trap);
        }
        let before = LeftOnHost::of(&net.lb.ns)?;
        daemon.start()?;
        let traffic = Traffic::start(&net.client.ns, &targets, pace, seed)?;
        let world = Self {
            daemon,
            traffic,
            rng: Rng::with_seed(seed),
            services: targets.into_iter().map(|target| target.name).collect(),
            objects: Objects::default(),
            before,
            trap,
            last_event: 0,
            _servers: servers,
            _decaps: decaps,
            net,
        };
        world.daemon.wait_for_whole_program()?;
        world.wait_converged()?;
        world.traffic.wait_rounds(2)?;
        Ok(world)
    }

    pub(crate) fn cli(&self) -> LbCli {
        self.daemon.cli()
    }

    /// The end of the daemon's log.
    pub(crate) fn log(&self) -> String {
        let log = self.daemon.log();
        let lines: Vec<&str> = log.lines().rev().take(LINES).collect();
        lines
            .into_iter()
            .rev()
            .fold(String::new(), |text, line| text + line + "\n")
    }

    /// Writes down what the daemon has in the kernel.
    pub(crate) fn note_objects(&mut self) -> Result<()> {
        self.objects.note(self.daemon.pid()?, &self.daemon.pin_dir())
    }

    /// Waits until the desired state is programmed and nothing is wrong but what was asked for. Gives the time.
    pub(crate) fn wait_converged(&self) -> Result<Duration> {
        let (cli, began) = (self.cli(), Instant::now());
        let mut last = Value::Null;
        let converged = wait::until_true("the state converges", LIMIT, || {
            let outcome = cli.run(&["-o", "json", "status"])?;
            last = serde_json::from_str(&outcome.stdout).unwrap_or(Value::String(outcome.stderr));
            let array = |key: &str| last[key].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_drained = |problem: &Value| problem.to_string().contains("it is drained");
            let is_served = |service: &Value| service["state"] == "ok" || service["state"] == "degraded";
            let services = array("services");
            Ok(last["ready"] == true
                && array("problems").iter().all(is_drained)
                && services.len() == self.services.len()
                && services.iter().all(is_served))
        });
        converged.with_context(|| format!("status: {last:.2000}"))?;
        Ok(began.elapsed())
    }

    /// Begins a fault: only later events count as its.
    pub(crate) fn mark_events(&mut self) -> Result<()> {
        self.last_event = events(&self.cli())?.last().map_or(0, |(number, _)| *number);
        Ok(())
    }

    /// Waits until status has these words among its problems or interfaces.
    pub(crate) fn wait_status(&self, words: &str) -> Result<()> {
        let cli = self.cli();
        wait::until_true(&format!("status says {words:?}"), LIMIT, || {
            Ok(cli.run(&["-o", "json", "status"])?.stdout.contains(words))
        })
        .with_context(|| cli.ok("status").unwrap_or_default())
    }

    /// Waits until an event of this fault has these words.
    pub(crate) fn wait_event(&self, words: &str) -> Result<()> {
        let cli = self.cli();
        wait::until_true(&format!("an event says {words:?}"), LIMIT, || {
            let events = events(&cli)?;
            let mut later = events.iter().filter(|(number, _)| *number > self.last_event);
            Ok(later.any(|(_, line)| line.contains(words)))
        })
        .with_context(|| cli.ok("events").unwrap_or_default())
    }

    /// Starts a daemon where none runs, and waits for its convergence.
    pub(crate) fn start_again(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.daemon.start()?;
        self.wait_converged()?;
        Ok(began.elapsed())
    }

    /// Number of the program on the interface.
    pub(crate) fn program(&self) -> Result<String> {
        Ok(self.cli().json("status")?["interfaces"][0]["program_id"].to_string())
    }

    /// Fails if some hundred checks leave descriptors.
    fn ensure_checks_leave_no_descriptors(&self) -> Result<()> {
        let checks = || Ok::<_, anyhow::Error>(self.daemon.metrics()?.count("lb_health_checks_total", &[]));
        let (first, before) = (checks()?, self.open_descriptors()?);
        wait::until_true("some hundred checks are made", LIMIT, || {
            Ok(checks()? >= first + CHECKS)
        })?;
        let mut now = 0;
        wait::until_true("the daemon holds as many descriptors as before", LIMIT, || {
            now = self.open_descriptors()?;
            Ok(now <= before + SPARE)
        })
        .with_context(|| format!("{before} descriptors became {now} in {CHECKS} checks and more"))
    }

    /// Descriptors of the daemon.
    pub(crate) fn open_descriptors(&self) -> Result<usize> {
        let pid = self.daemon.pid()?;
        Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    }

    /// Ends clients and daemon. Nothing may be left.
    pub(crate) fn end(mut self) -> Result<()> {
        self.note_objects()?;
        self.traffic.stop()?;
        self.ensure_checks_leave_no_descriptors()?;
        self.daemon.stop()?;
        self.objects.wait_gone(&self.daemon.pin_dir())?;
        LeftOnHost::of(&self.net.lb.ns)?.ensure_as(&self.before)?;
        println!("{} answers, {}", self.traffic.answers(), self.objects);
        Ok(())
    }
}

/// Checks in which a descriptor that each of them leaves shows, and descriptors that come and go: connections of checks and clients.
const CHECKS: u64 = 200;
const SPARE: usize = 60;

/// All services, those of TCP first.
fn targets(net: &Topology) -> Vec<Target> {
    let mut targets = Vec::new();
    for is_udp in [false, true] {
        for way in &WAYS {
            for family in Family::BOTH {
                let (protocol, number) = (if is_udp { "udp" } else { "tcp" }, number(family));
                targets.push(Target {
                    name: format!("{}{number}-{protocol}", way.mode),
                    address: SocketAddr::new(net.vip(family, way.vip), PORT),
                    is_udp,
                });
            }
        }
    }
    targets
}

/// The balancer's file.
pub(crate) fn configuration(net: &Topology) -> String {
    let services = targets(net).into_iter().map(|target| {
        let family = if target.address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let new = if target.is_udp { Service::udp } else { Service::tcp };
        let way = WAYS.iter().find(|way| {
            let mode = target.name.strip_prefix(way.mode);
            mode.is_some_and(|rest| rest.starts_with(['4', '6']))
        });
        let (mode, port) = way.map_or(("nat", PORT), |way| (way.mode, way.port));
        let service = new(&target.name, target.address).keys(&format!("mode = \"{mode}\"\n{KEYS}"));
        let backends = net.backends.iter().enumerate();
        backends.fold(service.health(HEALTH), |service, (number, host)| {
            service.backend(&format!("b{number}"), host.socket(family, port), 1)
        })
    });
    file(&services.collect::<Vec<_>>())
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

/// Gives the daemon's state a disk of its own, which can be full.
fn mount_state(dir: &Path) -> Result<()> {
    std::fs::create_dir(dir)?;
    let size = format!("size={STATE_BYTES}");
    checked(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir),
    )
    .map(drop)
}

/// What mode `dnat` needs, also of an interface that is made later. IPv6 addresses outlive a moment without a link, and a changed
/// link-layer address is announced, as programs that manage networks do.
fn prepare_balancer(net: &Topology) -> Result<()> {
    let settings = [
        ("ipv4", "rp_filter", "0"),
        ("ipv4", "accept_local", "1"),
        // Clients and backends are on one segment here: while the kernel forwards, it would tell backends so.
        ("ipv4", "send_redirects", "0"),
        ("ipv4", "arp_notify", "1"),
        ("ipv6", "ndisc_notify", "1"),
        ("ipv6", "keep_addr_on_down", "1"),
    ];
    for (family, key, value) in settings {
        for device in ["all", "default", DEVICE] {
            let key = format!("net/{family}/conf/{device}/{key}");
            net.lb.ns.sysctl(&key, value)?;
        }
    }
    // Where the program is missing for a moment, the machine's own kernel gets clients' and backends' packets. docs/faults.md has these rules.
    let silence = "table inet lb_silence { \
                   chain output { type filter hook output priority 0; \
                   ip saddr 192.0.2.0/24 tcp flags & rst == rst drop; \
                   ip6 saddr 2001:db8:9::/64 tcp flags & rst == rst drop; \
                   tcp sport 1024-32767 tcp flags & rst == rst drop; \
                   icmp code port-unreachable icmp type destination-unreachable drop; \
                   icmpv6 code port-unreachable icmpv6 type destination-unreachable drop; \
                   icmpv6 type nd-redirect drop; }; \
                   chain forward { type filter hook forward priority 0; \
                   ip saddr 10.1.0.0/24 meta l4proto { tcp, udp } th sport 8082 drop; \
                   ip6 saddr fd01::/64 meta l4proto { tcp, udp } th sport 8082 drop; }; }";
    net.lb.ns.run_with_input("nft", &["-f", "-"], silence).map(drop)
}

/// Gives a backend the addresses of the services that it answers for, and its way to the client in mode `dnat`. Gives the addresses of
/// its server.
fn prepare_backend(net: &Topology, host: &Host) -> Result<Vec<SocketAddr>> {
    host.ns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    host.ns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    let mut addresses = BTreeSet::new();
    for family in Family::BOTH {
        for way in &WAYS {
            addresses.insert(host.socket(family, way.port));
            if way.port == PORT {
                let vip = net.vip(family, way.vip);
                let bits = if vip.is_ipv4() { 32 } else { 128 };
                host.ns.ip(&format!("addr add {vip}/{bits} dev lo nodad"))?;
                addresses.insert(SocketAddr::new(vip, PORT));
            }
        }
        let version = format!("-{}", number(family));
        let (own, client, balancer) = (host.ip(family), net.client.ip(family), net.lb.ip(family));
        let [own, client, balancer] = [own, client, balancer].map(|ip| ip.to_string());
        let ip = |line: &str| {
            let mut words = vec![version.as_str()];
            words.extend(line.split(' '));
            host.ns.run("ip", &words)
        };
        ip(&format!("rule add from {own} to {client} lookup {TABLE}"))?;
        ip(&format!(
            "route add {client} via {balancer} dev eth0 table {TABLE}"
        ))?;
    }
    Ok(addresses.into_iter().collect())
}

/// Numbers and lines of the daemon's events; none while it does not answer.
fn events(cli: &LbCli) -> Result<Vec<(u64, String)>> {
    let lines = cli.run(&["-o", "json", "events"])?.stdout;
    let events = lines.lines().map(|line| -> Result<(u64, String)> {
        let event: Value = serde_json::from_str(line)?;
        Ok((event["seq"].as_u64().unwrap_or_default(), line.to_owned()))
    });
    events.collect()
}

/// Prints what a fault has cost, beside the target.
pub(crate) fn print_convergence(fault: &str, took: Duration, lost: u64) {
    let over = if took > TARGET {
        ", over the target of 2 s"
    } else {
        ""
    };
    println!(
        "{fault}: converged in {:.2} s{over}; {lost} datagrams and new connections lost",
        took.as_secs_f64()
    );
}
