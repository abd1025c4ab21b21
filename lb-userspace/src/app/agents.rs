//! Agent reports that an earlier version of lb kept in a file of their own.

use std::{fs, io, path::Path};

use crate::{
    health::{
        CheckId,
        agent::{AgentAdmin, AgentAnswer, AgentState, MAX_PERCENT},
    },
    state::store::Record,
};

/// The file in the state directory: a line for each backend, `web/web-1 drain up 50`.
const FILE: &str = "agents";

/// The reports in the file. Without a readable file they are missing until agents are polled.
pub(super) fn recall(state_dir: &Path) -> Vec<Record> {
    let file = state_dir.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => text.lines().filter_map(parse).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "cannot read the stored agent reports");
            Vec::new()
        }
    }
}

/// Removes the file: the journal has its reports.
pub(super) fn forget(state_dir: &Path) {
    // A file that stays is read again, but the journal takes precedence.
    let _ = fs::remove_file(state_dir.join(FILE));
}

fn parse(line: &str) -> Option<Record> {
    let mut words = line.split(' ');
    let (service, backend) = words.next()?.split_once('/')?;
    let word = AgentAnswer {
        admin: AgentAdmin::from_word(words.next()?)?,
        state: AgentState::from_word(words.next()?)?,
        percent: words
            .next()?
            .parse()
            .ok()
            .filter(|percent| *percent <= MAX_PERCENT)?,
    };
    let id = CheckId(service.parse().ok()?, backend.parse().ok()?);
    Some(Record::agent(&id, word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::stored_agent_updates, state::testing::id};

    #[test]
    fn file_of_an_earlier_version_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recall(dir.path()), []);
        fs::write(dir.path().join(FILE), "web/a drain up 50\nhalf a l").unwrap();
        let updates = stored_agent_updates(&recall(dir.path()));
        let word = AgentAnswer {
            admin: AgentAdmin::Drain,
            percent: 50,
            ..AgentAnswer::default()
        };
        assert_eq!(updates.len(), 1, "an invalid line loses only itself");
        assert_eq!(updates[&id("web", "a")].word, word);
        forget(dir.path());
        assert_eq!(recall(dir.path()), []);
    }
}
