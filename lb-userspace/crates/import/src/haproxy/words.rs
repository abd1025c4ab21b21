//! Words of a line of HAProxy's configuration (its manual, section 2.2 "Quoting and escaping").

use std::rc::Rc;

use lb_model::number;

use crate::error::ImportError;

/// The words of a line, without quotes, escapes and the comment at its end.
///
/// # Errors
/// A quote or an escape does not end.
pub(super) fn split(file: &Rc<str>, line: usize, text: &str) -> Result<Vec<String>, ImportError> {
    let mut words = Vec::new();
    // `None` between words; quotes alone make an empty word.
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => {
                let escaped = escape(&mut chars)
                    .ok_or_else(|| ImportError::syntax(file, line, "the escape after \\ does not end"))?;
                word.get_or_insert_default().push(escaped);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
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

/// The character after a backslash. `None` if the text ends before.
fn escape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    match chars.next()? {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'x' => {
            let digits: String = chars.by_ref().take(2).collect();
            number::hexadecimal_byte(digits.as_bytes()).map(char::from)
        }
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_escapes_and_comments_are_read_as_haproxy_reads_them() {
        let file: Rc<str> = "h.cfg".into();
        for (text, words) in [
            ("  bind  *:80 # all", &["bind", "*:80"][..]),
            ("# nothing", &[]),
            (r"send PING\r\n", &["send", "PING\r\n"]),
            (r"uri a\ b", &["uri", "a b"]),
            (r#"hdr "a # b" 'c \ d' """#, &["hdr", "a # b", "c \\ d", ""]),
            (r"x \x41\#", &["x", "A#"]),
            (r#"a"b c"d"#, &["ab cd"]),
        ] {
            assert_eq!(split(&file, 1, text).unwrap(), words, "{text}");
        }
        for (text, what) in [
            ("a 'b", "the quote ' is not closed"),
            ("a \"b", "the quote \" is not closed"),
            ("a \\", "does not end"),
        ] {
            let error = split(&file, 3, text).unwrap_err().to_string();
            assert!(error.starts_with("h.cfg:3: ") && error.contains(what), "{error}");
        }
    }
}
