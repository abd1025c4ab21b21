//! Links in documents: each leads to a file of the checkout, and CONTRIBUTING.md names files that are there.

use std::path::{Component, Path, PathBuf};

use super::finding::{Finding, Source};

/// The page that lists the files to touch.
const CONTRIBUTING: &str = "CONTRIBUTING.md";

/// Base directories of the paths in [`CONTRIBUTING`], by their prefix there.
const BASES: [(&str, &str); 6] = [
    ("health:", "lb-userspace/crates/health/src"),
    ("model:", "lb-userspace/crates/model/src"),
    ("plan:", "lb-userspace/crates/plan/src"),
    ("", "lb-userspace/src"),
    ("", "lb-ebpf/src"),
    ("", ""),
];

/// Checks every document.
pub(super) fn check(root: &Path, sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".md")) {
        let here = Path::new(&source.path).parent().unwrap_or(Path::new(""));
        for (number, line) in (1..).zip(source.text.lines()) {
            for link in links(line) {
                if !root.join(plain(&here.join(link))).exists() {
                    findings.push(Finding::new(source, number, format!("{link} is not there")));
                }
            }
            if source.path == CONTRIBUTING {
                for file in files(line).filter(|file| !is_there(root, file)) {
                    findings.push(Finding::new(source, number, format!("{file} is not there")));
                }
            }
        }
    }
    findings
}

/// Targets of links below the checkout, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains("://")).then_some(target)
    })
}

/// Paths of Rust files in code spans; `{a,b}` stands for each, and placeholders are none.
fn files(line: &str) -> impl Iterator<Item = String> + '_ {
    let spans = line.split('`').skip(1).step_by(2);
    let spans =
        spans.filter(|span| span.ends_with(".rs") && !span.contains(['*', ' ']) && !span.contains("NAME"));
    spans.flat_map(|span| match (span.find('{'), span.find('}')) {
        (Some(from), Some(to)) if from < to => {
            let each = span[from + 1..to].split(',');
            each.map(|one| format!("{}{one}{}", &span[..from], &span[to + 1..]))
                .collect()
        }
        _ => vec![span.to_owned()],
    })
}

fn is_there(root: &Path, file: &str) -> bool {
    BASES.iter().any(|(before, base)| {
        let rest = file.strip_prefix(before);
        rest.is_some_and(|rest| root.join(base).join(rest).exists())
    })
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(component);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_link_and_a_path_that_lead_nowhere_are_found() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["docs", "lb-userspace/src/cli"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        for file in ["docs/a.md", "README.md", "lb-userspace/src/cli/run.rs"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        let blamed = |path: &str, text: &str| {
            let source = Source {
                path: path.to_owned(),
                text: text.to_owned(),
            };
            check(root.path(), &[source]).len()
        };
        assert_eq!(
            blamed(
                "docs/b.md",
                "[a](a.md#part), [up](../README.md), [web](https://example.org), [here](#b)"
            ),
            0
        );
        assert_eq!(blamed("docs/b.md", "[a](../a.md)"), 1);
        assert_eq!(
            blamed(
                "CONTRIBUTING.md",
                "`cli/run.rs`, `probe/NAME.rs`, `cli/*.rs`, `cargo x`"
            ),
            0
        );
        assert_eq!(blamed("CONTRIBUTING.md", "`cli/{run,gone}.rs`"), 1);
    }
}
