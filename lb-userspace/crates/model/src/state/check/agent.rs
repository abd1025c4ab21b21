//! Agent tables, and the ports at which agents are asked.

use super::findings::{Findings, Place};
use crate::{
    health::{
        MAX_INTERVAL, MIN_INTERVAL,
        agent::{AgentSettings, MAX_SEND},
    },
    state::service::Service,
};

impl Findings {
    pub(super) fn agent(&mut self, index: usize, service: &Service) {
        let at = |key| Place::Agent(index, key);
        let Some(AgentSettings {
            enabled,
            port,
            send,
            interval,
            timeout,
        }) = &service.agent
        else {
            for (place, backend) in service.backends.iter().enumerate() {
                if backend.agent_port.is_some() {
                    self.invalid(
                        Place::Backend(index, place, "agent_port"),
                        format!(
                            "agent_port of backend {}/{} means nothing: the service asks no agents",
                            service.name, backend.name
                        ),
                        "add [service.agent], or remove it",
                    );
                }
            }
            return;
        };
        if *port == Some(0) {
            self.invalid(
                at("port"),
                "port 0 cannot be asked",
                "name the port of the agents, or leave it out where each backend has agent_port",
            );
        }
        if send.len() > MAX_SEND {
            self.invalid(
                at("send"),
                format!("send is longer than {MAX_SEND} bytes"),
                "agents read a short text, if anything",
            );
        }
        let sensible = MIN_INTERVAL..=MAX_INTERVAL;
        self.duration(at("interval"), "interval", *interval, sensible.clone());
        self.duration(at("timeout"), "timeout", *timeout, sensible);
        if !enabled || port.is_some() {
            return;
        }
        for (place, backend) in service.backends.iter().enumerate() {
            if backend.agent_port.is_none() {
                self.invalid(
                    Place::Backend(index, place, "agent_port"),
                    format!(
                        "backend {}/{} has no port at which its agent could be asked",
                        service.name, backend.name
                    ),
                    "set port in [service.agent] or agent_port of the backend, which is 0 where it has no agent",
                );
            }
        }
    }
}
