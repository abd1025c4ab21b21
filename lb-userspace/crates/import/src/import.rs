//! From a source to a configuration file.

use std::{net::IpAddr, rc::Rc};

use crate::{
    draft::Draft,
    error::ImportError,
    haproxy,
    include::Include,
    ipvs, keepalived,
    kind::Kind,
    render::{Imported, render},
};

/// A source.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its name, for remarks and errors.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Its kind; `None`: by its content.
    pub kind: Option<Kind>,
    /// Addresses that stand for every address of the machine (`bind *:80`).
    pub addresses: &'a [IpAddr],
    /// Reads files that it includes.
    pub include: Include<'a>,
}

/// Reads a source and writes it as a configuration file.
///
/// # Errors
/// Its kind is not known, it breaks the rules of its format, or there is nothing in it that `lb` could do.
pub fn import(source: Source<'_>) -> Result<Imported, ImportError> {
    let Source {
        name,
        text,
        kind,
        addresses,
        include,
    } = source;
    let kind = kind
        .or_else(|| Kind::of(text))
        .ok_or_else(|| ImportError::Unknown {
            file: name.to_owned(),
        })?;
    let file: Rc<str> = name.into();
    let mut draft = Draft::new(addresses);
    match kind {
        Kind::Haproxy => haproxy::import(&file, text, &mut draft)?,
        Kind::Keepalived => keepalived::import(&file, text, include, &mut draft)?,
        Kind::Ipvs => ipvs::import(&file, text, &mut draft)?,
    }
    draft.settle();
    if draft.services.is_empty() {
        return Err(nothing(name, kind, &draft));
    }
    Ok(render(&draft, name))
}

/// Why there is nothing to import: the first reason of the source, else that it has no services.
fn nothing(file: &str, kind: Kind, draft: &Draft) -> ImportError {
    let remarks: Vec<_> = draft.statements.iter().filter_map(|line| line.place()).collect();
    let find = |text: &str| {
        remarks.iter().find_map(|remark| {
            let reason = remark.reasons.iter().find(|reason| reason.contains(text))?;
            Some((remark, reason))
        })
    };
    let wildcard = find("name it with --address");
    let why = match (wildcard.or_else(|| find("not imported")), kind) {
        (Some((remark, reason)), _) => format!("line {}: {reason}", remark.line),
        (None, Kind::Haproxy) => "it has no frontend or listen section with servers".to_owned(),
        (None, Kind::Keepalived) => "it has no virtual_server".to_owned(),
        (None, Kind::Ipvs) => "it has no rule that adds a service".to_owned(),
    };
    let hint = if wildcard.is_some() {
        format!("lb import {file} --address 192.0.2.10, with the address that clients connect to")
    } else {
        "docs/migrate.md lists what has a counterpart".to_owned()
    };
    ImportError::Nothing {
        file: file.to_owned(),
        why,
        hint,
    }
}
