//! Settings of checks, where each key may differ from its default.

use std::{net::IpAddr, time::Duration};

use proptest::prelude::*;

use crate::{
    health::settings::{
        BreakerSettings, Bytes, CheckKind, CheckSettings, Damping, DialogueStep, DnsCheck, ExecCheck,
        Expected, FurtherCheck, GrpcCheck, HttpCheck, ProxyVersion, PushCheck, RecordType, Require,
        TcpDialogue, Through, TlsCheck, Transport, UdpCheck,
    },
    state::words::Word,
};

pub(super) fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn http() -> impl Strategy<Value = HttpCheck> {
    let text = || {
        prop::option::of(prop::sample::select(vec![
            "example.org",
            "a\\b",
            "\"q\"",
            "\u{1f980}+",
        ]))
    };
    (
        prop::sample::select(vec!["GET", "HEAD"]),
        "/[a-z?=&%]{0,10}",
        prop::option::of("[a-z]{1,6}(\\.[a-z]{1,6}){0,2}"),
        proptest::collection::btree_map("X-[A-Z]{1,4}", "[ -~]{0,10}", 0..3),
        proptest::collection::btree_set(200..600_u16, 1..4),
        text(),
        1..1_048_576_usize,
        any::<bool>(),
    )
        .prop_map(
            |(method, path, host, headers, expect_status, expect_body, max_body, keep_alive)| HttpCheck {
                method: method.to_owned(),
                path,
                host,
                headers: headers.into_iter().collect(),
                expect_status: expect_status.into_iter().collect(),
                expect_body: expect_body.map(regex::escape),
                max_body,
                keep_alive,
                tls: None,
            },
        )
}

fn tls() -> impl Strategy<Value = TlsCheck> {
    let file = || prop::option::of("/[a-z]{1,5}");
    (
        any::<bool>(),
        prop::option::of("[a-z]{1,9}\\.example"),
        file(),
        file(),
        proptest::collection::vec("[a-z0-9]{1,5}", 0..3),
        millis(0..2_000_000_000),
    )
        .prop_map(
            |(verify, server_name, ca_file, cert_file, alpn, warn_before)| TlsCheck {
                verify,
                server_name,
                ca_file,
                key_file: cert_file.clone(),
                cert_file,
                alpn,
                warn_before,
            },
        )
}

/// TLS for kinds where it is optional.
fn secure() -> impl Strategy<Value = Option<TlsCheck>> {
    let tls = tls().prop_map(|tls| TlsCheck {
        alpn: Vec::new(),
        ..tls
    });
    prop::option::of(tls)
}

fn others() -> impl Strategy<Value = CheckKind> {
    let text = || prop::option::of("[a-z0-9]{1,9}");
    let record = prop::sample::select(
        RecordType::WORDS
            .iter()
            .map(|(record, _)| *record)
            .collect::<Vec<_>>(),
    );
    let transport = prop::sample::select(vec![Transport::Udp, Transport::Tcp]);
    prop_oneof![
        ("[a-z]{1,9}\\.example", record, transport, text()).prop_map(
            |(name, record, transport, expect_answer)| {
                CheckKind::Dns(DnsCheck {
                    name,
                    record,
                    transport,
                    expect_answer,
                })
            }
        ),
        ("[ -~]{0,9}", text()).prop_map(|(payload, expect_reply)| CheckKind::Udp(UdpCheck {
            payload,
            expect_reply
        })),
        proptest::collection::vec("/[ -~]{1,9}", 1..4)
            .prop_map(|command| CheckKind::Exec(ExecCheck { command })),
        millis(1..90_000).prop_map(|ttl| CheckKind::Push(PushCheck { ttl })),
    ]
}

fn further() -> impl Strategy<Value = FurtherCheck> {
    let kind = prop_oneof![
        Just(CheckKind::TcpHalfOpen),
        Just(CheckKind::Icmp),
        tls().prop_map(CheckKind::Tls),
        http().prop_map(CheckKind::Http),
    ];
    (kind, prop::option::of(1..=u16::MAX)).prop_map(|(kind, port)| FurtherCheck {
        port: port.filter(|_| kind != CheckKind::Icmp),
        send_proxy: port.and_then(|port| send_proxy(&kind, port.into())),
        kind,
    })
}

/// A PROXY header for kinds that may have one.
fn send_proxy(kind: &CheckKind, seed: u32) -> Option<ProxyVersion> {
    let versions = [None, Some(ProxyVersion::V1), Some(ProxyVersion::V2)];
    match kind {
        CheckKind::Tcp
        | CheckKind::Dialogue(_)
        | CheckKind::Tls(_)
        | CheckKind::Http(_)
        | CheckKind::Http2(_)
        | CheckKind::Grpc(_) => versions[seed as usize % versions.len()],
        CheckKind::None
        | CheckKind::TcpHalfOpen
        | CheckKind::Dns(_)
        | CheckKind::Udp(_)
        | CheckKind::Icmp
        | CheckKind::Push(_)
        | CheckKind::Exec(_) => None,
    }
}

fn dialogue() -> impl Strategy<Value = CheckKind> {
    let bytes = || {
        prop_oneof![
            "[ -~\r\n]{1,9}".prop_map(Bytes::Text),
            proptest::collection::vec(any::<u8>(), 1..9).prop_map(Bytes::Hex),
        ]
    };
    let expect = prop_oneof![
        bytes().prop_map(Expected::Bytes),
        "[ -~]{0,9}".prop_map(|text| Expected::Regex(regex::escape(&text))),
    ];
    let step = prop_oneof![
        (prop::option::of(bytes()), expect).prop_map(|(send, expect)| DialogueStep {
            send,
            expect: Some(expect)
        }),
        bytes().prop_map(|send| DialogueStep {
            send: Some(send),
            expect: None
        }),
    ];
    proptest::collection::vec(step, 1..4).prop_map(|steps| CheckKind::Dialogue(TcpDialogue { steps }))
}

pub(super) fn health() -> impl Strategy<Value = CheckSettings> {
    let kind = prop_oneof![
        Just(CheckKind::None),
        Just(CheckKind::Tcp),
        Just(CheckKind::TcpHalfOpen),
        Just(CheckKind::Icmp),
        dialogue(),
        tls().prop_map(CheckKind::Tls),
        http().prop_map(CheckKind::Http),
        others(),
        (http(), secure()).prop_map(|(http, tls)| CheckKind::Http2(HttpCheck { tls, ..http })),
        (
            prop::option::of("[a-z]{1,5}\\.[A-Z][a-z]{1,5}"),
            prop::option::of("[a-z]{1,6}(\\.[a-z]{1,6}){0,2}"),
            secure()
        )
            .prop_map(|(service, host, tls)| {
                CheckKind::Grpc(GrpcCheck {
                    service: service.unwrap_or_default(),
                    host,
                    tls,
                    ..GrpcCheck::default()
                })
            }),
        (http(), tls()).prop_map(|(http, tls)| {
            CheckKind::Http(HttpCheck {
                tls: Some(TlsCheck {
                    alpn: Vec::new(),
                    ..tls
                }),
                ..http
            })
        }),
    ];
    (
        kind,
        millis(500..5_000),
        millis(10..501),
        millis(5_000..90_000_000 / 1_000),
        1..9_u32,
        1..9_u32,
        0..=100_u8,
        prop::option::of(1..=u16::MAX),
        prop::option::of(any::<u32>()),
        proptest::collection::vec(further(), 0..3),
    )
        .prop_map(
            |(kind, interval, fast_interval, down_interval_max, rise, fall, jitter, port, mark, mut also)| {
                let checked = kind.is_check();
                let default = CheckSettings::default();
                let push = matches!(kind, CheckKind::Push(_));
                if push || !checked {
                    also.clear();
                }
                CheckSettings {
                    port: port.filter(|_| kind != CheckKind::Icmp && !push),
                    send_proxy: mark.and_then(|mark| send_proxy(&kind, mark)),
                    kind,
                    interval,
                    fast_interval,
                    down_interval_max,
                    timeout: if push { default.timeout } else { fast_interval },
                    rise: if push { default.rise } else { rise },
                    fall: if push { default.fall } else { fall },
                    jitter: f64::from(jitter) / 100.0,
                    damping: Damping {
                        limit: u32::from(jitter),
                        hold: interval,
                        ..Damping::default()
                    },
                    passive: jitter % 2 == 0 || jitter > 50,
                    breaker: BreakerSettings {
                        failures: if checked && jitter > 50 { rise } else { 0 },
                        open: interval,
                        ..BreakerSettings::default()
                    },
                    through: Through::Backend,
                    require: if jitter > 50 && !also.is_empty() {
                        Require::Any
                    } else {
                        Require::All
                    },
                    also,
                    source: mark.map(|_| IpAddr::from([127, 0, 0, 1])),
                    mark,
                }
            },
        )
}
