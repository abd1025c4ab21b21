//! What the control task needs of others, each by the one thing it can do, so that tests can stand in.

use std::future::Future;

use crate::{
    datapath::{ProgramError, ProgramReport, WriterHandle},
    health::{
        CheckSpec, HealthHandle,
        agent::{AgentHandle, AgentSpec},
    },
    plan::Target,
};

/// Makes the data plane do what a target says.
pub trait ProgramTarget: Send + Sync + 'static {
    /// Programs `target`; on error what was programmed before stays in effect.
    fn program(&self, target: Target) -> impl Future<Output = Result<ProgramReport, ProgramError>> + Send;
}

impl ProgramTarget for WriterHandle {
    async fn program(&self, target: Target) -> Result<ProgramReport, ProgramError> {
        Self::program(self, target).await
    }
}

/// Checks backends.
pub trait RunChecks: Send + Sync + 'static {
    /// Makes the checks equal to `checks`.
    fn run(&self, checks: Vec<CheckSpec>);
}

impl RunChecks for HealthHandle {
    fn run(&self, checks: Vec<CheckSpec>) {
        self.update(checks);
    }
}

/// Asks agents.
pub trait AskAgents: Send + Sync + 'static {
    /// Makes the agents that are asked equal to `agents`.
    fn ask(&self, agents: Vec<AgentSpec>);
}

impl AskAgents for AgentHandle {
    fn ask(&self, agents: Vec<AgentSpec>) {
        self.update(agents);
    }
}
