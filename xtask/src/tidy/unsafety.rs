//! How much of each crate the compiler cannot check: ARCHITECTURE.md says what it is for, crate by crate.

use std::{collections::BTreeMap, fmt::Write as _};

use super::finding::{Finding, Source};

/// Where the table is, and what its lines begin with.
const PATH: &str = "ARCHITECTURE.md";
const LINE: &str = "| unsafe in `";

/// What opens something that the compiler cannot check. In parts, so that this file has none.
const OPENINGS: [&str; 4] = [
    concat!("unsafe", " {"),
    concat!("unsafe", " fn"),
    concat!("unsafe", " impl"),
    concat!("unsafe", " extern"),
];

/// Holds the table against the code: each crate says what it needs it for.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(document) = sources.iter().find(|source| source.path == PATH) else {
        return Vec::new();
    };
    let mut counts = counts(sources);
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(document.text.lines()) {
        let name = line.strip_prefix(LINE).and_then(|rest| rest.split('`').next());
        if let Some(name) = name
            && counts.remove(name).is_none()
        {
            findings.push(Finding::new(document, number, format!("{name} has none")));
        }
    }
    for (name, count) in counts {
        let message = format!("no line `{LINE}{name}` for {count} places: say what they are for");
        findings.push(Finding::new(document, 0, message));
    }
    findings
}

/// What `cargo xtask tidy` says about it.
pub(super) fn report(sources: &[Source]) -> String {
    let mut report = "places with unsafe:".to_owned();
    for (name, count) in counts(sources) {
        let _ = write!(report, " {name} {count}");
    }
    report
}

/// The places of each crate that has any; its tests count, too.
fn counts(sources: &[Source]) -> BTreeMap<String, usize> {
    let crates = sources
        .iter()
        .filter_map(|source| source.path.strip_suffix("/Cargo.toml"));
    let crates: Vec<&str> = crates.collect();
    let mut counts = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        let within = crates
            .iter()
            .filter(|name| source.path.starts_with(&format!("{name}/")));
        let Some(name) = within.max_by_key(|name| name.len()) else {
            continue;
        };
        let code = source
            .text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        let places: usize = code
            .map(|line| {
                OPENINGS
                    .iter()
                    .map(|opening| line.matches(opening).count())
                    .sum::<usize>()
            })
            .sum();
        if places > 0 {
            *counts.entry((*name).to_owned()).or_default() += places;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn places_are_counted_by_crate_and_held_against_the_table() {
        let code = format!(
            "{} a() }}\n// {}\npub {} b() {{}}\n",
            OPENINGS[0], OPENINGS[0], OPENINGS[1]
        );
        let mut sources = vec![
            source("a/Cargo.toml", ""),
            source("a/b/Cargo.toml", ""),
            source("a/src/lib.rs", &code),
            source("a/b/src/lib.rs", &code[..code.len() / 2]),
            source(PATH, &format!("{LINE}a` | calls |\n{LINE}a/b` | calls |\n")),
        ];
        assert_eq!(check(&sources), []);
        assert_eq!(report(&sources), "places with unsafe: a 2 a/b 1");
        sources[4].text = format!("{LINE}a` | calls |\n{LINE}c` | calls |\n");
        let lines: Vec<usize> = check(&sources).into_iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2, 0]);
    }
}
