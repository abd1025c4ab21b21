//! What agents report.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Largest share of a weight, in percent, that an agent can set: as in HAProxy.
pub const MAX_PERCENT: u16 = 25_600;

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
