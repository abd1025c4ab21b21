//! Agents of backends.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The report of a backend's agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// The wanted use of the backend: `ready`, `drain` or `maint`. The operator's setting takes precedence.
    pub admin: String,
    /// How it is: `up`, `down`, `stopped` or `fail`.
    pub state: String,
    /// Share of the configured weight, in percent.
    pub weight_percent: u16,
    /// The reason for the state, in the agent's words.
    pub reason: Option<String>,
    /// Whether it failed to answer several times in a row; its last report stays in force.
    pub lost: bool,
    /// The latest question; `null` before the first.
    pub last_poll: Option<AgentPoll>,
}

/// The result of polling an agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AgentPoll {
    /// The line it answered.
    pub answer: Option<String>,
    /// Why there is none.
    pub error: Option<String>,
    /// The part of the line that was ignored.
    pub note: Option<String>,
    /// How long it took, microseconds.
    pub latency_us: u64,
    /// When it ended, RFC 3339.
    pub at: String,
}
