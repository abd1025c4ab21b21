//! Parses an agent's answer: a line of words and their effects (HAProxy's configuration manual, section 5.2,
//! `agent-check`). Pure.

use std::sync::Arc;

use crate::agent::report::{AgentAdmin, AgentAnswer, AgentReport, AgentState, MAX_PERCENT};

/// The content of a line; parts that it does not mention stay unchanged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Answer {
    pub(super) admin: Option<AgentAdmin>,
    pub(super) state: Option<AgentState>,
    pub(super) percent: Option<u16>,
    /// The reason for the state, if given.
    pub(super) reason: String,
    /// The first thing that was passed over.
    pub(super) note: Option<String>,
}

/// The line that bytes begin with, which ends at the first CR or LF; `None` while its end is missing.
pub fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    bytes.get(..end)
}

/// A line as printable text: one line, without control characters.
pub(super) fn text(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.collect::<String>().trim().to_owned()
}

/// Reads a line: words in any order, divided by blanks, tabs and commas, of which the last one of each kind counts, and a
/// reason after `#`.
pub(super) fn parse(line: &[u8]) -> Answer {
    // Divided before control characters are replaced: a tab is one.
    let line = String::from_utf8_lossy(line);
    let (words, reason) = line.split_once('#').unwrap_or((&line, ""));
    let mut answer = Answer::default();
    let mut weight = None;
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        if let Some(state) = AgentState::from_word(word) {
            answer.state = Some(state);
        } else if let Some(admin) = AgentAdmin::from_word(word) {
            answer.admin = Some(admin);
        } else if word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('%') {
            // The last one counts, also if it is none.
            weight = Some(word);
        } else if word
            .get(..8)
            .is_some_and(|start| start.eq_ignore_ascii_case("maxconn:"))
        {
            answer.passed_over("maxconn does not apply to a balancer of packets");
        } else {
            answer.passed_over(&format!("unknown word \"{}\"", text(word.as_bytes())));
        }
    }
    if let Some(word) = weight {
        answer.percent = percent(word);
        if answer.percent.is_none() {
            answer.passed_over(&format!("\"{}\" is no weight", text(word.as_bytes())));
        }
    }
    if answer.state.is_some() {
        answer.reason = text(reason.as_bytes());
    }
    answer
}

/// `N%`, at most [`MAX_PERCENT`].
fn percent(word: &str) -> Option<u16> {
    let digits = word.strip_suffix('%')?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let add = |number: u16, digit: u8| number.saturating_mul(10).saturating_add(u16::from(digit - b'0'));
    Some(digits.bytes().fold(0, add).min(MAX_PERCENT))
}

impl AgentReport {
    /// Takes up a line of the agent's. Returns it as printable text, and the first thing in it that was passed over.
    pub fn take_up(&mut self, line: &[u8]) -> (Arc<str>, Option<Arc<str>>) {
        let answer = parse(line);
        self.word = answer.after(self.word);
        if answer.state.is_some() {
            self.reason = answer.reason.into();
        }
        (text(line).into(), answer.note.map(Arc::from))
    }
}

impl Answer {
    fn passed_over(&mut self, what: &str) {
        self.note.get_or_insert_with(|| what.to_owned());
    }

    /// The agent state in force after this answer.
    pub(super) fn after(&self, before: AgentAnswer) -> AgentAnswer {
        AgentAnswer {
            admin: self.admin.unwrap_or(before.admin),
            state: self.state.unwrap_or(before.state),
            percent: self.percent.unwrap_or(before.percent),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines, and their meaning in HAProxy's `tcpcheck_agent_expect_reply` and `server_parse_weight_change_request`.
    #[test]
    fn words_mean_the_same_as_in_haproxy() {
        use AgentAdmin::{Drain, Maint, Ready};
        use AgentState::{Down, Fail, Stopped, Up};
        let says = |admin, state, percent, reason: &str, note: Option<&str>| Answer {
            admin,
            state,
            percent,
            reason: reason.to_owned(),
            note: note.map(str::to_owned),
        };
        for (line, expected) in [
            ("", Answer::default()),
            (" \t,, ", Answer::default()),
            ("up", says(None, Some(Up), None, "", None)),
            ("DOWN", says(None, Some(Down), None, "", None)),
            ("ready up 75%", says(Some(Ready), Some(Up), Some(75), "", None)),
            (
                "75%,drain\tstopped",
                says(Some(Drain), Some(Stopped), Some(75), "", None),
            ),
            // The last of a kind wins.
            ("up down fail", says(None, Some(Fail), None, "", None)),
            ("maint drain ready maint", says(Some(Maint), None, None, "", None)),
            ("10% 20%", says(None, None, Some(20), "", None)),
            ("0%", says(None, None, Some(0), "", None)),
            ("300%", says(None, None, Some(300), "", None)),
            (
                "99999999999999999999%",
                says(None, None, Some(MAX_PERCENT), "", None),
            ),
            ("70000%", says(None, None, Some(MAX_PERCENT), "", None)),
            // A reason runs to the end of the line.
            (
                "down #disk full, up 5%",
                says(None, Some(Down), None, "disk full, up 5%", None),
            ),
            ("fail#no route", says(None, Some(Fail), None, "no route", None)),
            // A reason without a state is ignored.
            ("drain #soon", says(Some(Drain), None, None, "", None)),
            ("# up", Answer::default()),
            // Ignored, and reported once.
            (
                "upp 50%",
                says(None, None, Some(50), "", Some("unknown word \"upp\"")),
            ),
            ("5 x y", says(None, None, None, "", Some("unknown word \"5\""))),
            ("50%x", says(None, None, None, "", Some("\"50%x\" is no weight"))),
            (
                "50% 6%6%",
                says(None, None, None, "", Some("\"6%6%\" is no weight")),
            ),
            ("-5%", says(None, None, None, "", Some("unknown word \"-5%\""))),
            (
                "maxconn:30 up",
                says(
                    None,
                    Some(Up),
                    None,
                    "",
                    Some("maxconn does not apply to a balancer of packets"),
                ),
            ),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn unmentioned_parts_stay() {
        let word = |line: &str, before| parse(line.as_bytes()).after(before);
        let mut standing = AgentAnswer::default();
        for (line, expected) in [
            ("50%", "50%"),
            ("drain", "drain, 50%"),
            ("down #x", "drain, down, 50%"),
            ("", "drain, down, 50%"),
            ("up", "drain, 50%"),
            ("ready 100%", "ready"),
        ] {
            standing = word(line, standing);
            assert_eq!(standing.to_string(), expected, "{line:?}");
        }
    }

    #[test]
    fn a_line_ends_at_the_first_end() {
        for (bytes, expected) in [
            (&b"up\ndown\n"[..], Some(&b"up"[..])),
            (b"up\r\ndown", Some(b"up")),
            (b"\nup\n", Some(b"")),
            (b"up", None),
            (b"", None),
        ] {
            assert_eq!(line(bytes), expected);
        }
    }

    proptest! {
        /// An agent may be broken, or no agent at all: any bytes give something that can be shown.
        #[test]
        fn any_bytes_are_an_answer_of_bounded_size(bytes in proptest::collection::vec(any::<u8>(), 0..crate::agent::settings::MAX_LINE)) {
            let answer = parse(&bytes);
            prop_assert!(answer.percent.is_none_or(|percent| percent <= MAX_PERCENT));
            // An invalid byte becomes three, and ignored words are quoted.
            let most = 3 * bytes.len() + 32;
            for shown in [Some(answer.reason), answer.note, Some(text(&bytes))].into_iter().flatten() {
                prop_assert!(shown.len() <= most && !shown.contains(char::is_control), "{shown:?}");
            }
        }

        /// The last word of each kind counts, whatever words are in between.
        #[test]
        fn the_last_word_of_each_kind_counts(words in proptest::collection::vec(
            prop::sample::select(vec!["up", "DOWN", "Stopped", "fail", "ready", "drain", "maint", "7%", "200%", "junk"]), 0..12)) {
            let answer = parse(words.join(",\t ").as_bytes());
            let last = |of: fn(&str) -> bool| words.iter().rev().find(|word| of(word)).copied();
            let state = last(|word| AgentState::from_word(word).is_some());
            prop_assert_eq!(answer.state, state.and_then(AgentState::from_word));
            let admin = last(|word| AgentAdmin::from_word(word).is_some());
            prop_assert_eq!(answer.admin, admin.and_then(AgentAdmin::from_word));
            prop_assert_eq!(answer.percent, last(|word| word.ends_with('%')).and_then(percent));
            prop_assert_eq!(answer.note.is_some(), words.contains(&"junk"));
        }
    }
}
