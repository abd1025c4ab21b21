//! Outer headers with a source for each flow, and GUE on another port.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Result, ensure};
use aya::maps::Array;
use lb_common::{backend::Backend, map_names, reason::Reason, service::Mode, settings::Settings, tunnel};

use super::{
    ACK, FAMILIES, PASS, SYN, TX,
    bench::{Bench, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6},
    build::{Frame, Side, V4, V6},
    fragments::split,
    kinds::Error,
    modes::{Entropy, tunnelled_from},
};

/// Where the IP header begins.
const IP: usize = 14;
/// Low bits of sources that flows fill.
const BITS: u8 = 8;
/// Ports of services by tunnels: the outer family, and whether in GUE.
const TUNNELS: [(u16, Side, bool); 4] = [
    (IPIP_V4, V4, false),
    (IPIP_V6, V6, false),
    (GUE_V4, V4, true),
    (GUE_V6, V6, true),
];

/// The prefix of outer sources, without its free bits.
pub(crate) fn prefix(side: Side) -> IpAddr {
    if side.vip(0).is_ipv4() {
        IpAddr::from([10, 200, 0, 0])
    } else {
        IpAddr::from([0xfd00, 0x200, 0, 0, 0, 0, 0, 0])
    }
}

/// Has the tunnels of a bench take their sources from [`prefix`].
pub(crate) fn spread(bench: &Bench) -> Result<()> {
    bench.change_backends(|backend: &mut Backend| {
        if [Mode::Ipip as u8, Mode::Gue as u8].contains(&backend.mode) {
            let side = if backend.has(lb_common::backend::IPV6) {
                V6
            } else {
                V4
            };
            backend.source = prefix(side).into();
            *backend = backend.with_source_bits(BITS);
        }
    })
}

/// The outer source of a frame.
pub(crate) fn source(frame: &Frame, outer: Side) -> Result<IpAddr> {
    let bytes = frame.bytes();
    Ok(if outer.vip(0).is_ipv4() {
        <[u8; 4]>::try_from(&bytes[IP + 12..IP + 16])?.into()
    } else {
        <[u8; 16]>::try_from(&bytes[IP + 8..IP + 24])?.into()
    })
}

/// The last byte of an address, with which all others in [`prefix`] agree.
fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    }
}

#[test]
fn each_flow_has_an_outer_source_of_its_own_and_keeps_it() -> Result<()> {
    let bench = Bench::new()?;
    spread(&bench)?;
    for side in FAMILIES {
        for (port, outer, gue) in TUNNELS {
            let mut sources = BTreeSet::new();
            for client_port in 40_000..40_064 {
                let (client, vip) = (side.client(client_port), side.vip(port));
                let mut of_flow = BTreeSet::new();
                let datagram: Vec<u8> = (0..90).collect();
                let tcp = [(SYN, &b""[..]), (ACK, b"odd"), (ACK, b"even")];
                let mut packets: Vec<Frame> = tcp
                    .map(|(flags, payload)| Frame::tcp(client, vip, flags, 64, payload))
                    .into();
                if client_port % 8 == 0 {
                    let whole = Frame::udp(client, vip, 64, &datagram);
                    packets = split(&whole, client_port.into());
                }
                for sent in packets {
                    let (action, got, reason) = bench.run(&sent)?;
                    ensure!((action, reason) == (TX, Reason::SentBack), "{action}, {reason:?}");
                    let (from, entropy) = (source(&got, outer)?, Entropy::of(&got, outer, gue)?);
                    let ports = gue.then_some((entropy.port, tunnel::GUE_PORT));
                    let mut wanted = tunnelled_from(from, &sent, outer, ports, entropy.label);
                    if gue && !outer.vip(0).is_ipv4() && client_port % 8 == 0 {
                        // The checksum cannot be derived from a fragment.
                        wanted = wanted.set16(IP + 46, 0);
                    }
                    ensure!(got == wanted, "{port}: {:02x?}", got.bytes());
                    of_flow.insert(from);
                }
                ensure!(of_flow.len() == 1, "one flow came from {of_flow:?}");
                sources.extend(of_flow);
            }
            let alien = sources.iter().find(|source| match (source, prefix(outer)) {
                (IpAddr::V4(source), IpAddr::V4(prefix)) => source.octets()[..3] != prefix.octets()[..3],
                (IpAddr::V6(source), IpAddr::V6(prefix)) => source.octets()[..15] != prefix.octets()[..15],
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => true,
            });
            ensure!(alien.is_none(), "{alien:?} is not in the prefix");
            // 64 of 256 at random: 57 on average.
            ensure!(
                sources.len() > 40,
                "port {port}: 64 flows came from {}",
                sources.len()
            );
            // Each receive queue and path gets its part, whichever bits it is chosen by.
            for bit in 0..BITS {
                let ones = sources
                    .iter()
                    .filter(|source| last(**source) >> bit & 1 == 1)
                    .count();
                ensure!(
                    (10..sources.len() - 10).contains(&ones),
                    "bit {bit} of {sources:?}"
                );
            }
        }
    }
    Ok(())
}

/// ICMP errors of routers about outer packets are for the kernel, to any outer source.
#[test]
fn errors_about_outer_packets_pass_untouched_whichever_source_they_are_sent_to() -> Result<()> {
    let bench = Bench::new()?;
    spread(&bench)?;
    for (port, outer, _) in TUNNELS {
        for client_port in 40_000..40_008 {
            let sent = Frame::tcp(V4.client(client_port), V4.vip(port), ACK, 64, &[7; 100]);
            let (_, out, _) = bench.run(&sent)?;
            let to = source(&out, outer)?;
            let [from, to] = [outer.nowhere(), to].map(|address| SocketAddr::new(address, 0));
            let error = Error::TooBig.build(from, to, 64, &out, 40);
            bench.expect("too big", &error, PASS, &error, Reason::OtherProtocol)?;
        }
    }
    Ok(())
}

#[test]
fn gue_goes_to_the_port_that_is_set() -> Result<()> {
    let bench = Bench::new()?;
    let mut settings: Array<_, Settings> = Array::try_from(bench.map(map_names::SETTINGS)?)?;
    let mut record = settings.get(&0, 0)?;
    ensure!(record.gue_port == tunnel::GUE_PORT, "{record:?}");
    record.gue_port = 5555;
    settings.set(0, record, 0)?;
    for side in FAMILIES {
        for (port, outer) in [(GUE_V4, V4), (GUE_V6, V6)] {
            for sent in [
                Frame::tcp(side.client(1), side.vip(port), SYN, 64, b""),
                Frame::udp(side.client(2), side.vip(port), 64, b"hello"),
            ] {
                let (_, got, _) = bench.run(&sent)?;
                let entropy = Entropy::of(&got, outer, true)?;
                let ports = Some((entropy.port, 5555));
                let wanted = tunnelled_from(outer.snat(0).ip(), &sent, outer, ports, entropy.label);
                bench.expect("gue", &sent, TX, &wanted, Reason::SentBack)?;
            }
        }
    }
    Ok(())
}
