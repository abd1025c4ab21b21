//! How the running state differs from the configuration file and the stored state.

use crate::{
    api::{
        context::Api,
        types::{ConfigState, Problem},
    },
    config::diff::Diff,
    control::ControlView,
    events::rfc3339,
};

/// Differences that are listed; more are counted.
const MAX_LINES: usize = 1_000;

/// The state of the configuration and its problems. Blocks while a changed file is read.
pub(super) fn state(api: &Api, view: &ControlView) -> (ConfigState, Vec<Problem>) {
    let stored = view.stored();
    let compared = api.config.as_ref().map(|file| (file, file.compare(&stored)));
    let mut problems = Vec::new();
    if let Some(refused) = &view.refused {
        problems.push(problem(
            format!("{}, at {}", refused.why, rfc3339(refused.at)),
            "mend the file (`lb check-config FILE`), then reload it: `lb reload`",
        ));
    }
    let in_force = compared.as_ref().is_some_and(|(_, compared)| compared.is_equal());
    let file_in_force = compared
        .as_ref()
        .is_some_and(|(_, compared)| compared.is_in_force());
    let (by_command, pending) = match compared {
        None => (stored.by_commands(), Diff::default()),
        Some((file, compared)) => {
            let pending = compared.pending.unwrap_or_else(|why| {
                let problem = problem(
                    format!(
                        "a restart or reload goes on with the running state: {}: {why}",
                        file.name()
                    ),
                    "see `lb check-config FILE`",
                );
                problems.extend(Some(problem).filter(|_| view.refused.is_none()));
                Diff::default()
            });
            (compared.by_command, pending)
        }
    };
    if let Some(Ok(file)) = api.config.as_ref().map(|file| file.content()).as_deref() {
        for key in api.waits_for_restart(&file.daemon) {
            let message = format!("{key}, and the file has another value now");
            problems.push(problem(message, "systemctl restart lb, which loses no packet"));
        }
    }
    let of_store = api.store.problems();
    problems.extend(of_store.into_iter().map(|of| problem(of.message, &of.hint)));
    let state = ConfigState {
        file: api.config.as_ref().map(|file| file.name()),
        in_force,
        file_in_force,
        by_command: lines(&by_command),
        pending: lines(&pending),
    };
    (state, problems)
}

fn problem(message: String, hint: &str) -> Problem {
    Problem {
        service: None,
        backend: None,
        message,
        hint: Some(hint.to_owned()),
    }
}

fn lines(diff: &Diff) -> Vec<String> {
    let text = diff.to_string();
    let mut lines: Vec<String> = text.lines().take(MAX_LINES).map(str::to_owned).collect();
    if let Some(more) = diff.items.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    lines
}
