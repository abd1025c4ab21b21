//! Traits through which the control task reaches other modules, one each, so that tests can replace them.

use std::{collections::BTreeSet, future::Future, net::IpAddr};

use crate::{
    datapath::{ProgramError, ProgramReport, WriterHandle},
    health::{
        CheckSpec, HealthHandle,
        agent::{AgentHandle, AgentSpec},
    },
    plan::Target,
};

/// Programs the data plane.
pub trait ProgramTarget: Clone + Send + Sync + 'static {
    /// Returns when the ways to those of these backends that are new are known, or known not to be there, for which
    /// [`Self::program`] would wait.
    fn reach(&self, backends: BTreeSet<IpAddr>) -> impl Future<Output = ()> + Send;

    /// Programs `target`; on error the state programmed before stays in effect.
    fn program(&self, target: Target) -> impl Future<Output = Result<ProgramReport, ProgramError>> + Send;
}

impl ProgramTarget for WriterHandle {
    async fn reach(&self, backends: BTreeSet<IpAddr>) {
        Self::reach(self, backends).await;
    }

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

/// Polls agents.
pub trait AskAgents: Send + Sync + 'static {
    /// Sets the agents to poll to `agents`.
    fn ask(&self, agents: Vec<AgentSpec>);
}

impl AskAgents for AgentHandle {
    fn ask(&self, agents: Vec<AgentSpec>) {
        self.update(agents);
    }
}
