//! Health tables as keys and values.

use toml::Value;

use super::{Field, Fields, HEALTH, always, field, number, optional, texts, time};
use crate::{
    config::values,
    health::settings::{
        BreakerSettings, Bytes, CheckKind, CheckSettings, Damping, DialogueStep, DnsCheck, ExecCheck,
        Expected, FurtherCheck, GrpcCheck, HttpCheck, PushCheck, TcpDialogue, TlsCheck, UdpCheck,
    },
    state::words::{self, Word},
};

/// Whether a kind with optional TLS uses it.
const TLS: &str = "health.tls";

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
        send_proxy,
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
    fields.extend(optional("health.send_proxy", send_proxy.as_ref(), |version| {
        Value::from(version.word())
    }));
    fields.extend(optional("health.source", source.as_ref(), |source| {
        Value::from(source.to_string())
    }));
    fields.extend(optional("health.mark", mark.as_ref(), |mark| {
        Value::from(i64::from(*mark))
    }));
    match kind {
        CheckKind::None | CheckKind::Tcp | CheckKind::Icmp => {}
        CheckKind::Dialogue(TcpDialogue { steps }) => fields.extend(dialogue(steps)),
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
            keep_alive,
            tls: session,
        }) => {
            fields.push(field("health.service", service, &String::new(), string));
            fields.extend(optional("health.host", host.as_ref(), string));
            fields.push(kept(*keep_alive));
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

/// Further checks as inline tables.
fn further(checks: &[FurtherCheck]) -> String {
    let table = |check: &FurtherCheck| {
        let FurtherCheck {
            kind,
            port,
            send_proxy,
        } = check;
        let alone = CheckSettings {
            kind: kind.clone(),
            port: *port,
            send_proxy: *send_proxy,
            ..CheckSettings::default()
        };
        let fields = health(&alone).into_iter().filter(|field| !field.is_default);
        inline(fields)
    };
    let tables: Vec<String> = checks.iter().map(table).collect();
    format!("[{}]", tables.join(", "))
}

/// Fields as an inline table.
fn inline(fields: impl Iterator<Item = Field>) -> String {
    let pairs: Vec<String> = fields
        .map(|field| format!("{} = {}", field.key.trim_start_matches(HEALTH), field.value))
        .collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// A dialogue of one step as keys of the table, a longer one as inline tables.
fn dialogue(steps: &[DialogueStep]) -> Fields {
    if let [step] = steps {
        return dialogue_step(step);
    }
    let tables: Vec<String> = steps
        .iter()
        .map(|step| inline(dialogue_step(step).into_iter()))
        .collect();
    vec![Field {
        key: "health.steps",
        value: format!("[{}]", tables.join(", ")),
        is_default: false,
    }]
}

fn dialogue_step(DialogueStep { send, expect }: &DialogueStep) -> Fields {
    let bytes = |bytes: &Bytes, text, hex| match bytes {
        Bytes::Text(value) => always(text, value.as_str()),
        Bytes::Hex(value) => always(
            hex,
            value.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        ),
    };
    let send = send
        .iter()
        .map(|send| bytes(send, "health.send", "health.send_hex"));
    let expect = expect.iter().map(|expect| match expect {
        Expected::Bytes(value) => bytes(value, "health.expect", "health.expect_hex"),
        Expected::Regex(pattern) => always("health.expect_regex", pattern.as_str()),
    });
    send.chain(expect).collect()
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
        keep_alive,
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
        |statuses| values::status_list(statuses),
    ));
    fields.extend(optional("health.expect_body", expect_body.as_ref(), string));
    fields.push(field("health.max_body", max_body, &default.max_body, |bytes| {
        Value::from(i64::try_from(*bytes).unwrap_or(i64::MAX))
    }));
    fields.push(kept(*keep_alive));
    fields.extend(session.iter().flat_map(tls));
    fields
}

/// Whether connections are kept between checks; the default.
fn kept(keep_alive: bool) -> Field {
    field("health.keep_alive", &keep_alive, &true, |keep| Value::from(*keep))
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
