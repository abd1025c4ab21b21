//! Help of options that set keys of the configuration file, from the one definition of each key.

use crate::config::keys::{Absent, Key, KeyTable, Value};

/// More kinds of check than these are not listed in front of a help.
const LISTED_KINDS: usize = 4;

/// The help of the option that sets a key: its meaning, its words, and its default.
pub(super) fn help(table: &'static KeyTable, name: &str) -> String {
    let Some(key) = table.key(name) else {
        return String::new();
    };
    let Key {
        name: _,
        access: _,
        value,
        absent,
        help,
        more: _,
        kinds,
    } = key;
    let mut text = String::new();
    if (1..=LISTED_KINDS).contains(&kinds.len()) {
        text.push_str(&format!("{}: ", kinds.join(", ")));
    }
    text.push_str(help);
    if let Value::OneOf(words) = value {
        text.push_str(&format!(": {}", words().join(", ")));
    }
    match absent {
        Absent::Required(_) => {}
        // An empty list or text as a default would not help the reader.
        Absent::Default("[]" | "\"\"") => {}
        Absent::Default(value) => text.push_str(&format!(" [default: {}]", value.trim_matches('"'))),
        Absent::Otherwise(words, _) => text.push_str(&format!(" [default: {}]", words.replace('`', ""))),
    }
    text
}

/// The help with a remark about the option, before the default.
pub(super) fn remark(help: String, remark: &str) -> String {
    match help.rsplit_once(" [default: ") {
        Some((meaning, default)) => format!("{meaning}; {remark} [default: {default}"),
        None => format!("{help}; {remark}"),
    }
}

/// The help of an option for one item of a list.
pub(super) fn several(help: String) -> String {
    remark(help, "may be given several times")
}
