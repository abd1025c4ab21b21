//! What agents say, taken up.

use std::time::Duration;

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

/// Least time between two times that weights by agents are put in force: where thousands of agents each say another
/// weight every other second, rings are built once a second, and not for each.
pub(in crate::control) const WEIGHTS_EVERY: Duration = Duration::from_secs(1);

/// Change of a weight by an agent, in points of percent, that is told: load goes up and down all the time.
const TOLD_FROM: u16 = 10;

impl<P: ProgramTarget> ControlTask<P> {
    /// Takes up what agents say: at once, but for weights alone, which wait for others.
    pub(super) async fn hear(&mut self) {
        let said = self.said.borrow_and_update().clone();
        let records = self.note_said(said);
        if records.is_empty() {
            return;
        }
        // Only agents can take back what they said, so the next daemon must know of it, whenever it comes.
        self.remember(records).await;
        if self.agents_due.is_none_or(|due| due <= now()) {
            self.converge().await;
            self.publish();
        }
    }

    /// Takes note of what agents say. Returns what has changed, which is to be put in force: `agents_due` says when.
    fn note_said(&mut self, said: AgentView) -> Vec<Record> {
        let (mut records, mut urgent) = (Vec::new(), false);
        for (id, said) in said {
            // What was said about a backend that has been removed meanwhile, or that has no agent any more.
            if !agents::wants(&self.desired, &id) {
                continue;
            }
            let before = self.agents.get(&id).cloned().unwrap_or_default();
            let (old, new) = (before.word, said.word);
            if old != new {
                records.push(Record::agent(&id, new));
            }
            urgent |=
                old.admin != new.admin || old.state != new.state || (old.percent == 0) != (new.percent == 0);
            self.tell_said(&id, &before, &said);
            self.agents.insert(id, said);
        }
        let waits = self
            .agents_done
            .map(|done| done + WEIGHTS_EVERY)
            .filter(|at| *at > now());
        if !records.is_empty() && (urgent || waits.is_none()) {
            (self.agents_due, self.agents_done) = (None, Some(now()));
        } else if !records.is_empty() {
            self.agents_due = waits;
        }
        records
    }

    /// Tells what is new. Of weights only what matters.
    fn tell_said(&mut self, id: &CheckId, before: &AgentReport, said: &AgentReport) {
        let CheckId(service, backend) = id;
        let subject = || Some((service.clone(), Some(backend.clone())));
        let AgentAnswer {
            admin,
            state,
            percent,
        } = said.word;
        let known = self.told_percent.entry(id.clone()).or_insert(before.word.percent);
        let special = |percent: u16| percent == 0 || percent == AgentAnswer::default().percent;
        let weighs = percent != *known
            && (percent.abs_diff(*known) >= TOLD_FROM || special(percent) || special(*known));
        if weighs {
            *known = percent;
        }
        let stands = admin != before.word.admin || state != before.word.state;
        if stands {
            let reason = Some(&said.reason).filter(|reason| !reason.is_empty() && state != before.word.state);
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            let message = format!("agent: {}{reason}", said.word);
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
        match (&before.lost, &said.lost) {
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
