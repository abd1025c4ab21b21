//! The program of checks through the VIP: its handling of checks' packets, and of all others.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use lb_common::{
    backend::{ALIVE, Generation, IN_USE, IPV6},
    check::Ends as _,
    reason::Reason,
    service::Mode,
};
use lb_tests::test_run::Program;
use lb_userspace::{
    datapath::CheckPaths,
    health::{CheckPath, Paths as _},
    state::service::Protocol,
};
use serde_json::Value;

use super::{
    ACK, FAMILIES, SYN,
    bench::{Bench, DNAT, DNAT_TCP, DNAT_UDP, DROP, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR, REDIRECT, TX},
    build::{Frame, Side, V4, V6},
    modes::{Entropy, tunnelled, tunnelled_from},
    sources,
};

/// The only port that flows get.
const PORT: u16 = 3000;
/// Any interface other than the one that test packets come in on.
const ELSEWHERE: u32 = 2;
/// Where the IP header's payload begins.
const L4_V4: usize = 34;
const L4_V6: usize = 54;

/// A way through the path, and the ports of its backend.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    mode: Mode,
    /// The service's port; in mode `nat` each service has its own.
    port: u16,
    outer: Side,
}

/// Every mode, with every family of backends that packets of `side` can go to.
fn ways(side: Side) -> [Way; 7] {
    let way = |name, mode, port, outer| Way {
        name,
        mode,
        port,
        outer,
    };
    [
        way("nat", Mode::Nat, 0, side),
        way("dnat", Mode::Dnat, DNAT, side),
        way("l2dsr", Mode::L2dsr, L2DSR, side),
        way("ipip to v4", Mode::Ipip, IPIP_V4, V4),
        way("ipip to v6", Mode::Ipip, IPIP_V6, V6),
        way("gue to v4", Mode::Gue, GUE_V4, V4),
        way("gue to v6", Mode::Gue, GUE_V6, V6),
    ]
}

impl Way {
    /// Port of the service and of the backend for a protocol.
    fn ports(self, protocol: Protocol) -> [u16; 2] {
        match (self.mode, protocol) {
            (Mode::Nat, Protocol::Tcp) => [80, 8080],
            (Mode::Nat, Protocol::Udp) => [53, 5353],
            (Mode::Dnat, Protocol::Tcp) => [DNAT, DNAT_TCP],
            (Mode::Dnat, Protocol::Udp) => [DNAT, DNAT_UDP],
            (Mode::L2dsr | Mode::Ipip | Mode::Gue, _) => [self.port; 2],
        }
    }

    fn translates(self) -> bool {
        matches!(self.mode, Mode::Nat | Mode::Dnat)
    }

    /// The expected output for the client's packet `inner`.
    fn wanted(self, inner: &Frame, got: &Frame) -> Result<Frame> {
        let gue = match self.mode {
            Mode::Nat | Mode::Dnat | Mode::L2dsr => return Ok(inner.clone().lb_to_backend()),
            Mode::Ipip => false,
            Mode::Gue => true,
        };
        let entropy = Entropy::of(got, self.outer, gue)?;
        Ok(tunnelled(
            inner,
            self.outer,
            gue.then_some(entropy.port),
            entropy.label,
        ))
    }
}

/// The address that checks of a family come from, and the one they go to.
fn ends(side: Side) -> [IpAddr; 2] {
    use lb_common::addr::{NetV4, NetV6};
    if side.vip(0).is_ipv4() {
        [NetV4::NEAR.to_std(), NetV4::FAR.to_std()].map(IpAddr::V4)
    } else {
        [NetV6::NEAR.to_std(), NetV6::FAR.to_std()].map(IpAddr::V6)
    }
}

/// A check's packet, or a client's, in a protocol.
fn packet(
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    hops: u8,
    payload: &[u8],
) -> Frame {
    match protocol {
        Protocol::Tcp => Frame::tcp(from, to, flags, hops, payload),
        Protocol::Udp => Frame::udp(from, to, hops, payload),
    }
}

/// The way in for checks, as the daemon makes it, beside the balancer's program.
struct Entry {
    // First: it takes its interfaces out of the bench's namespace.
    paths: CheckPaths,
    program: Program,
    bench: Bench,
}

impl Entry {
    fn new() -> Result<Self> {
        let bench = Bench::new()?;
        bench.one_port(PORT)?;
        bench.change_backends(|backend| backend.ifindex = ELSEWHERE)?;
        let paths = bench.check_paths();
        let id = program(&bench, &paths)?;
        Ok(Self {
            paths,
            program: Program::by_id(id)?,
            bench,
        })
    }

    /// Where checks of a way are sent: the number of its backend is their port.
    fn open(&self, side: Side, way: Way, protocol: Protocol) -> Result<SocketAddr> {
        open(&self.bench, &self.paths, side, way, protocol)
    }

    fn run(&self, frame: &Frame) -> Result<(u32, Frame)> {
        let before = self.bench.counted()?;
        let mut runner = self.program.runner();
        let (action, output) = self.bench.ns().enter(move || -> Result<_> {
            let (action, output) = runner.run(frame.bytes())?;
            Ok((action, output.to_vec()))
        })??;
        ensure!(self.bench.counted()? == before, "checks do not count");
        Ok((action, Frame::from_bytes(output)))
    }

    /// Sends a check's packet; it must come out as `inner`, in the way's mode.
    fn expect(&self, way: Way, name: &str, sent: &Frame, inner: &Frame) -> Result<()> {
        let case = format!("{}, {name}", way.name);
        let (action, got) = self.run(sent).context(case.clone())?;
        ensure!(action == REDIRECT, "{case}: action {action}");
        let wanted = way.wanted(inner, &got).context(case.clone())?;
        ensure!(
            got.bytes() == wanted.bytes(),
            "{case}\n got    {:02x?}\n wanted {:02x?}",
            got.bytes(),
            wanted.bytes()
        );
        Ok(())
    }

    /// Must be dropped. Returns the frame by then.
    fn drops(&self, name: &str, sent: &Frame) -> Result<Frame> {
        let (action, got) = self.run(sent).context(name.to_owned())?;
        ensure!(action == DROP, "{name}: action {action}");
        Ok(got)
    }

    /// Not sent anywhere, and untouched.
    fn refuses(&self, name: &str, sent: &Frame) -> Result<()> {
        let got = self.drops(name, sent)?;
        ensure!(got.bytes() == sent.bytes(), "{name}: {:02x?}", got.bytes());
        Ok(())
    }
}

/// The number of the program on the way in, which is made if it is not there.
fn program(bench: &Bench, paths: &CheckPaths) -> Result<u32> {
    // The program does not exist before the first check.
    open(bench, paths, V4, ways(V4)[0], Protocol::Tcp)?;
    let links: Value = serde_json::from_str(&bench.ns().run("ip", &["-j", "link", "show", "lb-path0"])?)?;
    let id = links[0]["xdp"]["prog"]["id"].as_u64();
    Ok(id.with_context(|| format!("no program: {links}"))?.try_into()?)
}

fn open(bench: &Bench, paths: &CheckPaths, side: Side, way: Way, protocol: Protocol) -> Result<SocketAddr> {
    let [port, backend_port] = way.ports(protocol);
    let vip = side.vip(port);
    let path = CheckPath {
        vip,
        protocol: protocol.number(),
        backend: way.outer.backend(backend_port),
        mode: way.mode,
    };
    let source = (!way.translates()).then(|| side.snat(0).ip());
    let entrance = bench.ns().enter(|| -> Result<_> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let entrance = runtime.block_on(paths.open(&path, port, source));
        entrance.map_err(anyhow::Error::msg)
    })??;
    ensure!(&*entrance.device == "lb-check0", "{}", entrance.device);
    let number = entrance.address.port();
    ensure!(entrance.address.ip() == ends(side)[1], "{}", entrance.address);
    Ok(SocketAddr::new(entrance.address.ip(), number))
}

/// Checks must pass if and only if clients are served: so a check's packet must equal the packet of a client on this
/// machine, in every mode.
#[test]
fn a_checks_packets_are_a_clients_in_every_mode_and_their_answers_come_back() -> Result<()> {
    let entry = Entry::new()?;
    for side in FAMILIES {
        let near = |port| SocketAddr::new(ends(side)[0], port);
        for way in ways(side) {
            for (protocol, port) in [(Protocol::Tcp, 40_000), (Protocol::Udp, 40_001)] {
                let far = entry.open(side, way, protocol)?;
                let [vip_port, backend_port] = way.ports(protocol);
                // Where it translates, it routes as well.
                let (to, hops) = if way.translates() {
                    (side.backend(backend_port), 63)
                } else {
                    (side.vip(vip_port), 64)
                };
                for (flags, payload) in [(SYN, &b""[..]), (ACK, b"odd"), (ACK, b"even")] {
                    let sent = packet(protocol, near(port), far, flags, 64, payload);
                    let inner = packet(protocol, side.snat(PORT), to, flags, hops, payload);
                    entry.expect(way, &format!("{protocol:?} {flags} {payload:?}"), &sent, &inner)?;
                }
                // A backend answers by itself, with the address that the packet had for it.
                let answer = packet(protocol, to, side.snat(PORT), SYN | ACK, 64, b"").backend_to_lb();
                let wanted = packet(protocol, far, near(port), SYN | ACK, 63, b"").lb_to_client();
                let bench = &entry.bench;
                bench.expect(way.name, &answer, TX, &wanted, Reason::SentBack)?;
                let traffic = bench.traffic(vip_port)?;
                ensure!(
                    (traffic.packets, traffic.reply_packets) == (0, 0),
                    "{}: does not count",
                    way.name
                );
            }
        }
    }
    ensure!(entry.bench.new_flows()? == 0, "nor do its flows");
    Ok(())
}

/// Where each flow has an outer source of its own, a check has one as a client's flow has; within, it comes from the
/// machine's address, where its answer finds back.
#[test]
fn a_check_leaves_by_an_outer_source_as_a_clients_flow_does() -> Result<()> {
    let entry = Entry::new()?;
    sources::spread(&entry.bench)?;
    for side in FAMILIES {
        let near = SocketAddr::new(ends(side)[0], 40_000);
        for way in ways(side) {
            let gue = match way.mode {
                Mode::Nat | Mode::Dnat | Mode::L2dsr => continue,
                Mode::Ipip => false,
                Mode::Gue => true,
            };
            let far = entry.open(side, way, Protocol::Tcp)?;
            let [port, _] = way.ports(Protocol::Tcp);
            let inner = Frame::tcp(side.snat(PORT), side.vip(port), SYN, 64, b"");
            let (action, got) = entry.run(&Frame::tcp(near, far, SYN, 64, b""))?;
            ensure!(action == REDIRECT, "{}: action {action}", way.name);
            // A client with this tuple would have had the same.
            let (_, of_client, _) = entry.bench.run(&inner)?;
            let source = sources::source(&got, way.outer)?;
            ensure!(
                source == sources::source(&of_client, way.outer)?,
                "{}: {source}",
                way.name
            );
            let entropy = Entropy::of(&got, way.outer, gue)?;
            let ports = gue.then_some((entropy.port, lb_common::tunnel::GUE_PORT));
            let wanted = tunnelled_from(source, &inner, way.outer, ports, entropy.label);
            ensure!(got == wanted, "{}: {:02x?}", way.name, got.bytes());
        }
    }
    Ok(())
}

/// Checks detect recovery: they must reach a backend that takes no clients.
#[test]
fn backend_without_new_flows_is_still_checked() -> Result<()> {
    let entry = Entry::new()?;
    entry.bench.change_backends(|backend| backend.flags &= !ALIVE)?;
    for side in FAMILIES {
        let way = ways(side)[0];
        let far = entry.open(side, way, Protocol::Tcp)?;
        let sent = Frame::tcp(SocketAddr::new(ends(side)[0], 40_000), far, SYN, 64, b"");
        let inner = Frame::tcp(side.snat(PORT), side.backend(8080), SYN, 63, b"");
        entry.expect(way, "of a backend that is down", &sent, &inner)?;
    }
    Ok(())
}

/// The kernel sends by itself over any interface; and a check must not go to another backend than the one it is of.
#[test]
fn foreign_packets_on_the_check_interface_are_dropped_unchanged() -> Result<()> {
    let entry = Entry::new()?;
    for side in FAMILIES {
        let [near, far] = ends(side);
        let near = SocketAddr::new(near, 40_000);
        let l4 = if near.is_ipv4() { L4_V4 } else { L4_V6 };
        let number = entry.open(side, ways(side)[0], Protocol::Tcp)?;
        let other_side = if near.is_ipv4() { V6 } else { V4 };
        let of_other_family = entry.open(other_side, ways(other_side)[0], Protocol::Tcp)?;
        let syn = |to| Frame::tcp(near, to, SYN, 64, b"");
        let whole = Frame::tcp(near, number, ACK, 64, b"payload");
        for (name, frame) in [
            ("to a service", syn(side.vip(80))),
            (
                "to an unknown address",
                syn(SocketAddr::new(side.nowhere(), number.port())),
            ),
            ("to the near end", syn(SocketAddr::new(near.ip(), number.port()))),
            ("of no backend", syn(SocketAddr::new(far, u16::MAX))),
            ("of number 0", syn(SocketAddr::new(far, 0))),
            (
                "of a backend of another family",
                syn(SocketAddr::new(far, of_other_family.port())),
            ),
            ("a ping", Frame::echo(near, number, true, 64, b"ping")),
            ("with a short header", whole.clone().set(l4 + 12, 0x40)),
            ("arp", whole.clone().set16(12, 0x0806)),
        ] {
            entry.refuses(name, &frame)?;
        }
        for len in 14..whole.len() {
            entry.refuses(&format!("cut to {len}"), &whole.cut(len))?;
        }
    }
    Ok(())
}

#[test]
fn check_of_a_replaced_backend_is_dropped() -> Result<()> {
    let entry = Entry::new()?;
    let bench = &entry.bench;
    for side in FAMILIES {
        for way in ways(side) {
            let far = entry.open(side, way, Protocol::Tcp)?;
            let [vip_port, backend_port] = way.ports(Protocol::Tcp);
            let near = SocketAddr::new(ends(side)[0], 40_000);
            let sent = Frame::tcp(near, far, SYN, 64, b"");
            let (to, hops) = if way.translates() {
                (side.backend(backend_port), 63)
            } else {
                (side.vip(vip_port), 64)
            };
            let inner = Frame::tcp(side.snat(PORT), to, SYN, hops, b"");
            entry.expect(way, "as it was", &sent, &inner)?;
            // Provides a port, so that a missing one is not the cause.
            bench.ports(PORT..=PORT + 1)?;
            bench.change_backends(|backend| backend.generation = Generation(backend.generation.0 + 1))?;
            entry.drops("its number is another's", &sent)?;
            bench.change_backends(|backend| backend.generation = Generation(backend.generation.0 - 1))?;
            bench.change_backends(|backend| backend.mtu = 30)?;
            entry.drops("it does not fit", &sent)?;
            bench.change_backends(|backend| backend.mtu = 1500)?;
            if way.translates() {
                bench.change_backends(|backend| backend.flags ^= IPV6)?;
                entry.drops("of another family", &sent)?;
                bench.change_backends(|backend| backend.flags ^= IPV6)?;
            }
            bench.change_backends(|backend| backend.flags ^= IN_USE)?;
            entry.drops("freed", &sent)?;
            bench.change_backends(|backend| backend.flags ^= IN_USE)?;
            entry.expect(way, "as it was again", &sent, &inner)?;
            bench.one_port(PORT)?;
        }
    }
    Ok(())
}

/// Loading it takes longer than all else at the first check after a restart.
#[test]
fn a_restart_finds_the_program_of_checks_where_it_was_left() -> Result<()> {
    let Entry { paths, bench, .. } = Entry::new()?;
    let first = program(&bench, &paths)?;
    drop(paths);
    let paths = bench.check_paths();
    let id = program(&bench, &paths)?;
    ensure!(id == first, "loaded again");
    // Settings by the earlier daemon do not matter.
    let again = Entry {
        paths,
        program: Program::by_id(id)?,
        bench,
    };
    for side in FAMILIES {
        let way = ways(side)[0];
        let far = again.open(side, way, Protocol::Udp)?;
        let sent = Frame::udp(SocketAddr::new(ends(side)[0], 40_000), far, 64, b"x");
        let inner = Frame::udp(side.snat(PORT), side.backend(5353), 63, b"x");
        again.expect(way, "by the program that was kept", &sent, &inner)?;
    }
    Ok(())
}
