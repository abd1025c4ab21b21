//! Each target for a moment, on random bytes and on frames with something wrong. `LB_FUZZ_INPUTS` says how many of each.
#![expect(
    clippy::unwrap_used,
    reason = "an input that cannot be built is a mistake of this file"
)]

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, Ipv6RawExtHeader, PacketBuilder};
use fastrand::Rng;

/// Inputs of a run of the test command.
const INPUTS: u32 = 40_000;
/// Longest input of random bytes.
const LONGEST: usize = 300;

fn inputs() -> u32 {
    let given = std::env::var("LB_FUZZ_INPUTS").ok();
    given.map_or(INPUTS, |text| text.parse().unwrap())
}

fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

#[test]
fn histories_of_a_slot_keep_what_is_promised() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..inputs() {
        let len = rng.usize(..LONGEST);
        lb_fuzz::slots(&bytes(&mut rng, len));
    }
}

#[test]
fn tags_and_connection_ids_mean_the_same_on_the_way_back() {
    let mut rng = Rng::with_seed(2);
    for _ in 0..inputs() {
        let mut input = bytes(&mut rng, 80);
        for at in [0, 4] {
            let tag = [[0x81, 0x00], [0x88, 0xa8]][rng.usize(..2)];
            input[at..at + 2].copy_from_slice(&tag);
        }
        lb_fuzz::marks(&input);
    }
}

/// Words of the configurations that are imported.
const WORDS: [&str; 64] = [
    "global",
    "defaults",
    "frontend",
    "listen",
    "backend",
    "bind",
    "server",
    "default_backend",
    "use_backend",
    "mode",
    "tcp",
    "http",
    "balance",
    "source",
    "option",
    "httpchk",
    "tcp-check",
    "expect",
    "string",
    "check",
    "inter",
    "2s",
    "rise",
    "99999999999",
    "acl",
    "src",
    "10.0.0.0/8",
    "tcp-request",
    "connection",
    "reject",
    "if",
    "{",
    "}",
    "!",
    "\"",
    "'",
    "\\",
    "$V",
    "$V=",
    "include",
    "again",
    "virtual_server",
    "virtual_server_group",
    "group",
    "real_server",
    "protocol",
    "TCP",
    "UDP",
    "lb_kind",
    "DR",
    "TCP_CHECK",
    "connect_port",
    "-A",
    "-a",
    "-t",
    "-r",
    "-s",
    "rr",
    "-m",
    "192.0.2.1:80",
    "10.0.0.1",
    "80",
    "*:80-90",
    "a",
];

#[test]
fn imported_configurations_are_refused_or_accepted_by_lb() {
    let mut rng = Rng::with_seed(4);
    for _ in 0..inputs() / 20 {
        let mut text = String::new();
        for _ in 0..rng.usize(..60) {
            text.push_str(WORDS[rng.usize(..WORDS.len())]);
            text.push_str(["\n", " ", " ", " ", ""][rng.usize(..5)]);
        }
        lb_fuzz::import(text.as_bytes());
    }
}

/// A text with some of its lines left out, doubled, exchanged and broken.
fn broken(rng: &mut Rng, text: &str) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
    for _ in 0..rng.usize(1..8) {
        let [at, other] = [0; 2].map(|_| rng.usize(..lines.len()));
        match rng.u8(..4) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(other, lines[at]),
            2 => lines.swap(at, other),
            _ => lines[at] = &lines[at][..rng.usize(..=lines[at].len())],
        }
    }
    let mut bytes = lines.join(&b'\n');
    if rng.bool() {
        let at = rng.usize(..bytes.len());
        bytes[at] = rng.u8(..);
    }
    bytes
}

const EXAMPLES: [&str; 2] = [
    include_str!("../../docs/example.toml"),
    include_str!("../../dist/lb.toml"),
];
const REQUESTS: [&str; 3] = [
    r#"{
"name": "web",
"address": "192.0.2.80:80",
"protocol": "tcp",
"mode": "nat",
"health": {
"kind": "http",
"path": "/",
"interval": "2s"
},
"backends": []
}"#,
    r#"{
"weight": 5,
"admin": "drain",
"drain_until": "2030-01-01T00:00:00Z",
"address": "10.0.0.1:80"
}"#,
    r#"{
"algorithm": "maglev",
"affinity": "source",
"health": null,
"guard": {
"new_flows": 5
}
}"#,
];

#[test]
fn configurations_and_requests_that_are_accepted_come_back_as_they_were() {
    let mut rng = Rng::with_seed(5);
    for text in EXAMPLES.iter().chain(&REQUESTS) {
        lb_fuzz::config(text.as_bytes());
        for _ in 0..inputs() / 400 {
            lb_fuzz::config(&broken(&mut rng, text));
        }
    }
}

#[test]
fn state_files_that_are_read_come_back_as_they_were() {
    let mut rng = Rng::with_seed(6);
    for text in EXAMPLES {
        lb_fuzz::state(text.as_bytes());
        for _ in 0..inputs() / 400 {
            lb_fuzz::state(&broken(&mut rng, text));
        }
    }
}

/// Answers that checks accept, each behind the byte that selects the check.
const ANSWERS: [&[u8]; 8] = [
    b"\0HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"\x01HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"\x02\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x02\0\x01\0\0\0\x01ok",
    b"\x03\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x07\0\x01\0\0\0\x01\0\0\0\0\x02\x08\x01",
    b"\x04\0\x2d\0\0\x81\x80\0\x01\0\x01\0\0\0\0\x07example\x03org\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\0\0\x01",
    b"\x05okwell",
    b"\x06\0\0\x81\x80\0\x01\0\x01\0\0\0\0\x07example\x03org\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\0\0\x01",
    b"\x07ok",
];

#[test]
fn checks_end_whatever_is_answered() {
    let mut rng = Rng::with_seed(7);
    for answer in ANSWERS {
        for _ in 0..inputs() / 400 {
            let mut input = answer.to_vec();
            for _ in 0..rng.u8(..4) {
                let at = rng.usize(1..input.len().max(2));
                match rng.u8(..4) {
                    0 => {
                        let byte = rng.u8(..);
                        input.get_mut(at).into_iter().for_each(|there| *there = byte);
                    }
                    1 => input.truncate(at),
                    2 => drop(input.splice(at..at, *b"9999")),
                    _ => input[0] = rng.u8(..),
                }
            }
            lb_fuzz::answers(&input);
        }
    }
}

const LINES: &[u8] = include_bytes!("../seeds/agents/lines");

#[test]
fn lines_of_agents_are_bounded_and_change_what_they_mention_alone() {
    let mut rng = Rng::with_seed(8);
    lb_fuzz::agents(LINES);
    for _ in 0..inputs() / 40 {
        lb_fuzz::agents(&broken(&mut rng, &String::from_utf8_lossy(LINES)));
        let len = rng.usize(..LONGEST);
        lb_fuzz::agents(&bytes(&mut rng, len));
    }
}

/// Datagrams of this kernel, each with some of what is to be read in it.
const DATAGRAMS: [(&[u8], &str); 9] = [
    (include_bytes!("../seeds/netlink/links"), "name: \"lo\""),
    (include_bytes!("../seeds/netlink/addresses"), "2001:db8::1"),
    (include_bytes!("../seeds/netlink/routes"), "mtu: Some(1400)"),
    (
        include_bytes!("../seeds/netlink/routes6"),
        "gateway: Some(2001:db8::2)",
    ),
    (
        include_bytes!("../seeds/netlink/neighbours"),
        "mac: Some([2, 0, 0, 0, 0, 2])",
    ),
    (
        include_bytes!("../seeds/netlink/route"),
        "gateway: Some(192.0.2.2)",
    ),
    (include_bytes!("../seeds/netlink/no-route"), "Link"),
    (include_bytes!("../seeds/netlink/notice-of-a-link"), "an alias"),
    (
        include_bytes!("../seeds/netlink/notice-of-a-neighbour"),
        "Neighbour(192.0.2.2)",
    ),
];

#[test]
fn messages_of_the_kernel_mean_the_same_whatever_stands_behind_them() {
    let mut rng = Rng::with_seed(9);
    for (datagram, part) in DATAGRAMS {
        let readings = lb_userspace::datapath::netlink_readings(datagram).join("\n");
        assert!(
            readings.contains(part) && !readings.contains("broken"),
            "{part}: {readings}"
        );
        lb_fuzz::netlink(datagram);
        for _ in 0..inputs() / 100 {
            let mut input = datagram.to_vec();
            for _ in 0..rng.u8(1..4) {
                let at = rng.usize(..input.len());
                match rng.u8(..4) {
                    0 => input.truncate(at.max(1)),
                    1 => input[at] = rng.u8(..8),
                    // Lengths stand on multiples of four bytes.
                    2 => input[at & !3] = rng.u8(..),
                    _ => input[at] = rng.u8(..),
                }
            }
            lb_fuzz::netlink(&input);
        }
    }
}

/// Whole packets of all kinds that are parsed.
fn frames(rng: &mut Rng) -> Vec<u8> {
    let payload = bytes(rng, 40);
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let (a, b) = (rng.u16(..), rng.u16(..));
    let v4 = [Ipv4Addr::from(rng.u32(..)), Ipv4Addr::from(rng.u32(..))].map(|ip| ip.octets());
    let v6 = [Ipv6Addr::from(rng.u128(..)), Ipv6Addr::from(rng.u128(..))].map(|ip| ip.octets());
    let written = match rng.u8(..6) {
        0 => ethernet
            .ipv4(v4[0], v4[1], 64)
            .tcp(a, b, 1, 2)
            .write(&mut frame, &payload),
        1 => ethernet
            .ipv4(v4[0], v4[1], 64)
            .udp(a, b)
            .write(&mut frame, &payload),
        2 => ethernet
            .ipv6(v6[0], v6[1], 64)
            .tcp(a, b, 1, 2)
            .write(&mut frame, &payload),
        3 => ethernet
            .ipv6(v6[0], v6[1], 64)
            .udp(a, b)
            .write(&mut frame, &payload),
        4 => ethernet
            .ipv4(v4[0], v4[1], 64)
            .icmpv4_echo_request(a, b)
            .write(&mut frame, &payload),
        _ => ethernet
            .ipv6(v6[0], v6[1], 64)
            .icmpv6_echo_request(a, b)
            .write(&mut frame, &payload),
    };
    written.unwrap();
    if frame[12..14] == [0x86, 0xdd] && rng.bool() {
        extend(rng, &mut frame);
    }
    frame
}

/// Puts some extension headers into an IPv6 packet.
fn extend(rng: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..rng.u8(1..4) {
        let next = IpNumber(frame[20]);
        let payload = bytes(rng, 6);
        let header = Ipv6RawExtHeader::new_raw(next, &payload).unwrap();
        let numbers = [0, 43, 44, 60];
        frame[20] = numbers[rng.usize(..numbers.len())];
        frame.splice(54..54, header.to_bytes());
        let len = u16::from_be_bytes([frame[18], frame[19]]) + 8;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        // No segment is left, and no other fragment is to come, half of the time.
        if rng.bool() {
            frame[56..58].copy_from_slice(&[0, 0]);
        }
    }
}

#[test]
fn frames_are_parsed_as_others_parse_them() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..inputs() {
        let mut frame = frames(&mut rng);
        for _ in 0..rng.u8(..4) {
            let at = rng.usize(..frame.len().min(80));
            match rng.u8(..4) {
                0 => frame[at] ^= 1 << rng.u8(..8),
                1 => frame[at] = rng.u8(..),
                2 => frame[at] = [0, 1, 4, 5, 6, 17, 41, 43, 44, 51, 58, 60, 0xff][rng.usize(..13)],
                _ => frame.truncate(at.max(1)),
            }
        }
        lb_fuzz::parse(&frame);
    }
}
