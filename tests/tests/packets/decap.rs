//! The end of tunnels, one packet at a time.
#![expect(
    clippy::unwrap_used,
    reason = "an outer header that cannot be built is a mistake in the table"
)]

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, Pod,
    maps::{HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    programs::{TestRun, TestRunOptions, Xdp},
};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
use lb_common::{
    addr::NetAddr,
    decap::{self, ALLOWED, Outcome},
};
use lb_tests::lane::Lane;

use super::{
    ACK, DROP, FAMILIES, PASS,
    build::{Frame, V4, V6},
};

/// Where the IP header begins.
const IP: usize = 14;
pub(super) const GUE_PORT: u16 = 6080;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Address(NetAddr);

// SAFETY: four words, of which every pattern is valid.
unsafe impl Pod for Address {}

/// The program with the balancer's prefixes as sources, and the backend's addresses as its own.
struct End {
    ebpf: Ebpf,
    _lane: Lane,
}

impl End {
    fn new(sources: &[(u8, u32, IpAddr)]) -> Result<Self> {
        let lane = Lane::shared()?;
        let object = std::env::current_exe()?;
        // <target>/<profile>/deps/<this>
        let target = object
            .ancestors()
            .nth(3)
            .context("not run from a build directory")?;
        let mut ebpf =
            Ebpf::load_file(target.join("bpf/lb-ebpf-decap.o")).context("run `cargo xtask build`")?;
        let map = ebpf.map_mut(decap::SOURCES).context("sources")?;
        let mut allowed: LpmTrie<_, Address, u8> = map.try_into()?;
        for (family, bits, address) in sources {
            allowed.insert(&Key::new(*bits, Address((*address).into())), *family, 0)?;
        }
        let map = ebpf.map_mut(decap::ADDRESSES).context("addresses")?;
        let mut own: HashMap<_, Address, u8> = map.try_into()?;
        for side in FAMILIES {
            own.insert(Address(side.backend(0).ip().into()), ALLOWED, 0)?;
        }
        let program: &mut Xdp = ebpf.program_mut("decap").context("program")?.try_into()?;
        program.load()?;
        Ok(Self { ebpf, _lane: lane })
    }

    /// Both families' balancer, each by its address alone.
    fn usual() -> Result<Self> {
        Self::new(&[
            (decap::V4, 128, V4.snat(0).ip()),
            (decap::V6, 128, V6.snat(0).ip()),
        ])
    }

    fn counts(&self) -> Result<Vec<u64>> {
        let counts: PerCpuArray<_, u64> = self.ebpf.map(decap::OUTCOMES).context("outcomes")?.try_into()?;
        let read = |outcome: &Outcome| Ok(counts.get(&(*outcome as u32), 0)?.iter().sum());
        Outcome::ALL.iter().map(read).collect()
    }

    /// Runs it once; the output must be `wanted`, counted as `outcome`.
    fn expect(&self, name: &str, sent: &Frame, wanted: &Frame, outcome: Outcome) -> Result<()> {
        let before = self.counts()?;
        let program: &Xdp = self.ebpf.program("decap").context("program")?.try_into()?;
        let mut output = vec![0; 4096];
        let mut options = TestRunOptions::new();
        options.data_in = Some(sent.bytes());
        options.data_out = Some(&mut output);
        let result = program.test_run(options)?;
        let length = result.data_size_out as usize;
        let action = match outcome {
            Outcome::Passed | Outcome::Decapsulated => PASS,
            Outcome::UnknownSource | Outcome::Malformed | Outcome::Congestion | Outcome::Failed => DROP,
        };
        let mut expected = before;
        expected[outcome as usize] += 1;
        let after = self.counts()?;
        ensure!(after == expected, "{name}: counted {after:?}, not {expected:?}");
        ensure!(
            result.return_value == action,
            "{name}: action {}",
            result.return_value
        );
        ensure!(
            &output[..length] == wanted.bytes(),
            "{name}\n got    {:02x?}\n wanted {:02x?}",
            &output[..length],
            wanted.bytes()
        );
        Ok(())
    }
}

/// How a packet is put into a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tunnel {
    Ipip,
    /// GUE without a header of its own, and with a header of this many optional words.
    Gue1,
    Gue0(u8),
}

/// `packet` within a tunnel from one address to another, marked `class`.
pub(super) fn within(packet: &Frame, from: IpAddr, to: IpAddr, tunnel: Tunnel, class: u8) -> Frame {
    let packet = &packet.bytes()[IP..];
    let inner = if packet[0] >> 4 == 6 {
        IpNumber::IPV6
    } else {
        IpNumber::IPV4
    };
    let mut payload = Vec::new();
    if tunnel != Tunnel::Ipip {
        let mut within = Vec::new();
        if let Tunnel::Gue0(words) = tunnel {
            within.extend([words, inner.0, 0, 0]);
            within.resize(4 + 4 * usize::from(words), 0);
        }
        within.extend(packet);
        UdpHeader::without_ipv4_checksum(50_000, GUE_PORT, within.len())
            .unwrap()
            .write(&mut payload)
            .unwrap();
        payload.extend(within);
    } else {
        payload.extend(packet);
    }
    let number = if tunnel == Tunnel::Ipip {
        inner
    } else {
        IpNumber::UDP
    };
    let len = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = Ipv4Header::new(len, 64, number, from.octets(), to.octets()).unwrap();
            header.dscp = (class >> 2).try_into().unwrap();
            header.ecn = (class & 3).try_into().unwrap();
            header.header_checksum = header.calc_header_checksum();
            frame.extend([0x08, 0x00]);
            header.write(&mut frame).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                traffic_class: class,
                payload_length: len,
                next_header: number,
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            frame.extend([0x86, 0xdd]);
            header.write(&mut frame).unwrap();
        }
        _ => unreachable!("both are of one family"),
    }
    frame.extend(payload);
    Frame::from_bytes(frame)
}

/// The packet as it leaves the tunnel: in the frame that the tunnel came in.
fn bare(packet: &Frame) -> Frame {
    packet.clone().lb_to_backend()
}

pub(super) const TUNNELS: [Tunnel; 4] = [Tunnel::Ipip, Tunnel::Gue1, Tunnel::Gue0(0), Tunnel::Gue0(3)];

#[test]
fn a_packet_leaves_its_tunnel_as_it_went_in() -> Result<()> {
    let end = End::usual()?;
    for outer in FAMILIES {
        let (from, to) = (outer.snat(0).ip(), outer.backend(0).ip());
        for inner in FAMILIES {
            for packet in [
                Frame::tcp(inner.client(40_000), inner.vip(80), ACK, 64, b"odd"),
                Frame::udp(inner.client(40_000), inner.vip(80), 64, b""),
            ] {
                for tunnel in TUNNELS {
                    let sent = within(&packet, from, to, tunnel, 0);
                    let name = format!("{tunnel:?}, {from}");
                    end.expect(&name, &sent, &bare(&packet), Outcome::Decapsulated)?;
                }
            }
        }
    }
    Ok(())
}

/// RFC 6040 section 4.2, figure 4; the packet keeps its DSCP.
#[test]
fn congestion_in_the_tunnel_is_passed_on_to_ecn_senders() -> Result<()> {
    let end = End::usual()?;
    for outer in FAMILIES {
        let (from, to) = (outer.snat(0).ip(), outer.backend(0).ip());
        for inner in FAMILIES {
            let packet = Frame::tcp(inner.client(40_000), inner.vip(80), ACK, 64, b"x");
            for (without, within_ecn, then) in [
                (2, 3, Some(3)),
                (1, 3, Some(3)),
                (2, 1, Some(1)),
                (1, 2, Some(1)),
                (3, 0, Some(3)),
                (0, 2, Some(0)),
                (0, 3, None),
            ] {
                let packet = packet.clone().marked(0xb8 | without);
                let sent = within(&packet, from, to, Tunnel::Ipip, within_ecn);
                let name = format!("{without} in {within_ecn}");
                match then {
                    Some(ecn) => {
                        let wanted = bare(&packet.marked(0xb8 | ecn));
                        end.expect(&name, &sent, &wanted, Outcome::Decapsulated)?;
                    }
                    None => end.expect(&name, &sent, &sent, Outcome::Congestion)?,
                }
            }
        }
    }
    Ok(())
}

#[test]
fn tunnels_are_taken_from_balancers_alone() -> Result<()> {
    let end = End::usual()?;
    let packet = Frame::tcp(V4.client(40_000), V4.vip(80), ACK, 64, b"x");
    for outer in FAMILIES {
        let to = outer.backend(0).ip();
        for tunnel in TUNNELS {
            let sent = within(&packet, outer.client(0).ip(), to, tunnel, 0);
            end.expect("from elsewhere", &sent, &sent, Outcome::UnknownSource)?;
        }
    }
    // An IPv4 address mapped into IPv6 matches no source.
    let IpAddr::V4(balancer) = V4.snat(0).ip() else {
        unreachable!("it is of IPv4")
    };
    let mapped: Ipv6Addr = balancer.to_ipv6_mapped();
    let sent = within(&packet, mapped.into(), V6.backend(0).ip(), Tunnel::Ipip, 0);
    end.expect("mapped", &sent, &sent, Outcome::UnknownSource)?;
    drop(end);
    // All of IPv6 does not include IPv4.
    let end = End::new(&[(decap::V6, 0, Ipv6Addr::UNSPECIFIED.into())])?;
    let sent = within(&packet, V4.snat(0).ip(), V4.backend(0).ip(), Tunnel::Ipip, 0);
    end.expect("another family", &sent, &sent, Outcome::UnknownSource)?;
    let sent = within(&packet, V6.client(0).ip(), V6.backend(0).ip(), Tunnel::Ipip, 0);
    end.expect("any of IPv6", &sent, &bare(&packet), Outcome::Decapsulated)
}

#[test]
fn foreign_tunnels_pass_and_contradictory_ones_are_dropped() -> Result<()> {
    let end = End::usual()?;
    for outer in FAMILIES {
        let (from, to) = (outer.snat(0).ip(), outer.backend(0).ip());
        let header = if from.is_ipv4() { 20 } else { 40 };
        let packet = Frame::tcp(V4.client(40_000), V4.vip(80), ACK, 64, b"0123456789");
        let ipip = within(&packet, from, to, Tunnel::Ipip, 0);
        let gue = within(&packet, from, to, Tunnel::Gue1, 0);
        for (name, frame) in [
            (
                "to another",
                within(&packet, from, outer.client(0).ip(), Tunnel::Ipip, 0),
            ),
            (
                "tcp",
                Frame::tcp(outer.client(1), outer.backend(80), ACK, 64, b"x"),
            ),
            ("udp", Frame::udp(outer.snat(1), outer.backend(53), 64, b"x")),
            ("arp", packet.clone().set16(12, 0x0806)),
            ("another port", gue.clone().set16(IP + header + 2, 6081)),
            ("cut in the outer header", ipip.cut(IP + header - 1)),
        ] {
            end.expect(name, &frame, &frame, Outcome::Passed)?;
        }
        for (name, frame) in [
            (
                "no packet within",
                within(&Frame::from_bytes(vec![0x45; 20]), from, to, Tunnel::Ipip, 0),
            ),
            ("another version within", ipip.clone().set(IP + header, 0x65)),
            ("a header too short within", ipip.clone().set(IP + header, 0x44)),
            (
                "longer within than without",
                ipip.clone().set16(IP + header + 2, 1_000),
            ),
            ("cut in the header within", ipip.cut(IP + header + 10)),
            ("gue of no known variant", gue.clone().set(IP + header + 8, 0xf5)),
            (
                "gue control message",
                within(&packet, from, to, Tunnel::Gue0(0), 0).set(IP + header + 8, 0x20),
            ),
        ] {
            end.expect(name, &frame, &frame, Outcome::Malformed)?;
        }
    }
    let fragment = within(
        &Frame::udp(V4.client(1), V4.vip(1), 64, b""),
        V4.snat(0).ip(),
        V4.backend(0).ip(),
        Tunnel::Ipip,
        0,
    );
    let fragment = fragment.set16(IP + 6, 0x2000);
    end.expect("a fragment", &fragment, &fragment, Outcome::Passed)
}
