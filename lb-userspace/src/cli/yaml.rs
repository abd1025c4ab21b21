//! JSON values as YAML, which parsers of YAML 1.1 and 1.2 read as the same values. Keys may have up to 1,024 characters.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// Blanks that each level stands further in.
const STEP: usize = 2;
/// Words that YAML 1.1 takes for something else than text.
const RESERVED: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// A JSON value with the order of its keys.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Node {
    /// A JSON text.
    pub(super) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The value as a document, with a closing line feed.
    pub(super) fn document(&self) -> String {
        self.block(0)
    }

    /// The value as an element of a list at the top.
    pub(super) fn element(&self) -> String {
        format!("-{}", self.below(STEP, true))
    }

    /// Lines that stand this far in.
    fn block(&self, indent: usize) -> String {
        let blanks = " ".repeat(indent);
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                let line = |(key, value): &(String, Self)| {
                    format!("{blanks}{}:{}", scalar(key), value.below(indent + STEP, false))
                };
                entries.iter().map(line).collect()
            }
            Self::List(items) if !items.is_empty() => {
                let line = |item: &Self| format!("{blanks}-{}", item.below(indent + STEP, true));
                items.iter().map(line).collect()
            }
            Self::Map(_) => format!("{blanks}{{}}\n"),
            Self::List(_) => format!("{blanks}[]\n"),
            Self::Null => format!("{blanks}null\n"),
            Self::Bool(value) => format!("{blanks}{value}\n"),
            Self::Number(number) => format!("{blanks}{number}\n"),
            Self::Text(text) => format!("{blanks}{}\n", scalar(text)),
        }
    }

    /// What stands behind a key or a dash: on the same line, or on lines of its own.
    fn below(&self, indent: usize, is_item: bool) -> String {
        let block = self.block(indent);
        let is_block = match self {
            Self::Map(entries) => !entries.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => false,
        };
        if is_block && !is_item {
            format!("\n{block}")
        } else {
            format!(" {}", block.trim_start_matches(' '))
        }
    }
}

/// Text as it is where every parser takes it for that text, else in quotes.
fn scalar(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || ['_', '-', '/', '.'].contains(&char);
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let words = text
        .split(' ')
        .all(|word| !word.is_empty() && word.chars().all(is_plain));
    if begins && words && !RESERVED.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // Printable in YAML (section 5.1 of its specification), and no line break.
            ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' => {
                quoted.push(char);
            }
            '\u{ff00}'..='\u{fffd}' | '\u{10000}'.. => quoted.push(char),
            other => quoted.push_str(&format!("\\u{:04X}", u32::from(other))),
        }
    }
    quoted.push('"');
    quoted
}

/// A number with a fraction, which YAML 1.1 knows by its point, and an exponent by its sign.
fn float(number: f64) -> String {
    let text = format!("{number:?}");
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Number(float(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_types_and_order() {
        let json = r#"{"name": "web", "on": "no", "port": 80, "share": 1e300, "ratio": 0.5, "none": null, "empty": [],
            "at": "2026-11-29T17:14:35Z", "list": [[1, "~"], {"a": {"b": -1}, "c": "x: y"}, "two words", "1e3"], "map": {}}"#;
        assert_eq!(
            Node::parse(json).unwrap().document(),
            "name: web\n\"on\": \"no\"\nport: 80\nshare: 1.0e+300\nratio: 0.5\nnone: null\nempty: []\n\
             at: \"2026-11-29T17:14:35Z\"\nlist:\n  - - 1\n    - \"~\"\n  - a:\n      b: -1\n    c: \"x: y\"\n  - two words\n  - \
             \"1e3\"\nmap: {}\n"
        );
    }

    #[test]
    fn text_that_means_something_else_is_quoted() {
        for text in [
            "",
            "yes",
            "No",
            "NULL",
            "~",
            "1",
            "-",
            "- a",
            "0x1f",
            ".inf",
            "a: b",
            "a #b",
            " a",
            "a ",
            "a  b",
            "12:30:45",
            "2026-01-01",
            "<<",
            "=",
            "[a]",
            "{a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "'a'",
            "?",
            "a\nb",
        ] {
            assert!(scalar(text).starts_with('"'), "{text}");
        }
        for text in ["web-1", "/etc/lb/lb.toml", "up, no", "connection refused"] {
            assert_eq!(scalar(text).starts_with('"'), text.contains(','), "{text}");
        }
        assert_eq!(
            scalar("\u{7f}\u{85}\u{2028}\u{feff}é\r"),
            "\"\\u007F\\u0085\\u2028\\uFEFFé\\u000D\""
        );
    }
}
