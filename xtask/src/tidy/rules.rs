//! Rules about the text of one file.

use super::finding::{Finding, Source};

/// Lines of a file at most, its tests not counted.
const MAX_LINES: usize = 450;

/// The only file of the XDP program with packet pointers.
const PACKET: &str = "lb-ebpf/src/packet.rs";

/// Forbidden text, with reasons. Written in two parts so that this file may contain it.
const NOWHERE: [(&str, &str); 6] = [
    (
        concat!("TO", "DO"),
        "unfinished work does not land; say what is missing in an issue",
    ),
    (
        concat!("FIX", "ME"),
        "unfinished work does not land; say what is missing in an issue",
    ),
    (
        concat!("XX", "X"),
        "unfinished work does not land; say what is missing in an issue",
    ),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("#[ig", "nore"), "a test that does not run proves nothing"),
];

/// Checks every rule for one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = nowhere(source);
    if source.path.ends_with(".rs") {
        findings.extend(module_docs(source));
        findings.extend(length(source));
        findings.extend(packet_pointers(source));
    }
    findings
}

/// Whether the file is all tests: beside the code, or in a directory of test programs.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.starts_with("tests/tests/")
}

/// The first line of a file describes its purpose. The tests of a module are in a file of that name.
fn module_docs(source: &Source) -> Vec<Finding> {
    if source.path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let first = source.text.lines().find(|line| !line.trim().is_empty());
    let documented = first.is_some_and(|line| line.starts_with("//!"));
    if documented {
        Vec::new()
    } else {
        vec![Finding::new(source, 1, "does not begin with //! and its purpose")]
    }
}

/// Files stay short enough to be read as a whole.
fn length(source: &Source) -> Vec<Finding> {
    let lines = product_lines(source).count();
    if lines <= MAX_LINES {
        return Vec::new();
    }
    vec![Finding::new(
        source,
        0,
        format!("{lines} lines without its tests; {MAX_LINES} at most"),
    )]
}

/// One place checks packet bounds.
fn packet_pointers(source: &Source) -> Vec<Finding> {
    // The benchmark's wrapper makes packets; it is no part of the packet path.
    let wrapper = source.path.starts_with("lb-ebpf/src/bin/");
    if !source.path.starts_with("lb-ebpf/") || source.path == PACKET || wrapper {
        return Vec::new();
    }
    naming(
        source,
        product_lines(source),
        &["data_end"],
        &format!("packet pointers live in {PACKET}"),
    )
}

fn nowhere(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in all_lines(source) {
        for (word, reason) in NOWHERE {
            if line.contains(word) {
                findings.push(Finding::new(source, number, format!("{word}: {reason}")));
            }
        }
    }
    findings
}

/// The lines that contain one of `words`, without comments.
fn naming<'a>(
    source: &Source,
    lines: impl Iterator<Item = (usize, &'a str)>,
    words: &[&str],
    message: &str,
) -> Vec<Finding> {
    lines
        .filter(|(_, line)| words.iter().any(|word| code(line).contains(word)))
        .map(|(number, _)| Finding::new(source, number, message))
        .collect()
}

/// A line without its comment. A comment sign in a string cuts too much, which does not matter for these rules.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// All lines, numbered from 1.
fn all_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(source.text.lines())
}

/// The numbered lines before the file's tests; none of a file that is all tests.
fn product_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    all_lines(source).take_while(|(_, line)| !is_test(&source.path) && !line.starts_with("#[cfg(test)]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines with findings in a file of this name with this text.
    fn blamed(path: &str, text: &str) -> Vec<usize> {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        check(&source).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn each_rule_finds_its_fault_and_only_that() {
        let long = format!("//! Long.\n{}", "fn a() {}\n".repeat(MAX_LINES));
        let long_tests = format!(
            "//! Long.\n#[cfg(test)]\nmod tests {{}}\n{}",
            "fn a() {}\n".repeat(MAX_LINES)
        );
        let todo = format!("//! Doc.\n// {}: later\n", concat!("TO", "DO"));
        let path = format!("see {}wt/notes\n", concat!("/ro", "ot/"));
        let ignored = format!("//! Doc.\n{}]\n", concat!("#[ig", "nore"));
        let cases: &[(&str, &str, &[usize])] = &[
            ("lb-ebpf/src/a.rs", "//! Doc.\n", &[]),
            ("lb-ebpf/src/a.rs", "// Doc.\n", &[1]),
            ("lb-ebpf/src/a.rs", "", &[1]),
            ("lb-userspace/src/a.rs", &long, &[0]),
            ("lb-userspace/src/a.rs", &long_tests, &[]),
            (
                "lb-ebpf/src/parse.rs",
                "//! Doc.\nlet end = ctx.data_end();\n",
                &[2],
            ),
            ("lb-ebpf/src/parse.rs", "//! Doc.\n// not data_end\n", &[]),
            (
                "lb-ebpf/src/packet.rs",
                "//! Doc.\nlet end = ctx.data_end();\n",
                &[],
            ),
            ("lb-userspace/src/a/tests.rs", &long, &[]),
            ("lb-common/src/hash.rs", &todo, &[2]),
            ("README.md", &path, &[1]),
            ("tests/tests/cli.rs", &ignored, &[2]),
        ];
        for (path, text, lines) in cases {
            assert_eq!(blamed(path, text), *lines, "{path}: {text}");
        }
    }
}
