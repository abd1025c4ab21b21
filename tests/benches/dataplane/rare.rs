//! Rare packets of a service in mode `l2dsr`, whose common cost is small.

use std::net::IpAddr;

use anyhow::{Result, bail};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv4Type, Icmpv6Type, IpHeaders, PacketBuilder,
    PacketBuilderStep, icmpv4, icmpv6,
};
use lb_common::{
    flow::Tuple,
    service::{FORWARDS, Mode, QUIC, UDP},
};
use lb_tests::lane::Lane;

use crate::{
    REPEAT, XDP_PASS, XDP_TX, is_asked, measure,
    packets::{self, Address, CLIENT_MAC, Frame, OWN_MAC, words},
    quic::VECTORS,
    setup::{Bench, LONG_FRAME, Program, Way},
};

/// Datagrams, clients and errors that come in turn.
const PACKETS: u32 = 1 << 10;
/// Clients whose flows give way in turn.
const CLIENTS: u32 = 1 << 16;
/// Source ports for each backend, so that flows have to give way.
const FEW_PORTS: u16 = 64;
/// The case of such a flow.
const GIVES_WAY: &str = "SYN, another gives way";
/// A packet that fills a frame of [`LONG_FRAME`] bytes does not fit this way.
const SMALL_MTU: u16 = 1_400;
/// A packet of the runs as it is does not, either.
const SMALLEST_MTU: u16 = 60;

/// Measures and prints them.
pub(crate) fn rare<A: Address>() -> Result<()> {
    let way = Way {
        mode: Mode::L2dsr,
        v6: A::VIP.is_ipv6(),
    };
    let _lane = Lane::alone()?;
    println!();
    give_way::<A>()?;
    let mut bench = Bench::new::<A>(PACKETS, way)?;
    bench.announce::<A>()?;
    let clients = packets::clients::<A>(PACKETS, A::VIP);
    let of = |make: fn(&Tuple<A>, u32) -> Result<Vec<u8>>| -> Result<Vec<Frame>> {
        clients
            .iter()
            .zip(0..)
            .map(|(client, id)| Ok(words(make(client, id)?)))
            .collect()
    };
    for (name, frames, verdict) in [
        ("ARP", of(|_, _| arp())?, XDP_PASS),
        ("ICMP error", of(|client, _| error(client))?, XDP_TX),
        (
            "fragment, first",
            of(|client, id| fragment(client, id, 0))?,
            XDP_TX,
        ),
        (
            "fragment, later",
            of(|client, id| fragment(client, id, 1))?,
            XDP_TX,
        ),
    ] {
        if !is_asked(name) {
            continue;
        }
        bench.fill(&frames)?;
        bench.run(Program::Lb, REPEAT)?;
        let [floor, ns] = measure(&mut bench, [(Program::Swap, XDP_TX), (Program::Lb, verdict)])?;
        row::<A>(name, ns, floor);
    }
    // The cost of SYN cookies, to compare with that of half-open flows that give way.
    for (name, program, flags) in [
        ("SYN cookie made", Program::CookieMade(A::NAME), packets::SYN),
        (
            "SYN cookie checked",
            Program::CookieChecked(A::NAME),
            packets::ACK,
        ),
    ] {
        if is_asked(name) {
            bench.fill(
                &clients
                    .iter()
                    .map(|client| A::frame(client, flags))
                    .collect::<Vec<_>>(),
            )?;
            let [floor, ns] = measure(&mut bench, [(Program::Swap, XDP_TX), (program, XDP_TX)])?;
            row::<A>(name, ns, floor);
        }
    }
    // Rate limits are disabled.
    bench.quotes = true;
    bench.fill(&of(|client, _| echo(client))?)?;
    answers::<A>(&mut bench, "echo answered", Program::Swap)?;
    bench.fill(&of(|client, _| Ok(segment(client)))?)?;
    bench.change_backends(|backend| backend.mtu = SMALLEST_MTU)?;
    answers::<A>(&mut bench, "too big, of 98 bytes", Program::Answer)?;
    bench.fill(&of(|client, _| Ok(long_segment(client)))?)?;
    bench.change_backends(|backend| backend.mtu = SMALL_MTU)?;
    answers::<A>(&mut bench, "too big, of 1,500 bytes", Program::Answer)?;
    bench.quotes = false;
    bench.change_backends(|backend| backend.mtu = 1_500)?;
    named::<A>(&mut bench, &clients)
}

/// New flows of mode `nat`, each of which takes the port and the entries of a half-open one.
fn give_way<A: Address>() -> Result<()> {
    if !is_asked(GIVES_WAY) {
        return Ok(());
    }
    let way = Way {
        mode: Mode::Nat,
        v6: A::VIP.is_ipv6(),
    };
    let mut bench = Bench::new::<A>(CLIENTS, way)?;
    bench.limit_ports(FEW_PORTS)?;
    let clients = packets::clients::<A>(CLIENTS, A::VIP);
    let frames: Vec<Frame> = clients
        .iter()
        .map(|client| A::frame(client, packets::SYN))
        .collect();
    bench.fill(&frames)?;
    // Every port is in use afterwards, and no client comes again before its flow has given way.
    bench.run(Program::Lb, CLIENTS)?;
    let [floor, ns] = measure(&mut bench, [(Program::Swap, XDP_TX), (Program::Lb, XDP_TX)])?;
    row::<A>(GIVES_WAY, ns, floor);
    Ok(())
}

/// Packets whose QUIC connection ids name a backend.
fn named<A: Address>(bench: &mut Bench, clients: &[Tuple<A>]) -> Result<()> {
    bench.add_service::<A>(UDP, FORWARDS | QUIC)?;
    for (name, vector) in VECTORS.into_iter().filter(|(name, _)| is_asked(name)) {
        bench.name_by(&vector)?;
        let frames = clients.iter().map(|client| Ok(words(quic(client, vector.id)?)));
        bench.fill(&frames.collect::<Result<Vec<_>>>()?)?;
        bench.run(Program::Lb, REPEAT)?;
        let [floor, ns] = measure(bench, [(Program::Swap, XDP_TX), (Program::Lb, XDP_TX)])?;
        row::<A>(name, ns, floor);
    }
    Ok(())
}

fn row<A: Address>(case: &str, ns: f64, floor: f64) {
    println!(
        "{case:<26} {:>6} {PACKETS:>9} {ns:>8.1} {:>9.2}",
        A::NAME,
        ns / floor
    );
}

/// Messages of our own, with a floor.
fn answers<A: Address>(bench: &mut Bench, case: &str, floor: Program) -> Result<()> {
    if is_asked(case) {
        let [floor, ns] = measure(bench, [(floor, XDP_TX), (Program::Lb, XDP_TX)])?;
        row::<A>(case, ns, floor);
    }
    Ok(())
}

type Builder = PacketBuilderStep<IpHeaders>;

/// Where the IP header begins.
const IP: usize = 14;

fn ip<A: Address>(from: A, to: A) -> Result<Builder> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, OWN_MAC);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Ok(builder.ipv4(from.octets(), to.octets(), 64)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Ok(builder.ipv6(from.octets(), to.octets(), 64)),
        families => bail!("families differ: {families:?}"),
    }
}

fn arp() -> Result<Vec<u8>> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &CLIENT_MAC,
        &[10, 0, 0, 1],
        &[0; 6],
        &[192, 0, 2, 10],
    )?;
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, [0xff; 6])
        .arp(packet)
        .write(&mut bytes)?;
    Ok(bytes)
}

/// A client's segment, with checksums good enough to be quoted.
fn segment<A: Address>(client: &Tuple<A>) -> Vec<u8> {
    let frame = A::frame(client, packets::ACK);
    frame.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The same, as the beginning of a segment that fills its frame.
fn long_segment<A: Address>(client: &Tuple<A>) -> Vec<u8> {
    const LENGTH_V4: usize = IP + 2;
    const LENGTH_V6: usize = IP + 4;
    let mut bytes = segment(client);
    let (at, length) = if A::VIP.is_ipv4() {
        (LENGTH_V4, LONG_FRAME - IP)
    } else {
        (LENGTH_V6, LONG_FRAME - IP - 40)
    };
    bytes[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    bytes
}

/// A QUIC packet with a short header.
fn quic<A: Address>(client: &Tuple<A>, id: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let payload = [&[0x40], id, &[0x5a; 21]].concat();
    ip(client.src, client.dst)?
        .udp(client.src_port.get(), client.dst_port.get())
        .write(&mut bytes, &payload)?;
    Ok(bytes)
}

fn echo<A: Address>(client: &Tuple<A>) -> Result<Vec<u8>> {
    let (mut bytes, ip) = (Vec::new(), ip(client.src, client.dst)?);
    if A::VIP.is_ipv4() {
        ip.icmpv4_echo_request(1, 1).write(&mut bytes, b"ping")?;
    } else {
        ip.icmpv6_echo_request(1, 1).write(&mut bytes, b"ping")?;
    }
    Ok(bytes)
}

/// "Port unreachable" about a backend's packet to a client.
fn error<A: Address>(client: &Tuple<A>) -> Result<Vec<u8>> {
    let mut about = Vec::new();
    ip(client.dst, client.src)?
        .udp(client.dst_port.get(), client.src_port.get())
        .write(&mut about, b"")?;
    // As TCP: the service is one of TCP.
    let protocol = IP + if A::VIP.is_ipv4() { 9 } else { 6 };
    about[protocol] = 6;
    let (mut bytes, ip) = (Vec::new(), ip(client.src, client.dst)?);
    if A::VIP.is_ipv4() {
        ip.icmpv4(Icmpv4Type::DestinationUnreachable(
            icmpv4::DestUnreachableHeader::Port,
        ))
        .write(&mut bytes, &about[IP..])?;
    } else {
        ip.icmpv6(Icmpv6Type::DestinationUnreachable(
            icmpv6::DestUnreachableCode::Port,
        ))
        .write(&mut bytes, &about[IP..])?;
    }
    Ok(bytes)
}

/// One of two fragments of 24 bytes.
fn fragment<A: Address>(client: &Tuple<A>, id: u32, number: u16) -> Result<Vec<u8>> {
    const BYTES: u16 = 24;
    let mut bytes = Vec::new();
    ip(client.src, client.dst)?
        .tcp(client.src_port.get(), client.dst_port.get(), 1, 4_096)
        .ack(1)
        .write(&mut bytes, &[0; 4])?;
    let word = number * BYTES;
    let more = u16::from(number == 0);
    if A::VIP.is_ipv4() {
        bytes[IP + 4..IP + 6].copy_from_slice(&(id as u16).to_be_bytes());
        bytes[IP + 6..IP + 8].copy_from_slice(&(more << 13 | word >> 3).to_be_bytes());
    } else {
        bytes[IP + 4..IP + 6].copy_from_slice(&(BYTES + 8).to_be_bytes());
        bytes[IP + 6] = 44;
        let [high, low] = (word | more).to_be_bytes();
        let [a, b, c, d] = id.to_be_bytes();
        let header = [6, 0, high, low, a, b, c, d];
        bytes.splice(IP + 40..IP + 40, header);
    }
    Ok(bytes)
}
