//! `[service.health]` tables.

use super::{
    dialogue,
    error::Reporter,
    keys::{self, KINDS, KeyTable, MAY_HAVE_TLS, TLS},
    table::{Spans, Table},
    values::{self, ValueError},
};
use crate::{
    health::settings::{
        CheckKind, CheckSettings, DnsCheck, ExecCheck, FurtherCheck, GrpcCheck, HttpCheck, PushCheck,
        TcpDialogue, TlsCheck, UdpCheck,
    },
    state::{desired::Desired, words},
};

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
pub(super) fn read(reporter: &mut Reporter<'_>, mut table: Table<'_>, known: &Desired) -> CheckSettings {
    let also = also(reporter, &mut table, known);
    CheckSettings {
        also,
        ..one(reporter, table, &keys::HEALTH, known)
    }
}

/// The checks that are made together with the main one.
fn also(reporter: &mut Reporter<'_>, table: &mut Table<'_>, known: &Desired) -> Vec<FurtherCheck> {
    let tables = table.tables(reporter, "also", keys::ALSO.header);
    let read = |(table, span)| {
        let table = Table::new(table, span, keys::ALSO.header);
        let CheckSettings {
            kind,
            port,
            send_proxy,
            ..
        } = one(reporter, table, &keys::ALSO, known);
        FurtherCheck {
            kind,
            port,
            send_proxy,
        }
    };
    tables.into_iter().map(read).collect()
}

/// Reads one check: the values of `keys`, the last ones of a table.
fn one(
    reporter: &mut Reporter<'_>,
    mut table: Table<'_>,
    keys: &'static KeyTable,
    known: &Desired,
) -> CheckSettings {
    table.require(reporter, "kind", "\"tcp\"");
    let spans = table.spans();
    let kind = table.text(reporter, "kind", kind);
    let secure = table.boolean(reporter, "tls").unwrap_or(false);
    let half_open = table.boolean(reporter, HALF_OPEN).unwrap_or(false);
    let steps = dialogue::read(reporter, &mut table, &spans);
    let mut settings = CheckSettings {
        kind: kind.clone().unwrap_or(CheckKind::None),
        ..CheckSettings::default()
    };
    match &mut settings.kind {
        CheckKind::Http2(HttpCheck { tls, .. }) | CheckKind::Grpc(GrpcCheck { tls, .. }) => {
            *tls = secure.then(TlsCheck::default);
        }
        kind @ CheckKind::Tcp if half_open => {
            refuse_beside_half_open(reporter, &spans);
            *kind = CheckKind::TcpHalfOpen;
        }
        kind @ CheckKind::Tcp if !steps.is_empty() => *kind = CheckKind::Dialogue(TcpDialogue { steps }),
        CheckKind::None
        | CheckKind::Tcp
        | CheckKind::TcpHalfOpen
        | CheckKind::Dialogue(_)
        | CheckKind::Tls(_)
        | CheckKind::Http(_)
        | CheckKind::Dns(_)
        | CheckKind::Udp(_)
        | CheckKind::Icmp
        | CheckKind::Push(_)
        | CheckKind::Exec(_) => {}
    }
    keys.read(&mut settings, &mut table, reporter, known);
    table.finish(reporter);
    // The error of a missing or wrong kind is reported already; its keys may well be right.
    if let Some(kind) = &kind {
        refuse_foreign_keys(reporter, &spans, kind);
        if !secure && MAY_HAVE_TLS.contains(&words::kind(kind)) {
            refuse_keys_of_tls(reporter, &spans);
        }
    }
    settings
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
