//! What agents said to an earlier version of lb, which kept it in a file of its own.

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

/// What the file says. One that cannot be read costs no more than the time until agents are asked.
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

/// Removes the file: the journal knows what it said.
pub(super) fn forget(state_dir: &Path) {
    // One that stays is read again, and what the journal knows counts more.
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
    use crate::{control::said, state::testing::id};

    #[test]
    fn what_an_earlier_version_wrote_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recall(dir.path()), []);
        fs::write(dir.path().join(FILE), "web/a drain up 50\nhalf a l").unwrap();
        let said = said(&recall(dir.path()));
        let word = AgentAnswer {
            admin: AgentAdmin::Drain,
            percent: 50,
            ..AgentAnswer::default()
        };
        assert_eq!(said.len(), 1, "a line that is none costs only itself");
        assert_eq!(said[&id("web", "a")].word, word);
        forget(dir.path());
        assert_eq!(recall(dir.path()), []);
    }
}
