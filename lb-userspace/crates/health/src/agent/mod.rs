//! Agents: programs beside backends that say how these want to be used, by HAProxy's agent-check protocol.
//!
//! An agent is asked over TCP, by the schedule that checks have, too, and answers with one line of words (`answer`). What
//! it does not mention stays as it was, and so does everything while it does not answer: whether a backend works is for
//! checks to find out. What stands of all answers is an [`AgentAnswer`]; `engine` (pure) keeps those, `task` asks.

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

/// Agents that are asked at the same time at most.
pub const MAX_ASKED: usize = 256;

/// Bytes of an answer that are read at most; a longer line is no answer.
pub const MAX_LINE: usize = 1024;

/// Bytes that can be sent to an agent.
pub const MAX_SEND: usize = 1024;

/// Largest share of a weight, in percent, that an agent can ask for: as in HAProxy.
pub const MAX_PERCENT: u16 = 25_600;

/// Failures in a row after which an agent counts as lost, which is told; what it said stands all the same.
pub const LOST_AFTER: u32 = 3;

/// How agents of a service are asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AgentSettings {
    /// Whether they are asked at all.
    pub enabled: bool,
    /// Port of agents whose backends name none of their own.
    pub port: Option<u16>,
    /// What is sent to them first; nothing where empty.
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

/// How an agent wants its backend to be used, as an operator could say it.
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

/// How an agent says its backend is.
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

/// What stands of all that an agent has said.
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

            /// What a word of the protocol says, in whatever case.
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

/// `maint, down, 50%`: what is not as it would be without an agent; `ready` where nothing is.
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

/// An agent that should be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentSpec<I> {
    /// Whose agent it is.
    pub id: I,
    /// Where it listens.
    pub target: SocketAddr,
    /// How it is asked; its port is that of the target already.
    pub settings: AgentSettings,
    /// What it said to an earlier daemon, or what stood before it was asked in another way.
    pub initial: AgentAnswer,
}

/// What others do by an agent's word.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AgentReport {
    /// What stands.
    pub word: AgentAnswer,
    /// Why, in the agent's words, where it gave any with the state.
    pub reason: Arc<str>,
    /// Why it counts as lost.
    pub lost: Option<Arc<str>>,
}

/// By whom what was said.
pub type AgentView<I> = BTreeMap<I, AgentReport>;

/// What is known about an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AgentStatus {
    /// What stands, and whether the agent is lost.
    pub said: AgentReport,
    /// The latest question; none before the first.
    pub last: Option<LastAsked>,
}

/// What became of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastAsked {
    /// The line that came, or why none came.
    pub answer: Result<Arc<str>, Arc<str>>,
    /// What of the line was passed over.
    pub note: Option<Arc<str>>,
    /// From the question to its end.
    pub latency: Duration,
    /// When it ended.
    pub at: SystemTime,
}

#[cfg(test)]
mod tests;
