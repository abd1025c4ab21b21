//! QUIC connection ids that name a backend, with real sockets: clients keep their backend from any address. The
//! encrypted ids are test vectors of draft-ietf-quic-load-balancers-21, the plaintext ones are written by hand, so that
//! none of our code wrote them.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData},
};
use lb_common::{
    limits::LAYOUT_VERSION,
    map_names,
    quic::{Config, ConfigKey, Server, ServerKey},
    quic_place::{PlacedConfig, PlacedServer},
};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    decap::Decap,
    lane::Lane,
    topology::{Family, Shape, Topology},
    udp::{ECHO_TIMEOUT, UdpEcho},
    wait,
};

const PORT: u16 = 4433;

const KEY: &str = "8f95f09245765f80256934e50c66207f";

/// Appendix B of the draft: three passes, four, and a single one. All of them name `b0`.
const OF_B0: [&[u8]; 3] = [
    &[0x07, 0x20, 0xb1, 0xd0, 0x7b, 0x35, 0x9d, 0x3c],
    &[
        0x2f, 0xcc, 0x38, 0x1b, 0xc7, 0x4c, 0xb4, 0xfb, 0xad, 0x28, 0x23, 0xa3, 0xd1, 0xf8, 0xfe, 0xd2,
    ],
    &[
        0x50, 0x4d, 0xd2, 0xd0, 0x5a, 0x7b, 0x0d, 0xe9, 0xb2, 0xb9, 0x90, 0x7a, 0xfb, 0x5e, 0xcf, 0x8c, 0xc3,
    ],
];

/// Configuration 3, plaintext: it names `b1`.
const OF_B1: [u8; 8] = [0x67, 0xb1, 0xb1, 0xb1, 9, 8, 7, 6];

/// The first three bits match no configuration of a service.
const OF_NOBODY: [u8; 8] = [0x87, 0x20, 0xb1, 0xd0, 0x7b, 0x35, 0x9d, 0x3c];

fn tables() -> String {
    let table = |id: u8, server: u8, nonce: u8| {
        format!("[[service.quic]]\nconfig_id = {id}\nserver_id_length = {server}\nnonce_length = {nonce}\n")
    };
    let key = format!("key = \"{KEY}\"\n");
    [
        table(0, 3, 4) + &key,
        table(1, 10, 5) + &key,
        table(2, 8, 8) + &key,
        table(3, 3, 4),
    ]
    .concat()
}

/// Server ids of the backends, in order.
const SERVER_IDS: [&str; 2] = [
    "server_ids = [\"ed793a\", \"ed793a51d49b8f5f\", \"ed793a51d49b8f5fab65\"]",
    "server_ids = [\"b1b1b1\"]",
];

/// Modes, the family of the backends' addresses where it is not the service's, and the last part of the services' addresses.
const WAYS: [(&str, Option<Family>, u8); 6] = [
    ("nat", None, 30),
    ("l2dsr", None, 31),
    ("ipip", Some(Family::V4), 32),
    ("ipip", Some(Family::V6), 33),
    ("gue", Some(Family::V4), 34),
    ("gue", Some(Family::V6), 35),
];

/// A short header before a connection id.
fn short(id: &[u8]) -> Vec<u8> {
    [&[0x40], id, &[0x5a; 32]].concat()
}

/// A long header before a connection id.
fn long(id: &[u8]) -> Vec<u8> {
    let length = [u8::try_from(id.len()).unwrap_or_default()];
    [&[0xc0, 0, 0, 0, 1], &length[..], id, &[0x5a; 64]].concat()
}

/// Two backends on one segment with the client, which also has another address.
struct Site {
    net: Topology,
    daemon: Daemon,
    _echo: Vec<UdpEcho>,
    _decaps: Vec<Decap>,
}

impl Site {
    fn start() -> Result<Self> {
        let net = Topology::new(Shape::OneArmed, 2)?;
        for family in Family::BOTH {
            let (address, bits) = (
                moved(net.client.ip(family)),
                if family == Family::V4 { 24 } else { 64 },
            );
            net.client
                .ns
                .ip(&format!("addr add {address}/{bits} dev eth0 {}", nodad(family)))?;
        }
        let mut echo = Vec::new();
        for (i, host) in net.backends.iter().enumerate() {
            host.ns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
            host.ns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
            let mut addresses = Family::BOTH.map(|family| host.socket(family, PORT)).to_vec();
            for (.., last) in WAYS.into_iter().filter(|(mode, ..)| *mode != "nat") {
                for family in Family::BOTH {
                    let vip = net.vip(family, last);
                    let bits = if vip.is_ipv4() { 32 } else { 128 };
                    host.ns
                        .ip(&format!("addr add {vip}/{bits} dev lo {}", nodad(family)))?;
                    addresses.push(SocketAddr::new(vip, PORT));
                }
            }
            echo.push(UdpEcho::start(&host.ns, &format!("b{i}"), &addresses)?);
        }
        let balancer = Family::BOTH.map(|family| net.lb.ip(family).to_string());
        let decaps = net.backends.iter();
        let decaps = decaps
            .map(|host| Decap::start(&host.ns, "eth0", &balancer))
            .collect::<Result<_>>()?;
        let services = services(&net, &[0, 1]);
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?.config(&services)?;
        daemon.start()?;
        Ok(Self {
            net,
            daemon,
            _echo: echo,
            _decaps: decaps,
        })
    }

    /// The name of the backend that answers a packet.
    fn answer(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<String> {
        let exchange = || -> Result<Vec<u8>> {
            let socket = UdpSocket::bind(from)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(ECHO_TIMEOUT))?;
            socket.send(payload)?;
            let mut buffer = vec![0; 2048];
            let length = wait::uninterrupted(|| socket.recv(&mut buffer))?;
            buffer.truncate(length);
            Ok(buffer)
        };
        let answer = self.net.client.ns.enter(exchange)?;
        let answer = answer.with_context(|| format!("{from} to {to}"))?;
        let name = answer
            .strip_suffix(payload)
            .context("something else was echoed")?;
        Ok(String::from_utf8_lossy(name).trim().to_owned())
    }

    /// Where a client may send from: other ports, and another address.
    fn places(&self, family: Family, first_port: u16) -> Vec<SocketAddr> {
        let here = self.net.client.ip(family);
        let ports = first_port..first_port + 12;
        ports
            .flat_map(|port| [here, moved(here)].map(|ip| SocketAddr::new(ip, port)))
            .collect()
    }

    fn map(&self, name: &str) -> Result<Map> {
        let pin = self
            .daemon
            .pin_dir()
            .join(format!("v{LAYOUT_VERSION}"))
            .join(name);
        Ok(Map::from_map_data(MapData::from_pin(pin)?)?)
    }

    fn entries<K: Pod, V: Pod>(&self, name: &str) -> Result<Vec<(K, V)>> {
        let table: HashMap<_, K, V> = HashMap::try_from(self.map(name)?)?;
        Ok(table.iter().collect::<Result<_, _>>()?)
    }

    fn copies<V: Pod + Default + PartialEq>(&self, name: &str) -> Result<Vec<V>> {
        let places: Array<_, V> = Array::try_from(self.map(name)?)?;
        let copies = places.iter().collect::<Result<Vec<V>, _>>()?;
        Ok(copies.into_iter().filter(|copy| *copy != V::default()).collect())
    }

    /// Every copy is that of an entry, and every entry has one: so few share no place.
    fn ensure_copied(&self, when: &str) -> Result<()> {
        let configs: Vec<(ConfigKey, Config)> = self.entries(map_names::QUIC_CONFIGS)?;
        let copies: Vec<PlacedConfig> = self.copies(map_names::QUIC_CONFIG_PLACES)?;
        let all = configs.iter().all(|(key, config)| {
            let copy = PlacedConfig::new(*key, *config);
            copies.contains(&copy)
        });
        ensure!(
            all && copies.len() == configs.len(),
            "{when}: {copies:?} of {configs:?}"
        );
        let servers: Vec<(ServerKey, Server)> = self.entries(map_names::QUIC_SERVERS)?;
        let copies: Vec<PlacedServer> = self.copies(map_names::QUIC_SERVER_PLACES)?;
        let all = servers.iter().all(|(key, server)| {
            let copy = PlacedServer::new(*key, *server);
            copies.contains(&copy)
        });
        ensure!(
            all && copies.len() == servers.len(),
            "{when}: {copies:?} of {servers:?}"
        );
        Ok(())
    }

    /// All backends that answer a packet from any of these addresses.
    fn answers(&self, from: &[SocketAddr], to: SocketAddr, payload: &[u8]) -> Result<BTreeSet<String>> {
        from.iter().map(|from| self.answer(*from, to, payload)).collect()
    }
}

fn nodad(family: Family) -> &'static str {
    if family == Family::V6 { "nodad" } else { "" }
}

/// Another address of a client, on the same segment.
fn moved(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() | 0xc0).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() | 0xc00).into(),
    }
}

/// Services of each mode and family with these backends.
fn services(net: &Topology, backends: &[usize]) -> String {
    let mut services = Vec::new();
    for (mode, outer, last) in WAYS {
        for family in Family::BOTH {
            let vip = SocketAddr::new(net.vip(family, last), PORT);
            let keys = format!("mode = \"{mode}\"\n{}", tables());
            let service = Service::udp(&format!("h3-{last}-{family:?}"), vip).keys(&keys);
            services.push(backends.iter().fold(service, |service, i| {
                let address = net.backends[*i].socket(outer.unwrap_or(family), PORT);
                let service = service.backend(&format!("b{i}"), address, 1);
                service.backend_keys(SERVER_IDS[*i])
            }));
        }
    }
    file(&services)
}

fn only(name: &str) -> BTreeSet<String> {
    [name.to_owned()].into()
}

#[test]
fn a_client_stays_with_its_backend_wherever_it_sends_from() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::start()?;
    for (mode, outer, last) in WAYS {
        for family in Family::BOTH {
            let vip = SocketAddr::new(site.net.vip(family, last), PORT);
            let case = format!("{mode} over {outer:?} for {vip}");
            let places = site.places(family, 20_000);
            // Without their ids, the other packets would get the same answers as these.
            for nameless in [short(&OF_NOBODY), long(&[0xe7; 8])] {
                let answers = site.answers(&places, vip, &nameless)?;
                ensure!(answers.len() == 2, "{case}: only {answers:?} answer");
            }
            for id in OF_B0 {
                for packet in [short(id), long(id)] {
                    let answers = site.answers(&places, vip, &packet)?;
                    ensure!(answers == only("b0"), "{case}: {answers:?} answer {id:02x?}");
                }
            }
            let answers = site.answers(&places, vip, &short(&OF_B1))?;
            ensure!(answers == only("b1"), "{case}: {answers:?} answer {OF_B1:02x?}");
        }
    }
    Ok(())
}

#[test]
fn connections_stay_through_drain_removal_and_death_of_the_daemon() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::start()?;
    let cli = site.daemon.cli();
    let ways: Vec<(u8, Family)> = [30, 31]
        .into_iter()
        .flat_map(|last| Family::BOTH.map(|family| (last, family)))
        .collect();
    let mut first_port = 21_000;
    // Each time from places that the balancer does not know yet.
    let mut named = |site: &Site, wanted: &str, when: &str| -> Result<()> {
        first_port += 20;
        for (last, family) in &ways {
            let vip = SocketAddr::new(site.net.vip(*family, *last), PORT);
            let answers = site.answers(&site.places(*family, first_port), vip, &short(OF_B0[1]))?;
            ensure!(answers == only(wanted), "{when}, {vip}: {answers:?} answer");
        }
        site.ensure_copied(when)
    };
    named(&site, "b0", "at first")?;
    for (last, family) in &ways {
        cli.ok(&format!("backend drain h3-{last}-{family:?} b0"))?;
    }
    named(&site, "b0", "drained")?;
    let path = site.daemon.write_config(&services(&site.net, &[1]))?;
    cli.ok(&format!("apply {}", path.display()))?;
    named(&site, "b0", "removed")?;
    site.daemon.kill()?;
    named(&site, "b0", "removed, without a daemon")?;
    site.daemon.start()?;
    named(&site, "b0", "removed, with another daemon")?;
    let path = site.daemon.write_config(&services(&site.net, &[0, 1]))?;
    cli.ok(&format!("apply {}", path.display()))?;
    for (last, family) in &ways {
        cli.ok(&format!("backend disable h3-{last}-{family:?} b0"))?;
    }
    named(&site, "b1", "disabled")?;
    let copies =
        || -> Result<usize> { Ok(site.copies::<PlacedServer>(map_names::QUIC_SERVER_PLACES)?.len()) };
    ensure!(copies()? != 0, "no server has a copy");
    let path = site.daemon.write_config(&file(&[]))?;
    cli.ok(&format!("apply --wait --empty {}", path.display()))?;
    ensure!(copies()? == 0, "{} servers of no service have copies", copies()?);
    site.ensure_copied("without services")
}

#[test]
fn keys_are_never_shown() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::start()?;
    let cli = site.daemon.cli();
    let export = cli.ok("export")?;
    ensure!(export.contains("key = \"hidden:"), "{export}");
    let path = site.daemon.write_config(&export)?;
    let again = cli.ok(&format!("apply {}", path.display()))?;
    ensure!(again.contains("no change"), "{again}");
    let other = export.replacen("server_id_length = 10\n", "server_id_length = 11\n", 1);
    let other = other.replacen(", \"ed793a51d49b8f5fab65\"", "", 1);
    let path = site.daemon.write_config(&other)?;
    let changed = cli.ok(&format!("apply {}", path.display()))?;
    ensure!(changed.contains("server_id_length 10 -> 11"), "{changed}");
    site.ensure_copied("with another configuration")?;
    let foreign = other.replacen("hidden:", "hidden:0000", 1);
    let path = site.daemon.write_config(&foreign)?;
    let refused = cli.fails(1, &format!("apply {}", path.display()))?;
    let name = "h3-30-V4";
    let shown = [
        again,
        changed,
        refused,
        cli.ok("-o json status")?,
        cli.ok(&format!("service show {name}"))?,
        cli.ok(&format!("-o json service show {name}"))?,
        cli.ok("-o json events")?,
        cli.ok("-o json history")?,
        site.daemon.log(),
        export,
    ];
    for text in shown {
        ensure!(!text.contains(KEY), "a key is shown: {text}");
    }
    let state = files_with_key(&site.daemon.state_dir())?;
    for path in &state {
        let mode = fs::metadata(path)?.permissions().mode();
        ensure!(mode & 0o077 == 0, "{} has mode {mode:o}", path.display());
    }
    ensure!(
        state.iter().any(|path| path.ends_with("state.toml")),
        "no key is stored: {state:?}"
    );
    ensure!(
        state.iter().any(|path| path.ends_with("history/2.toml")),
        "no key is kept: {state:?}"
    );
    Ok(())
}

/// The files at and below `dir` that hold the key.
fn files_with_key(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with_key(&path)?);
        } else if fs::read_to_string(&path)?.contains(KEY) {
            found.push(path);
        }
    }
    Ok(found)
}
