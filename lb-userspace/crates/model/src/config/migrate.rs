//! Files of an older form, rewritten in the present one. Comments and spacing stay.

use super::file_version::FILE_VERSION;

/// `text`, a configuration without errors, in the present form; `None` if it has that form. The first form had the same keys and no
/// version.
pub fn migrated(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    if table.contains_key("version") {
        return None;
    }
    // Behind the comment that a file begins with, before its first table.
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    let header: usize = text
        .split_inclusive('\n')
        .take_while(|line| is_comment(line) && line.ends_with('\n'))
        .map(str::len)
        .sum();
    let (comment, rest) = text.split_at(header);
    let (before, after) = (
        if comment.is_empty() { "" } else { "\n" },
        if rest.is_empty() || rest.starts_with('\n') {
            ""
        } else {
            "\n"
        },
    );
    Some(format!(
        "{comment}{before}version = {FILE_VERSION}\n{after}{rest}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_file_gets_its_version_and_keeps_everything_else() {
        for (text, expected) in [
            ("", "version = 1\n"),
            ("[lb]\n", "version = 1\n\n[lb]\n"),
            (
                "# ours\n# still\n\n[lb] # here\n",
                "# ours\n# still\n\nversion = 1\n\n[lb] # here\n",
            ),
            ("# no end", "version = 1\n\n# no end"),
        ] {
            let new = migrated(text).unwrap();
            assert_eq!(new, expected);
            assert_eq!(parse(&new, "new"), parse(text, "old"));
            assert_eq!(migrated(&new), None, "twice is once");
        }
    }
}
