//! The alerts and the dashboard in `contrib/`, with a real Prometheus: each alert fires for its real cause, and each query of the
//! dashboard has data.

use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{SocketAddr, UdpSocket},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use lb_common::{limits::LAYOUT_VERSION, map_names, stage::Stage};
use lb_tests::{
    agent::Agent,
    client::KeepAlive,
    config::{Service, file},
    daemon::{Daemon, METRICS},
    http::HttpServer,
    lane::Lane,
    netns::{Netns, checked},
    nginx,
    prometheus::Prometheus,
    scratch::Scratch,
    site::{ECHO_PORT, HTTP_PORT, Site},
    syn_flood::pin_to_first_core,
    topology::{Family, Shape},
    udp, wait,
    xdp_pass::{PassProgram, detach_pinned},
};
use serde_json::Value;

const RULES: &str = include_str!("../../../contrib/prometheus/lb.rules.yml");
const CASES: &str = include_str!("../../../contrib/prometheus/lb.rules.test.yml");
const DASHBOARD: &str = include_str!("../../../contrib/grafana/lb.json");

/// Replacements in the rules, besides `for: 0s`: windows and ages of seconds, and the load of a test.
const SHORTENED: [(&str, &str); 5] = [
    ("[5m]", "[4s]"),
    ("[10m]", "[4s]"),
    ("check_interval_seconds, 300)", "check_interval_seconds, 2)"),
    ("> 300000", "> 500"),
    ("(lb_cpu_packets_total) >= 4", "(lb_cpu_packets_total) >= 1"),
];

/// Alerts that only promtool provokes, with reasons.
const PROMTOOL_ALONE: [(&str, &str); 1] = [(
    "LbSweepStale",
    "no cause outside of the daemon stops its sweeper without the daemon",
)];

/// Queries that give nothing at a healthy balancer, by a part of them, with reasons.
const EMPTY_IN_HEALTH: [(&str, &str); 5] = [
    ("ALERTS{", "no alert fires"),
    ("lb_service_drops_total", "a series begins with its first drop"),
    (
        "lb_service_replies_total",
        "a series begins with its first answer",
    ),
    ("lb_backend_certificate_expiry_seconds", "no check uses TLS"),
    ("changes(lb_config_revision", "nothing was changed"),
];

/// For the way from a cause to its alert: the daemon notices within seconds.
const LIMIT: Duration = Duration::from_secs(60);
const CHECKS: &str = "kind = \"http\"\npath = \"/health\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"\ntimeout = \"300ms\"\ndown_interval_max = \"200ms\"";
const AGENT_PORT: u16 = 9_999;
const SINK_PORT: u16 = 7_008;
const TLS_PORT: u16 = 8_443;
/// More than a listener serves at once.
const CLIENTS: usize = 160;

fn promtool(ns: &Netns, what: &str) -> Result<()> {
    let scratch = Scratch::new()?;
    scratch.write("lb.rules.yml", RULES)?;
    scratch.write("lb.rules.test.yml", CASES)?;
    let path = scratch.join(if what == "test" {
        "lb.rules.test.yml"
    } else {
        "lb.rules.yml"
    });
    ns.run("promtool", &[what, "rules", &path.display().to_string()])
        .map(drop)
}

#[test]
fn promtool_finds_no_fault_in_the_rules_and_each_alert_fires_where_it_should() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = Netns::new("promtool")?;
    promtool(&ns, "check")?;
    promtool(&ns, "test")
}

/// The rules with every duration shortened.
fn shortened_rules() -> Result<String> {
    let mut rules = String::new();
    for line in RULES.lines() {
        match line.split_once("for: ") {
            Some((indent, _)) if indent.trim().is_empty() => rules += &format!("{indent}for: 0s\n"),
            _ => rules += &format!("{line}\n"),
        }
    }
    for (long, short) in SHORTENED {
        ensure!(rules.contains(long), "the rules have no {long}");
        rules = rules.replace(long, short);
    }
    Ok(rules)
}

/// Alerts that have fired so far.
struct Alarms {
    prometheus: Prometheus,
    fired: BTreeSet<String>,
}

impl Alarms {
    /// Brings about the cause of these alerts, once none of them fires, and waits until all do.
    fn provoke(&mut self, alerts: &[&str], cause: impl FnOnce() -> Result<()>) -> Result<()> {
        wait::until_true(&format!("none of {alerts:?} fires yet"), LIMIT, || {
            let firing = self.prometheus.firing()?;
            Ok(!alerts.iter().any(|alert| firing.contains(*alert)))
        })?;
        cause().with_context(|| format!("the cause of {alerts:?}"))?;
        let mut since = BTreeSet::new();
        wait::until_true(&format!("{alerts:?} fire"), LIMIT, || {
            since.extend(self.prometheus.firing()?);
            Ok(alerts.iter().all(|alert| since.contains(*alert)))
        })
        .with_context(|| format!("{since:?} fired"))?;
        self.fired.extend(alerts.iter().map(|alert| (*alert).to_owned()));
        Ok(())
    }
}

/// Datagrams too large for an MTU of 1,000, from one core: many of one flow and new flows to a service that never answers, which
/// give way to each other, and new flows to one that does, which keep their source ports.
struct Stream(Arc<AtomicBool>);

impl Stream {
    fn start(ns: &Netns, silent: SocketAddr, echo: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        ns.spawn(move || -> Result<()> {
            pin_to_first_core()?;
            let payload = [0; 1_200];
            let steady = udp::open(silent, 0)?;
            while !stopped.load(Ordering::Relaxed) {
                for _ in 0..20 {
                    steady.send(&payload)?;
                }
                for target in [silent, echo] {
                    udp::open(target, 0)?.send(&payload)?;
                }
                wait::pace(Duration::from_millis(2));
            }
            Ok(())
        })?;
        Ok(Self(stop))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// nginx with a certificate that expires in three days. Dropping it kills it.
struct Tls {
    child: Child,
    _scratch: Scratch,
}

impl Tls {
    fn start(ns: &Netns, address: SocketAddr) -> Result<Self> {
        let scratch = Scratch::new()?;
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()])?;
        params.not_before = (SystemTime::now() - Duration::from_secs(86_400)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(3 * 86_400)).into();
        let key = rcgen::KeyPair::generate()?;
        scratch.write("key.pem", key.serialize_pem())?;
        scratch.write("cert.pem", params.self_signed(&key)?.pem())?;
        let dir = scratch.path().display();
        nginx::configure(
            &scratch,
            &format!(
                "server {{ listen {address} ssl; ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
                 location / {{ return 200 \"well\"; }} }}"
            ),
        )?;
        let child = nginx::spawn(ns, &scratch)?;
        Ok(Self {
            child,
            _scratch: scratch,
        })
    }

    /// Halts it: connections are accepted by the kernel, and nothing answers.
    fn halt(&self) -> Result<()> {
        // SAFETY: kill takes numbers; the child is ours and not yet waited for, so the id cannot be another's.
        let result = unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGSTOP) };
        ensure!(result == 0, "kill: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pin of the daemon's whole program, by the begin of its name.
fn program_pin(daemon: &Daemon, name: &str) -> Result<PathBuf> {
    let programs = daemon.pin_dir().join(format!("v{LAYOUT_VERSION}/programs"));
    let paths = std::fs::read_dir(programs)?.flatten().map(|entry| entry.path());
    let mut paths = paths.filter(|path| path.to_string_lossy().contains(name));
    paths.next().with_context(|| format!("no pin {name}"))
}

/// Services of a healthy balancer, in mode `nat` with 100 source ports.
fn healthy(site: &Site) -> String {
    let family = Family::V4;
    let at = |host: usize, port| site.net.backends[host].socket(family, port);
    let vip = |number, port| SocketAddr::new(site.net.vip(family, number), port);
    let two = |name, number, hosts: [usize; 2]| {
        Service::tcp(name, vip(number, 80))
            .health(CHECKS)
            .backend("x", at(hosts[0], HTTP_PORT), 1)
            .backend("y", at(hosts[1], HTTP_PORT), 1)
    };
    let services = [
        site.web(family, &[1, 1, 1]).health(CHECKS),
        two("panic", 11, [1, 2]).keys("max_removed_percent = 50"),
        two("spare", 12, [2, 0]).backend_keys("backup = true"),
        Service::tcp("asked", vip(13, 80))
            .keys(&format!(
                "[service.agent]\nport = {AGENT_PORT}\ninterval = \"100ms\""
            ))
            .backend("x", at(0, HTTP_PORT), 1),
        Service::udp("sink", vip(14, 9)).backend("x", at(0, SINK_PORT), 1),
        Service::udp("echo", vip(15, 9))
            .health("kind = \"udp\"\ninterval = \"200ms\"\nfast_interval = \"100ms\"")
            .backend("x", at(0, ECHO_PORT), 1),
    ];
    format!("[lb]\nsnat_ports = \"20000-20099\"\n{}", file(&services))
}

/// Services with a fault each, and enough ports to fill the map of services.
fn faulty(site: &Site) -> String {
    let family = Family::V4;
    let at = |host: usize, port| site.net.backends[host].socket(family, port);
    let vip = |number, port| SocketAddr::new(site.net.vip(family, number), port);
    let mut services = vec![
        Service::tcp("unforwarded", vip(30, 80))
            .keys("mode = \"dnat\"")
            .backend("x", at(0, HTTP_PORT), 1),
        Service::tcp("tls", vip(31, 80))
            .health(&format!(
                "kind = \"https\"\nverify = false\nport = {TLS_PORT}\ninterval = \"500ms\"\ndown_interval_max = \"500ms\"\ntimeout = \"1m\""
            ))
            .backend("x", at(0, HTTP_PORT), 1),
    ];
    for number in 0..4 {
        let service =
            Service::udp(&format!("ports{number}"), vip(40 + number, 1)).keys("ports = [\"1-1000\"]");
        services.push(service.backend("x", at(0, SINK_PORT), 1));
    }
    let text = file(&services).replace("port = 1\n", "");
    let host = Service::tcp("named", vip(32, 80));
    let host = format!("{host}[[service.backend]]\nname = \"app\"\naddress = \"app.example:8080\"\n");
    text + &host
}

#[test]
fn each_alert_fires_for_its_cause() -> Result<()> {
    let _lane = Lane::shared()?;
    let family = Family::V4;
    let mut site = Site::new(Shape::TwoArmed, 3)?;
    let (lb, first) = (site.net.lb.ns.clone(), site.net.backends[0].ns.clone());
    let at = |site: &Site, port| site.net.backends[0].socket(family, port);
    let _sink = {
        let address = at(&site, SINK_PORT);
        first.enter(|| UdpSocket::bind(address))??
    };
    let mut agent = Agent::start(&first, at(&site, AGENT_PORT), "up 100%\n")?;
    let tls = Tls::start(&first, at(&site, TLS_PORT))?;
    let config = healthy(&site);
    site.daemon = site.daemon.config(&config)?;
    site.daemon.start()?;
    site.daemon.wait_for_whole_program()?;
    let mut alarms = Alarms {
        prometheus: Prometheus::with_rules(&lb, METRICS, &shortened_rules()?)?,
        fired: BTreeSet::new(),
    };
    wait::until_true("a healthy balancer is scraped, and no alert fires", LIMIT, || {
        let up = alarms
            .prometheus
            .query("min_over_time(up[4s]) + (count_over_time(up[4s]) > bool 4)")?;
        Ok(up == Some(2.0) && alarms.prometheus.firing()?.is_empty())
    })?;

    let mut servers = std::mem::take(&mut site.http);
    let down = [
        "LbBackendDown",
        "LbServiceFewBackends",
        "LbPanicMode",
        "LbBackupsServe",
    ];
    alarms.provoke(&down, || {
        servers.truncate(1);
        Ok(())
    })?;
    alarms.provoke(&["LbServiceWithoutBackends"], || {
        servers.clear();
        Ok(())
    })?;
    alarms.provoke(&["LbAgentLost"], || agent.kill())?;

    alarms.provoke(&["LbChecksNotMade"], || {
        let rules = format!(
            "table inet t {{ chain c {{ type filter hook output priority 0; udp dport {ECHO_PORT} drop; }}; }}"
        );
        lb.run_with_input("nft", &["-f", "-"], &rules).map(drop)
    })?;

    let cli = site.daemon.cli();
    alarms.provoke(&["LbConfigDiffers"], || cli.ok("backend drain web4 b0").map(drop))?;
    alarms.provoke(&["LbConfigRefused"], || {
        site.daemon.write_config("[lb\n")?;
        site.daemon.signal(libc::SIGHUP)
    })?;
    let faults = [
        "LbServiceBroken",
        "LbCertificateExpires",
        "LbHostUnresolved",
        "LbTableNearlyFull",
    ];
    alarms.provoke(&faults, || {
        site.daemon.write_config(&(config + &faulty(&site)))?;
        site.daemon.signal(libc::SIGHUP)
    })?;
    alarms.provoke(&["LbChecksStale"], || tls.halt())?;

    let [silent, echo] = [14, 15].map(|number| SocketAddr::new(site.net.vip(family, number), 9));
    let mut stream = None;
    alarms.provoke(&["LbDropRatio", "LbFlowsGiveWay", "LbBusiestCpu"], || {
        stream = Some(Stream::start(&site.net.client.ns, silent, echo)?);
        Ok(())
    })?;
    // The other end of the balancer's link takes smaller frames than it sends.
    let middle = site.net.middle.clone();
    alarms.provoke(&["LbInterfaceLosses"], || middle.ip("link set lb mtu 1000"))?;
    alarms.provoke(&["LbRedirectErrors"], || {
        site.net.refuse_redirected_frames();
        Ok(())
    })?;
    let stages = program_pin(&site.daemon, "lb_stages-")?;
    alarms.provoke(&["LbPacketsAborted"], || {
        let slot = Stage::Nat.slot(false).to_string();
        let (pin, key) = (stages.display().to_string(), [slot.as_str(), "0", "0", "0"]);
        let words = [&["map", "delete", "pinned", &pin, "key"][..], &key].concat();
        lb.run("bpftool", &words).map(drop)
    })?;
    drop(stream);

    alarms.provoke(&["LbInterfaceDown"], || middle.ip("link set lb down"))?;
    middle.ip("link set lb up")?;
    let link = site.daemon.pin_dir().join(format!("v{LAYOUT_VERSION}/links/0"));
    let mut foreign = None;
    alarms.provoke(&["LbInterfaceNotAttached", "LbNotReady"], || {
        // The daemon must not come between.
        site.daemon.signal(libc::SIGSTOP)?;
        detach_pinned(&link)?;
        foreign = Some(PassProgram::attach(&lb, "front")?);
        site.daemon.signal(libc::SIGCONT)
    })?;
    drop(foreign);
    let mut clients = Vec::new();
    let refused = [("listener", "api"), ("cause", "full")];
    alarms.provoke(&["LbClientsRefused"], || {
        let mut more = |number| -> Result<()> {
            for _ in 0..number {
                let mut client = UnixStream::connect(site.daemon.socket())?;
                // Its body never comes. One that is refused may find its connection closed already.
                let _ =
                    client.write_all(b"POST /v1/services HTTP/1.1\r\nhost: lb\r\ncontent-length: 9\r\n\r\n");
                clients.push(client);
            }
            Ok(())
        };
        more(CLIENTS)?;
        // A client takes the place of one whose request was not read yet.
        wait::until_true("a client is refused", LIMIT, || {
            more(1)?;
            Ok(site.daemon.metrics()?.count("lb_listener_ended_total", &refused) > 0)
        })
    })?;
    drop(clients);
    let rings = site
        .daemon
        .pin_dir()
        .join(format!("v{LAYOUT_VERSION}"))
        .join(map_names::RINGS);
    let address = at(&site, HTTP_PORT);
    alarms.provoke(&["LbProgrammingFails", "LbMapUpdateErrors"], || {
        lb.run(
            "bpftool",
            &["map", "freeze", "pinned", &rings.display().to_string()],
        )?;
        // It comes up, which would change rings.
        servers.push(HttpServer::start(&first, "b0", &[address])?);
        Ok(())
    })?;
    alarms.provoke(&["LbDown"], || site.daemon.kill())?;

    let crippled = Daemon::new(&lb, site.net.lb_interfaces())?.args("--xdp-mode generic");
    let blocked = crippled.dir().write("blocked", "")?;
    let mut crippled = crippled
        .socket_at(blocked.join("lb.sock"))
        .config(&healthy(&site))?;
    alarms.provoke(
        &["LbInterfaceGeneric", "LbStateNotSaved", "LbPartMissing"],
        || {
            // With the old daemon its pins go, and its program.
            std::mem::swap(&mut site.daemon, &mut crippled);
            drop(crippled);
            let state = site.daemon.state_dir();
            std::fs::create_dir_all(&state)?;
            let mount = |args: &[&str]| checked(Command::new("mount").args(args).arg(&state));
            mount(&["--bind", &state.display().to_string()])?;
            mount(&["-o", "remount,ro,bind"])?;
            site.daemon.start().map(drop)
        },
    )?;

    let alerts = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alone = PROMTOOL_ALONE.map(|(alert, _)| alert);
    let silent: Vec<&str> = alerts
        .filter(|alert| !alone.contains(alert) && !alarms.fired.contains(*alert))
        .collect();
    ensure!(silent.is_empty(), "never fired: {silent:?}");
    Ok(())
}

/// Every query of the dashboard as Grafana would send it, with all balancers and services chosen.
fn queries() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(DASHBOARD)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let panels = list(&dashboard["panels"]);
    let targets = panels.iter().flat_map(|panel| list(&panel["targets"]));
    let annotations = list(&dashboard["annotations"]["list"]);
    let exprs = targets
        .chain(annotations)
        .map(|query| query["expr"].as_str().map(str::to_owned));
    let variables = list(&dashboard["templating"]["list"])
        .into_iter()
        .filter_map(|variable| {
            let query = variable["query"]["query"]
                .as_str()?
                .strip_prefix("label_values(")?;
            let (selector, label) = query.strip_suffix(')')?.rsplit_once(", ")?;
            Some(Some(format!("count by ({label}) ({selector})")))
        });
    let queries: Option<Vec<String>> = exprs.chain(variables).collect();
    let queries = queries.context("a query without text")?;
    let replaced = queries.into_iter().map(|query| {
        let query = query.replace("$instance", ".*").replace("$service", ".*");
        query.replace("$__rate_interval", "4s")
    });
    Ok(replaced.collect())
}

#[test]
fn each_query_of_the_dashboard_has_data() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 2)?;
    let web = site.web(Family::V4, &[1, 1]).health(CHECKS);
    let site = site.start(&[web])?;
    let prometheus = Prometheus::start(&site.net.lb.ns, METRICS)?;
    let load = KeepAlive::start(&site.net.client.ns, site.service_address(Family::V4), 4)?;
    let queries = queries()?;
    ensure!(queries.len() > 50, "{} queries", queries.len());
    for query in &queries {
        let empty = EMPTY_IN_HEALTH.iter().any(|(part, _)| query.contains(part));
        wait::until_true(&format!("data of {query}"), LIMIT, || {
            Ok(prometheus.series(query)?.is_empty() == empty)
        })?;
    }
    for (part, _) in EMPTY_IN_HEALTH {
        ensure!(
            queries.iter().any(|query| query.contains(part)),
            "no query has {part}"
        );
    }
    load.stop()?.ensure_flawless()
}
