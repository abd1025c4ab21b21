//! `docs/reasons.md`: every reason that a packet's fate can have, generated from the one list in `lb-common`.

use std::fmt::Write;

use lb_common::reason::Reason;

use super::finding::{Finding, Source};

/// The generated document.
pub(super) const PATH: &str = "docs/reasons.md";

/// Compares the document with the code.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let found = sources.iter().find(|source| source.path == PATH);
    if found.is_some_and(|source| source.text == document()) {
        return Vec::new();
    }
    let message = "differs from lb_common::reason: `cargo xtask docs` rewrites it".to_owned();
    vec![Finding {
        path: PATH.to_owned(),
        line: 0,
        message,
    }]
}

/// The document as it should be.
pub(super) fn document() -> String {
    let mut text = String::from(
        "# Reasons\n\nEvery packet that `lb` sees is counted for exactly one reason. Each reason ends in one action: `tx` and \
         `redirect` forward,\n`pass` gives the packet to the kernel unchanged, `drop` and `aborted` discard it. The names are those of the \
         `reason` label in\nmetrics. This page is generated from `lb-common/src/reason.rs` by `cargo xtask docs`.\n\n\
         | reason | action | meaning | what to do |\n|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            reason.name(),
            reason.action().name(),
            reason.meaning(),
            reason.remedy()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_misses_a_reason_is_found() {
        let sources = |text: &str| {
            [Source {
                path: PATH.to_owned(),
                text: text.to_owned(),
            }]
        };
        assert_eq!(check(&sources(&document())), []);
        let cut = document()
            .lines()
            .filter(|line| !line.contains("no_next_hop"))
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(check(&sources(&cut)).len(), 1);
        assert_eq!(check(&[]).len(), 1);
    }
}
