//! How agents are polled.

use std::{net::SocketAddr, time::Duration};

use super::report::AgentAnswer;

/// Maximum agents polled at the same time.
pub const MAX_ASKED: usize = 256;

/// Bytes of an answer that are read at most; a longer line is no answer.
pub const MAX_LINE: usize = 1024;

/// Bytes that can be sent to an agent.
pub const MAX_SEND: usize = 1024;

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
