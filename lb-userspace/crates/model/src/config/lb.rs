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
    file.iter()
        .filter(is_new)
        .map(|field| {
            format!(
                "`{}` of [lb] is read at the start of the daemon only",
                field.key.name
            )
        })
        .collect()
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
