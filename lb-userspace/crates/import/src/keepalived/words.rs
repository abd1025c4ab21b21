//! Words of a line of keepalived's configuration (keepalived.conf(5), "Configuration file syntax").

use std::{collections::HashMap, rc::Rc};

use crate::error::ImportError;

/// Longest line, in bytes, also with its variables replaced.
const MAX_LINE: usize = 64 * 1024;

/// The words of a line, without quotes and the comment at its end. Braces are words of their own.
///
/// # Errors
/// A quote does not end.
pub(super) fn split(file: &Rc<str>, line: usize, text: &str) -> Result<Vec<String>, ImportError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#' | '!') => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            // Part of a variable that is not known.
            (None, '{') if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                word.get_or_insert_default().push(c);
                for c in chars.by_ref() {
                    word.get_or_insert_default().push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
            (None, '{' | '}') => {
                words.extend(word.take());
                words.push(c.to_string());
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(ImportError::syntax(
            file,
            line,
            format!("the quote {open} is not closed"),
        ));
    }
    words.extend(word);
    Ok(words)
}

/// Variables of a configuration: `$NAME=value`.
#[derive(Default, Debug)]
pub(super) struct Variables(HashMap<String, String>);

impl Variables {
    /// Reads a definition; false for any other line.
    pub(super) fn define(&mut self, text: &str) -> bool {
        let Some((name, value)) = text
            .trim()
            .strip_prefix('$')
            .and_then(|rest| rest.split_once('='))
        else {
            return false;
        };
        let name = name.trim();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_name {
            self.0.insert(name.to_owned(), value.trim().to_owned());
        }
        is_name
    }

    /// A line with its variables replaced. Unknown ones stay.
    ///
    /// # Errors
    /// It becomes too long.
    pub(super) fn replace(&self, file: &Rc<str>, line: usize, text: &str) -> Result<String, ImportError> {
        let too_long =
            || ImportError::syntax(file, line, format!("the line is longer than {MAX_LINE} bytes"));
        if text.len() > MAX_LINE {
            return Err(too_long());
        }
        let mut replaced = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            replaced.push_str(before);
            let (name, behind) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
                Some((name, behind)) => (name, behind),
                None => {
                    let end = after
                        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                        .unwrap_or(after.len());
                    after.split_at(end)
                }
            };
            match self.0.get(name) {
                Some(value) => {
                    replaced.push_str(value);
                    rest = behind;
                }
                None => {
                    replaced.push('$');
                    rest = after;
                }
            }
            if replaced.len() > MAX_LINE {
                break;
            }
        }
        replaced.push_str(rest);
        if replaced.len() > MAX_LINE {
            return Err(too_long());
        }
        Ok(replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_quotes_and_comments_are_read_as_keepalived_reads_them() {
        let file: Rc<str> = "k.conf".into();
        for (text, words) in [
            (
                "real_server 10.0.0.1 80 { # one",
                &["real_server", "10.0.0.1", "80", "{"][..],
            ),
            ("TCP_CHECK{", &["TCP_CHECK", "{"]),
            ("url { path / }", &["url", "{", "path", "/", "}"]),
            ("! a comment", &[]),
            (
                r#"misc_path "/bin/check -x \"a\"""#,
                &["misc_path", r#"/bin/check -x "a""#],
            ),
            ("notify 'a b'", &["notify", "a b"]),
            ("x ${NOT_KNOWN}", &["x", "${NOT_KNOWN}"]),
        ] {
            assert_eq!(split(&file, 1, text).unwrap(), words, "{text}");
        }
        let error = split(&file, 3, "a \"b").unwrap_err().to_string();
        assert_eq!(error, "k.conf:3: the quote \" is not closed");
    }

    #[test]
    fn variables_are_replaced_and_never_grow_without_end() {
        let file: Rc<str> = "k.conf".into();
        let mut variables = Variables::default();
        assert!(variables.define("$VIP=192.0.2.10"));
        assert!(!variables.define("virtual_server $VIP 80 {"));
        assert!(!variables.define("$a b=1"));
        for (text, replaced) in [
            ("virtual_server $VIP 80", "virtual_server 192.0.2.10 80"),
            ("x ${VIP}:80 $OTHER $", "x 192.0.2.10:80 $OTHER $"),
        ] {
            assert_eq!(variables.replace(&file, 1, text).unwrap(), replaced);
        }
        let mut value = "x".repeat(1000);
        let grown = (0..20).find_map(|_| {
            variables.define(&format!("$V={value}"));
            match variables.replace(&file, 1, "$V$V") {
                Ok(longer) => {
                    value = longer;
                    None
                }
                Err(error) => Some(error.to_string()),
            }
        });
        assert!(grown.is_some_and(|error| error.contains("longer than")));
    }
}
