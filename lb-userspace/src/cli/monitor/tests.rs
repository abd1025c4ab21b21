//! How packets are shown.

use super::*;

fn packet() -> Packet {
    Packet {
        at: "2026-11-30T10:00:00.123456Z".into(),
        interface: "eth0".into(),
        verdict: "tx".into(),
        reason: "forwarded_tx".into(),
        direction: Some("request".into()),
        protocol: Some("tcp".into()),
        client: Some("198.51.100.7:40000".into()),
        destination: Some("192.0.2.10:80".into()),
        service: Some("web".into()),
        backend: Some("web-1".into()),
        backend_address: Some("10.0.0.11:8080".into()),
        bytes: 74,
        sent_bytes: 74,
        before: Some("0102".into()),
        after: Some("0103".into()),
    }
}

#[test]
fn a_line_shows_the_way_of_a_packet_and_why() {
    let reply = Packet {
        direction: Some("reply".into()),
        ..packet()
    };
    let dropped = Packet {
        verdict: "drop".into(),
        reason: "no_backend".into(),
        backend: None,
        ..packet()
    };
    let other = Packet {
        verdict: "pass".into(),
        reason: "not_ip".into(),
        direction: None,
        protocol: None,
        client: None,
        destination: None,
        service: None,
        backend: None,
        ..packet()
    };
    let cases = [
        (
            packet(),
            "eth0 request  tcp 198.51.100.7:40000 -> 192.0.2.10:80 (web) -> web-1  forwarded_tx, 74 bytes\n",
        ),
        (
            reply,
            "eth0 reply    tcp 198.51.100.7:40000 <- 192.0.2.10:80 (web) <- web-1  forwarded_tx, 74 bytes\n",
        ),
        (
            dropped,
            "eth0 drop     tcp 198.51.100.7:40000 -> 192.0.2.10:80 (web)  no_backend, 74 bytes\n",
        ),
        (other, "eth0 pass     no IP packet  not_ip, 74 bytes\n"),
    ];
    for (packet, line) in cases {
        let shown = text(&packet);
        // The time is that of this machine's zone.
        let (time, rest) = shown.split_once(' ').unwrap();
        assert_eq!(rest, line);
        assert!(time.ends_with(".123") && time.len() == 12, "{time}");
    }
}

#[test]
fn a_packet_that_did_not_change_is_in_the_file_once() {
    let blocks_of = |packet: &Packet| {
        let mut file = Pcapng::default();
        // The begin of the file, and of the interface, once.
        blocks(&mut file, packet).unwrap();
        let bytes = blocks(&mut file, packet).unwrap();
        let (mut count, mut rest) = (0, &bytes[..]);
        while !rest.is_empty() {
            count += 1;
            rest = &rest[u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize..];
        }
        count
    };
    let passed = Packet {
        verdict: "pass".into(),
        reason: "not_ours".into(),
        after: Some("010203".into()),
        ..packet()
    };
    let changed = Packet {
        after: Some("0103".into()),
        ..passed.clone()
    };
    assert_eq!(blocks_of(&packet()), 2);
    assert_eq!(blocks_of(&passed), 1);
    assert_eq!(blocks_of(&changed), 2);
}

#[test]
fn a_sample_is_one_of_a_number() {
    for (text, number) in [
        ("1/100", Some(100)),
        ("7", Some(7)),
        ("0", None),
        ("1/0", None),
        ("2/3", None),
    ] {
        assert_eq!(sample(text).ok(), number, "{text}");
    }
}
