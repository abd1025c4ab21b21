//! Help of options that set keys of the configuration file, from the one definition of each key.

use crate::config::keys::{Absent, Key, KeyTable, Shape};

/// More kinds of check than these are not listed in front of a help.
const LISTED_KINDS: usize = 4;

/// The help of the option that sets a key of a table.
pub(super) fn help(table: &'static KeyTable, name: &str) -> String {
    table.key(name).map_or_else(String::new, |key| of_key(key, ""))
}

/// The help of an option that may be given several times.
pub(super) fn several(table: &'static KeyTable, name: &str) -> String {
    let key = table.key(name);
    key.map_or_else(String::new, |key| of_key(key, "may be given several times"))
}

/// The help of the option that sets a key: its meaning, its words, a remark about the option, and its default.
pub(super) fn of_key(key: &Key, remark: &str) -> String {
    let mut text = String::new();
    if (1..=LISTED_KINDS).contains(&key.kinds.len()) {
        text.push_str(&format!("{}: ", key.kinds.join(", ")));
    }
    text.push_str(key.help);
    if let Shape::Word(words) = key.value.shape {
        text.push_str(&format!(": {}", words().join(", ")));
    }
    if !remark.is_empty() {
        text.push_str(&format!("; {remark}"));
    }
    match key.absent {
        Absent::Required(_) => {}
        // An empty list or text as a default would not help the reader.
        Absent::Default("[]" | "\"\"") => {}
        Absent::Default(value) => text.push_str(&format!(" [default: {}]", value.trim_matches('"'))),
        Absent::Otherwise(words, _) => text.push_str(&format!(" [default: {}]", words.replace('`', ""))),
    }
    text
}
