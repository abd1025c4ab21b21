//! Metric families of agents.

use std::collections::BTreeMap;

use super::{
    judgement::labels,
    text::{Kind, Text},
};
use crate::health::{
    CheckId,
    agent::{AgentAdmin, AgentStatus},
};

/// The families of all agents.
pub(super) fn render(text: &mut Text, agents: &BTreeMap<CheckId, AgentStatus>) {
    let mut family = text.family(
        "lb_backend_agent_weight_ratio",
        Kind::Gauge,
        "Share of the configured weight that the agent asks for",
    );
    for (id, agent) in agents {
        family.sample(&labels(id), f64::from(agent.report.word.percent) / 100.0);
    }
    let mut family = text.family(
        "lb_backend_agent_admin",
        Kind::Gauge,
        "State that the agent asks for; 0: ready, 1: drain (no new flows), 2: maint (no flows)",
    );
    for (id, agent) in agents {
        let number = match agent.report.word.admin {
            AgentAdmin::Ready => 0,
            AgentAdmin::Drain => 1,
            AgentAdmin::Maint => 2,
        };
        family.sample(&labels(id), number);
    }
    let mut family = text.family(
        "lb_backend_agent_up",
        Kind::Gauge,
        "1: the agent reports the backend up, 0: down, stopped or failed",
    );
    for (id, agent) in agents {
        family.sample(&labels(id), u8::from(agent.report.word.state.is_up()));
    }
    let mut family = text.family(
        "lb_backend_agent_lost",
        Kind::Gauge,
        "1: the agent does not answer; its last report stays in force",
    );
    for (id, agent) in agents {
        family.sample(&labels(id), u8::from(agent.report.lost.is_some()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::agent::{AgentAnswer, AgentReport, AgentState},
        state::testing,
    };

    #[test]
    fn agent_reports_are_exported() {
        let status = AgentStatus {
            report: AgentReport {
                word: AgentAnswer {
                    admin: AgentAdmin::Maint,
                    state: AgentState::Stopped,
                    percent: 75,
                },
                reason: "".into(),
                lost: Some("connection refused".into()),
            },
            last: None,
        };
        let agents = BTreeMap::from([
            (testing::id("web", "a"), status),
            (testing::id("web", "b"), AgentStatus::default()),
        ]);
        let mut text = Text::default();
        render(&mut text, &agents);
        let text = text.into_string();
        for line in [
            "lb_backend_agent_weight_ratio{service=\"web\",backend=\"a\"} 0.75",
            "lb_backend_agent_weight_ratio{service=\"web\",backend=\"b\"} 1",
            "lb_backend_agent_admin{service=\"web\",backend=\"a\"} 2",
            "lb_backend_agent_up{service=\"web\",backend=\"a\"} 0",
            "lb_backend_agent_up{service=\"web\",backend=\"b\"} 1",
            "lb_backend_agent_lost{service=\"web\",backend=\"a\"} 1",
            "lb_backend_agent_lost{service=\"web\",backend=\"b\"} 0",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{text}");
        }
    }
}
