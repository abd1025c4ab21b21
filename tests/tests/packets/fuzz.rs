//! Random and mutated packets through the real program: every packet is counted, passed and dropped ones are unchanged,
//! and sent ones are whole, with checksums as right as before. `LB_FUZZ_PACKETS` sets the number (the default takes
//! some seconds), `LB_FUZZ_SEED` the seed.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use lb_common::{
    reason::{Action, Reason},
    service::Mode,
};
use lb_tests::frames;

use super::{
    ACK,
    bench::{
        DNAT, DNAT_TCP, DNAT_UDP, DROP, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR, PASS, REDIRECT, REJECTS, TX,
    },
    build::{self, Case, Frame, Side, V4, V6},
    dnat, fragments, quic,
};

/// Packets in a run of the test command.
const PACKETS: u64 = 300_000;
/// First source port, and how many, so that flows are met again and the search for a port has something to do.
const SNAT_FIRST: u16 = 3000;
const SNAT_PORTS: u16 = 64;
/// Clients' ports in use.
const CLIENT_PORTS: u16 = 96;
/// Services of UDP, of both families, that read connection ids of QUIC.
const NAMING: [u16; 3] = [53, DNAT, GUE_V4];
/// MTU of the way to backends of mode `gue`: some packets do not fit.
const SMALL_MTU: u16 = 250;
/// Ports of services that do not translate, of services without a backend, and one of no service.
const PORTS: [u16; 10] = [
    L2DSR, IPIP_V4, IPIP_V6, GUE_V4, GUE_V6, DNAT, DNAT, 81, REJECTS, 83,
];
/// Bytes that are on an edge of something.
const EDGES: [u8; 12] = [0, 1, 4, 6, 17, 41, 44, 58, 0x7f, 0x80, 0xfe, 0xff];
/// Mutations hit this many bytes from the start of a frame most of the time: all headers, including quoted ones.
const HEADERS: usize = 110;

#[test]
fn random_packets_leave_counted_and_whole() -> Result<()> {
    let count = setting("LB_FUZZ_PACKETS", PACKETS)?;
    let seed = setting("LB_FUZZ_SEED", 7)?;
    println!("{count} packets, seed {seed}");
    let bench = dnat::routed()?;
    bench.ports(SNAT_FIRST..=SNAT_FIRST + SNAT_PORTS - 1)?;
    bench.change_backends(|backend| {
        if backend.mode == Mode::Gue as u8 {
            backend.mtu = SMALL_MTU;
        }
    })?;
    let naming: Vec<_> = [V4, V6]
        .iter()
        .flat_map(|side| NAMING.map(|port| side.vip(port)))
        .collect();
    let ids = quic::name(&bench, &naming)?;
    let actions = bench.many(|runner| {
        let mut rng = Rng::with_seed(seed);
        let known = [V4, V6].map(|side| (side, build::hostile(side)));
        let mut actions = BTreeMap::new();
        for i in 0..count {
            let frame = packet(&mut rng, &known, &ids);
            let (action, output) = runner.run(&frame)?;
            judge(&frame, action, output).with_context(|| {
                format!("packet {i}, action {action}\n in  {frame:02x?}\n out {output:02x?}")
            })?;
            *actions.entry(action).or_insert(0) += 1;
        }
        Ok(actions)
    })?;
    let counted = bench.counted()?;
    ensure!(
        counted.values().sum::<u64>() == count,
        "{count} packets, counted: {counted:?}"
    );
    let mut expected = BTreeMap::new();
    for (reason, packets) in counted.iter().filter(|(_, packets)| **packets > 0) {
        *expected.entry(code(reason.action())).or_insert(0) += packets;
    }
    ensure!(actions == expected, "actions {actions:?}, counted {counted:?}");
    // A run that reaches little proves little.
    let missed: Vec<_> = REACHED.iter().filter(|reason| counted[*reason] == 0).collect();
    ensure!(missed.is_empty(), "never met: {missed:?}");
    Ok(())
}

/// Reasons that this many packets must reach.
const REACHED: [Reason; 18] = [
    Reason::TooBigAnswered,
    Reason::Fragment,
    Reason::EchoAnswered,
    Reason::SentBack,
    Reason::Redirected,
    Reason::ReplyByKernel,
    Reason::RejectedReset,
    Reason::RejectedUnreachable,
    Reason::NotOurs,
    Reason::NotIp,
    Reason::OtherProtocol,
    Reason::Vlan,
    Reason::Truncated,
    Reason::Malformed,
    Reason::FragmentAlone,
    Reason::NoBackend,
    Reason::TtlExpired,
    Reason::BadLength,
];

pub(super) fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(default),
    }
}

/// Number of an action (`enum xdp_action` of linux/bpf.h).
fn code(action: Action) -> u32 {
    match action {
        Action::Aborted => 0,
        Action::Drop => DROP,
        Action::Pass => PASS,
        Action::Tx => TX,
        Action::Redirect => REDIRECT,
    }
}

/// Checks the invariants of every packet.
fn judge(sent: &[u8], action: u32, output: &[u8]) -> Result<()> {
    match action {
        PASS | DROP if sent == output => {}
        DROP => bail!("changed, though not sent"),
        // The kernel sends replies of mode dnat on.
        PASS | TX | REDIRECT => {
            if is_later_fragment(sent) && frames::Frame::parse(sent).is_none() {
                return Ok(());
            }
            let before = frames::Frame::parse(sent).context("sent, though it is no whole packet")?;
            let after = frames::Frame::parse(output).context("is no whole packet any more")?;
            ensure!(
                after.checksums_ok || !before.checksums_ok,
                "its checksums were right"
            );
            let vip = [V4, V6].map(|side| side.vip(0).ip());
            ensure!(
                action != PASS || (vip.contains(&after.source.ip()) && after.ttl == before.ttl),
                "changed, though not sent"
            );
        }
        other => bail!("action {other}"),
    }
    Ok(())
}

/// Whether a frame carries an IPv6 fragment that is not the first of its datagram. They follow the first one with any
/// next header, by RFC 8200 section 4.5, but etherparse parses that header in them.
fn is_later_fragment(frame: &[u8]) -> bool {
    const OFFSET: u16 = 0xfff8;
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut at = 12;
    while matches!(word(at), Some(0x8100 | 0x88a8)) {
        at += 4;
    }
    let ip = at + 2;
    let (mut next, mut at) = (frame.get(ip + 6).copied(), ip + 40);
    while let Some(0 | 43 | 60) = next {
        next = frame.get(at).copied();
        at += 8 * (1 + usize::from(frame.get(at + 1).copied().unwrap_or_default()));
    }
    next == Some(44) && word(at + 2).is_some_and(|word| word & OFFSET != 0)
}

/// A packet that the program is meant for, more often than not with something wrong.
fn packet(rng: &mut Rng, known: &[(Side, Vec<Case>); 2], ids: &[&[u8]]) -> Vec<u8> {
    let (side, hostile) = &known[rng.usize(..2)];
    let seed = match rng.u8(..24) {
        0 | 1 => of_connection(rng, *side, ids),
        2..5 => fragment(rng, *side),
        _ => seed(rng, *side, hostile),
    };
    let mut frame = seed.bytes().to_vec();
    if rng.u8(..8) < 5 {
        for _ in 0..rng.u8(1..4) {
            mutate(rng, &mut frame);
        }
    }
    // The kernel takes no test packet that is shorter than an Ethernet header.
    frame.resize(frame.len().clamp(14, 3000), 0);
    frame
}

/// A packet of QUIC whose connection id names a backend, or nearly so.
fn of_connection(rng: &mut Rng, side: Side, ids: &[&[u8]]) -> Frame {
    let client = side.client(40_000 + rng.u16(..CLIENT_PORTS));
    let mut id = ids[rng.usize(..ids.len())].to_vec();
    if rng.u8(..4) == 0 {
        id[0] = rng.u8(..);
    }
    let start = if rng.bool() {
        vec![0x40]
    } else {
        vec![0xc0, 0, 0, 0, 1, u8::try_from(id.len()).unwrap_or_default()]
    };
    let payload = [start, id, vec![0x5a; rng.usize(..40)]].concat();
    let vip = side.vip(NAMING[rng.usize(..NAMING.len())]);
    Frame::udp(client, vip, rng.u8(..), &payload)
}

/// A part of a datagram to a service, from one of mode `dnat`, or of neither.
fn fragment(rng: &mut Rng, side: Side) -> Frame {
    let client = side.client(40_000 + rng.u16(..CLIENT_PORTS));
    let payload = vec![rng.u8(..); rng.usize(30..100)];
    let vip = side.vip([53, PORTS[rng.usize(..PORTS.len())]][rng.usize(..2)]);
    let whole = match rng.u8(..4) {
        0 => Frame::tcp(client, side.vip(80), ACK, 64, &payload),
        1 => Frame::udp(side.backend(DNAT_UDP), client, 64, &payload).backend_to_lb(),
        _ => Frame::udp(client, vip, 64, &payload),
    };
    let mut pieces = fragments::split(&whole, rng.u32(..64));
    pieces.swap_remove(rng.usize(..pieces.len()))
}

fn seed(rng: &mut Rng, side: Side, hostile: &[Case]) -> Frame {
    let client = side.client(40_000 + rng.u16(..CLIENT_PORTS));
    let snat = side.snat(SNAT_FIRST + rng.u16(..SNAT_PORTS));
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(300).collect();
    let payload = &bytes[..if rng.bool() {
        rng.usize(..40)
    } else {
        rng.usize(..300)
    }];
    let hops = if rng.u8(..16) == 0 {
        rng.u8(..3)
    } else {
        rng.u8(..)
    };
    let flags = rng.u8(..32);
    let to_backend = |udp: bool| match udp {
        true => Frame::udp(snat, side.backend(5353), 63, payload),
        false => Frame::tcp(snat, side.backend(8080), flags, 63, payload),
    };
    let to_client = |udp: bool| match udp {
        true => Frame::udp(side.vip(53), client, 63, payload),
        false => Frame::tcp(side.vip(80), client, flags, 63, payload),
    };
    let about = |frame: &Frame| {
        let header = if side.vip(0).is_ipv4() { 20 } else { 40 };
        (8 + bytes[0] as usize % 30).min(frame.len() - 14 - header)
    };
    let udp = rng.bool();
    let endpoint = side.backend(if udp { DNAT_UDP } else { DNAT_TCP });
    match rng.u8(..18) {
        14 | 15 => {
            let client = if rng.u8(..4) == 0 {
                SocketAddr::new(side.strange_client(), client.port())
            } else {
                client
            };
            if udp {
                Frame::udp(endpoint, client, hops, payload).backend_to_lb()
            } else {
                Frame::tcp(endpoint, client, flags, hops, payload).backend_to_lb()
            }
        }
        16 => {
            let quoted = if udp {
                Frame::udp(client, endpoint, 63, payload)
            } else {
                Frame::tcp(client, endpoint, flags, 63, payload)
            };
            let from = if rng.bool() { endpoint } else { side.snat(0) };
            Frame::unreachable(from, client, hops, &quoted, about(&quoted)).backend_to_lb()
        }
        17 => {
            let quoted = if udp {
                Frame::udp(side.vip(DNAT), client, 63, payload)
            } else {
                Frame::tcp(side.vip(DNAT), client, flags, 63, payload)
            };
            Frame::unreachable(client, side.vip(0), hops, &quoted, about(&quoted))
        }
        0..4 if udp => Frame::udp(client, side.vip(53), hops, payload),
        0..4 => Frame::tcp(client, side.vip(80), flags, hops, payload),
        4..7 if udp => Frame::udp(side.backend(5353), snat, hops, payload).backend_to_lb(),
        4..7 => Frame::tcp(side.backend(8080), snat, flags, hops, payload).backend_to_lb(),
        7 | 8 => {
            let quoted = to_backend(udp);
            Frame::unreachable(side.backend(0), snat, hops, &quoted, about(&quoted)).backend_to_lb()
        }
        9 => {
            let quoted = to_client(udp);
            Frame::unreachable(client, side.vip(0), hops, &quoted, about(&quoted))
        }
        10 | 11 => {
            let vip = side.vip(PORTS[rng.usize(..PORTS.len())]);
            if udp {
                Frame::udp(client, vip, hops, payload)
            } else {
                Frame::tcp(client, vip, flags, hops, payload)
            }
        }
        12 => Frame::echo(client, [side.vip(0), snat][usize::from(udp)], true, hops, payload),
        _ => hostile[rng.usize(..hostile.len())].frame.clone(),
    }
}

/// One thing wrong, of the kinds that broken and hostile senders show.
fn mutate(rng: &mut Rng, frame: &mut Vec<u8>) {
    if frame.is_empty() {
        return;
    }
    let reach = if rng.u8(..4) == 0 {
        frame.len()
    } else {
        frame.len().min(HEADERS)
    };
    let at = rng.usize(..reach);
    match rng.u8(..9) {
        0 | 1 => frame[at] ^= 1 << rng.u8(..8),
        2 => frame[at] = rng.u8(..),
        3 | 4 => frame[at] = EDGES[rng.usize(..EDGES.len())],
        5 => frame.truncate(at),
        6 => {
            let more = rng.usize(..60);
            frame.extend(std::iter::repeat_with(|| rng.u8(..)).take(more));
        }
        7 => {
            let piece: Vec<u8> = frame[at..frame.len().min(at + rng.usize(1..44))].to_vec();
            frame.splice(at..at, piece);
        }
        _ => {
            let tag = [0x81, [0, 0xa8][rng.usize(..2)], rng.u8(..), rng.u8(..)];
            let at = frame.len().min(12);
            frame.splice(at..at, tag);
        }
    }
}
