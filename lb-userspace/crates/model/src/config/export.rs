//! Desired state as a configuration file.

use std::fmt::Write;

use super::{
    daemon::DaemonSettings,
    fields::{self, Field, Keys},
};
use crate::state::{
    desired::{Desired, Settings},
    names::BackendName,
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
    commented(service, keys, |_| Vec::new())
}

/// A table of a service that may have comments before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part<'a> {
    /// The service itself.
    Service,
    /// A backend, or a host name that stands for backends.
    Backend(&'a BackendName),
}

/// As [`service`], with the lines of `comments` before tables.
pub fn commented(service: &Service, keys: Keys, mut comments: impl FnMut(Part<'_>) -> Vec<String>) -> String {
    let mut text = String::new();
    let mut push = |comments: Vec<String>, header: &str, indent: &str, fields: &[Field]| {
        for line in comments {
            text.push_str(&comment(indent, &line));
        }
        text.push_str(&format!("{indent}{header}\n{}\n", lines(indent, fields)));
    };
    push(
        comments(Part::Service),
        "[[service]]",
        "",
        &fields::service(service),
    );
    let (guard, health) = (fields::guard(&service.guard), fields::health(&service.health));
    for (header, fields) in [("[service.guard]", guard), ("[service.health]", health)] {
        if fields.iter().any(|field| !field.is_default) {
            push(Vec::new(), header, INDENT, &fields);
        }
    }
    if let Some(agent) = &service.agent {
        push(Vec::new(), "[service.agent]", INDENT, &fields::agent(Some(agent)));
    }
    for clients in &service.clients {
        push(
            Vec::new(),
            "[[service.clients]]",
            INDENT,
            &fields::clients(clients),
        );
    }
    for quic in &service.quic {
        push(Vec::new(), "[[service.quic]]", INDENT, &fields::quic(quic, keys));
    }
    let hosts = service.hosts.iter().map(|host| (&host.name, fields::host(host)));
    let backends = service.backends.iter();
    for (name, fields) in hosts.chain(backends.map(|backend| (&backend.name, fields::backend(backend)))) {
        push(
            comments(Part::Backend(name)),
            "[[service.backend]]",
            INDENT,
            &fields,
        );
    }
    text
}

/// A line of a comment. Characters that TOML forbids there are escaped.
pub fn comment(indent: &str, line: &str) -> String {
    let mut text = format!("{indent}#");
    if !line.is_empty() {
        text.push(' ');
    }
    for c in line.chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.push('\n');
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
