//! Options about the agents of backends.

use clap::Args;

use crate::api::{requests::AgentSpec, types::Agent};

#[derive(Args, Debug)]
pub(super) struct AgentOptions {
    /// Ask agents of backends how they want to be used [default: true where an option about agents is given]
    #[arg(long, value_name = "BOOL")]
    agent: Option<bool>,
    /// Port of agents whose backends name none of their own
    #[arg(long, value_name = "N")]
    agent_port: Option<u16>,
    /// What is sent to agents first [default: nothing]
    #[arg(long, value_name = "TEXT")]
    agent_send: Option<String>,
    /// Time between two questions to an agent [default: 2s]
    #[arg(long, value_name = "DURATION")]
    agent_interval: Option<String>,
    /// Time after which a question to an agent has failed [default: 1s]
    #[arg(long, value_name = "DURATION")]
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

/// `drain 50%, lost`: what an agent says that is not the default; `ready` where all is.
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
