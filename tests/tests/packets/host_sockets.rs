//! A service on every port of an address of the balancer's machine: packets that the machine's own sockets expect pass.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lb_common::{reason::Reason, service::Mode};
use lb_tests::netns::Netns;
use lb_userspace::state::service::ServiceKey;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    ACK, FAMILIES, PASS, SYN, TX,
    bench::{Bench, DNAT, L2DSR, with_backend},
    build::{Frame, Side},
    forged,
};

/// Ports of services in each mode that has a way of its own.
const MODES: [u16; 3] = [80, DNAT, L2DSR];
/// A port of clients, and one of the machine that the machine's own connections go to.
const CLIENT: u16 = 40_000;
const PEER: u16 = 443;

/// Gives the services' addresses to the machine, and discards its packets.
fn own(bench: &Bench) -> Result<()> {
    let addresses = FAMILIES.map(|side| format!("addr add {} dev sa nodad", side.vip(0).ip()));
    bench.ns().ip(&format!(
        "link add sa type veth peer name sb\nlink set sa up\nlink set sb up\n{}\n\
         route add 192.0.2.0/24 dev sa\nroute add 2001:db8::/64 dev sa",
        addresses.join("\n")
    ))
}

/// The program with services that share their address.
fn bench() -> Result<Bench> {
    let bench = Bench::with(|_, service| service.shares_address = true)?;
    own(&bench)?;
    Ok(bench)
}

fn socket(ns: &Netns, kind: Type, at: SocketAddr, peer: Option<SocketAddr>) -> Result<Socket> {
    ns.enter(|| -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(at), kind, None::<Protocol>)?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&at.into())?;
        match peer {
            Some(peer) => match socket.connect(&peer.into()) {
                // TCP: no answer.
                Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
                other => other?,
            },
            None if kind == Type::STREAM => socket.listen(1)?,
            None => {}
        }
        Ok(socket)
    })?
}

fn passes(bench: &Bench, name: &str, frame: &Frame) -> Result<()> {
    bench.expect(name, frame, PASS, frame, Reason::HostSocket)
}

/// The service takes the packet, not the machine.
fn is_taken(bench: &Bench, name: &str, frame: &Frame) -> Result<()> {
    let (action, _, reason) = bench.run(frame)?;
    ensure!(action != PASS, "{name}: {}", reason.name());
    Ok(())
}

fn answer(side: Side, port: u16) -> [Frame; 2] {
    let (peer, own) = (side.client(PEER), side.vip(port));
    [SYN | ACK, ACK].map(|flags| Frame::tcp(peer, own, flags, 64, b""))
}

#[test]
fn answers_to_connections_of_the_machine_pass_in_every_mode() -> Result<()> {
    let bench = bench()?;
    bench.one_port(3000)?;
    for (side, port) in FAMILIES
        .into_iter()
        .flat_map(|side| MODES.map(|port| (side, port)))
    {
        for frame in &answer(side, port) {
            is_taken(&bench, "no connection", frame)?;
        }
        let connection = socket(bench.ns(), Type::STREAM, side.vip(port), Some(side.client(PEER)))?;
        for frame in &answer(side, port) {
            passes(&bench, &format!("answer to port {port}"), frame)?;
        }
        let about = Frame::tcp(side.vip(port), side.client(PEER), SYN, 64, b"");
        let error = Frame::unreachable(SocketAddr::new(side.nowhere(), 0), side.vip(0), 64, &about, 8);
        let (action, ..) = bench.run(&error)?;
        ensure!(action == PASS, "an error about a connection of the machine");
        let client = Frame::tcp(side.client(CLIENT), side.vip(port), SYN, 64, b"");
        is_taken(&bench, "a client of the service", &client)?;
        drop(connection);
    }
    Ok(())
}

#[test]
fn a_server_of_the_machine_gets_new_connections_and_leaves_known_flows_alone() -> Result<()> {
    let bench = bench()?;
    for side in FAMILIES {
        bench.one_port(3000)?;
        forged::establish(&bench, side, CLIENT, 3000)?;
        let data = Frame::tcp(side.client(CLIENT), side.vip(80), ACK, 64, b"data");
        let new = Frame::tcp(side.client(CLIENT + 1), side.vip(80), SYN, 64, b"");
        let _server = socket(bench.ns(), Type::STREAM, side.vip(80), None)?;
        passes(&bench, "a new connection", &new)?;
        let (action, _, reason) = bench.run(&data)?;
        ensure!(action == TX, "a known flow: {}", reason.name());
    }
    Ok(())
}

#[test]
fn datagrams_for_sockets_of_the_machine_pass() -> Result<()> {
    let bench = bench()?;
    bench.one_port(3000)?;
    for (side, port) in FAMILIES
        .into_iter()
        .flat_map(|side| [53, DNAT, L2DSR].map(|port| (side, port)))
    {
        let from = |port_of_peer| Frame::udp(side.client(port_of_peer), side.vip(port), 64, b"answer");
        let connected = socket(bench.ns(), Type::DGRAM, side.vip(port), Some(side.client(PEER)))?;
        passes(&bench, "from its peer", &from(PEER))?;
        is_taken(&bench, "from another", &from(CLIENT))?;
        drop(connected);
        let _any = socket(bench.ns(), Type::DGRAM, side.vip(port), None)?;
        passes(&bench, "from any peer", &from(PEER + 1))?;
    }
    Ok(())
}

#[test]
fn a_service_that_does_not_share_its_address_takes_every_packet() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    own(&bench)?;
    let side = FAMILIES[0];
    let _server = socket(bench.ns(), Type::STREAM, side.vip(80), None)?;
    is_taken(
        &bench,
        "no look-up",
        &Frame::tcp(side.client(CLIENT), side.vip(80), SYN, 64, b""),
    )
}

/// A prefix has one address of the machine: what the machine's sockets expect there passes, all else is the service's.
#[test]
fn a_prefix_leaves_the_machine_what_its_sockets_expect() -> Result<()> {
    let prefixes = ["198.51.100.0/24", "2001:db8:ffff::/64"];
    let mut services = Vec::new();
    for (side, prefix) in FAMILIES.into_iter().zip(prefixes) {
        let mut service = with_backend(Mode::Nat, side.backend(8100));
        service.shares_address = true;
        let key = ServiceKey::of_prefix(prefix.parse()?, 0, lb_userspace::state::service::Protocol::Tcp);
        services.push((key, service));
    }
    let bench = Bench::beside(services)?;
    own(&bench)?;
    bench.one_port(3000)?;
    for side in FAMILIES {
        let own = side.nowhere();
        bench.ns().ip(&format!("addr add {own} dev sa nodad"))?;
        let to = |port| Frame::tcp(side.client(CLIENT), SocketAddr::new(own, port), SYN, 64, b"");
        is_taken(&bench, "no listener", &to(22))?;
        // The flow that has begun goes on; another one is the listener's.
        let _listener = socket(bench.ns(), Type::STREAM, SocketAddr::new(own, 23), None)?;
        passes(&bench, "a listener", &to(23))?;
        is_taken(&bench, "another port", &to(24))?;
    }
    Ok(())
}
