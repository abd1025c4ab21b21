//! The example shows each key with its default, and names every value that a key can have.

use std::collections::BTreeSet;

use lb_common::service::Mode;

use super::*;
use crate::{
    config::daemon::OnExit,
    state::{
        backend::Admin,
        service::{Affinity, Algorithm, OnDown, OnEmpty, Protocol, Tracking},
        words::Word,
    },
};

const EXAMPLE: &str = include_str!("../../../../docs/example.toml");

/// A line with a key, and the comment that it stands under. Keys of one comment follow each other.
struct Shown {
    line: usize,
    /// The table's header.
    table: &'static str,
    key: &'static str,
    comment: String,
}

fn shown() -> Vec<Shown> {
    let (mut table, mut comment, mut keys, mut shown) = ("", String::new(), false, Vec::new());
    for (line, text) in EXAMPLE.lines().enumerate() {
        let text = text.trim_start();
        if let Some(text) = text.strip_prefix('#') {
            if keys {
                comment.clear();
            }
            comment.push_str(text);
            keys = false;
        } else if let Some((key, _)) = text.split_once(" = ") {
            shown.push(Shown {
                line,
                table,
                key,
                comment: comment.clone(),
            });
            keys = true;
        } else {
            if text.starts_with('[') {
                table = text;
            }
            comment.clear();
            keys = false;
        }
    }
    shown
}

/// Whoever copies a line gets what there would be without it, unless its comment says what else the default is.
#[test]
fn a_value_is_the_default_or_its_comment_says_what_that_is() {
    let whole = parse(EXAMPLE, "example.toml").unwrap();
    let mut seen = BTreeSet::new();
    let first = shown()
        .into_iter()
        .filter(|shown| seen.insert((shown.table, shown.key)));
    for Shown {
        line, key, comment, ..
    } in first
    {
        let without: Vec<&str> = EXAMPLE
            .lines()
            .enumerate()
            .filter_map(|(number, text)| (number != line).then_some(text))
            .collect();
        match parse(&without.join("\n"), "example.toml") {
            // It cannot be left out.
            Err(_) => {}
            Ok(other) => assert!(
                other == whole || comment.contains("Default:"),
                "line {}: {key} is not shown with its default, and says none: {comment}",
                line + 1
            ),
        }
    }
}

#[test]
fn every_choice_is_named() {
    fn words<W: Word>() -> (&'static str, Vec<&'static str>) {
        let words = W::WORDS.iter().map(|(_, word)| *word);
        (W::KEY, words.collect())
    }
    let shown = shown();
    for (key, words) in [
        words::<XdpModeChoice>(),
        words::<OnExit>(),
        words::<Protocol>(),
        words::<Mode>(),
        words::<Algorithm>(),
        words::<Affinity>(),
        words::<Tracking>(),
        words::<OnEmpty>(),
        words::<OnDown>(),
        words::<Admin>(),
    ] {
        let first = shown.iter().find(|shown| shown.key == key);
        let comment = &first.unwrap_or_else(|| panic!("{key} is not shown")).comment;
        for word in words {
            let named = regex::Regex::new(&format!(r"\b{word}\b")).unwrap();
            assert!(
                named.is_match(comment),
                "{word} is not named above {key}: {comment}"
            );
        }
    }
}

/// What is served where: a page that is not there would be looked for.
#[test]
fn the_example_promises_no_path_that_is_not_served() {
    let metrics = shown().into_iter().find(|shown| shown.key == "metrics").unwrap();
    let paths = regex::Regex::new(r"/[a-z]+").unwrap();
    let paths: Vec<&str> = paths
        .find_iter(&metrics.comment)
        .map(|path| path.as_str())
        .collect();
    assert_eq!(paths, ["/metrics", "/healthz", "/readyz"]);
    assert!(!metrics.comment.contains("page"), "{}", metrics.comment);
}
