//! Events of earlier versions, which had the values of keys that hold credentials.

use super::{Event, EventKind};
use crate::config::redact::may_be_credential;

/// What stands before the changed keys of an event.
const BEGINS: [&str; 2] = ["added: ", "changed: "];

impl Event {
    /// The event as this version writes it: with the names of keys that hold credentials, and without their values.
    pub(super) fn without_credentials(mut self) -> Self {
        let has_keys = matches!(
            self.kind,
            EventKind::Service | EventKind::Backend | EventKind::Replaced | EventKind::Applied
        );
        if has_keys && let Some(message) = redacted(&self.message) {
            self.message = message;
        }
        self
    }
}

/// A message about changed keys without credentials; `None` where it has none.
fn redacted(message: &str) -> Option<String> {
    let fields = BEGINS
        .iter()
        .find_map(|begin| message.find(begin).map(|at| at + begin.len()))?;
    let (before, fields) = message.split_at_checked(fields)?;
    let mut changes = false;
    let fields: Vec<&str> = split(fields)
        .into_iter()
        .map(|field| match field.split_once(' ') {
            Some((key, _)) if key.rsplit('.').next().is_some_and(may_be_credential) => {
                changes = true;
                key
            }
            _ => field,
        })
        .collect();
    changes.then(|| format!("{before}{}", fields.join(", ")))
}

/// The parts between commas that are in no text, list or table.
fn split(fields: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth, mut quote, mut escaped) = (Vec::new(), 0, 0_u32, None, false);
    for (at, c) in fields.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.extend(fields.get(begin..at));
                begin = at + 2;
            }
            (None, _) => {}
        }
    }
    parts.extend(fields.get(begin..));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_credentials_are_left_out_of_old_events() {
        for (old, new) in [
            (
                "added: address \"192.0.2.1\", health.headers { Authorization = \"Bearer a, b\", X = '1, {' }, port 80",
                "added: address \"192.0.2.1\", health.headers, port 80",
            ),
            (
                "changed: weight 10 -> 30, agent.send \"it's \\\"x\\\", y\" -> unset",
                "changed: weight 10 -> 30, agent.send",
            ),
            (
                "the configuration file replaces a change made by command: changed: health.command [\"/x\", \"-p\", \"s\"] -> []",
                "the configuration file replaces a change made by command: changed: health.command",
            ),
            // A line that was cut off.
            (
                "changed: health.payload \"secret, port",
                "changed: health.payload",
            ),
        ] {
            assert_eq!(redacted(old).as_deref(), Some(new));
            assert_eq!(redacted(new), None, "once is enough");
        }
        for other in [
            "added: weight 10, address \"a, b\"",
            "removed",
            "up",
            "drains: changed",
        ] {
            assert_eq!(redacted(other), None);
        }
    }
}
