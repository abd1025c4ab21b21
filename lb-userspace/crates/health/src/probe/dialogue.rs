//! Checks that a server answers a dialogue over TCP as expected.

use std::{fmt::Write, io, net::SocketAddr, sync::Arc, time::Duration};

use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    connect::Budget,
    connection::Connection,
    problem::{ProbeError, compile},
};
use crate::{
    error::{CheckError, Latency, Stage},
    probe::{checker::Checker, route::Route},
    settings::{Bytes, DialogueStep, Expected, TcpDialogue},
};

/// Steps of a dialogue at most.
pub(super) const MAX_STEPS: usize = 32;
/// Bytes that one step sends, or that its pattern has, at most.
pub(super) const MAX_SENT: usize = 16 * 1024;
/// Bytes of an answer that are looked at in one step at most.
const MAX_ANSWER: usize = 64 * 1024;
/// Bytes of an expectation and of an answer that a message shows at most.
const MAX_SHOWN: usize = 80;
/// Bytes read at once.
const READ_SIZE: usize = 4096;

/// Everything that makes `settings` no dialogue.
pub(super) fn problems(settings: &TcpDialogue) -> Vec<ProbeError> {
    let TcpDialogue { steps } = settings;
    let mut problems = Vec::new();
    if !(1..=MAX_STEPS).contains(&steps.len()) {
        problems.push(ProbeError::Steps(MAX_STEPS));
    }
    for DialogueStep { send, expect } in steps {
        if send.is_none() && expect.is_none() {
            problems.push(ProbeError::EmptyStep);
        }
        if let Some(send) = send.as_ref().filter(|send| !length_is_fine(send)) {
            problems.push(ProbeError::Sent(send.key("send", "send_hex"), MAX_SENT));
        }
        match expect {
            None => {}
            Some(Expected::Bytes(bytes)) if length_is_fine(bytes) => {}
            Some(Expected::Bytes(bytes)) => {
                problems.push(ProbeError::Sent(bytes.key("expect", "expect_hex"), MAX_SENT));
            }
            Some(Expected::Regex(pattern)) => problems.extend(compile("expect_regex", pattern).err()),
        }
    }
    problems
}

fn length_is_fine(bytes: &Bytes) -> bool {
    (1..=MAX_SENT).contains(&bytes.as_bytes().len())
}

/// A pattern that an answer must contain.
#[derive(Debug)]
enum Pattern {
    Bytes(Box<[u8]>),
    Regex(Regex),
}

impl Pattern {
    /// Where the first match in `text` ends.
    fn end_in(&self, text: &[u8]) -> Option<usize> {
        match self {
            Self::Bytes(bytes) => {
                let at = text.windows(bytes.len()).position(|window| *window == **bytes)?;
                Some(at + bytes.len())
            }
            Self::Regex(regex) => Some(regex.find(text)?.end()),
        }
    }
}

#[derive(Debug)]
struct Step {
    send: Box<[u8]>,
    expect: Option<(Pattern, Box<str>)>,
}

/// Connects, and for each step sends its text and waits for its expected answer. The expected text may be anywhere
/// after the last step that sent something, or after the match of the step before. One timeout holds for the whole
/// dialogue; the connection ends by a reset.
#[derive(Clone, Debug)]
pub struct DialogueChecker {
    steps: Arc<[Step]>,
    route: Route,
}

impl DialogueChecker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When they make no dialogue.
    pub fn new(settings: &TcpDialogue) -> Result<Self, ProbeError> {
        if let Some(problem) = problems(settings).into_iter().next() {
            return Err(problem);
        }
        let steps = settings.steps.iter().map(|DialogueStep { send, expect }| {
            let expect = match expect {
                None => None,
                Some(Expected::Bytes(bytes)) => {
                    let pattern = Pattern::Bytes(bytes.as_bytes().into());
                    Some((pattern, quoted(bytes.as_bytes())))
                }
                Some(Expected::Regex(text)) => {
                    let pattern = Pattern::Regex(compile("expect_regex", text)?);
                    Some((pattern, format!("a match of {}", quoted(text.as_bytes()))))
                }
            };
            Ok(Step {
                send: send.as_ref().map(Bytes::as_bytes).unwrap_or_default().into(),
                expect: expect.map(|(pattern, words)| (pattern, words.into())),
            })
        });
        Ok(Self {
            steps: steps.collect::<Result<_, ProbeError>>()?,
            route: Route::default(),
        })
    }

    /// Connects by `route`.
    #[must_use]
    pub fn with_route(self, route: Route) -> Self {
        Self { route, ..self }
    }
}

impl Checker for DialogueChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        let mut stream = budget.connect(self.route).await?;
        let mut talk = Talk::default();
        let ended = budget
            .limit(|| Stage::Request, talk.run(&self.steps, &mut stream))
            .await;
        let why = match ended {
            Ok(Ok(())) => return Ok(Latency(budget.started.elapsed())),
            Ok(Err(End::TooMuch)) => format!("and the first {MAX_ANSWER} bytes are all that is read"),
            Ok(Err(End::Closed)) => "then closed the connection".to_owned(),
            Ok(Err(End::Failed(error))) => {
                let error = CheckError::from_io(target, Stage::Request, &error);
                if !matches!(error, CheckError::Reset { .. }) {
                    return Err(error);
                }
                "then reset the connection".to_owned()
            }
            Err(CheckError::TimedOut { after, .. }) => format!("nothing more within {after:?}"),
            Err(error) => return Err(error),
        };
        Err(talk.failure(target, &self.steps, &why))
    }
}

/// Why a dialogue ended before its last step.
#[derive(Debug)]
enum End {
    /// The server closed the connection.
    Closed,
    /// The expected is not in the first [`MAX_ANSWER`] bytes.
    TooMuch,
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// The progress of a dialogue. Outlives its future, so that a timeout can report it.
#[derive(Debug, Default)]
struct Talk {
    step: usize,
    answer: Vec<u8>,
}

impl Talk {
    async fn run(&mut self, steps: &[Step], stream: &mut Connection) -> Result<(), End> {
        for (number, Step { send, expect }) in steps.iter().enumerate() {
            self.step = number;
            stream.expect_answer(0);
            if !send.is_empty() {
                // Earlier bytes are no answer to this.
                self.answer.clear();
                stream.write_all(send).await?;
            }
            if let Some((pattern, _)) = expect {
                self.wait_for(pattern, stream).await?;
            }
        }
        Ok(())
    }

    async fn wait_for(&mut self, pattern: &Pattern, stream: &mut Connection) -> Result<(), End> {
        loop {
            if let Some(end) = pattern.end_in(&self.answer) {
                self.answer.drain(..end);
                return Ok(());
            }
            let room = MAX_ANSWER.saturating_sub(self.answer.len()).min(READ_SIZE);
            if room == 0 {
                return Err(End::TooMuch);
            }
            let mut limited = (&mut *stream).take(u64::try_from(room).unwrap_or_default());
            if limited.read_buf(&mut self.answer).await? == 0 {
                return Err(End::Closed);
            }
        }
    }

    /// The failure with the expected and the received text, and `why` no more came.
    fn failure(&self, target: SocketAddr, steps: &[Step], why: &str) -> CheckError {
        let place = match steps.len() {
            1 => String::new(),
            all => format!("in step {} of {all}, ", self.step + 1),
        };
        let expected = steps.get(self.step).and_then(|step| step.expect.as_ref());
        let expected = expected.map_or("that it takes what is sent", |(_, words)| words);
        let came = match self.answer.as_slice() {
            [] => "got nothing".to_owned(),
            came => format!("got {}", quoted(came)),
        };
        CheckError::Answer {
            target,
            reason: format!("{place}expected {expected}, {came}, {why}").into(),
        }
    }
}

/// Bytes as a message shows them: the first ones, in quotes, without control characters.
fn quoted(bytes: &[u8]) -> String {
    let first = bytes.get(..MAX_SHOWN).unwrap_or(bytes);
    let mut text = format!("\"{}\"", first.escape_ascii());
    if first.len() < bytes.len() {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}
