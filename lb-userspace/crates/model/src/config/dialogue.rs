//! Dialogues of TCP checks: `send` and `expect` of a health table, or its `steps`.

use super::{
    error::Reporter,
    keys,
    table::{Spans, Table},
    values::ValueError,
};
use crate::{
    health::settings::{Bytes, DialogueStep, Expected},
    state::quic,
};

/// Keys of a health table that make a dialogue.
pub(super) const KEYS: [&str; 6] = ["send", "send_hex", "expect", "expect_hex", "expect_regex", STEPS];

const SENDS: [&str; 2] = ["send", "send_hex"];
const EXPECTS: [&str; 3] = ["expect", "expect_hex", "expect_regex"];
const STEPS: &str = "steps";

/// The other keys of dialogues that a table with `key` cannot have; nothing for keys of other things.
pub(super) fn excluded_by(key: &str) -> Vec<&'static str> {
    let others = |group: &[&'static str]| group.iter().copied().filter(|other| *other != key).collect();
    let beside_steps = |mut others: Vec<_>| {
        others.push(STEPS);
        others
    };
    if key == STEPS {
        others(&KEYS)
    } else if SENDS.contains(&key) {
        beside_steps(others(&SENDS))
    } else if EXPECTS.contains(&key) {
        beside_steps(others(&EXPECTS))
    } else {
        Vec::new()
    }
}

/// The steps of a health table; none where it has no dialogue.
pub(super) fn read(reporter: &mut Reporter<'_>, table: &mut Table<'_>, spans: &Spans) -> Vec<DialogueStep> {
    let alone = step(reporter, table, spans);
    let tables = table.tables(reporter, STEPS, keys::STEP.header);
    let steps = tables.into_iter().map(|(table, span)| {
        let mut table = Table::new(table, span, keys::STEP.header);
        let spans = table.spans();
        let step = step(reporter, &mut table, &spans);
        table.finish(reporter);
        step
    });
    let steps: Vec<_> = steps.collect();
    let other = KEYS.iter().find(|key| **key != STEPS && spans.has(key));
    if let Some(other) = other.filter(|_| spans.has(STEPS)) {
        reporter.error(
            spans.of(other),
            format!("{other} cannot be combined with steps"),
            Some("make it a step of its own".to_owned()),
        );
    }
    if spans.has(STEPS) {
        steps
    } else {
        Some(alone)
            .filter(|step| *step != DialogueStep::default())
            .into_iter()
            .collect()
    }
}

/// The bytes that a table sends, and the answer that it expects.
fn step(reporter: &mut Reporter<'_>, table: &mut Table<'_>, spans: &Spans) -> DialogueStep {
    let text = |text: &str| Ok(Bytes::Text(text.to_owned()));
    let regex = |text: &str| Ok(Expected::Regex(text.to_owned()));
    let sends = [
        ("send", table.text(reporter, "send", text)),
        ("send_hex", table.text(reporter, "send_hex", hex)),
    ];
    let expects = [
        (
            "expect",
            table.text(reporter, "expect", text).map(Expected::Bytes),
        ),
        (
            "expect_hex",
            table.text(reporter, "expect_hex", hex).map(Expected::Bytes),
        ),
        ("expect_regex", table.text(reporter, "expect_regex", regex)),
    ];
    DialogueStep {
        send: one(reporter, spans, sends),
        expect: one(reporter, spans, expects),
    }
}

/// The value of the only key that has one.
fn one<T, const N: usize>(
    reporter: &mut Reporter<'_>,
    spans: &Spans,
    values: [(&'static str, Option<T>); N],
) -> Option<T> {
    let mut found = values.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let (first, value) = found.next()?;
    if let Some((second, _)) = found.next() {
        reporter.error(
            spans.of(second),
            format!("{second} cannot be combined with {first}"),
            Some("remove one of them, or make it a step of its own".to_owned()),
        );
    }
    Some(value)
}

/// Bytes in hexadecimal; white space may stand between them.
fn hex(text: &str) -> Result<Bytes, ValueError> {
    let digits: String = text.split_whitespace().collect();
    quic::bytes(&digits).map(Bytes::Hex).ok_or_else(|| {
        ValueError::new(
            format!("{text:?} is not hexadecimal"),
            "two digits for each byte, for example \"50 49 4e 47 0d 0a\"",
        )
    })
}
