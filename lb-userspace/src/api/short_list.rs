//! Problems as a list that stays short where many backends are down: each of them has the same to say, and other services must not
//! scroll away.

use std::collections::BTreeSet;

use super::types::Problem;

/// Backends of a service whose problems are shown; more are counted.
const SHOWN_BACKENDS: usize = 3;

/// An entry of the list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry<'a> {
    /// A problem.
    Problem(&'a Problem),
    /// Backends of a service whose problems are not shown.
    More {
        /// The service.
        service: &'a str,
        /// How many backends, at least one.
        backends: usize,
    },
}

impl Entry<'_> {
    /// What an entry says of backends that are not shown.
    pub(crate) fn more(backends: usize) -> String {
        let have = if backends == 1 {
            "backend has"
        } else {
            "backends have"
        };
        format!("{backends} more {have} problems")
    }
}

/// Problems in their order, of a few backends for each service. Those of a service stand together.
pub(crate) fn entries(problems: &[Problem]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for of_service in problems.chunk_by(|a, b| a.service == b.service) {
        let (mut shown, mut hidden) = (BTreeSet::new(), BTreeSet::new());
        for problem in of_service {
            if let (Some(_), Some(backend)) = (&problem.service, &problem.backend) {
                if !shown.contains(backend) && shown.len() == SHOWN_BACKENDS {
                    hidden.insert(backend);
                    continue;
                }
                shown.insert(backend);
            }
            entries.push(Entry::Problem(problem));
        }
        if let (Some(service), backends @ 1..) = (
            of_service.first().and_then(|problem| problem.service.as_deref()),
            hidden.len(),
        ) {
            entries.push(Entry::More { service, backends });
        }
    }
    entries
}
