//! Statements of a source: a line with its words. Each word ends in a mapping or in a remark, so that nothing is lost unseen.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    rc::Rc,
};

use serde::Serialize;

use crate::error::ImportError;

/// Longest text of a line, in characters, that a remark repeats.
const MAX_SHOWN: usize = 240;
/// Most reasons of a line, and most words that a reason names.
const MAX_REASONS: usize = 100;
/// The last of more.
const AND_MORE: &str = "…";
/// Most words and bytes of a source with the files that it includes, its variables replaced. A word takes up to 100 bytes of memory.
const MAX_WORDS: usize = 1 << 21;
const MAX_BYTES: usize = 64 << 20;

/// How much of a source was read, so that none takes memory or time without end.
#[derive(Default, Debug)]
pub(crate) struct Size {
    words: usize,
    bytes: usize,
}

impl Size {
    /// Counts a line.
    ///
    /// # Errors
    /// It is too much.
    pub(crate) fn add(
        &mut self,
        file: &Rc<str>,
        line: usize,
        words: usize,
        bytes: usize,
    ) -> Result<(), ImportError> {
        // A line without words costs, too.
        self.words += words.max(1);
        self.bytes += bytes;
        if self.words > MAX_WORDS || self.bytes > MAX_BYTES {
            let what = format!(
                "with the files that it includes it is longer than {MAX_WORDS} words or {} MiB",
                MAX_BYTES >> 20
            );
            return Err(ImportError::syntax(file, line, what));
        }
        Ok(())
    }
}

/// A line of the source that has no counterpart, or only a part of one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Remark {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// The line, without surrounding space.
    pub text: String,
    /// What is lost and why, or what is nearest in `lb`.
    pub reasons: Vec<String>,
}

/// A line of the source.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Name of its file.
    pub(crate) file: Rc<str>,
    /// Line, from 1.
    pub(crate) line: usize,
    /// The line, without surrounding space.
    text: Rc<str>,
    /// Its words, without quotes and escapes.
    pub(crate) words: Vec<String>,
    /// Which words have neither a mapping nor a remark yet.
    open: RefCell<Vec<bool>>,
    /// Reasons, each with the words that it is about; of the whole line if there are none.
    reasons: RefCell<Vec<(Vec<String>, String)>>,
    /// Whether its remark has a place in the output.
    placed: Cell<bool>,
}

impl Statement {
    pub(crate) fn new(file: &Rc<str>, line: usize, text: &str, words: Vec<String>) -> Rc<Self> {
        let shown = Self::shown(text, &words);
        Self::part(file, line, shown, words)
    }

    /// A line as a remark repeats it.
    pub(crate) fn shown(text: &str, words: &[String]) -> Rc<str> {
        let whole = without_secrets(text.trim(), words);
        let mut shown: String = whole.chars().take(MAX_SHOWN).collect();
        if shown.len() < whole.len() {
            shown.push('…');
        }
        shown.into()
    }

    /// A part of a line.
    pub(crate) fn part(file: &Rc<str>, line: usize, shown: Rc<str>, words: Vec<String>) -> Rc<Self> {
        Rc::new(Self {
            file: Rc::clone(file),
            line,
            text: shown,
            open: RefCell::new(vec![true; words.len()]),
            words,
            reasons: RefCell::default(),
            placed: Cell::new(false),
        })
    }

    /// The word at a place; empty behind the last.
    pub(crate) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// The words from a place on.
    pub(crate) fn rest(&self, at: usize) -> &[String] {
        self.words.get(at..).unwrap_or_default()
    }

    fn close(&self, words: Range<usize>) {
        let mut open = self.open.borrow_mut();
        let end = words.end.min(open.len());
        if let Some(open) = open.get_mut(words.start.min(end)..end) {
            open.fill(false);
        }
    }

    /// The words have a counterpart.
    pub(crate) fn map(&self, words: Range<usize>) {
        self.close(words);
    }

    /// All words have a counterpart.
    pub(crate) fn map_all(&self) {
        self.close(0..self.words.len());
    }

    /// The words have none, for this reason.
    pub(crate) fn lose(&self, words: Range<usize>, reason: &str) {
        let end = words.end.min(self.words.len());
        let lost = self.words.get(words.start.min(end)..end).unwrap_or_default();
        let lost: String = lost.join(" ").chars().take(MAX_SHOWN).collect();
        self.add(Some(lost), reason.to_owned());
        self.close(words);
    }

    fn add(&self, words: Option<String>, reason: String) {
        let mut reasons = self.reasons.borrow_mut();
        let is_same =
            |(of, known): &&mut (Vec<String>, String)| *known == reason && of.is_empty() == words.is_none();
        let count = reasons.len();
        match (reasons.iter_mut().find(is_same), words) {
            (Some((of, _)), Some(words)) => {
                if of.len() < MAX_REASONS && !of.contains(&words) {
                    of.push(words);
                } else if of.len() == MAX_REASONS {
                    of.push(AND_MORE.to_owned());
                }
            }
            (Some(_), None) => {}
            (None, words) if count < MAX_REASONS => reasons.push((words.into_iter().collect(), reason)),
            (None, _) if count == MAX_REASONS => reasons.push((Vec::new(), AND_MORE.to_owned())),
            (None, _) => {}
        }
    }

    /// No word has a counterpart, for this reason.
    pub(crate) fn lose_all(&self, reason: impl Into<String>) {
        self.note(reason);
        self.map_all();
    }

    /// Adds a remark about the whole line.
    pub(crate) fn note(&self, reason: impl Into<String>) {
        self.add(None, reason.into());
    }

    /// Whether all of its words are open.
    pub(crate) fn is_untouched(&self) -> bool {
        self.reasons.borrow().is_empty() && self.open.borrow().iter().all(|open| *open)
    }

    /// Whether some of its words have neither a mapping nor a remark.
    pub(crate) fn is_open(&self) -> bool {
        self.open.borrow().contains(&true)
    }

    /// The remark, if it was not placed before and there is one. Words that are open are unknown ones.
    pub(crate) fn place(&self) -> Option<Remark> {
        if self.placed.get() {
            return None;
        }
        let open = self.open.borrow();
        let unknown: Vec<&str> = self
            .words
            .iter()
            .zip(open.iter())
            .filter_map(|(word, open)| open.then_some(word.as_str()))
            .collect();
        let reasons = self.reasons.borrow();
        let reason = |(words, reason): &(Vec<String>, String)| match words.as_slice() {
            [] => reason.clone(),
            words => format!("{}: {reason}", words.join(", ")),
        };
        let mut reasons: Vec<String> = reasons.iter().map(reason).collect();
        if !unknown.is_empty() {
            let all = unknown.len() == self.words.len();
            let unknown: String = unknown.join(" ").chars().take(MAX_SHOWN).collect();
            reasons.push(if all {
                "unknown to lb import".to_owned()
            } else {
                format!("{unknown}: unknown to lb import")
            });
        }
        if reasons.is_empty() {
            return None;
        }
        self.placed.set(true);
        Some(Remark {
            file: self.file.to_string(),
            line: self.line,
            text: self.text.to_string(),
            reasons,
        })
    }
}

/// Words before a password.
const BEFORE_SECRETS: [&str; 6] = [
    "auth",
    "auth_pass",
    "password",
    "insecure-password",
    "ca-sign-pass",
    "agent-send",
];

/// A line with passwords masked: the file that it is repeated in may have other readers. What is not shown may be missing.
fn without_secrets(text: &str, words: &[String]) -> String {
    const MASK: &str = "***";
    let mut shown = String::new();
    // Words stand in the order of the text.
    let mut rest = text;
    for pair in words.windows(2) {
        let [before, secret] = pair else { continue };
        if !BEFORE_SECRETS.contains(&before.as_str()) || secret.is_empty() {
            continue;
        }
        // No character has more bytes.
        if shown.len() > 4 * MAX_SHOWN {
            break;
        }
        let behind = rest
            .find(before.as_str())
            .and_then(|at| rest.split_at_checked(at + before.len()));
        let found = behind.and_then(|(_, behind)| behind.split_once(secret.as_str()));
        match (behind, found) {
            (Some((head, _)), Some((between, after))) => {
                shown.extend([head, between, MASK]);
                rest = after;
            }
            // Written with quotes or escapes.
            (Some((head, _)), None) => {
                shown.extend([head, " ", MASK]);
                return shown;
            }
            (None, _) => {
                shown.push_str(MASK);
                return shown;
            }
        }
    }
    shown.push_str(rest);
    shown
}

/// Lines of a comment: each remark with its place, and reasons once where they are the same for lines that follow each other.
pub(crate) fn comment_lines(remarks: &[Remark]) -> Vec<String> {
    let mut lines = Vec::new();
    for group in remarks.chunk_by(|one, next| one.reasons == next.reasons) {
        for Remark { file, line, text, .. } in group {
            lines.push(format!("{file}:{line}: {text}"));
        }
        for reason in group.first().map_or(&[][..], |remark| &remark.reasons) {
            lines.push(format!("  {reason}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> Rc<Statement> {
        let words = text.split_whitespace().map(str::to_owned).collect();
        Statement::new(&"a.cfg".into(), 7, text, words)
    }

    #[test]
    fn words_that_nobody_mapped_are_named() {
        let whole = statement("server a 10.0.0.1 fancy 7");
        whole.map(0..3);
        let remark = whole.place().unwrap();
        assert_eq!(remark.reasons, ["fancy 7: unknown to lb import"]);
        assert_eq!(whole.place(), None, "a remark has one place");

        let mapped = statement("balance source");
        mapped.map_all();
        assert_eq!(mapped.place(), None);

        let unknown = statement("frobnicate");
        assert_eq!(unknown.place().unwrap().reasons, ["unknown to lb import"]);
    }

    #[test]
    fn a_source_is_read_up_to_a_limit() {
        let file: Rc<str> = "a.cfg".into();
        let mut size = Size::default();
        size.add(&file, 1, MAX_WORDS - 1, 10).unwrap();
        size.add(&file, 2, 0, 10).unwrap();
        let error = size.add(&file, 3, 0, 0).unwrap_err();
        assert!(
            error.to_string().starts_with("a.cfg:3: with the files"),
            "{error}"
        );
        let mut size = Size::default();
        size.add(&file, 1, 1, MAX_BYTES).unwrap();
        assert!(size.add(&file, 2, 1, 1).is_err());
    }

    #[test]
    fn a_line_names_a_limited_number_of_words_and_reasons() {
        let line = statement(&"x ".repeat(3 * MAX_REASONS));
        for number in 0..2 * MAX_REASONS {
            line.add(Some(number.to_string()), "same".to_owned());
            line.note(number.to_string());
        }
        line.map_all();
        let reasons = line.place().unwrap().reasons;
        assert_eq!(reasons.len(), MAX_REASONS + 1);
        assert!(reasons[0].ends_with("98, 99, …: same"), "{}", reasons[0]);
        assert_eq!(reasons[MAX_REASONS], "…");
    }

    #[test]
    fn words_with_one_reason_share_it() {
        let line = statement("server a 10.0.0.1 maxconn 5 maxqueue 7");
        line.map(0..3);
        line.lose(3..5, "no limit");
        line.lose(5..7, "no limit");
        line.lose(5..7, "no limit");
        line.note("odd");
        line.note("odd");
        assert_eq!(
            line.place().unwrap().reasons,
            ["maxconn 5, maxqueue 7: no limit", "odd"]
        );
    }

    #[test]
    fn passwords_are_not_repeated() {
        for (text, shown) in [
            ("auth_pass secret", "auth_pass ***"),
            ("stats auth admin:secret", "stats auth ***"),
            ("user a insecure-password a", "user a insecure-password ***"),
            ("auth a auth b", "auth *** auth ***"),
            ("option httpchk", "option httpchk"),
        ] {
            let line = statement(text);
            assert_eq!(line.place().unwrap().text, shown);
        }
        for text in ["auth a\\ b", "au\\th a"] {
            let words = ["auth".to_owned(), "a b".to_owned()];
            let shown = without_secrets(text, &words);
            assert!(
                shown.ends_with("***") && !shown.contains('a') | shown.starts_with("auth "),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_reason_of_several_lines_is_written_once() {
        let remarks: Vec<Remark> = ["log global", "log 127.0.0.1 local0", "maxconn 5"]
            .iter()
            .map(|text| {
                let statement = statement(text);
                statement.lose_all(if text.starts_with("log") {
                    "no log"
                } else {
                    "no limit"
                });
                statement.place().unwrap()
            })
            .collect();
        assert_eq!(
            comment_lines(&remarks),
            [
                "a.cfg:7: log global",
                "a.cfg:7: log 127.0.0.1 local0",
                "  no log",
                "a.cfg:7: maxconn 5",
                "  no limit"
            ]
        );
    }
}
