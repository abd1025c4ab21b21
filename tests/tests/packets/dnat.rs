//! Mode dnat: the destination is rewritten, replies get the service's address again and go where the kernel's routes lead.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap};
use lb_common::{
    addr::NetPort,
    backend::{ALIVE, Backend, BackendId, Generation, IN_USE, IPV6, RESOLVED},
    map_names,
    reason::Reason,
    reply::{ReplyAsV4, ReplyAsV6},
    ring_slot::RingSlot,
    service::{FilterBit, Mode, Service, ServiceId, ServiceKeyV4, ServiceKeyV6, TCP, TRANSLATES},
    settings::{HAS_WILDCARD, Settings},
};

use super::{
    ACK, FAMILIES, SYN,
    bench::{Bench, DNAT, DNAT_TCP, DNAT_UDP, DROP, INGRESS, PASS, REDIRECT, TX},
    build::{BACKEND_MAC, CLIENT_MAC, Frame, LB_MAC, Side, V4, V6},
};

/// MTU of the clients' network.
const CLIENT_MTU: u16 = 1400;

/// A bench whose kernel has routes and neighbour entries for clients behind `ra`.
pub(crate) fn routed() -> Result<Bench> {
    let bench = Bench::new()?;
    route_clients(&bench)?;
    Ok(bench)
}

/// Gives the kernel of a bench these routes and neighbour entries.
pub(crate) fn route_clients(bench: &Bench) -> Result<()> {
    // The other end sends nothing of its own, which would count as received.
    bench.ns().sysctl("net/ipv6/conf/rb/disable_ipv6", "1")?;
    let [client, own] = [CLIENT_MAC, LB_MAC].map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    bench.ns().ip(&format!(
        "link set ra address {own} mtu {CLIENT_MTU} up\nlink set rb up\n\
         route add 192.0.2.0/25 dev ra\nroute add 2001:db8::/96 dev ra\n\
         neigh add {} lladdr {client} dev ra nud permanent\n\
         neigh add {} lladdr {client} dev ra nud permanent",
        V4.client(0).ip(),
        V6.client(0).ip(),
    ))?;
    forwards(bench, true)
}

/// Whether the bench's kernel forwards.
fn forwards(bench: &Bench, on: bool) -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        let value = if on { "1" } else { "0" };
        bench
            .ns()
            .sysctl(&format!("net/{family}/conf/all/forwarding"), value)?;
    }
    Ok(())
}

/// Builds a packet from one end to the other with this many hops left.
type Build = Box<dyn Fn(SocketAddr, SocketAddr, u8) -> Frame>;

/// Kinds of packets, with the port of the backend that each goes to.
fn kinds() -> Vec<(&'static str, u16, Build)> {
    let kind =
        |name, port, build: fn(SocketAddr, SocketAddr, u8) -> Frame| (name, port, Box::new(build) as Build);
    vec![
        kind("syn", DNAT_TCP, |from, to, hops| {
            Frame::tcp(from, to, SYN, hops, b"")
        }),
        kind("ack", DNAT_TCP, |from, to, hops| {
            Frame::tcp(from, to, ACK, hops, b"")
        }),
        kind("odd payload", DNAT_TCP, |from, to, hops| {
            Frame::tcp(from, to, ACK, hops, b"odd")
        }),
        kind("marked", DNAT_TCP, |from, to, hops| {
            Frame::tcp(from, to, ACK, hops, b"x").marked(0xb9)
        }),
        kind("options", DNAT_TCP, |from, to, hops| {
            Frame::tcp(from, to, ACK, hops, b"data").with_options()
        }),
        kind("padded", DNAT_TCP, |from, to, hops| {
            Frame::tcp(from, to, ACK, hops, b"").padded(80)
        }),
        kind("udp", DNAT_UDP, |from, to, hops| {
            Frame::udp(from, to, hops, b"hello")
        }),
        kind("empty udp", DNAT_UDP, |from, to, hops| {
            Frame::udp(from, to, hops, b"")
        }),
        kind("odd udp", DNAT_UDP, |from, to, hops| {
            Frame::udp(from, to, hops, b"odd")
        }),
        kind("udp with options", DNAT_UDP, |from, to, hops| {
            Frame::udp(from, to, hops, b"data").with_options()
        }),
    ]
}

#[test]
fn packets_are_translated_to_the_byte_in_both_directions_without_records() -> Result<()> {
    let bench = routed()?;
    let mut sent = 0;
    for side in FAMILIES {
        for (name, port, build) in kinds() {
            for client_port in [40_000, 1, 65_535] {
                let (client, vip, backend) = (side.client(client_port), side.vip(DNAT), side.backend(port));
                for hops in [255, 64, 2] {
                    let request = build(client, vip, hops);
                    let wanted = build(client, backend, hops - 1).lb_to_backend();
                    bench.expect(name, &request, TX, &wanted, Reason::SentBack)?;
                    let reply = build(backend, client, hops).backend_to_lb();
                    let wanted = build(vip, client, hops - 1).lb_to_client();
                    bench.expect(name, &reply, REDIRECT, &wanted, Reason::Redirected)?;
                    sent += 1;
                }
                for hops in [0, 1] {
                    bench.dropped(name, &build(client, vip, hops), Reason::TtlExpired)?;
                    let reply = build(backend, client, hops).backend_to_lb();
                    bench.dropped(name, &reply, Reason::TtlExpired)?;
                }
            }
        }
    }
    let traffic = bench.traffic(DNAT)?;
    ensure!(
        (traffic.packets, traffic.reply_packets) == (sent, sent),
        "{sent} each way, counted {traffic:?}"
    );
    ensure!(bench.recorded()? == 0, "a flow was recorded");
    Ok(())
}

#[test]
fn a_udp_packet_without_checksum_stays_without_one() -> Result<()> {
    let bench = routed()?;
    let none = |frame: Frame| frame.set16(40, 0);
    let (client, vip, backend) = (V4.client(40_000), V4.vip(DNAT), V4.backend(DNAT_UDP));
    let sent = none(Frame::udp(client, vip, 64, b"abc"));
    let wanted = none(Frame::udp(client, backend, 63, b"abc").lb_to_backend());
    bench.expect("request", &sent, TX, &wanted, Reason::SentBack)?;
    let sent = none(Frame::udp(backend, client, 64, b"abc").backend_to_lb());
    let wanted = none(Frame::udp(vip, client, 63, b"abc").lb_to_client());
    bench.expect("reply", &sent, REDIRECT, &wanted, Reason::Redirected)
}

/// RFC 768: a sum of zero goes out as all ones.
#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_ones() -> Result<()> {
    let bench = routed()?;
    for side in FAMILIES {
        let (client, vip, backend) = (side.client(40_000), side.vip(DNAT), side.backend(DNAT_UDP));
        let checksum = if vip.is_ipv4() { 40 } else { 60 };
        let ones = |from, to| {
            let frame = move |word: u16| Frame::udp(from, to, 63, &word.to_be_bytes());
            let zero = |word: &u16| frame(*word).bytes()[checksum..checksum + 2] == [0xff; 2];
            (0..=u16::MAX).find(zero).context("no payload gives that sum")
        };
        let payload = ones(client, backend)?.to_be_bytes();
        let sent = Frame::udp(client, vip, 64, &payload);
        let wanted = Frame::udp(client, backend, 63, &payload).lb_to_backend();
        bench.expect("request", &sent, TX, &wanted, Reason::SentBack)?;
        let payload = ones(vip, client)?.to_be_bytes();
        let sent = Frame::udp(backend, client, 64, &payload).backend_to_lb();
        let wanted = Frame::udp(vip, client, 63, &payload).lb_to_client();
        bench.expect("reply", &sent, REDIRECT, &wanted, Reason::Redirected)?;
    }
    Ok(())
}

#[test]
fn icmp_errors_reach_the_other_end_with_the_quoted_packet_translated() -> Result<()> {
    let bench = routed()?;
    for side in FAMILIES {
        let (client, vip) = (side.client(40_000), side.vip(DNAT));
        for (name, port, build) in kinds() {
            if name.contains("options") {
                // Quotes of these tests have no options.
                continue;
            }
            let backend = side.backend(port);
            for quoted_l4 in [
                8,
                build(client, vip, 1).len().min(74) - if vip.is_ipv4() { 34 } else { 54 },
            ] {
                // From the client, and from a router on the way to it.
                for from in [client, side.snat(0)] {
                    let reply = build(vip, client, 40);
                    let sent = Frame::unreachable(from, vip, 64, &reply, quoted_l4);
                    let quoted = build(backend, client, 40);
                    let wanted = Frame::unreachable(from, backend, 63, &quoted, quoted_l4).lb_to_backend();
                    bench.expect(name, &sent, TX, &wanted, Reason::SentBack)?;
                }
                // From the backend, and from a router on the way to it.
                for from in [backend, side.snat(0)] {
                    let request = build(client, backend, 40);
                    let sent = Frame::unreachable(from, client, 64, &request, quoted_l4).backend_to_lb();
                    let quoted = build(client, vip, 40);
                    let wanted = Frame::unreachable(vip, client, 63, &quoted, quoted_l4).lb_to_client();
                    bench.expect(name, &sent, REDIRECT, &wanted, Reason::Redirected)?;
                }
            }
            let request = build(client, backend, 40);
            let reply = build(vip, client, 40);
            for (what, frame, reason) in [
                (
                    "cut",
                    Frame::unreachable(backend, client, 64, &request, 7),
                    Reason::Truncated,
                ),
                (
                    "not to the quoted packet's sender",
                    Frame::unreachable(backend, side.snat(0), 64, &request, 8),
                    Reason::OtherProtocol,
                ),
                (
                    "about another port",
                    Frame::unreachable(backend, client, 64, &build(client, side.backend(7), 40), 8),
                    Reason::OtherProtocol,
                ),
            ] {
                let frame = frame.backend_to_lb();
                bench.expect(what, &frame, PASS, &frame, reason)?;
            }
            for frame in [
                Frame::unreachable(client, vip, 1, &reply, 8),
                Frame::unreachable(backend, client, 1, &request, 8).backend_to_lb(),
            ] {
                bench.dropped("no hop left", &frame, Reason::TtlExpired)?;
            }
        }
    }
    Ok(())
}

#[test]
fn replies_that_need_the_kernel_are_passed_to_it() -> Result<()> {
    let bench = routed()?;
    for side in FAMILIES {
        let (client, vip) = (side.client(40_000), side.vip(DNAT));
        let strange = SocketAddr::new(side.strange_client(), 40_000);
        let nowhere = SocketAddr::new(side.nowhere(), 40_000);
        for (name, port, build) in kinds() {
            let backend = side.backend(port);
            // The next hop's address is unknown: the kernel resolves it, and decrements the TTL.
            let reply = build(backend, strange, 64).backend_to_lb();
            let wanted = build(vip, strange, 64).backend_to_lb();
            bench.expect(name, &reply, PASS, &wanted, Reason::ReplyByKernel)?;
            // There is no route: the kernel sends an ICMP error to the backend.
            let reply = build(backend, nowhere, 64).backend_to_lb();
            bench.expect(name, &reply, PASS, &reply, Reason::NotOurs)?;
            // To more than one station.
            let reply = build(backend, client, 64).multicast();
            bench.expect(name, &reply, PASS, &reply, Reason::NotOurs)?;
        }
        let request = Frame::udp(strange, side.backend(DNAT_UDP), 40, b"");
        let sent = Frame::unreachable(side.backend(0), strange, 64, &request, 8).backend_to_lb();
        let quoted = Frame::udp(strange, vip, 40, b"");
        let wanted = Frame::unreachable(vip, strange, 64, &quoted, 8).backend_to_lb();
        bench.expect("error", &sent, PASS, &wanted, Reason::ReplyByKernel)?;

        // It does not fit the clients' network.
        let build = |from, to, hops, len| Frame::udp(from, to, hops, &vec![7; len]);
        let headers = if vip.is_ipv4() { 28 } else { 48 };
        let (fits, backend) = (usize::from(CLIENT_MTU) - headers, side.backend(DNAT_UDP));
        let reply = build(backend, client, 64, fits).backend_to_lb();
        let wanted = build(vip, client, 63, fits).lb_to_client();
        bench.expect("it fits", &reply, REDIRECT, &wanted, Reason::Redirected)?;
        let reply = build(backend, client, 64, fits + 1).backend_to_lb();
        bench.expect(
            "the backend gets an ICMP error",
            &reply,
            PASS,
            &reply,
            Reason::ReplyByKernel,
        )?;
        if vip.is_ipv4() {
            let reply = build(backend, client, 64, fits + 1)
                .backend_to_lb()
                .may_fragment();
            let wanted = build(vip, client, 64, fits + 1).backend_to_lb().may_fragment();
            bench.expect(
                "the kernel cuts it up",
                &reply,
                PASS,
                &wanted,
                Reason::ReplyByKernel,
            )?;
        }
    }
    // Behind a device that the program is not on: it may not take frames from one.
    let mac = CLIENT_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let [next4, next6] = FAMILIES.map(Side::nowhere);
    bench.ns().ip(&format!(
        "link add rc type veth peer name rd\nlink set rc up\nlink set rd up\n\
         route add {next4} dev rc\nroute add {next6} dev rc\n\
         neigh add {next4} lladdr {mac} dev rc nud permanent\nneigh add {next6} lladdr {mac} dev rc nud permanent"
    ))?;
    for side in FAMILIES {
        let client = SocketAddr::new(side.nowhere(), 40_000);
        let reply = Frame::tcp(side.backend(DNAT_TCP), client, ACK, 64, b"").backend_to_lb();
        let wanted = Frame::tcp(side.vip(DNAT), client, ACK, 64, b"").backend_to_lb();
        bench.expect("another device", &reply, PASS, &wanted, Reason::ReplyByKernel)?;
    }
    forwards(&bench, false)?;
    for side in FAMILIES {
        let reply = Frame::tcp(side.backend(DNAT_TCP), side.client(40_000), ACK, 64, b"").backend_to_lb();
        bench.expect("no router", &reply, PASS, &reply, Reason::ForwardingDisabled)?;
    }
    Ok(())
}

/// Backends answer the machine's own checks from where their replies come from.
#[test]
fn answers_to_the_machine_itself_are_its_own() -> Result<()> {
    let bench = routed()?;
    for side in FAMILIES {
        let own = side.snat(50_000);
        bench.ns().ip(&format!("addr add {} dev ra", own.ip()))?;
        bench.ns().wait_for_addresses()?;
        for (name, port, build) in kinds() {
            let reply = build(side.backend(port), own, 64).backend_to_lb();
            bench.expect(name, &reply, PASS, &reply, Reason::NotOurs)?;
        }
        let check = Frame::udp(own, side.backend(DNAT_UDP), 64, b"");
        let error = Frame::unreachable(side.backend(0), own, 64, &check, 8).backend_to_lb();
        bench.expect("refused check", &error, PASS, &error, Reason::OtherProtocol)?;
    }
    Ok(())
}

#[test]
fn broken_and_foreign_packets_are_not_touched() -> Result<()> {
    let bench = routed()?;
    for side in FAMILIES {
        let l4 = if side.vip(0).is_ipv4() { 34 } else { 54 };
        let (client, vip) = (side.client(40_000), side.vip(DNAT));
        for (from, to, udp_to) in [(client, vip, vip), (side.backend(DNAT_TCP), client, client)] {
            let udp_from = if from == client {
                client
            } else {
                side.backend(DNAT_UDP)
            };
            let tcp = Frame::tcp(from, to, ACK, 64, b"0123456789");
            let udp = Frame::udp(udp_from, udp_to, 64, b"0123456789");
            for (name, frame) in [
                ("tcp header too short", tcp.clone().set(l4 + 12, 0x40)),
                ("tcp header too long", tcp.clone().set(l4 + 12, 0xf0)),
                ("udp too short", udp.clone().set16(l4 + 4, 7)),
                ("udp too long", udp.clone().set16(l4 + 4, 19)),
            ] {
                bench.expect(name, &frame, DROP, &frame, Reason::BadLength)?;
            }
        }
        for (name, frame) in [
            (
                "another port",
                Frame::tcp(side.backend(DNAT_TCP + 1), client, ACK, 64, b""),
            ),
            (
                "another protocol",
                Frame::udp(side.backend(DNAT_TCP), client, 64, b""),
            ),
            (
                "another machine",
                Frame::tcp(side.snat(DNAT_TCP), client, ACK, 64, b""),
            ),
            // The source NAT port range, without a flow.
            (
                "to a port of flows",
                Frame::tcp(side.backend(DNAT_TCP + 1), side.client(3000), ACK, 64, b""),
            ),
        ] {
            let frame = frame.backend_to_lb();
            bench.expect(name, &frame, PASS, &frame, Reason::NotOurs)?;
        }
        // A client may have any port, also one of `snat_ports`.
        let reply = Frame::tcp(side.backend(DNAT_TCP), side.client(3000), ACK, 64, b"").backend_to_lb();
        let wanted = Frame::tcp(vip, side.client(3000), ACK, 63, b"").lb_to_client();
        bench.expect("in the range", &reply, REDIRECT, &wanted, Reason::Redirected)?;
    }
    Ok(())
}

#[test]
fn sender_of_a_packet_too_big_for_the_backends_path_gets_its_mtu() -> Result<()> {
    let bench = routed()?;
    for side in FAMILIES {
        let (client, vip) = (side.client(40_000), side.vip(DNAT));
        let sent = Frame::udp(client, vip, 64, &[7; 1_000]);
        let length = u16::try_from(sent.len() - 14)?;
        bench.change_backends(|backend| backend.mtu = length)?;
        let wanted = Frame::udp(client, side.backend(DNAT_UDP), 63, &[7; 1_000]).lb_to_backend();
        bench.expect("it fits", &sent, TX, &wanted, Reason::SentBack)?;
        bench.change_backends(|backend| backend.mtu = length - 1)?;
        let wanted = Frame::too_big(vip, client, &sent, length - 1);
        bench.expect("one byte too many", &sent, TX, &wanted, Reason::TooBigAnswered)?;
        bench.change_backends(|backend| backend.mtu = 30)?;
        let reply = Frame::udp(vip, client, 64, b"reply");
        let error = Frame::unreachable(client, vip, 64, &reply, 8);
        bench.dropped("an error", &error, Reason::TooBig)?;
        bench.change_backends(|backend| backend.mtu = 1500)?;
    }
    Ok(())
}

/// Tags come off, and are on again where the kernel gets the packet.
#[test]
fn packets_in_a_vlan_are_translated() -> Result<()> {
    const TAG: &[[u8; 4]] = &[[0x81, 0x00, 0, 7]];
    let bench = routed()?;
    for side in FAMILIES {
        let (client, vip, backend) = (side.client(40_000), side.vip(DNAT), side.backend(DNAT_TCP));
        let strange = SocketAddr::new(side.strange_client(), 40_000);
        let sent = Frame::tcp(client, vip, ACK, 64, b"x").tagged(TAG);
        let wanted = Frame::tcp(client, backend, ACK, 63, b"x").lb_to_backend();
        bench.expect("request", &sent, TX, &wanted, Reason::SentBack)?;
        let sent = Frame::tcp(backend, client, ACK, 64, b"x")
            .backend_to_lb()
            .tagged(TAG);
        let wanted = Frame::tcp(vip, client, ACK, 63, b"x").lb_to_client();
        bench.expect("reply", &sent, REDIRECT, &wanted, Reason::Redirected)?;
        let sent = Frame::tcp(backend, strange, ACK, 64, b"x")
            .backend_to_lb()
            .tagged(TAG);
        let wanted = Frame::tcp(vip, strange, ACK, 64, b"x")
            .backend_to_lb()
            .tagged(TAG);
        bench.expect("by the kernel", &sent, PASS, &wanted, Reason::ReplyByKernel)?;
        let sent = Frame::tcp(side.backend(7), client, ACK, 64, b"x")
            .backend_to_lb()
            .tagged(TAG);
        bench.expect("foreign", &sent, PASS, &sent, Reason::NotOurs)?;
    }
    Ok(())
}

/// A family's records and keys.
trait Records {
    const SIDE: Side;
    fn service(bench: &Bench, change: impl FnOnce(&mut Service)) -> Result<Service>;
    /// Makes every port of an address an endpoint of the service on every port.
    fn endpoint(bench: &Bench, address: IpAddr, vip: IpAddr) -> Result<FilterBit>;
}

macro_rules! records {
    ($name:ident, $family:ident, $key:ident, $reply:ident, $services:ident, $replies:ident) => {
        struct $name;

        impl Records for $name {
            const SIDE: Side = $family;

            fn service(bench: &Bench, change: impl FnOnce(&mut Service)) -> Result<Service> {
                let IpAddr::$family(address) = Self::SIDE.vip(0).ip() else {
                    unreachable!("the side's family");
                };
                let key = $key {
                    address: address.into(),
                    port: NetPort::new(DNAT),
                    protocol: TCP,
                    pad: 0,
                };
                let mut services: HashMap<_, $key, Service> =
                    HashMap::try_from(bench.map(map_names::$services)?)?;
                let mut service = services.get(&key, 0)?;
                change(&mut service);
                services.insert(key, service, 0)?;
                bench.ask_table(key.place())?;
                Ok(service)
            }

            fn endpoint(bench: &Bench, address: IpAddr, vip: IpAddr) -> Result<FilterBit> {
                let (IpAddr::$family(address), IpAddr::$family(vip)) = (address, vip) else {
                    unreachable!("the side's family");
                };
                let key = $key {
                    address: address.into(),
                    port: NetPort(0),
                    protocol: TCP,
                    pad: 0,
                };
                let reply = $reply {
                    address: vip.into(),
                    port: NetPort(0),
                    service: ServiceId(0),
                    backend: BackendId(1),
                    pad: 0,
                };
                let mut replies: HashMap<_, $key, $reply> =
                    HashMap::try_from(bench.map(map_names::$replies)?)?;
                replies.insert(key, reply, 0)?;
                Ok(key.filter_bit())
            }
        }
    };
}

records!(OfV4, V4, ServiceKeyV4, ReplyAsV4, SERVICES_V4, REPLIES_V4);
records!(OfV6, V6, ServiceKeyV6, ReplyAsV6, SERVICES_V6, REPLIES_V6);

#[test]
fn a_service_on_every_port_keeps_ports_in_both_directions() -> Result<()> {
    let bench = routed()?;
    let mut settings: Array<_, Settings> = Array::try_from(bench.map(map_names::SETTINGS)?)?;
    let mut record = settings.get(&0, 0)?;
    record.flags |= HAS_WILDCARD;
    settings.set(0, record, 0)?;
    // The backend's own port is 0, so packets keep theirs.
    bench.change_backends(|backend| {
        if backend.mode == Mode::Dnat as u8 {
            backend.port = NetPort(0);
        }
    })?;
    fn check<R: Records>(bench: &Bench) -> Result<()> {
        let side = R::SIDE;
        let bit = R::endpoint(bench, side.backend(0).ip(), side.vip(0).ip())?;
        let mut filter: Array<_, u64> = Array::try_from(bench.map(map_names::REPLY_FILTER)?)?;
        let word = filter.get(&bit.word(), 0)?;
        filter.set(bit.word(), word | bit.mask(), 0)?;
        let client = side.client(40_000);
        let sent = Frame::tcp(client, side.vip(DNAT), ACK, 64, b"");
        let wanted = Frame::tcp(client, side.backend(DNAT), ACK, 63, b"").lb_to_backend();
        bench.expect("request", &sent, TX, &wanted, Reason::SentBack)?;
        for port in [1, 777, 65_535] {
            let sent = Frame::tcp(side.backend(port), client, ACK, 64, b"").backend_to_lb();
            let wanted = Frame::tcp(side.vip(port), client, ACK, 63, b"").lb_to_client();
            bench.expect("reply", &sent, REDIRECT, &wanted, Reason::Redirected)?;
        }
        // The service with the port takes precedence.
        let sent = Frame::tcp(side.backend(DNAT_TCP), client, ACK, 64, b"").backend_to_lb();
        let wanted = Frame::tcp(side.vip(DNAT), client, ACK, 63, b"").lb_to_client();
        bench.expect("exact", &sent, REDIRECT, &wanted, Reason::Redirected)
    }
    check::<OfV4>(&bench)?;
    check::<OfV6>(&bench)
}

/// Backends with unused numbers.
const CURRENT: BackendId = BackendId(60_001);
const PREVIOUS: BackendId = BackendId(60_002);

/// While slots change hands, a flow is followed as in the other modes; beside backends of mode nat, too.
#[test]
fn flows_keep_their_backend_while_slots_change_hands() -> Result<()> {
    let bench = routed()?;
    fn check<R: Records>(bench: &Bench, mixed: bool) -> Result<()> {
        let side = R::SIDE;
        let service = R::service(bench, |service| {
            service.flags &= !TRANSLATES;
            service.flags |= if mixed { TRANSLATES } else { 0 };
        })?;
        let mut backends: Array<_, Backend> = Array::try_from(bench.map(map_names::BACKENDS)?)?;
        for (id, port) in [(CURRENT, 1001), (PREVIOUS, 1002)] {
            let record = Backend {
                address: side.backend(0).ip().into(),
                port: NetPort::new(port),
                flags: IN_USE | ALIVE | RESOLVED | if side.vip(0).is_ipv6() { IPV6 } else { 0 },
                generation: Generation(1),
                service: service.id,
                mode: Mode::Dnat as u8,
                next_hop_mac: BACKEND_MAC,
                source_mac: LB_MAC,
                ifindex: INGRESS,
                mtu: 1500,
                ..Backend::default()
            };
            backends.set(u32::from(id.0), record, 0)?;
        }
        let slots = |slot: RingSlot| bench.set_slots(&service, |_| slot);
        let goes = |name: &str, client_port: u16, flags, port: u16| {
            let (client, vip) = (side.client(client_port), side.vip(DNAT));
            let sent = Frame::tcp(client, vip, flags, 64, b"");
            let wanted = Frame::tcp(client, side.backend(port), flags, 63, b"").lb_to_backend();
            bench.expect(name, &sent, TX, &wanted, Reason::SentBack)?;
            // So do errors about the backend's packets.
            let reply = Frame::tcp(vip, client, ACK, 64, b"");
            let error = Frame::unreachable(client, vip, 64, &reply, 8);
            let quoted = Frame::tcp(side.backend(port), client, ACK, 64, b"");
            let wanted = Frame::unreachable(client, side.backend(port), 63, &quoted, 8).lb_to_backend();
            if flags == ACK {
                bench.expect(name, &error, TX, &wanted, Reason::SentBack)?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let base = if mixed { 42_000 } else { 41_000 };
        slots(RingSlot {
            current: CURRENT,
            previous: PREVIOUS,
        })?;
        goes("new", base, SYN, 1001)?;
        goes("new, known", base, ACK, 1001)?;
        goes("older", base + 1, ACK, 1002)?;
        goes("older, known", base + 1, ACK, 1002)?;
        slots(RingSlot::pinned(CURRENT))?;
        goes("known", base + 1, ACK, 1002)?;
        goes("unknown", base + 2, ACK, 1001)
    }
    for mixed in [false, true] {
        check::<OfV4>(&bench, mixed)?;
        check::<OfV6>(&bench, mixed)?;
    }
    Ok(())
}

/// One service with backends of modes dnat and nat: each flow follows its backend's mode in both directions.
#[test]
fn a_backend_of_mode_nat_in_a_service_of_mode_dnat_is_translated_in_full() -> Result<()> {
    let bench = routed()?;
    bench.one_port(3000)?;
    bench.change_backends(|backend| {
        if backend.mode == Mode::Dnat as u8 {
            backend.mode = Mode::Nat as u8;
        }
    })?;
    OfV4::service(&bench, |service| service.flags |= TRANSLATES)?;
    OfV6::service(&bench, |service| service.flags |= TRANSLATES)?;
    for side in FAMILIES {
        let (client, backend) = (side.client(40_000), side.backend(DNAT_TCP));
        let sent = Frame::tcp(client, side.vip(DNAT), SYN, 64, b"");
        let wanted = Frame::tcp(side.snat(3000), backend, SYN, 63, b"").lb_to_backend();
        bench.expect("request", &sent, TX, &wanted, Reason::SentBack)?;
        let sent = Frame::tcp(backend, side.snat(3000), SYN | ACK, 64, b"").backend_to_lb();
        let wanted = Frame::tcp(side.vip(DNAT), client, SYN | ACK, 63, b"").lb_to_client();
        bench.expect("reply", &sent, TX, &wanted, Reason::SentBack)?;
    }
    Ok(())
}
