//! Agents of backends in the API's words.

use super::types;
use crate::{
    events::rfc3339,
    health::agent::{AgentAnswer, AgentReport, AgentSettings, AgentStatus, LastAsked},
};

/// An agent as it is shown.
pub(super) fn shown(status: &AgentStatus) -> types::Agent {
    let AgentStatus {
        report:
            AgentReport {
                word:
                    AgentAnswer {
                        admin,
                        state,
                        percent,
                    },
                reason,
                lost,
            },
        last,
    } = status;
    types::Agent {
        admin: admin.to_string(),
        state: state.to_string(),
        weight_percent: *percent,
        reason: Some(reason.to_string()).filter(|reason| !reason.is_empty()),
        lost: lost.is_some(),
        last_poll: last.as_ref().map(poll),
    }
}

fn poll(last: &LastAsked) -> types::AgentPoll {
    let LastAsked {
        answer,
        note,
        latency,
        at,
    } = last;
    types::AgentPoll {
        answer: answer.as_ref().ok().map(ToString::to_string),
        error: answer.as_ref().err().map(ToString::to_string),
        note: note.as_ref().map(ToString::to_string),
        latency_us: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
        at: rfc3339(*at),
    }
}

/// How agents of a service are polled, in one line; `None` if they are not.
pub(super) fn settings(settings: Option<&AgentSettings>) -> Option<String> {
    let settings = settings.filter(|settings| settings.enabled)?;
    let port = settings
        .port
        .map_or_else(String::new, |port| format!("port {port}, "));
    Some(format!(
        "{port}every {}",
        crate::duration::text(settings.interval)
    ))
}
