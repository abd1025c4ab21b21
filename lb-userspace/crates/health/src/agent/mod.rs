//! Agents: programs beside backends that report how to use them, by HAProxy's agent-check protocol.
//!
//! An agent is polled over TCP, with the scheduler of checks, and answers with one line of words (`answer`). An answer
//! changes only what it mentions, and an agent that does not answer changes nothing: whether a backend works is up to
//! checks. The sum of all answers is an [`AgentAnswer`]; `engine` (pure) keeps them, `task` polls.

mod answer;
mod ask;
mod engine;
mod metrics;
mod task;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::task::AgentHandle;
pub(super) use self::{metrics::AgentMetrics, task::AgentTask};

/// Maximum agents polled at the same time.
pub const MAX_ASKED: usize = 256;

/// Bytes of an answer that are read at most; a longer line is no answer.
pub const MAX_LINE: usize = 1024;

/// Bytes that can be sent to an agent.
pub const MAX_SEND: usize = 1024;

/// Largest share of a weight, in percent, that an agent can set: as in HAProxy.
pub const MAX_PERCENT: u16 = 25_600;

/// Failures in a row after which an agent is reported as lost; its last report stays in force.
pub const LOST_AFTER: u32 = 3;

/// How agents of a service are polled.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AgentSettings {
    /// Whether they are polled at all.
    pub enabled: bool,
    /// Port of agents of backends without a port of their own.
    pub port: Option<u16>,
    /// Text sent to them first; nothing if empty.
    pub send: String,
    /// Time between two questions.
    pub interval: Duration,
    /// Time after which a question without a whole answer has failed.
    pub timeout: Duration,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            port: None,
            send: String::new(),
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
        }
    }
}

/// How an agent wants its backend to be used, in an operator's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AgentAdmin {
    /// As its health allows.
    #[default]
    Ready,
    /// No new flows.
    Drain,
    /// No flows at all.
    Maint,
}

/// The state of a backend by its agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AgentState {
    /// It works.
    #[default]
    Up,
    /// It does not.
    Down,
    /// It was stopped on purpose.
    Stopped,
    /// It runs and fails.
    Fail,
}

/// The state in force after all answers of an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentAnswer {
    /// How its backend wants to be used.
    pub admin: AgentAdmin,
    /// How it is.
    pub state: AgentState,
    /// Share of the configured weight, in percent; up to [`MAX_PERCENT`].
    pub percent: u16,
}

impl Default for AgentAnswer {
    fn default() -> Self {
        Self {
            admin: AgentAdmin::Ready,
            state: AgentState::Up,
            percent: 100,
        }
    }
}

macro_rules! words {
    ($type:ident, $($variant:ident = $word:literal),*) => {
        impl $type {
            /// The word of the protocol.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// Parses a word of the protocol, in any case.
            pub fn from_word(word: &str) -> Option<Self> {
                $(if word.eq_ignore_ascii_case($word) {
                    return Some(Self::$variant);
                })*
                None
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words!(AgentAdmin, Ready = "ready", Drain = "drain", Maint = "maint");
words!(
    AgentState,
    Up = "up",
    Down = "down",
    Stopped = "stopped",
    Fail = "fail"
);

impl AgentState {
    /// Whether the backend works.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up)
    }
}

/// `maint, down, 50%`: the parts that differ from a backend without an agent; `ready` if none does.
impl fmt::Display for AgentAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            admin,
            state,
            percent,
        } = *self;
        let default = Self::default();
        let words = [
            (admin != default.admin).then(|| admin.to_string()),
            (state != default.state).then(|| state.to_string()),
            (percent != default.percent).then(|| format!("{percent}%")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        f.pad(&if words.is_empty() {
            default.admin.to_string()
        } else {
            words.join(", ")
        })
    }
}

/// An agent to poll.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentSpec<I> {
    /// The backend of the agent.
    pub id: I,
    /// Where it listens.
    pub target: SocketAddr,
    /// How it is polled; the target has its port already.
    pub settings: AgentSettings,
    /// Its report to an earlier daemon, or before its settings changed.
    pub initial: AgentAnswer,
}

/// An agent's report, for the rest of the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AgentReport {
    /// The state in force.
    pub word: AgentAnswer,
    /// Why, in the agent's words, where it gave any with the state.
    pub reason: Arc<str>,
    /// Why it counts as lost.
    pub lost: Option<Arc<str>>,
}

/// The reports by backend.
pub type AgentView<I> = BTreeMap<I, AgentReport>;

/// The status of an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AgentStatus {
    /// Its report, and whether the agent is lost.
    pub report: AgentReport,
    /// The latest question; none before the first.
    pub last: Option<LastAsked>,
}

/// The result of the last poll.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastAsked {
    /// The line that came, or why none came.
    pub answer: Result<Arc<str>, Arc<str>>,
    /// The part of the line that was ignored.
    pub note: Option<Arc<str>>,
    /// From the question to its end.
    pub latency: Duration,
    /// When it ended.
    pub at: SystemTime,
}

#[cfg(test)]
mod tests;
