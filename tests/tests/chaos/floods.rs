//! Floods of SYNs, fragments, ICMP and garbage, as fast as one core makes them, and answers to no question.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use lb_tests::{flood, netns::Netns, syn_flood::SynFlood, topology::Family, wait};

use crate::{
    fault::Fault,
    forged::{self, Fragment, ICMP_V4, ICMP_V6, TCP, UDP},
    traffic::May,
    world::{DEVICE, PORT, World},
};

pub(crate) const ALL: [&Fault; 6] = [
    &SYNS,
    &FRAGMENTS,
    &ICMP,
    &GARBAGE,
    &WRONG_ADDRESS,
    &HOSTILE_CHECKS,
];

/// How long a flood of a family lasts.
const TIME: Duration = Duration::from_secs(4);
/// Different frames of a flood.
const FRAMES: usize = 1_024;
/// Ports from which mode `nat` sends, where nothing else is configured.
const SNAT_PORTS: std::ops::RangeInclusive<u16> = 1_024..=32_767;

/// Forged SYNs to a service of a random mode in each family, dropped behind the balancer: this is about the balancer.
const SYNS: Fault = Fault {
    name: "SYN flood",
    may: May::LosePackets,
    act: |world| {
        let middle = world.net.middle.clone();
        middle.run_with_input(
            "nft",
            &["-f", "-"],
            "table netdev chaos { chain c { type filter hook ingress device lb priority 0; \
             ip saddr 10.77.0.0/16 drop; ip daddr 10.77.0.0/16 drop; \
             ip6 saddr fd77::/64 drop; ip6 daddr fd77::/64 drop; tcp flags syn tcp doff 5 drop; \
             ip protocol 4 drop; ip6 nexthdr 41 drop; }; }",
        )?;
        let next_hop = world.net.lb.ns.mac(DEVICE)?;
        for family in Family::BOTH {
            let to = SocketAddr::new(world.net.vip(family, world.rng.u8(10..=13)), PORT);
            let flood = SynFlood::start(&world.net.client.ns, "eth0", next_hop, to)?;
            wait::pace(TIME);
            println!("{} SYNs in {TIME:?} to {to}", flood.stop()?);
        }
        middle
            .run("nft", &["delete", "table", "netdev", "chaos"])
            .map(drop)
    },
};

/// Fragments of datagrams that are never whole, with first ones and without.
const FRAGMENTS: Fault = Fault {
    name: "flood of fragments",
    may: May::LosePackets,
    act: |world| {
        flood_of(world, |rng, to| {
            let fragment = Fragment {
                offset: if rng.bool() { 0 } else { rng.u16(1..0x1000) },
                more: rng.bool(),
            };
            let mut data = forged::random(rng, 64);
            data[..8].copy_from_slice(&[0x9c, 0x40, 0x1f, 0x90, 1, 0, 0, 0]);
            let from = forged::source(rng, to);
            forged::ip(rng, from, to, UDP, Some(fragment), &data)
        })
    },
};

/// Pings, and errors about packets that were never sent.
const ICMP: Fault = Fault {
    name: "flood of ICMP",
    may: May::LosePackets,
    act: |world| {
        let clients = Family::BOTH.map(|family| world.net.client.ip(family));
        flood_of(world, |rng, to| {
            let (protocol, echo, errors, client) = match to {
                IpAddr::V4(_) => (ICMP_V4, 8, [[3, 1], [3, 3], [3, 4], [11, 0]], clients[0]),
                IpAddr::V6(_) => (ICMP_V6, 128, [[1, 3], [1, 4], [2, 0], [3, 0]], clients[1]),
            };
            let mut message = vec![echo, 0, 0, 0, 0, 0, 5, 0];
            if rng.u8(..5) == 0 {
                message.extend(forged::random(rng, 56));
            } else {
                message[..2].copy_from_slice(&errors[rng.usize(..errors.len())]);
                // About a packet of the service to a client.
                let data = forged::random(rng, 20);
                message.extend(&forged::ip(rng, to, client, TCP, None, &data)[forged::ETHERNET..]);
            }
            let from = forged::source(rng, to);
            let sum = forged::icmp_checksum(from, to, &message);
            message[2..4].copy_from_slice(&sum);
            forged::ip(rng, from, to, protocol, None, &message)
        })
    },
};

/// Frames of random bytes, the first of which are sometimes right.
const GARBAGE: Fault = Fault {
    name: "flood of garbage",
    may: May::LosePackets,
    act: |world| {
        flood_of(world, |rng, to| {
            let length = rng.usize(1..300);
            let data = forged::random(rng, length);
            let protocols = [0, 1, 4, 6, 17, 41, 43, 44, 50, 58, 60, 132];
            let protocol = protocols[rng.usize(..protocols.len())];
            let from = forged::source(rng, to);
            let mut frame = forged::ip(rng, from, to, protocol, None, &data);
            match rng.u8(..4) {
                // Another EtherType, another version or length, or cut short.
                0 => frame[12..14]
                    .copy_from_slice(&[[0x86, 0xdd], [0x81, 0], [0x88, 0xa8], [8, 0]][rng.usize(..4)]),
                1 => frame[14] = rng.u8(..),
                2 => frame.truncate(rng.usize(15..frame.len())),
                _ => {}
            }
            frame
        })
    },
};

/// Sends frames that `make` makes for addresses of services, of one family after the other.
fn flood_of(world: &mut World, make: impl Fn(&mut Rng, IpAddr) -> Vec<u8>) -> Result<()> {
    let next_hop = world.net.lb.ns.mac(DEVICE)?;
    for family in Family::BOTH {
        let frames = (0..FRAMES).map(|_| {
            let to = world.net.vip(family, world.rng.u8(10..=13));
            let mut frame = make(&mut world.rng, to);
            frame[..6].copy_from_slice(&next_hop);
            frame
        });
        let frames: Vec<Vec<u8>> = frames.collect();
        let sent = flood::frames(&world.net.client.ns, "eth0", &frames, TIME)?;
        println!("{sent} {} frames in {TIME:?}", family.keyword());
    }
    Ok(())
}

/// A backend sends to every source port of mode `nat` from a port that has no flow: none of it may reach a client.
const WRONG_ADDRESS: Fault = Fault {
    name: "answers from a wrong address",
    may: May::LoseNothing,
    act: |world| {
        for family in Family::BOTH {
            for (backend, port) in [(0, PORT), (1, 9_999), (2, 8_082)] {
                let from = &world.net.backends[backend];
                let to = world.net.lb.ip(family);
                let source = SocketAddr::new(from.ip(family), port);
                from.ns.enter(|| answer_unasked(source, to))??;
            }
        }
        Ok(())
    },
};

/// Sends an answer to each port that mode `nat` may have a flow on.
fn answer_unasked(source: SocketAddr, to: IpAddr) -> Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(source), socket2::Type::DGRAM, None)?;
    // The server has its port.
    socket.set_reuse_address(true)?;
    let socket = match socket.bind(&source.into()) {
        Ok(()) => UdpSocket::from(socket),
        Err(_) => UdpSocket::bind(SocketAddr::new(source.ip(), 0))?,
    };
    for port in SNAT_PORTS {
        // ICMP errors about earlier ones.
        let _ = socket.send_to(b"b0\0an answer to no question", (to, port));
    }
    Ok(())
}

/// Servers whose answers to checks never end, are no HTTP, come byte by byte, or are cut off.
const HOSTILE_CHECKS: Fault = Fault {
    name: "hostile answers to checks",
    may: May::LoseNothing,
    act: |world| {
        let host = &world.net.backends[0];
        let address = host.socket(Family::V4, HOSTILE_PORT);
        let server = Hostile::start(&host.ns, address)?;
        let cli = world.cli();
        let before = resident(world)?;
        cli.ok(
            "service add hostile --address 192.0.2.210 --port 80 --check http --check-path /health \
             --check-interval 100ms --check-fast-interval 100ms --check-timeout 2s",
        )?;
        cli.ok(&format!("backend add hostile h0 --address {address}"))?;
        let down = world.wait_status("hostile").and_then(|()| {
            wait::until_true("it is down", LIMIT, || {
                Ok(cli.backend("hostile", "h0")?["health"] == "down")
            })
        });
        let reported = down.and_then(|()| world.wait_event("\"health\""));
        world.traffic.wait_rounds(20)?;
        let grown = resident(world)?.saturating_sub(before);
        cli.ok("service remove hostile")?;
        drop(server);
        reported?;
        ensure!(grown < MOST_GROWTH_KB, "the daemon has grown by {grown} KiB");
        Ok(())
    },
};

const HOSTILE_PORT: u16 = 9_990;
const LIMIT: Duration = Duration::from_secs(60);
/// Memory that a check's answers may take, with what everything else needs meanwhile.
const MOST_GROWTH_KB: u64 = 32 << 10;

/// Resident memory of the daemon, KiB.
fn resident(world: &World) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.daemon.pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(number.parse()?)
}

/// A server that answers each connection in another bad way.
struct Hostile(TcpListener);

impl Hostile {
    fn start(ns: &Netns, address: SocketAddr) -> Result<Self> {
        let listener = ns.enter(|| TcpListener::bind(address))??;
        let accepting = listener.try_clone()?;
        thread::Builder::new().name("hostile".to_owned()).spawn(move || {
            let mut number = 0;
            while let Ok((stream, _)) = accepting.accept() {
                number += 1;
                thread::spawn(move || answer_badly(stream, number));
            }
        })?;
        Ok(Self(listener))
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // SAFETY: shutdown on an open descriptor; on a listening socket it makes accept return.
        unsafe { libc::shutdown(self.0.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

fn answer_badly(mut stream: TcpStream, number: u32) -> std::io::Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let _ = stream.read(&mut [0; 1_024]);
    match number % 6 {
        0 => stream.write_all(b"HTTP/1.1 503 no\r\nContent-Length: 100\r\n\r\ncut off"),
        1 => stream.write_all(&[0xff; 4_096]),
        2 => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            while Instant::now() < end {
                stream.write_all(b"X-Endless: yes\r\n")?;
            }
            Ok(())
        }
        3 => {
            stream.write_all(b"HTTP/1.1 500 no\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            while Instant::now() < end {
                stream.write_all(b"10\r\n0123456789abcdef\r\n")?;
            }
            Ok(())
        }
        4 => {
            for byte in b"HTTP/1.1 200 OK\r\nX: y\r\n".iter().chain(b"X".iter().cycle()) {
                if Instant::now() >= end {
                    break;
                }
                stream.write_all(&[*byte])?;
                wait::pace(Duration::from_millis(100));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
