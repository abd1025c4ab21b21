//! The configuration file: from raw text to a checked desired state. Reports all errors at once, each with its place.
//!
//! The file is walked by its spans. Single values go through [`values`], which the command line and the API use, too;
//! constraints between values are in [`crate::state::check`].

pub mod change;
pub mod daemon;
mod dialogue;
pub mod diff;
mod error;
pub mod export;
pub mod fields;
pub mod file_version;
pub mod health;
pub mod keys;
pub mod lb;
pub mod migrate;
pub mod quic;
pub mod redact;
mod service;
mod table;
#[cfg(test)]
mod tests;
pub mod values;

use std::collections::{BTreeMap, BTreeSet};

use lb_common::limits::MAX_SERVICES;
use toml::{Spanned, de::DeTable};

pub use self::service::DEFAULT_WEIGHT;
pub use self::{
    daemon::DaemonSettings,
    error::{ConfigError, MAX_ERRORS},
    export::export,
};
use self::{error::Reporter, service::Located, table::Table};
use crate::{
    health::settings::CheckSettings,
    state::{
        check::{self, Place, Problem},
        desired::{Desired, Revision},
    },
};

/// A configuration file's content.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Config {
    /// Settings that only a start of the daemon reads.
    pub daemon: DaemonSettings,
    /// The desired state, which can change while it runs; revision 0.
    pub desired: Desired,
}

/// Reads a configuration. `file` is the name that errors carry.
///
/// # Errors
/// All errors, in the order of the file. A syntax error comes alone, since the text after it may be misread.
pub fn parse(text: &str, file: &str) -> Result<Config, Vec<ConfigError>> {
    parse_beside(text, file, &Desired::default())
}

/// Reads the settings that only a start of the daemon reads, from a file whose other tables may be wrong; `None` where they
/// are wrong too.
pub fn parse_daemon(text: &str) -> Option<DaemonSettings> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        return None;
    }
    let mut reporter = Reporter::new(text, "");
    let mut root = Table::new(document.get_ref(), document.span(), keys::FILE.header);
    let lb = root.table(&mut reporter, "lb", keys::LB.header)?;
    let (daemon, ..) = lb::read(&mut reporter, lb, &Desired::default());
    reporter.check().ok().map(|()| daemon)
}

/// As [`parse`], but accepts the fingerprint of a key that `known` has, as [`export()`] writes it.
///
/// # Errors
/// As [`parse`].
pub fn parse_beside(text: &str, file: &str, known: &Desired) -> Result<Config, Vec<ConfigError>> {
    parse_all(&[Source { file, text }], known)
}

/// A file of a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The name that errors carry.
    pub file: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// Reads a configuration of several files. One of them at most has `[lb]`, and each service stands in one of them.
///
/// # Errors
/// As [`parse`], in the order of the files.
pub fn parse_all(sources: &[Source<'_>], known: &Desired) -> Result<Config, Vec<ConfigError>> {
    let mut reporters: Vec<_> = sources
        .iter()
        .map(|Source { file, text }| Reporter::new(text, file))
        .collect();
    let documents = documents(sources, &mut reporters)?;

    let (mut daemon, mut settings, mut lb_spans) = <_>::default();
    let mut lb_in: Option<(usize, usize)> = None;
    let (mut services, mut places) = (Vec::new(), Vec::new());
    let most = MAX_SERVICES as usize;
    for (source, document) in documents.iter().enumerate() {
        let reporter = &mut reporters[source];
        let mut root = Table::new(document.get_ref(), document.span(), keys::FILE.header);
        let version = root.number(reporter, "version", file_version::file_version);
        if version.is_none() && root.spans().has("version") {
            // Errors about its keys would mislead.
            continue;
        }
        if let Some(table) = root.table(reporter, "lb", keys::LB.header) {
            let span = table.span();
            match lb_in {
                None => {
                    (daemon, settings, lb_spans) = lb::read(reporter, table, known);
                    lb_in = Some((source, span.start));
                }
                Some(first) => {
                    let hint = format!("{}; join them there", first_place(&reporters, source, first));
                    let message = "[lb] stands in two files";
                    reporters[source].error(span, message, Some(hint));
                }
            }
        }
        let reporter = &mut reporters[source];
        let tables = root.tables(reporter, "service", keys::SERVICE.header);
        let count = places.len() + tables.len();
        let room = most.saturating_sub(places.len());
        if let Some((_, span)) = tables.get(room) {
            let what = format!("{count} services are more than the {most} that fit");
            reporter.error(span.clone(), what, None);
        }
        // Further services are not read: they would only cost memory and time.
        for (table, span) in tables.into_iter().take(room) {
            let table = Table::new(table, span, keys::SERVICE.header);
            services.extend(service::read(reporter, table, known));
            places.resize(services.len(), source);
        }
        root.finish(reporter);
    }
    let duplicates = duplicate_names(&mut reporters, &services, &places);

    let list: Vec<_> = services.iter().map(|located| &located.service).collect();
    for problem in check::problems(&settings, &list) {
        let Problem {
            place,
            kind: _,
            what,
            hint,
        } = problem;
        let (source, span) = match place {
            Place::Settings(key) => (lb_in.map_or(0, |(source, _)| source), lb_spans.of(key)),
            // That it has the ports of its namesake would be said again.
            Place::Service(index, _) if duplicates.contains(&index) => continue,
            Place::Service(index, key) => (places[index], services[index].spans.of(key)),
            Place::Health(index, key) => (places[index], services[index].health.of(key)),
            Place::Agent(index, key) => (places[index], services[index].agent.of(key)),
            Place::Guard(index, key) => (places[index], services[index].guard.of(key)),
            Place::Clients(index, table, key) => (places[index], services[index].clients[table].of(key)),
            Place::Quic(index, table, key) => (places[index], services[index].quic[table].of(key)),
            Place::Backend(index, backend, key) => (places[index], services[index].backends[backend].of(key)),
            Place::Host(index, host, key) => (places[index], services[index].hosts[host].of(key)),
        };
        reporters[source].error(span, what, hint);
    }
    check_all(&mut reporters)?;
    let services = services
        .into_iter()
        .map(|located| (located.service.name.clone(), located.service.into()))
        .collect();
    Ok(Config {
        daemon,
        desired: Desired {
            revision: Revision(0),
            settings,
            services,
        },
    })
}

/// Each file as TOML.
fn documents<'a>(
    sources: &[Source<'a>],
    reporters: &mut [Reporter<'_>],
) -> Result<Vec<Spanned<DeTable<'a>>>, Vec<ConfigError>> {
    let mut documents = Vec::new();
    for (Source { text, .. }, reporter) in sources.iter().zip(&mut *reporters) {
        let (document, syntax) = DeTable::parse_recoverable(text);
        for error in &syntax {
            reporter.error(error.span().unwrap_or_default(), error.message(), None);
        }
        documents.push(document);
    }
    check_all(reporters)?;
    Ok(documents)
}

/// Fails with the errors of all files.
fn check_all(reporters: &mut [Reporter<'_>]) -> Result<(), Vec<ConfigError>> {
    let results = reporters.iter_mut().map(Reporter::check);
    let errors: Vec<_> = results.filter_map(Result::err).flatten().collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Where the first of two stands, for an error about the second in the file `second`.
fn first_place(reporters: &[Reporter<'_>], second: usize, (source, byte): (usize, usize)) -> String {
    let (line, _) = reporters[source].position(byte);
    if source == second {
        format!("the first one is on line {line}")
    } else {
        format!("the first one is on line {line} of {}", reporters[source].file())
    }
}

/// Reads `text` as the keys of a `[service.health]` table, for programs that only check health. `file` is the name that
/// errors carry.
///
/// # Errors
/// As [`parse`].
pub fn parse_check(text: &str, file: &str) -> Result<CheckSettings, Vec<ConfigError>> {
    let mut reporter = Reporter::new(text, file);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        reporter.error(error.span().unwrap_or_default(), error.message(), None);
    }
    reporter.check()?;
    let table = Table::new(document.get_ref(), document.span(), keys::CHECK.header);
    let spans = table.spans();
    let settings = health::read(&mut reporter, table, &Desired::default());
    for problem in check::health_problems(&settings) {
        if let Place::Health(_, key) = problem.place {
            reporter.error(spans.of(key), problem.what, problem.hint);
        }
    }
    reporter.check()?;
    Ok(settings)
}

/// Reports services whose names others before them have, and returns their places in the list.
fn duplicate_names(
    reporters: &mut [Reporter<'_>],
    services: &[Located],
    places: &[usize],
) -> BTreeSet<usize> {
    let (mut seen, mut duplicates) = (BTreeMap::new(), BTreeSet::new());
    for (index, (located, source)) in services.iter().zip(places).enumerate() {
        let span = located.spans.of("name");
        if let Some(first) = seen.get(&located.service.name) {
            let hint = format!("{}; rename one of them", first_place(reporters, *source, *first));
            let message = format!("service {} is defined twice", located.service.name);
            reporters[*source].error(span, message, Some(hint));
            duplicates.insert(index);
        } else {
            seen.insert(located.service.name.clone(), (*source, span.start));
        }
    }
    duplicates
}
