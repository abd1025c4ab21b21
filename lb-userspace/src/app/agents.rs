//! What agents said, kept over a restart: only they can take back what they said, and they may not be asked yet when
//! the next daemon programs its first state.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::watch, task, time};
use tokio_util::sync::CancellationToken;

use crate::health::{
    CheckId,
    agent::{AgentAdmin, AgentSaid, AgentState, AgentView, AgentWord, MAX_PERCENT},
};

/// The file in the state directory: a line for each backend, with what is not as it would be without an agent.
const FILE: &str = "agents";

/// Least time between two writings, so that weights that change all the time are not written all the time.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// What agents had said to an earlier daemon. A file that cannot be read costs no more than the time until they are asked.
pub(super) fn recall(state_dir: &Path) -> AgentView {
    let file = state_dir.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => text.lines().filter_map(parse).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => AgentView::new(),
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "cannot read what agents said to an earlier daemon");
            AgentView::new()
        }
    }
}

/// Writes down what agents say until `cancel`, and then for the last time.
pub(super) async fn remember(
    state_dir: PathBuf,
    mut said: watch::Receiver<AgentView>,
    cancel: CancellationToken,
) {
    // What was recalled comes back from the engine in time; before that, there is nothing to write.
    let mut failed = false;
    let mut written = None;
    loop {
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => true,
            changed = said.changed() => changed.is_err(),
        };
        let text = text(&said.borrow_and_update());
        if written.as_ref() != Some(&text) && (written.is_some() || !ended) {
            let (dir, new) = (state_dir.clone(), text.clone());
            let result = task::spawn_blocking(move || write(&dir, &new)).await;
            match result {
                Ok(Err(error)) if !failed => {
                    tracing::warn!(%error, "cannot write down what agents say");
                    failed = true;
                }
                Ok(Err(_)) | Err(_) => {}
                Ok(Ok(())) => (failed, written) = (false, Some(text)),
            }
        }
        if ended {
            return;
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = time::sleep(WRITE_EVERY) => {}
        }
    }
}

/// In one step, so that a reader never sees half of it. Not synced: what a power cut takes, agents say again.
fn write(dir: &Path, text: &str) -> io::Result<()> {
    let file = dir.join(FILE);
    if text.is_empty() {
        return match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let new = dir.join(format!("{FILE}.new"));
    fs::write(&new, text)?;
    fs::rename(new, file)
}

/// `web/web-1 drain up 50` for each whose word is not the default.
fn text(said: &AgentView) -> String {
    let lines = said.iter().filter(|(_, said)| said.word != AgentWord::default());
    let line = |(CheckId(service, backend), said): (&CheckId, &AgentSaid)| {
        let AgentWord {
            admin,
            state,
            percent,
        } = said.word;
        format!("{service}/{backend} {admin} {state} {percent}\n")
    };
    lines.map(line).collect()
}

fn parse(line: &str) -> Option<(CheckId, AgentSaid)> {
    let mut words = line.split(' ');
    let (service, backend) = words.next()?.split_once('/')?;
    let word = AgentWord {
        admin: AgentAdmin::from_word(words.next()?)?,
        state: AgentState::from_word(words.next()?)?,
        percent: words
            .next()?
            .parse()
            .ok()
            .filter(|percent| *percent <= MAX_PERCENT)?,
    };
    let said = AgentSaid {
        word,
        ..AgentSaid::default()
    };
    Some((CheckId(service.parse().ok()?, backend.parse().ok()?), said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::id;

    #[tokio::test]
    async fn what_agents_said_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recall(dir.path()), AgentView::new());
        let says = |admin, state, percent| AgentSaid {
            word: AgentWord {
                admin,
                state,
                percent,
            },
            ..AgentSaid::default()
        };
        let view = AgentView::from([
            (id("web", "a"), says(AgentAdmin::Drain, AgentState::Up, 50)),
            (
                id("web", "b"),
                says(AgentAdmin::Maint, AgentState::Fail, MAX_PERCENT),
            ),
            (id("web", "c"), AgentSaid::default()),
        ]);
        let (sender, receiver) = watch::channel(AgentView::new());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(remember(dir.path().to_owned(), receiver, cancel.clone()));
        sender.send_replace(view.clone());
        // Whenever it is cancelled, the latest is written; it must have seen that there is something.
        while recall(dir.path()).is_empty() {
            task::yield_now().await;
        }
        let mut last = view.clone();
        last.remove(&id("web", "a"));
        sender.send_replace(last.clone());
        cancel.cancel();
        task.await.unwrap();
        last.remove(&id("web", "c"));
        assert_eq!(recall(dir.path()), last, "and nothing of those that say nothing");

        fs::write(dir.path().join(FILE), "web/a drain up 50\nhalf a l").unwrap();
        assert_eq!(
            recall(dir.path()).len(),
            1,
            "a line that is none costs only itself"
        );
    }
}
