//! Desired state as a configuration file.

use std::fmt::Write;

use super::{
    daemon::DaemonSettings,
    fields::{self, Field, Keys},
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
    let mut push = |header: &str, indent: &str, fields: &[Field]| {
        text.push_str(&format!("{indent}{header}\n{}\n", lines(indent, fields)));
    };
    push("[[service]]", "", &fields::service(service));
    let (guard, health) = (fields::guard(&service.guard), fields::health(&service.health));
    for (header, fields) in [("[service.guard]", guard), ("[service.health]", health)] {
        if fields.iter().any(|field| !field.is_default) {
            push(header, INDENT, &fields);
        }
    }
    if let Some(agent) = &service.agent {
        push("[service.agent]", INDENT, &fields::agent(Some(agent)));
    }
    for clients in &service.clients {
        push("[[service.clients]]", INDENT, &fields::clients(clients));
    }
    for quic in &service.quic {
        push("[[service.quic]]", INDENT, &fields::quic(quic, keys));
    }
    let hosts = service.hosts.iter().map(fields::host);
    for fields in hosts.chain(service.backends.iter().map(fields::backend)) {
        push("[[service.backend]]", INDENT, &fields);
    }
    text
}

/// Before the lines of a table within a service.
const INDENT: &str = "  ";

fn lines(indent: &str, fields: &[Field]) -> String {
    let mut text = String::new();
    for Field { key, value, .. } in fields.iter().filter(|field| !field.is_default) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{indent}{} = {value}", key.name);
    }
    text
}
