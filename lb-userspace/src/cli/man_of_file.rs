//! The manual page of the configuration file, from the table of its keys.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::config::keys::{self, Absent, Key, KeyTable};

/// Its file: `man lb.toml` shows it.
pub(super) const NAME: &str = "lb.toml.5";

/// The page, in roff.
pub(super) fn page() -> String {
    let mut page = Roff::new();
    let version = format!("lb {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["lb.toml", "5", "", version.as_str()]);
    page.control("SH", ["NAME"]);
    page.text([roman("lb.toml - configuration file of the load balancer lb")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text(inlines(
        "A file in TOML for `lb run --config FILE` and `lb apply FILE`. `lb check-config FILE` names every error at once, with line, \
         column and a hint. Durations are written as `\"500ms\"`, `\"2s\"`, `\"10m\"`, `\"2h4m\"` or `\"1d\"`.",
    ));
    for table in keys::TABLES {
        add_table(&mut page, table);
    }
    page.control("SH", ["FILES"]);
    page.control("TP", []);
    page.text([bold("/etc/lb/lb.toml")]);
    page.text([roman("The file of the service lb.service.")]);
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("lb"),
        roman("(1), "),
        bold("lb-check-config"),
        roman("(1), "),
        bold("lb-apply"),
        roman("(1), "),
        bold("lb-run"),
        roman("(1)"),
    ]);
    page.to_roff()
}

fn add_table(page: &mut Roff, table: &KeyTable) {
    page.control("SH", [table.header]);
    page.text(inlines(table.about));
    if table.header == keys::ALSO.header {
        return;
    }
    for key in table.keys {
        page.control("TP", []);
        page.text([bold(key.name)]);
        page.text(inlines(&about(key)));
    }
}

/// Meaning, values and default of a key, as sentences.
fn about(key: &Key) -> String {
    let mut sentences = vec![format!("{}.", key.help), key.more.to_owned()];
    if !key.kinds.is_empty() {
        sentences.push(format!("Kinds of check: {}.", key.kinds.join(", ")));
    }
    let values = key.value.about();
    if !values.is_empty() {
        sentences.push(format!("Value: {values}."));
    }
    sentences.push(match key.absent {
        Absent::Required(_) => "Required.".to_owned(),
        Absent::Default(text) => format!("Default: `{text}`."),
        Absent::Otherwise(words, _) => format!("Default: {words}."),
    });
    sentences.retain(|sentence| !sentence.is_empty());
    sentences.join(" ")
}

/// Text with the marks of the reference: code in bold, links by their words.
fn inlines(text: &str) -> Vec<Inline> {
    let mut found = Vec::new();
    for (number, part) in text.split('`').enumerate() {
        if number % 2 == 1 {
            found.push(bold(part));
            continue;
        }
        let mut rest = part;
        while let Some((before, words, after)) = link(rest) {
            found.push(roman(before));
            found.push(italic(words));
            rest = after;
        }
        found.push(roman(rest));
    }
    found
}

/// The text before the first link `[words](target)`, its words, and the text behind it.
fn link(text: &str) -> Option<(&str, &str, &str)> {
    let (head, tail) = text.split_once("](")?;
    let (before, words) = head.rsplit_once('[')?;
    let (_, after) = tail.split_once(')')?;
    Some((before, words, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_of_the_file_has_every_table_and_key_without_marks() {
        let page = page();
        for table in keys::TABLES {
            assert!(page.contains(table.header), "{}", table.header);
            for key in table.keys {
                let name = key.name.replace('-', "\\-");
                assert!(page.contains(&format!("\\fB{name}\\fR")), "{}", key.name);
            }
        }
        assert!(!page.contains("](") && !page.contains('`'), "{page}");
    }

    #[test]
    fn code_and_links_are_shown_by_their_words() {
        let of = |text| {
            let mut page = Roff::new();
            page.text(inlines(text));
            page.to_roff().trim().to_owned()
        };
        assert_eq!(
            of("see `lb run`: [modes.md](modes.md#x)."),
            "see \\fBlb run\\fR: \\fImodes.md\\fR."
        );
        assert_eq!(of("a list [1] of (two)"), "a list [1] of (two)");
    }
}
