//! Agents: programs beside backends that report how to use them, by HAProxy's agent-check protocol.
//!
//! An agent is polled over TCP, with the scheduler of checks, and answers with one line of words (`answer`). An answer
//! changes only what it mentions, and an agent that does not answer changes nothing: whether a backend works is up to
//! checks. The sum of all answers is an [`AgentAnswer`]; `engine` (pure) keeps them, `task` polls.

mod answer;
mod ask;
mod engine;
pub(super) mod metrics;
mod report;
mod settings;
mod task;

pub(super) use self::task::AgentTask;
pub use self::{
    answer::line,
    report::{
        AgentAdmin, AgentAnswer, AgentReport, AgentState, AgentStatus, AgentView, LastAsked, MAX_PERCENT,
    },
    settings::{AgentSettings, AgentSpec, LOST_AFTER, MAX_ASKED, MAX_LINE, MAX_SEND},
    task::AgentHandle,
};

#[cfg(test)]
mod tests;
