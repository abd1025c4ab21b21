//! Lines of hostile agents.

use lb_health_core::agent::{self, AgentAdmin, AgentAnswer, AgentReport, AgentState, MAX_PERCENT};

/// An answer of which each part differs from the answer of an agent that has said nothing.
const OTHER: AgentAnswer = AgentAnswer {
    admin: AgentAdmin::Maint,
    state: AgentState::Fail,
    percent: 7,
};

/// Each line answers another poll; the last one counts as a line, too.
pub(crate) fn check(bytes: &[u8]) {
    let mut report = AgentReport::default();
    let mut rest = bytes;
    while let Some(line) = agent::line(rest) {
        take_up(&mut report, line);
        let (_, behind) = rest.split_at(line.len());
        let Some((b'\r' | b'\n', behind)) = behind.split_first() else {
            panic!("a line does not end with its end: {line:?}");
        };
        rest = behind;
    }
    assert!(
        !rest.contains(&b'\r') && !rest.contains(&b'\n'),
        "no line in {rest:?}"
    );
    take_up(&mut report, rest);
}

fn take_up(report: &mut AgentReport, line: &[u8]) {
    let before = report.word;
    let (text, note) = report.take_up(line);
    // A byte that is no text becomes three, and what is passed over is quoted.
    let most = 3 * line.len() + 64;
    for shown in [Some(text), note, Some(report.reason.clone())]
        .into_iter()
        .flatten()
    {
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
    let (text, note) = report.take_up(line);
    assert!(
        text.len() <= most && note.is_none_or(|note| note.len() <= most),
        "{line:?}"
    );
    let word = report.word;
    assert!(word.percent <= MAX_PERCENT, "{word:?}");
    let mut of_other = AgentReport {
        word: OTHER,
        ..AgentReport::default()
    };
    of_other.take_up(line);
    let other = of_other.word;
    // A line mentions a part, and then sets it whatever it was, or leaves it as it was.
    let admin = other.admin == word.admin || (other.admin == OTHER.admin && word.admin == before.admin);
    let state = other.state == word.state || (other.state == OTHER.state && word.state == before.state);
    let percent =
        other.percent == word.percent || (other.percent == OTHER.percent && word.percent == before.percent);
    assert!(
        admin && state && percent,
        "{line:?}: {before:?} and {OTHER:?} become {word:?} and {other:?}"
    );
    // What is shown of it is a line that says the same.
    let mut of_shown = AgentReport::default();
    let (_, note) = of_shown.take_up(word.to_string().as_bytes());
    assert!(
        of_shown.word == word && note.is_none(),
        "{word}: {of_shown:?}, {note:?}"
    );
}
