//! Desired states for tests.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use lb_common::service::Mode;
use proptest::prelude::*;

use super::{
    backend::{Admin, Backend},
    desired::{Desired, Revision, Settings},
    guard::{Guard, Prefix, Rate},
    quic::{QuicKey, QuicSettings},
    service::{
        Affinity, Algorithm, IdleSettings, OnDown, OnEmpty, Protocol, RingSize, Service, ServiceKey, Tracking,
    },
    words::Word,
};
use crate::health::{
    CheckId,
    agent::AgentSettings,
    settings::{
        BreakerSettings, Bytes, CheckKind, CheckSettings, Damping, DialogueStep, DnsCheck, ExecCheck,
        Expected, FurtherCheck, GrpcCheck, HttpCheck, ProxyVersion, PushCheck, RecordType, Require,
        TcpDialogue, Through, TlsCheck, Transport, UdpCheck,
    },
};

pub(crate) fn id(service: &str, backend: &str) -> CheckId {
    CheckId(service.parse().unwrap(), backend.parse().unwrap())
}

/// A backend at 10.0.`service`.`number`:8080.
pub(crate) fn backend(service: u8, number: u8, name: &str, weight: u16) -> Backend {
    Backend {
        name: name.parse().unwrap(),
        address: (IpAddr::from([10, 0, service, number]), 8080).into(),
        weight,
        mode: None,
        server_ids: Vec::new(),
        agent_port: None,
        backup: false,
        admin: Admin::Enabled,
        drain_until: None,
    }
}

/// A service on TCP port 80 of 192.0.2.`number` with everything else at its default.
pub(crate) fn service(name: &str, number: u8, backends: &[(&str, u16)]) -> Service {
    let backends = (1..)
        .zip(backends)
        .map(|(n, (name, weight))| backend(number, n, name, *weight))
        .collect();
    let key = ServiceKey {
        address: IpAddr::from([192, 0, 2, number]),
        port: 80,
        protocol: Protocol::Tcp,
    };
    Service {
        backends,
        ..Service::new(name.parse().unwrap(), key)
    }
}

pub(crate) fn desired(services: impl IntoIterator<Item = Service>) -> Desired {
    Desired {
        services: services
            .into_iter()
            .map(|service| (service.name.clone(), service.into()))
            .collect(),
        ..Desired::default()
    }
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
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
        prop::option::of("[a-z.]{1,12}"),
        proptest::collection::btree_map("X-[A-Z]{1,4}", "[ -~]{0,10}", 0..3),
        proptest::collection::btree_set(200..600_u16, 1..4),
        text(),
        1..1_048_576_usize,
    )
        .prop_map(
            |(method, path, host, headers, expect_status, expect_body, max_body)| HttpCheck {
                method: method.to_owned(),
                path,
                host,
                headers: headers.into_iter().collect(),
                expect_status: expect_status.into_iter().collect(),
                expect_body: expect_body.map(regex::escape),
                max_body,
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

/// TLS for kinds that can do without.
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

fn health() -> impl Strategy<Value = CheckSettings> {
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
            prop::option::of("[a-z.]{1,12}"),
            secure()
        )
            .prop_map(|(service, host, tls)| {
                CheckKind::Grpc(GrpcCheck {
                    service: service.unwrap_or_default(),
                    host,
                    tls,
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
                let told = matches!(kind, CheckKind::Push(_));
                if told || !checked {
                    also.clear();
                }
                CheckSettings {
                    port: port.filter(|_| kind != CheckKind::Icmp && !told),
                    send_proxy: mark.and_then(|mark| send_proxy(&kind, mark)),
                    kind,
                    interval,
                    fast_interval,
                    down_interval_max,
                    timeout: if told { default.timeout } else { fast_interval },
                    rise: if told { default.rise } else { rise },
                    fall: if told { default.fall } else { fall },
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

fn guard() -> impl Strategy<Value = Guard> {
    let prefixes = || {
        proptest::collection::btree_set(1..200_u8, 0..3).prop_map(|numbers| {
            let texts = numbers.into_iter().map(|n| format!("{n}.0.0.0/{}", 8 + n % 25));
            texts.map(|text| text.parse().unwrap()).collect::<Vec<Prefix>>()
        })
    };
    let rate = || {
        let numbers = (1..=10_000_000_u32, 0..=10_000_000_u32);
        prop_oneof![
            Just(Rate::default()),
            numbers.prop_map(|(per_second, burst)| Rate { per_second, burst })
        ]
    };
    (prefixes(), prefixes(), rate(), rate(), 0..=32_u8).prop_map(
        |(allow, deny, new_flows, source_new_flows, bits)| Guard {
            allow,
            deny,
            new_flows,
            source_new_flows,
            source_bits: if source_new_flows.per_second == 0 { 0 } else { bits },
        },
    )
}

fn backends(number: u8) -> impl Strategy<Value = Vec<Backend>> {
    let admin = prop::sample::select(vec![Admin::Enabled, Admin::Draining, Admin::Disabled]);
    let weight = prop_oneof![Just(0), Just(1), Just(100), any::<u16>()];
    let one = (weight, prop::option::of(Just(Mode::Nat)), admin);
    proptest::collection::btree_map(1..20_u8, one, 0..5).prop_map(move |backends| {
        let build = |(n, (weight, mode, admin)): (u8, _)| Backend {
            mode,
            admin,
            backup: n % 3 == 0,
            drain_until: (admin == Admin::Draining && n % 2 == 0)
                .then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_000_000_000 + u64::from(n))),
            ..backend(number, n, &format!("b{n}"), weight)
        };
        backends.into_iter().map(build).collect()
    })
}

/// Tables whose keys are all of different fingerprints.
fn quic() -> impl Strategy<Value = Vec<QuicSettings>> {
    let one = (1..=15_u8, prop::option::of(any::<[u8; 16]>()));
    proptest::collection::btree_map(0..=6_u8, one, 0..3).prop_map(|tables| {
        let build = |(config_id, (server_id_length, key)): (u8, (u8, Option<[u8; 16]>))| QuicSettings {
            config_id,
            server_id_length,
            nonce_length: 4,
            key: key.map(QuicKey),
        };
        tables.into_iter().map(build).collect()
    })
}

/// Gives a service of UDP these tables, and its backends ids of their lengths.
fn with_quic(mut service: Service, quic: Vec<QuicSettings>) -> Service {
    if service.key.protocol != Protocol::Udp {
        return service;
    }
    let lengths: BTreeSet<u8> = quic.iter().map(|table| table.server_id_length).collect();
    for (backend, number) in service.backends.iter_mut().zip(0_u8..) {
        let id = |length: &u8| format!("{number:02x}").repeat((*length).into());
        backend.server_ids = lengths.iter().map(|length| id(length).parse().unwrap()).collect();
    }
    Service { quic, ..service }
}

fn agent() -> impl Strategy<Value = Option<AgentSettings>> {
    let one = (any::<bool>(), 1..=u16::MAX, "[ -~\n]{0,9}", millis(1..90_000));
    let settings = one.prop_map(|(enabled, port, send, interval)| AgentSettings {
        enabled,
        port: Some(port),
        send,
        interval,
        timeout: interval,
    });
    prop::option::of(settings)
}

/// Gives a service agents, and some of its backends ports for theirs.
fn with_agent(mut service: Service, agent: Option<AgentSettings>) -> Service {
    if let Some(settings) = &agent {
        for (backend, number) in service.backends.iter_mut().zip(0_u16..) {
            backend.agent_port = settings.port.filter(|_| number % 2 == 1).map(|port| port - 1);
        }
    }
    Service { agent, ..service }
}

/// Valid services, with every key at times away from its default.
fn any_service(number: u8) -> impl Strategy<Value = Service> {
    let policies = (
        prop::sample::select(vec![Tracking::JustEnough, Tracking::Full]),
        prop::sample::select(vec![RingSize::Auto, RingSize::Slots(1_021)]),
        prop::sample::select(vec![OnEmpty::Drop, OnEmpty::Reject, OnEmpty::All]),
        (
            prop::sample::select(vec![OnDown::Move, OnDown::Keep]),
            millis(0..10_000),
        ),
        0..=100_u8,
        1..4_u32,
        prop_oneof![Just(Duration::ZERO), millis(1..600_000)],
        prop::option::of((1..86_400_u64).prop_map(Duration::from_secs)),
        guard(),
    );
    let key = (
        prop::sample::select(vec![0, 80, 65_535]),
        prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]),
    );
    (key, policies, health(), backends(number), quic(), agent()).prop_map(
        move |((port, protocol), policies, health, backends, quic, agent)| {
            let (
                tracking,
                ring_size,
                on_empty,
                (on_down, on_down_after),
                max_removed_percent,
                backup_below,
                slow_start,
                idle,
                guard,
            ) = policies;
            let service = service(&format!("s-{number}"), number, &[]);
            let service = Service {
                key: ServiceKey {
                    port,
                    protocol,
                    ..service.key
                },
                mode: Mode::Nat,
                algorithm: Algorithm::Maglev,
                affinity: Affinity::None,
                slow_start,
                tracking,
                ring_size,
                on_empty,
                on_down,
                on_down_after,
                max_removed_percent,
                backup_below,
                idle: IdleSettings {
                    established: idle,
                    half_open: idle.filter(|idle| idle.as_secs() % 2 == 0),
                    closed: idle.filter(|idle| idle.as_secs() % 3 == 0 && protocol == Protocol::Tcp),
                },
                guard,
                health,
                backends,
                ..service
            };
            with_agent(with_quic(service, quic), agent)
        },
    )
}

/// Valid desired states.
pub(crate) fn any_desired() -> impl Strategy<Value = Desired> {
    let services = proptest::collection::btree_set(1..10_u8, 0..4)
        .prop_flat_map(|numbers| numbers.into_iter().map(any_service).collect::<Vec<_>>());
    let snat = proptest::collection::btree_set(1..250_u8, 0..3);
    (
        services,
        snat,
        1..30_000_u16,
        0..30_000_u16,
        millis(1_000..86_400_000),
        any::<u32>(),
    )
        .prop_map(|(services, snat, first, more, transition, revision)| Desired {
            revision: Revision(u64::from(revision)),
            settings: Settings {
                snat_addresses: snat
                    .into_iter()
                    .map(|n| IpAddr::from([198, 51, 100, n]))
                    .collect(),
                snat_ports: first..=first + more,
                tunnel_sources: vec![Prefix::around([198, 51, 101, 0].into(), 24)],
                gue_port: first,
                transition,
            },
            ..desired(services)
        })
}
