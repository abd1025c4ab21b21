//! `[service.health]` tables.

use std::collections::BTreeSet;

use super::{
    dialogue,
    error::Reporter,
    keys::{self, MAY_HAVE_TLS, TLS},
    table::{Spans, Table},
    values::{self, ValueError},
};
use crate::{
    health::settings::{
        BreakerSettings, CheckKind, CheckSettings, Damping, DnsCheck, ExecCheck, FurtherCheck, GrpcCheck,
        HttpCheck, PushCheck, TcpDialogue, TlsCheck, UdpCheck,
    },
    state::words,
};

/// All kinds of checks of the file, also kinds that this version does not have.
pub const KINDS: [&str; 12] = [
    "none", "tcp", "http", "https", "tls", "http2", "grpc", "dns", "udp", "icmp", "push", "exec",
];

const HALF_OPEN: &str = "half_open";
const SEND_PROXY: &str = "send_proxy";

/// The check of a kind's word, with its own settings at their defaults.
///
/// # Errors
/// No such kind, or none that this version has.
pub fn kind(text: &str) -> Result<CheckKind, ValueError> {
    match text {
        "none" => Ok(CheckKind::None),
        "tcp" => Ok(CheckKind::Tcp),
        "dns" => Ok(CheckKind::Dns(DnsCheck::default())),
        "icmp" => Ok(CheckKind::Icmp),
        "udp" => Ok(CheckKind::Udp(UdpCheck::default())),
        "push" => Ok(CheckKind::Push(PushCheck::default())),
        "exec" => Ok(CheckKind::Exec(ExecCheck::default())),
        "tls" => Ok(CheckKind::Tls(TlsCheck::default())),
        "http" => Ok(CheckKind::Http(HttpCheck::default())),
        "https" => Ok(CheckKind::Http(HttpCheck {
            tls: Some(TlsCheck::default()),
            ..HttpCheck::default()
        })),
        "http2" => Ok(CheckKind::Http2(HttpCheck::default())),
        "grpc" => Ok(CheckKind::Grpc(GrpcCheck::default())),
        _ => Err(values::unknown_word("kind", text, KINDS.into_iter())),
    }
}

/// Keys of a health table that mean nothing beside `key` with this value, so that a change which sets it removes them.
pub fn excluded_by(key: &str, value: &toml::Value) -> Vec<&'static str> {
    let mut excluded = dialogue::excluded_by(key);
    if !excluded.is_empty() || key == SEND_PROXY {
        excluded.push(HALF_OPEN);
    }
    match value.as_bool() {
        Some(true) if key == HALF_OPEN => excluded.extend(without_half_open()),
        Some(false) if key == "tls" => excluded.extend(keys_of_tls()),
        Some(_) | None => {}
    }
    excluded
}

/// Keys that need a whole connection.
fn without_half_open() -> impl Iterator<Item = &'static str> {
    dialogue::KEYS.into_iter().chain([SEND_PROXY])
}

/// Keys that need TLS.
fn keys_of_tls() -> impl Iterator<Item = &'static str> {
    let keys = keys::HEALTH.keys.iter().filter(|key| key.kinds == TLS);
    keys.map(|key| key.name)
}

/// Reads the table; a wrong key keeps its default.
pub(super) fn read(reporter: &mut Reporter<'_>, mut table: Table<'_>) -> CheckSettings {
    table.require(reporter, "kind", "\"tcp\"");
    let spans = table.spans();
    let default = CheckSettings::default();
    let kind = table.text(reporter, "kind", kind);
    let settings = CheckSettings {
        kind: CheckKind::None,
        interval: table.duration(reporter, "interval").unwrap_or(default.interval),
        fast_interval: table
            .duration(reporter, "fast_interval")
            .unwrap_or(default.fast_interval),
        down_interval_max: table
            .duration(reporter, "down_interval_max")
            .unwrap_or(default.down_interval_max),
        timeout: table.duration(reporter, "timeout").unwrap_or(default.timeout),
        rise: table
            .number(reporter, "rise", values::count)
            .unwrap_or(default.rise),
        fall: table
            .number(reporter, "fall", values::count)
            .unwrap_or(default.fall),
        jitter: table
            .real(reporter, "jitter", values::share)
            .unwrap_or(default.jitter),
        damping: damping(reporter, &mut table),
        passive: table.boolean(reporter, "passive").unwrap_or(default.passive),
        breaker: breaker(reporter, &mut table),
        through: table
            .text(reporter, "through", values::word)
            .unwrap_or(default.through),
        port: table.number(reporter, "port", values::port),
        send_proxy: table.text(reporter, SEND_PROXY, values::word),
        source: table.text(reporter, "source", values::address),
        mark: table.number(reporter, "mark", values::count),
        also: also(reporter, &mut table),
        require: table
            .text(reporter, "require", values::word)
            .unwrap_or(default.require),
    };
    CheckSettings {
        kind: of_kind(reporter, table, &spans, kind),
        ..settings
    }
}

/// The checks that are made together with the main one.
fn also(reporter: &mut Reporter<'_>, table: &mut Table<'_>) -> Vec<FurtherCheck> {
    let tables = table.tables(reporter, "also", &keys::ALSO);
    let read = |(table, span)| {
        let mut table = Table::new(table, span, &keys::ALSO);
        table.require(reporter, "kind", "\"tcp\"");
        let spans = table.spans();
        let kind = table.text(reporter, "kind", kind);
        FurtherCheck {
            port: table.number(reporter, "port", values::port),
            send_proxy: table.text(reporter, SEND_PROXY, values::word),
            kind: of_kind(reporter, table, &spans, kind),
        }
    };
    tables.into_iter().map(read).collect()
}

/// Reads the keys that kinds have of their own, the last ones of a table.
fn of_kind(
    reporter: &mut Reporter<'_>,
    mut table: Table<'_>,
    spans: &Spans,
    kind: Option<CheckKind>,
) -> CheckKind {
    let half_open = table.boolean(reporter, HALF_OPEN).unwrap_or(false);
    let steps = dialogue::read(reporter, &mut table, spans);
    let (dns, udp, exec) = (
        dns(reporter, &mut table),
        udp(reporter, &mut table),
        exec(reporter, &mut table),
    );
    let secure = table.boolean(reporter, "tls").unwrap_or(false);
    let tls = tls(reporter, &mut table);
    let service = table.text(reporter, "service", owned);
    let http = http(reporter, &mut table);
    let push = PushCheck {
        ttl: table
            .duration(reporter, "ttl")
            .unwrap_or(PushCheck::default().ttl),
    };
    table.finish(reporter);
    // The error of a missing or wrong kind is reported already; its keys may well be right.
    if let Some(kind) = &kind {
        refuse_foreign_keys(reporter, spans, kind);
        if !secure && MAY_HAVE_TLS.contains(&words::kind(kind)) {
            refuse_keys_of_tls(reporter, spans);
        }
    }
    match kind {
        Some(CheckKind::Dns(_)) => CheckKind::Dns(dns),
        Some(CheckKind::Udp(_)) => CheckKind::Udp(udp),
        Some(CheckKind::Push(_)) => CheckKind::Push(push),
        Some(CheckKind::Exec(_)) => CheckKind::Exec(exec),
        Some(CheckKind::Tls(_)) => CheckKind::Tls(tls),
        Some(CheckKind::Http(kind)) => CheckKind::Http(HttpCheck {
            tls: kind.tls.map(|_| tls),
            ..http
        }),
        Some(CheckKind::Http2(_)) => CheckKind::Http2(HttpCheck {
            tls: secure.then_some(tls),
            ..http
        }),
        Some(CheckKind::Grpc(_)) => CheckKind::Grpc(GrpcCheck {
            service: service.unwrap_or_default(),
            host: http.host,
            keep_alive: http.keep_alive,
            tls: secure.then_some(tls),
        }),
        Some(CheckKind::Tcp) if half_open => {
            refuse_beside_half_open(reporter, spans);
            CheckKind::TcpHalfOpen
        }
        Some(CheckKind::Tcp) if !steps.is_empty() => CheckKind::Dialogue(TcpDialogue { steps }),
        Some(other) => other,
        None => CheckKind::None,
    }
}

/// Reports keys that only checks of other kinds have.
fn refuse_foreign_keys(reporter: &mut Reporter<'_>, spans: &Spans, kind: &CheckKind) {
    let word = words::kind(kind);
    for key in keys::HEALTH.keys.iter().filter(|key| !key.kinds.is_empty()) {
        let keys::Key { name, kinds, .. } = key;
        if spans.has(name) && !kinds.contains(&word) {
            let kinds: Vec<_> = kinds.iter().map(|kind| format!("\"{kind}\"")).collect();
            reporter.error(
                spans.of(name),
                format!("{name} means nothing to a check of kind {word}"),
                Some(format!("remove it, or set kind = {}", kinds.join(" or "))),
            );
        }
    }
}

/// Reports keys that need a whole connection.
fn refuse_beside_half_open(reporter: &mut Reporter<'_>, spans: &Spans) {
    for key in without_half_open().filter(|key| spans.has(key)) {
        reporter.error(
            spans.of(key),
            format!("{key} means nothing with half_open = true: the server sees no connection"),
            Some("remove one of them".to_owned()),
        );
    }
}

/// Reports keys that mean nothing to a kind that could use TLS and does not.
fn refuse_keys_of_tls(reporter: &mut Reporter<'_>, spans: &Spans) {
    for key in keys_of_tls().filter(|key| spans.has(key)) {
        reporter.error(
            spans.of(key),
            format!("{key} means nothing without TLS"),
            Some("remove it, or set tls = true".to_owned()),
        );
    }
}

fn damping(reporter: &mut Reporter<'_>, table: &mut Table<'_>) -> Damping {
    let default = Damping::default();
    Damping {
        limit: table
            .number(reporter, "flap_limit", values::count)
            .unwrap_or(default.limit),
        window: table.duration(reporter, "flap_window").unwrap_or(default.window),
        hold: table.duration(reporter, "flap_hold").unwrap_or(default.hold),
    }
}

fn breaker(reporter: &mut Reporter<'_>, table: &mut Table<'_>) -> BreakerSettings {
    let default = BreakerSettings::default();
    BreakerSettings {
        failures: table
            .number(reporter, "breaker_failures", values::count)
            .unwrap_or(default.failures),
        window: table
            .duration(reporter, "breaker_window")
            .unwrap_or(default.window),
        open: table.duration(reporter, "breaker_open").unwrap_or(default.open),
    }
}

fn http(reporter: &mut Reporter<'_>, table: &mut Table<'_>) -> HttpCheck {
    let default = HttpCheck::default();
    let text = |text: &str| Ok(text.to_owned());
    HttpCheck {
        method: table.text(reporter, "method", text).unwrap_or(default.method),
        path: table.text(reporter, "path", text).unwrap_or(default.path),
        host: table.text(reporter, "host", text),
        headers: table.strings(reporter, "headers").unwrap_or(default.headers),
        expect_status: table
            .texts_or_numbers(reporter, "expect_status", values::statuses)
            .map_or(default.expect_status, |ranges| {
                let statuses: BTreeSet<u16> = ranges.into_iter().flatten().flatten().collect();
                statuses.into_iter().collect()
            }),
        expect_body: table.text(reporter, "expect_body", text),
        max_body: table
            .number(reporter, "max_body", values::count)
            .unwrap_or(default.max_body),
        keep_alive: table
            .boolean(reporter, "keep_alive")
            .unwrap_or(default.keep_alive),
        tls: None,
    }
}

fn owned(text: &str) -> Result<String, ValueError> {
    Ok(text.to_owned())
}

fn dns(reporter: &mut Reporter<'_>, table: &mut Table<'_>) -> DnsCheck {
    let default = DnsCheck::default();
    DnsCheck {
        name: table.text(reporter, "name", owned).unwrap_or(default.name),
        record: table
            .text(reporter, "record", values::word)
            .unwrap_or(default.record),
        transport: table
            .text(reporter, "transport", values::word)
            .unwrap_or(default.transport),
        expect_answer: table.text(reporter, "expect_answer", owned),
    }
}

fn udp(reporter: &mut Reporter<'_>, table: &mut Table<'_>) -> UdpCheck {
    UdpCheck {
        payload: table.text(reporter, "payload", owned).unwrap_or_default(),
        expect_reply: table.text(reporter, "expect_reply", owned),
    }
}

fn exec(reporter: &mut Reporter<'_>, table: &mut Table<'_>) -> ExecCheck {
    ExecCheck {
        command: table.list(reporter, "command", owned, false).unwrap_or_default(),
    }
}

fn tls(reporter: &mut Reporter<'_>, table: &mut Table<'_>) -> TlsCheck {
    let default = TlsCheck::default();
    let text = |text: &str| Ok(text.to_owned());
    TlsCheck {
        verify: table.boolean(reporter, "verify").unwrap_or(default.verify),
        server_name: table.text(reporter, "server_name", text),
        ca_file: table.text(reporter, "ca_file", text),
        cert_file: table.text(reporter, "cert_file", text),
        key_file: table.text(reporter, "key_file", text),
        alpn: table.list(reporter, "alpn", text, false).unwrap_or(default.alpn),
        warn_before: table
            .duration(reporter, "warn_before")
            .unwrap_or(default.warn_before),
    }
}
