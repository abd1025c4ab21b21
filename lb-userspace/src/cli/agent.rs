//! Options about the agents of backends.

use clap::Args;

use super::help::help;
use crate::{api::types::Agent, config::keys, spec::AgentSpec};

#[derive(Args, Debug)]
pub(super) struct AgentOptions {
    #[arg(long, value_name = "BOOL", help = help(&keys::AGENT, "enabled"))]
    agent: Option<bool>,
    #[arg(long, value_name = "N", help = help(&keys::AGENT, "port"))]
    agent_port: Option<u16>,
    #[arg(long, value_name = "TEXT", help = help(&keys::AGENT, "send"))]
    agent_send: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::AGENT, "interval"))]
    agent_interval: Option<String>,
    #[arg(long, value_name = "DURATION", help = help(&keys::AGENT, "timeout"))]
    agent_timeout: Option<String>,
}

impl AgentOptions {
    pub(super) fn spec(self) -> Option<AgentSpec> {
        let spec = AgentSpec {
            enabled: self.agent,
            port: self.agent_port,
            send: self.agent_send,
            interval: self.agent_interval,
            timeout: self.agent_timeout,
        };
        (spec != AgentSpec::default()).then_some(spec)
    }
}

/// `drain 50%, lost`: the parts of an agent's report that differ from the default; `ready` if none does.
pub(super) fn words(agent: &Agent) -> String {
    let weight = format!("{}%", agent.weight_percent);
    let words = [
        Some(agent.admin.as_str()).filter(|word| *word != "ready"),
        Some(agent.state.as_str()).filter(|word| *word != "up"),
        Some(weight.as_str()).filter(|word| *word != "100%"),
        agent.lost.then_some("lost"),
    ];
    let words: Vec<&str> = words.into_iter().flatten().collect();
    if words.is_empty() {
        "ready".to_owned()
    } else {
        words.join(", ")
    }
}
