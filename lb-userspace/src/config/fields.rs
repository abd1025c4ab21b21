//! Settings as keys and values of the configuration file: what `export` writes and what a diff names.

use std::time::Duration;

use lb_common::service::Mode;
use toml::Value;

pub use super::guard::{GUARD, fields as guard};
use super::{duration, quic::DEFAULT_NONCE_LENGTH, service::DEFAULT_WEIGHT, values};
use crate::{
    events::rfc3339,
    health::settings::{
        BreakerSettings, CheckKind, CheckSettings, Damping, DnsCheck, ExecCheck, FurtherCheck, GrpcCheck,
        HttpCheck, PushCheck, TlsCheck, UdpCheck,
    },
    state::{
        backend::{Admin, Backend},
        desired::Settings,
        quic::QuicSettings,
        service::{RingSize, Service, ServiceKey},
        words::{self, Word},
    },
};

/// A key and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// The key; keys of a service's health table begin with [`HEALTH`], those of its guard table with [`GUARD`].
    pub key: &'static str,
    /// The value in TOML.
    pub value: String,
    /// Whether leaving it out means the same.
    pub is_default: bool,
}

/// Keys of one thing, in the order in which they are written.
pub type Fields = Vec<Field>;

/// What of secret keys is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// Their fingerprints: whatever people see.
    Hidden,
    /// They themselves: what only the daemon reads.
    Whole,
}

/// What keys of a health table begin with.
pub const HEALTH: &str = "health.";
/// Whether a kind that may do without TLS uses it.
const TLS: &str = "health.tls";

fn always(key: &'static str, value: impl Into<Value>) -> Field {
    Field {
        key,
        value: value.into().to_string(),
        is_default: false,
    }
}

pub(super) fn field<T: PartialEq>(
    key: &'static str,
    value: &T,
    default: &T,
    text: impl Fn(&T) -> Value,
) -> Field {
    Field {
        key,
        value: text(value).to_string(),
        is_default: value == default,
    }
}

fn word<W: Word>(value: W, default: W) -> Field {
    field(W::KEY, &value, &default, |value| Value::from(value.word()))
}

fn time(key: &'static str, value: Duration, default: Duration) -> Field {
    field(key, &value, &default, |value| Value::from(duration::text(*value)))
}

pub(super) fn number<N: PartialEq + Copy + Into<i64>>(key: &'static str, value: N, default: N) -> Field {
    field(key, &value, &default, |value| Value::from((*value).into()))
}

/// An optional value; left out where there is none.
fn optional<T>(key: &'static str, value: Option<&T>, text: impl Fn(&T) -> Value) -> Option<Field> {
    value.map(|value| always(key, text(value)))
}

pub(super) fn texts<T: ToString>(values: &[T]) -> Value {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().into()
}

/// The part of the `[lb]` table that can change while the daemon runs.
pub fn settings(settings: &Settings) -> Fields {
    let default = Settings::default();
    let Settings {
        snat_addresses,
        snat_ports,
        transition,
    } = settings;
    vec![
        field(
            "snat_addresses",
            snat_addresses,
            &default.snat_addresses,
            |list| texts(list),
        ),
        field("snat_ports", snat_ports, &default.snat_ports, |range| {
            Value::from(format!("{}-{}", range.start(), range.end()))
        }),
        time("transition", *transition, default.transition),
    ]
}

/// A service without its guard and health tables and its backends. The name is not among them.
pub fn service(service: &Service) -> Fields {
    let default = Service::new(service.name.clone(), service.key);
    let Service {
        name: _,
        key: ServiceKey {
            address,
            port,
            protocol,
        },
        mode,
        algorithm,
        affinity,
        tracking,
        ring_size,
        on_empty,
        on_down,
        max_removed_percent,
        slow_start,
        guard: _,
        health: _,
        quic: _,
        backends: _,
    } = service;
    vec![
        always("address", address.to_string()),
        always("port", i64::from(*port)),
        word(*protocol, crate::state::service::Protocol::Tcp),
        word(*mode, default.mode),
        word(*algorithm, default.algorithm),
        word(*affinity, default.affinity),
        word(*tracking, default.tracking),
        field("ring_size", ring_size, &default.ring_size, |size| match size {
            RingSize::Auto => Value::from("auto"),
            RingSize::Slots(slots) => Value::from(i64::from(*slots)),
        }),
        word(*on_empty, default.on_empty),
        word(*on_down, default.on_down),
        number(
            "max_removed_percent",
            *max_removed_percent,
            default.max_removed_percent,
        ),
        time("slow_start", *slow_start, default.slow_start),
    ]
}

/// A service's health table. All keys are at their default if the table can be left out.
pub fn health(settings: &CheckSettings) -> Fields {
    let default = CheckSettings::default();
    let CheckSettings {
        kind,
        also,
        require,
        interval,
        fast_interval,
        down_interval_max,
        timeout,
        rise,
        fall,
        jitter,
        damping,
        passive,
        breaker,
        through,
        port,
        source,
        mark,
    } = settings;
    let Damping { limit, window, hold } = damping;
    let BreakerSettings {
        failures,
        window: breaker_window,
        open,
    } = breaker;
    let mut fields = vec![
        time("health.interval", *interval, default.interval),
        time("health.fast_interval", *fast_interval, default.fast_interval),
        time(
            "health.down_interval_max",
            *down_interval_max,
            default.down_interval_max,
        ),
        time("health.timeout", *timeout, default.timeout),
        number("health.rise", *rise, default.rise),
        number("health.fall", *fall, default.fall),
        field("health.jitter", jitter, &default.jitter, |jitter| {
            Value::from(*jitter)
        }),
        number("health.flap_limit", *limit, default.damping.limit),
        time("health.flap_window", *window, default.damping.window),
        time("health.flap_hold", *hold, default.damping.hold),
        field("health.passive", passive, &default.passive, |passive| {
            Value::from(*passive)
        }),
        number("health.breaker_failures", *failures, default.breaker.failures),
        time("health.breaker_window", *breaker_window, default.breaker.window),
        time("health.breaker_open", *open, default.breaker.open),
        field("health.through", through, &default.through, |through| {
            Value::from(through.word())
        }),
    ];
    fields.extend(optional("health.port", port.as_ref(), |port| {
        Value::from(i64::from(*port))
    }));
    fields.extend(optional("health.source", source.as_ref(), |source| {
        Value::from(source.to_string())
    }));
    fields.extend(optional("health.mark", mark.as_ref(), |mark| {
        Value::from(i64::from(*mark))
    }));
    match kind {
        CheckKind::None | CheckKind::Tcp | CheckKind::Icmp => {}
        CheckKind::TcpHalfOpen => fields.push(always("health.half_open", true)),
        CheckKind::Dns(check) => fields.extend(dns(check)),
        CheckKind::Udp(UdpCheck {
            payload,
            expect_reply,
        }) => {
            fields.push(always("health.payload", payload.as_str()));
            fields.extend(optional("health.expect_reply", expect_reply.as_ref(), string));
        }
        CheckKind::Push(PushCheck { ttl }) => {
            fields.push(time("health.ttl", *ttl, PushCheck::default().ttl));
        }
        CheckKind::Exec(ExecCheck { command }) => fields.push(always("health.command", texts(command))),
        CheckKind::Tls(check) => fields.extend(tls(check)),
        CheckKind::Http(check) => fields.extend(http(check)),
        CheckKind::Http2(check) => {
            fields.extend(http(check));
            fields.extend(check.tls.as_ref().map(|_| always(TLS, true)));
        }
        CheckKind::Grpc(GrpcCheck {
            service,
            host,
            tls: session,
        }) => {
            fields.push(field("health.service", service, &String::new(), string));
            fields.extend(optional("health.host", host.as_ref(), string));
            fields.extend(session.iter().flat_map(tls));
            fields.extend(session.as_ref().map(|_| always(TLS, true)));
        }
    }
    if !also.is_empty() {
        fields.push(Field {
            key: "health.also",
            value: further(also),
            is_default: false,
        });
        fields.push(field("health.require", require, &default.require, |require| {
            Value::from(require.word())
        }));
    }
    let is_default = *kind == CheckKind::None && fields.iter().all(|field| field.is_default);
    let kind = Value::from(words::kind(kind)).to_string();
    fields.insert(
        0,
        Field {
            key: "health.kind",
            value: kind,
            is_default,
        },
    );
    fields
}

/// One of a service's QUIC tables.
pub fn quic(settings: &QuicSettings, keys: Keys) -> Fields {
    let QuicSettings {
        config_id,
        server_id_length,
        nonce_length,
        key,
    } = settings;
    let mut fields = vec![
        always("config_id", i64::from(*config_id)),
        always("server_id_length", i64::from(*server_id_length)),
        number("nonce_length", *nonce_length, DEFAULT_NONCE_LENGTH),
    ];
    fields.extend(optional("key", key.as_ref(), |key| {
        Value::from(match keys {
            Keys::Hidden => key.fingerprint().to_string(),
            Keys::Whole => key.reveal(),
        })
    }));
    fields
}

/// Further checks as inline tables.
fn further(checks: &[FurtherCheck]) -> String {
    let table = |check: &FurtherCheck| {
        let FurtherCheck { kind, port } = check;
        let alone = CheckSettings {
            kind: kind.clone(),
            port: *port,
            ..CheckSettings::default()
        };
        let fields = health(&alone).into_iter().filter(|field| !field.is_default);
        let pairs: Vec<String> = fields
            .map(|field| format!("{} = {}", field.key.trim_start_matches(HEALTH), field.value))
            .collect();
        format!("{{ {} }}", pairs.join(", "))
    };
    let tables: Vec<String> = checks.iter().map(table).collect();
    format!("[{}]", tables.join(", "))
}

fn http(check: &HttpCheck) -> Fields {
    let default = HttpCheck::default();
    let HttpCheck {
        method,
        path,
        host,
        headers,
        expect_status,
        expect_body,
        max_body,
        tls: session,
    } = check;
    let mut fields = vec![
        field("health.method", method, &default.method, string),
        field("health.path", path, &default.path, string),
    ];
    fields.extend(optional("health.host", host.as_ref(), string));
    let pairs = headers
        .iter()
        .map(|(name, value)| format!("{} = {}", Value::from(name.as_str()), Value::from(value.as_str())));
    let pairs: Vec<_> = pairs.collect();
    fields.push(Field {
        key: "health.headers",
        value: format!("{{ {} }}", pairs.join(", ")),
        is_default: headers.is_empty(),
    });
    fields.push(field(
        "health.expect_status",
        expect_status,
        &default.expect_status,
        |statuses| values::statuses(statuses),
    ));
    fields.extend(optional("health.expect_body", expect_body.as_ref(), string));
    fields.push(field("health.max_body", max_body, &default.max_body, |bytes| {
        Value::from(i64::try_from(*bytes).unwrap_or(i64::MAX))
    }));
    fields.extend(session.iter().flat_map(tls));
    fields
}

#[expect(
    clippy::ptr_arg,
    reason = "it converts fields, which are strings, by reference"
)]
fn string(text: &String) -> Value {
    Value::from(text.as_str())
}

fn dns(check: &DnsCheck) -> Fields {
    let DnsCheck {
        name,
        record,
        transport,
        expect_answer,
    } = check;
    let mut fields = vec![
        always("health.name", name.as_str()),
        always("health.record", record.word()),
        always("health.transport", transport.word()),
    ];
    fields.extend(optional("health.expect_answer", expect_answer.as_ref(), string));
    fields
}

fn tls(check: &TlsCheck) -> Fields {
    let default = TlsCheck::default();
    let TlsCheck {
        verify,
        server_name,
        ca_file,
        cert_file,
        key_file,
        alpn,
        warn_before,
    } = check;
    let mut fields = vec![field("health.verify", verify, &default.verify, |verify| {
        Value::from(*verify)
    })];
    for (key, text) in [
        ("health.server_name", server_name),
        ("health.ca_file", ca_file),
        ("health.cert_file", cert_file),
        ("health.key_file", key_file),
    ] {
        fields.extend(optional(key, text.as_ref(), |text| Value::from(text.as_str())));
    }
    if !alpn.is_empty() {
        fields.push(always("health.alpn", texts(alpn)));
    }
    fields.push(time("health.warn_before", *warn_before, default.warn_before));
    fields
}

/// A backend. The name is not among them.
pub fn backend(backend: &Backend) -> Fields {
    let Backend {
        name: _,
        address,
        weight,
        mode,
        server_ids,
        admin,
        drain_until,
    } = backend;
    let mut fields = vec![
        always("address", address.to_string()),
        number("weight", *weight, DEFAULT_WEIGHT),
    ];
    fields.extend(optional(Mode::KEY, mode.as_ref(), |mode| {
        Value::from(mode.word())
    }));
    fields.push(field("server_ids", server_ids, &Vec::new(), |ids| texts(ids)));
    fields.push(word(*admin, Admin::Enabled));
    fields.extend(optional("drain_until", drain_until.as_ref(), |until| {
        Value::from(rfc3339(*until))
    }));
    fields
}
