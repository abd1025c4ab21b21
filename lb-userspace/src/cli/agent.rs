//! Agents of backends in text.

use crate::api::types::Agent;

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
