//! A balancer whose backends are all behind one router, and crafted packets through the program that its daemon attached
//! (BPF_PROG_TEST_RUN): more backends and flows than there can be machines and sockets here.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::Map;
use etherparse::PacketBuilder;
use lb_tests::{
    daemon::Daemon,
    frames::Frame,
    lb_cli::LbCli,
    test_run::{Program, Runner},
    topology::{Family, Shape, Topology},
    wait,
};

use crate::process;

/// Limit until a change is programmed.
const PATIENCE: Duration = Duration::from_secs(600);
/// Link-layer address of the first interface, for which packets count that come in on a device without the program.
const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Port of backends.
const BACKEND_PORT: u16 = 80;
/// Destination of the outer header of a tunnel over IPv4, in the frame.
const OUTER_DESTINATION: std::ops::Range<usize> = 30..34;
/// TCP flags.
pub(crate) const SYN: u8 = lb_tests::frames::tcp::SYN;
pub(crate) const ACK: u8 = lb_tests::frames::tcp::ACK;
/// XDP actions that send a packet (`enum xdp_action` of linux/bpf.h).
const SENT: [u32; 2] = [3, 4];

/// A running daemon, without services at first.
pub(crate) struct Balancer {
    /// The daemon.
    pub(crate) daemon: Daemon,
    net: Topology,
}

impl Balancer {
    /// Starts the daemon. Backend number `n` (at least 1) of its services has the address [`backend`].
    pub(crate) fn start() -> Result<Self> {
        let net = Topology::new(Shape::TwoArmed, 1)?;
        let router = &net.backends[0];
        net.lb.ns.ip(&format!(
            "link set {} address {}\nroute add 10.64.0.0/16 via {}\nroute add fd64::/64 via {}",
            net.lb_interfaces()[0],
            LB_MAC.map(|byte| format!("{byte:02x}")).join(":"),
            router.v4,
            router.v6
        ))?;
        let mut daemon = Daemon::new(&net.lb.ns, net.lb_interfaces())?;
        daemon.start()?;
        daemon.wait_for_whole_program()?;
        Ok(Self { daemon, net })
    }

    /// Makes these services all that there are, and waits until they are programmed.
    pub(crate) fn apply(&self, services: &[String]) -> Result<()> {
        let file = self.daemon.write_config(&services.concat())?;
        let cli = self.daemon.cli();
        cli.ok(&format!("apply {} --wait --yes", file.display()))?;
        self.wait_programmed(&cli, services.len())
    }

    /// Runs a command that changes one of the services, and waits until that is programmed.
    pub(crate) fn change(&self, command: &str) -> Result<()> {
        let cli = self.daemon.cli();
        cli.ok(command)?;
        let services = cli.json("status")?["services"].as_array().map_or(0, Vec::len);
        self.wait_programmed(&cli, services)
    }

    /// A map of the program.
    pub(crate) fn map(&self, name: &str) -> Result<Map> {
        Ok(Map::from_map_data(process::pinned(&self.daemon, name)?)?)
    }

    fn wait_programmed(&self, cli: &LbCli, services: usize) -> Result<()> {
        wait::until_true("all of it is programmed", PATIENCE, || {
            let status = cli.json("status")?;
            let listed = status["services"].as_array().context("no services")?;
            Ok(listed.len() == services && listed.iter().all(|service| service["programmed"] == true))
        })?;
        self.daemon.wait_for_whole_program()
    }

    /// Has `work` send packets through the attached program as often as it likes.
    pub(crate) fn packets<T: Send>(
        &self,
        work: impl FnOnce(&mut Runner<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        let status = self.daemon.cli().json("status")?;
        let id = status["interfaces"][0]["program_id"].as_u64();
        let program = Program::by_id(u32::try_from(id.context("no program")?)?)?;
        self.net.lb.ns.enter(|| work(&mut program.runner()))?
    }
}

/// The address of a backend, behind the router.
pub(crate) fn backend(family: Family, number: u32) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(10, 64, high, low).into(),
        Family::V6 => Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, u16::from_be_bytes([high, low])).into(),
    }
}

/// An address for a service, with a port.
pub(crate) fn address(family: Family, host: u8, port: u16) -> SocketAddr {
    match family {
        Family::V4 => ([192, 0, 2, host], port).into(),
        Family::V6 => ([0x2001, 0xdb8, 9, 0, 0, 0, 0, u16::from(host)], port).into(),
    }
}

/// A service in the form of a configuration file, with backends of these numbers and weights, which nothing checks.
///
/// # Errors
/// Never: writing to a string does not fail.
pub(crate) fn service(
    name: &str,
    address: SocketAddr,
    keys: &str,
    family: Family,
    backends: impl IntoIterator<Item = (u32, u32)>,
) -> Result<String> {
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\naddress = \"{}\"\nport = {}\n{keys}\n[service.health]\nkind = \"none\"\n",
        address.ip(),
        address.port()
    );
    for (number, weight) in backends {
        writeln!(
            text,
            "[[service.backend]]\nname = \"b{number}\"\naddress = \"{}\"\nweight = {weight}",
            SocketAddr::new(backend(family, number), BACKEND_PORT)
        )?;
    }
    Ok(text)
}

/// The number of the backend with an address.
pub(crate) fn number_of(address: IpAddr) -> Result<u32> {
    match address {
        IpAddr::V4(v4) if v4.octets().starts_with(&[10, 64]) => Ok(v4.to_bits() & 0xffff),
        IpAddr::V4(_) | IpAddr::V6(_) => bail!("{address} is no backend"),
    }
}

/// The client of a flow to an address: eight flows of each client.
pub(crate) fn client(flow: u32, to: IpAddr) -> SocketAddr {
    let port = 1_024 + flow.wrapping_mul(7_919) % 60_000;
    let port = u16::try_from(port).unwrap_or(u16::MAX);
    let ip = match to {
        IpAddr::V4(_) => Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + flow / 8).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits((0x2001_0db8_0c11 << 80) + u128::from(flow / 8)).into(),
    };
    SocketAddr::new(ip, port)
}

/// A TCP segment without data: of a handshake as it has to be, so that the program takes the client for real, or one behind it.
///
/// # Errors
/// When the addresses are of different families.
pub(crate) fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], LB_MAC);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => bail!("{from} and {to} are of different families"),
    };
    // A SYN takes the first number of each direction.
    let sequence = if flags & SYN == 0 { 2 } else { 1 };
    let mut segment = ip.tcp(from.port(), to.port(), sequence, 4_096);
    if flags & SYN != 0 {
        segment = segment.syn();
    }
    if flags & ACK != 0 {
        segment = segment.ack(2);
    }
    let mut frame = Vec::new();
    segment.write(&mut frame, b"")?;
    Ok(frame)
}

/// Sends a packet, which must leave. Returns how.
pub(crate) fn sent(runner: &mut Runner<'_>, frame: &[u8]) -> Result<Frame> {
    let (action, output) = runner.run(frame)?;
    ensure!(SENT.contains(&action), "a packet was not sent: action {action}");
    Frame::parse(output).context("what was sent is no packet")
}

/// Sends a packet, which must leave. Returns the nanoseconds that it took.
pub(crate) fn timed(runner: &mut Runner<'_>, frame: &[u8]) -> Result<u32> {
    let (action, _) = runner.run(frame)?;
    ensure!(SENT.contains(&action), "a packet was not sent: action {action}");
    Ok(runner.nanoseconds())
}

/// Sends a packet, which must leave in a tunnel. Returns the number of the backend that it goes to.
pub(crate) fn tunnelled(runner: &mut Runner<'_>, frame: &[u8]) -> Result<u32> {
    let (action, output) = runner.run(frame)?;
    ensure!(SENT.contains(&action), "a packet was not sent: action {action}");
    let to: [u8; 4] = output
        .get(OUTER_DESTINATION)
        .context("no outer header")?
        .try_into()?;
    let [first, second, high, low] = to;
    ensure!((first, second) == (10, 64), "sent to {}", Ipv4Addr::from(to));
    Ok(u32::from_be_bytes([0, 0, high, low]))
}
