//! Applies agent updates.

use super::ControlTask;
use crate::{
    clock::now,
    control::ports::ProgramTarget,
    events::EventKind,
    health::{
        CheckId,
        agent::{AgentAnswer, AgentReport, AgentView},
    },
    state::{agents, store::Record},
};

impl<P: ProgramTarget> ControlTask<P> {
    /// Applies agent updates: weights once per interval, everything else at once.
    pub(super) async fn hear(&mut self) {
        let updates = self.inbox.agent_updates.borrow_and_update().clone();
        let records = self.record_agent_updates(updates);
        if records.is_empty() {
            return;
        }
        // Only an agent can revoke its report, so the next daemon needs it, whenever it starts.
        self.recorder.remember(records).await;
        if self.weight_pace.is_due(now()) {
            self.converge().await;
            self.publish();
        }
    }

    /// Records agent updates. Returns the changes to apply, when `weight_pace` says.
    fn record_agent_updates(&mut self, updates: AgentView) -> Vec<Record> {
        let (mut records, mut urgent) = (Vec::new(), false);
        for (id, update) in updates {
            // Drop updates for a backend that was removed meanwhile, or that has no agent any more.
            if !agents::wants(&self.desired, &id) {
                continue;
            }
            let before = self.agents.get(&id).cloned().unwrap_or_default();
            let (old, new) = (before.word, update.word);
            if old != new {
                records.push(Record::agent(&id, new));
            }
            urgent |=
                old.admin != new.admin || old.state != new.state || (old.percent == 0) != (new.percent == 0);
            self.report_agent_update(&id, &before, &update);
            self.agents.insert(id, update);
        }
        if !records.is_empty() {
            self.weight_pace.note(urgent, now());
        }
        records
    }

    /// Makes events of changes; of weights only large ones.
    fn report_agent_update(&mut self, id: &CheckId, before: &AgentReport, update: &AgentReport) {
        let CheckId(service, backend) = id;
        let subject = || Some((service.clone(), Some(backend.clone())));
        let AgentAnswer {
            admin,
            state,
            percent,
        } = update.word;
        let weighs = self.reported.weight(id, before.word.percent, percent);
        let stands = admin != before.word.admin || state != before.word.state;
        if stands {
            let reason =
                Some(&update.reason).filter(|reason| !reason.is_empty() && state != before.word.state);
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            let message = format!("agent: {}{reason}", update.word);
            if state.is_up() {
                tracing::info!(%service, %backend, "{message}");
            } else {
                tracing::warn!(%service, %backend, "{message}");
            }
            self.event(EventKind::Agent, subject(), message);
        } else if weighs {
            tracing::debug!(%service, %backend, percent, "agent changes the weight");
            self.event(EventKind::Agent, subject(), format!("agent: weight {percent}%"));
        }
        match (&before.lost, &update.lost) {
            (None, Some(why)) => {
                let message = format!("agent does not answer, its last report stays in force: {why}");
                tracing::warn!(%service, %backend, "{message}");
                self.event(EventKind::Agent, subject(), message);
            }
            (Some(_), None) => {
                tracing::info!(%service, %backend, "agent answers again");
                self.event(EventKind::Agent, subject(), "agent answers again".to_owned());
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}
