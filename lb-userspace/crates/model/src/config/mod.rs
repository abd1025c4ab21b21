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
pub mod health;
pub mod keys;
pub mod lb;
pub mod quic;
mod service;
mod table;
#[cfg(test)]
mod tests;
pub mod values;

use std::collections::BTreeMap;

use lb_common::limits::MAX_SERVICES;
use toml::de::DeTable;

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
    let mut reporter = Reporter::new(text, file);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        reporter.error(error.span().unwrap_or_default(), error.message(), None);
    }
    reporter.check()?;

    let mut root = Table::new(document.get_ref(), document.span(), keys::FILE.header);
    let lb = root.table(&mut reporter, "lb", keys::LB.header);
    let (daemon, settings, lb_spans) = match lb {
        Some(table) => lb::read(&mut reporter, table, known),
        None => <_>::default(),
    };
    let mut services = Vec::new();
    let tables = root.tables(&mut reporter, "service", keys::SERVICE.header);
    let most = MAX_SERVICES as usize;
    if let Some((_, span)) = tables.get(most) {
        let what = format!("{} services are more than the {most} that fit", tables.len());
        reporter.error(span.clone(), what, None);
    }
    // Further services are not read: they would only cost memory and time.
    for (table, span) in tables.into_iter().take(most) {
        services.extend(service::read(
            &mut reporter,
            Table::new(table, span, keys::SERVICE.header),
            known,
        ));
    }
    root.finish(&mut reporter);
    duplicate_names(&mut reporter, &services);

    let list: Vec<_> = services.iter().map(|located| &located.service).collect();
    for problem in check::problems(&settings, &list) {
        let Problem {
            place,
            kind: _,
            what,
            hint,
        } = problem;
        let span = match place {
            Place::Settings(key) => lb_spans.of(key),
            Place::Service(index, key) => services[index].spans.of(key),
            Place::Health(index, key) => services[index].health.of(key),
            Place::Agent(index, key) => services[index].agent.of(key),
            Place::Guard(index, key) => services[index].guard.of(key),
            Place::Clients(index, table, key) => services[index].clients[table].of(key),
            Place::Quic(index, table, key) => services[index].quic[table].of(key),
            Place::Backend(index, backend, key) => services[index].backends[backend].of(key),
            Place::Host(index, host, key) => services[index].hosts[host].of(key),
        };
        reporter.error(span, what, hint);
    }
    reporter.check()?;
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

fn duplicate_names(reporter: &mut Reporter<'_>, services: &[Located]) {
    let mut seen = BTreeMap::new();
    for located in services {
        let span = located.spans.of("name");
        if let Some(first) = seen.get(&located.service.name) {
            let (line, _) = reporter.position(*first);
            let message = format!("service {} is defined twice", located.service.name);
            reporter.error(
                span,
                message,
                Some(format!("the first one is on line {line}; rename one of them")),
            );
        } else {
            seen.insert(located.service.name.clone(), span.start);
        }
    }
}
