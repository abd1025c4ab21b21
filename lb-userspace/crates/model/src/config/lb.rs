//! The `[lb]` table: what a start of the daemon reads, and the settings that can change while it runs.

use lb_common::limits::MAX_INTERFACES;

use super::{
    daemon::DaemonSettings,
    error::Reporter,
    fields::{self, Field},
    keys,
    table::{Spans, Table},
};
use crate::state::desired::{Desired, Settings};

/// Reads the table; a wrong key keeps its default.
pub(super) fn read(
    reporter: &mut Reporter<'_>,
    mut table: Table<'_>,
    known: &Desired,
) -> (DaemonSettings, Settings, Spans) {
    let (mut daemon, mut settings) = (DaemonSettings::default(), Settings::default());
    let spans = table.spans();
    keys::LB.read(&mut daemon, &mut table, reporter, known);
    keys::LB.read(&mut settings, &mut table, reporter, known);
    table.finish(reporter);

    if daemon.socket_read.as_ref() == Some(&daemon.socket) {
        let hint = "give it another path, for example /run/lb/read.sock";
        reporter.error(
            spans.of("socket_read"),
            "`socket_read` has the path of `socket`".to_owned(),
            Some(hint.to_owned()),
        );
    }
    api_problems(&daemon, &spans, reporter);
    let span = spans.of("interfaces");
    for (index, name) in daemon.interfaces.iter().enumerate() {
        if daemon.interfaces[..index].contains(name) {
            reporter.error(span.clone(), format!("interface {name} is listed twice"), None);
        }
    }
    if daemon.interfaces.len() > MAX_INTERFACES as usize {
        let message = format!(
            "{} interfaces are more than the {MAX_INTERFACES} that fit",
            daemon.interfaces.len()
        );
        reporter.error(span, message, None);
    }
    (daemon, settings, spans)
}

/// Reports keys of the listener with certificates that do not go together.
fn api_problems(daemon: &DaemonSettings, spans: &Spans, reporter: &mut Reporter<'_>) {
    let files = ["api_cert_file", "api_key_file", "api_ca_file"];
    let lists = [
        ("api_admin", &daemon.api_admin),
        ("api_operate", &daemon.api_operate),
        ("api_read", &daemon.api_read),
    ];
    let has_names = lists
        .iter()
        .any(|(key, names)| !names.is_empty() && spans.has(key));
    if spans.has("api_address") {
        for key in files.iter().filter(|key| !spans.has(key)) {
            let hint = format!("add {key} = \"/etc/lb/…\"");
            reporter.error(
                spans.of("api_address"),
                format!("api_address needs {key}"),
                Some(hint),
            );
        }
        if !has_names {
            let message = "api_address without a client that may use it";
            let hint = "add the names of certificates to api_admin, api_operate or api_read";
            reporter.error(spans.of("api_address"), message, Some(hint.to_owned()));
        }
    } else {
        let given = lists
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(key, _)| *key);
        for key in files
            .into_iter()
            .chain(["api_crl_file"])
            .chain(given)
            .filter(|key| spans.has(key))
        {
            let hint = "add api_address = \"ADDRESS:PORT\"";
            reporter.error(
                spans.of(key),
                format!("{key} without api_address"),
                Some(hint.to_owned()),
            );
        }
    }
    for (index, (key, names)) in lists.iter().enumerate() {
        for name in *names {
            if let Some((other, _)) = lists[..index].iter().find(|(_, others)| others.contains(name)) {
                let message = format!("{name} is in {other} and in {key}");
                reporter.error(spans.of(key), message, Some("leave it in one list".to_owned()));
            }
        }
    }
}

/// Keys of a file that only a start reads and that differ from the running settings. Keys at their default are not
/// compared, since a flag may have set them.
pub fn needs_restart(running: &DaemonSettings, file: &DaemonSettings) -> Vec<String> {
    let running = fields::daemon(running);
    let is_new = |field: &&Field| {
        let runs = running.iter().find(|other| other.key.name == field.key.name);
        field.key.needs_restart && !field.is_default && !runs.is_some_and(|runs| has(runs, field))
    };
    let file = fields::daemon(file);
    file.iter().filter(is_new).map(at_start_only).collect()
}

/// Keys of the daemon's own file that only a start reads and that have another value than in the file that it started with. What options
/// of `lb run` override does not count: the next start has them, too.
pub fn changed_since_start(
    running: &DaemonSettings,
    at_start: &DaemonSettings,
    file: &DaemonSettings,
) -> Vec<String> {
    let (running, at_start) = (fields::daemon(running), fields::daemon(at_start));
    let of =
        |fields: &[Field], field: &Field| fields.iter().position(|other| other.key.name == field.key.name);
    let is_changed = |field: &&Field| {
        let before = of(&at_start, field).and_then(|at| at_start.get(at));
        let runs = of(&running, field).and_then(|at| running.get(at));
        let (Some(before), Some(runs)) = (before, runs) else {
            return false;
        };
        field.key.needs_restart && before.value != field.value && has(runs, before)
    };
    let file = fields::daemon(file);
    file.iter().filter(is_changed).map(at_start_only).collect()
}

fn at_start_only(field: &Field) -> String {
    format!(
        "`{}` of [lb] is read at the start of the daemon only",
        field.key.name
    )
}

/// Whether the running value is that of the file; a list has all items of the file's, since flags add to it.
fn has(running: &Field, file: &Field) -> bool {
    let items = |field: &Field| match format!("value = {}", field.value).parse::<toml::Table>() {
        Ok(mut table) => match table.remove("value") {
            Some(toml::Value::Array(items)) => items,
            value => value.into_iter().collect(),
        },
        Err(_) => Vec::new(),
    };
    let running = items(running);
    items(file).iter().all(|item| running.contains(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_file_really_asks_for_needs_a_restart() {
        let running = DaemonSettings {
            interfaces: vec!["eth0".into(), "eth1".into()],
            ..DaemonSettings::default()
        };
        assert_eq!(
            needs_restart(&running, &DaemonSettings::default()),
            Vec::<String>::new()
        );
        let file = DaemonSettings {
            interfaces: vec!["eth2".into()],
            state_dir: "/elsewhere".into(),
            ..DaemonSettings::default()
        };
        assert_eq!(needs_restart(&running, &file).len(), 2);
    }

    #[test]
    fn what_a_file_changes_after_the_start_needs_a_restart_unless_an_option_overrides_it() {
        let on = |interfaces: &[&str]| DaemonSettings {
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            ..DaemonSettings::default()
        };
        let changed = |running: &[&str], at_start: &[&str], file: &[&str]| {
            changed_since_start(&on(running), &on(at_start), &on(file)).len()
        };
        assert_eq!(changed(&["eth0"], &["eth0"], &["eth0"]), 0);
        assert_eq!(changed(&["eth0"], &["eth0"], &["eth0", "eth1"]), 1, "added");
        assert_eq!(
            changed(&["eth0", "eth1"], &["eth0", "eth1"], &["eth0"]),
            1,
            "removed"
        );
        assert_eq!(
            changed(&["eth0", "eth1"], &["eth0"], &[]),
            1,
            "beside that of an option"
        );
        let by_option = DaemonSettings {
            metrics: "127.0.0.1:1".parse().unwrap(),
            ..on(&["eth0"])
        };
        let file = DaemonSettings {
            metrics: "127.0.0.1:2".parse().unwrap(),
            ..on(&["eth0"])
        };
        assert_eq!(changed_since_start(&by_option, &on(&["eth0"]), &file).len(), 0);
        assert_eq!(
            changed_since_start(&on(&["eth0"]), &on(&["eth0"]), &file).len(),
            1
        );
    }

    /// Otherwise a reload with another value would do nothing, and say nothing.
    #[test]
    fn every_setting_of_a_start_needs_a_restart_unless_it_only_waits() {
        let of_start = keys::LB
            .keys
            .iter()
            .filter(|key| matches!(key.access, keys::Access::Daemon(_)));
        let without = of_start.filter(|key| !key.needs_restart).map(|key| key.name);
        // A daemon that waits for interfaces may go on waiting.
        assert_eq!(without.collect::<Vec<_>>(), ["wait_for_interfaces"]);
    }
}
