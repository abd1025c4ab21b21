//! Desired state as a configuration file.

use std::fmt::Write;

use super::{
    DaemonSettings,
    fields::{self, AGENT, Field, GUARD, HEALTH, Keys},
};
use crate::state::{
    desired::{Desired, Settings},
    service::Service,
    shared::Shared,
};

/// The desired state as TOML that [`super::parse`] takes back unchanged, but for the revision; with hidden keys,
/// [`super::parse_beside`] does so where they are known. Holds what is not at its default; services stand in the order of
/// their names.
pub fn export(desired: &Desired, keys: Keys) -> String {
    export_by(desired, |text, of| text.push_str(&service(of, keys)))
}

/// As [`export`], with services written by `write`, as [`service`] gives them.
pub fn export_by(desired: &Desired, mut write: impl FnMut(&mut String, &Shared<Service>)) -> String {
    let mut text = table(&fields::settings(&desired.settings));
    for service in desired.services.values() {
        write(&mut text, service);
    }
    text.truncate(text.trim_end().len());
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// The whole `[lb]` table of a configuration, as far as it is not at its default; empty where all of it is.
pub fn lb(daemon: &DaemonSettings, settings: &Settings) -> String {
    table(&[fields::daemon(daemon), fields::settings(settings)].concat())
}

fn table(lb: &[Field]) -> String {
    let lines = lines("", lb);
    if lines.is_empty() {
        lines
    } else {
        format!("[lb]\n{lines}\n")
    }
}

/// A service and its backends as [`export`] writes them.
pub fn service(service: &Service, keys: Keys) -> String {
    let mut text = String::new();
    let mut own = vec![name(service.name.as_str())];
    own.extend(fields::service(service));
    push(&mut text, "[[service]]", &lines("", &own));
    let guard = fields::guard(&service.guard);
    if guard.iter().any(|field| !field.is_default) {
        push(&mut text, "  [service.guard]", &lines("  ", &guard));
    }
    let health = fields::health(&service.health);
    if health.iter().any(|field| !field.is_default) {
        push(&mut text, "  [service.health]", &lines("  ", &health));
    }
    if let Some(agent) = &service.agent {
        push(
            &mut text,
            "  [service.agent]",
            &lines("  ", &fields::agent(Some(agent))),
        );
    }
    for quic in &service.quic {
        push(
            &mut text,
            "  [[service.quic]]",
            &lines("  ", &fields::quic(quic, keys)),
        );
    }
    let hosts = service.hosts.iter().map(|host| (&host.name, fields::host(host)));
    let backends = service.backends.iter();
    let backends = backends.map(|backend| (&backend.name, fields::backend(backend)));
    for (of, fields) in hosts.chain(backends) {
        let mut own = vec![name(of.as_str())];
        own.extend(fields);
        push(&mut text, "  [[service.backend]]", &lines("  ", &own));
    }
    text
}

fn name(name: &str) -> Field {
    Field {
        key: "name",
        value: toml::Value::from(name).to_string(),
        is_default: false,
    }
}

fn push(text: &mut String, header: &str, lines: &str) {
    text.push_str(header);
    text.push('\n');
    text.push_str(lines);
    text.push('\n');
}

fn lines(indent: &str, fields: &[Field]) -> String {
    let mut text = String::new();
    for Field {
        key,
        value,
        is_default,
    } in fields
    {
        if !is_default {
            let table = [AGENT, GUARD, HEALTH]
                .into_iter()
                .find_map(|table| key.strip_prefix(table));
            let key = table.unwrap_or(key);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{indent}{key} = {value}");
        }
    }
    text
}
