//! The `[lb]` table: what a start of the daemon reads, and the settings that can change while it runs.

use lb_common::limits::MAX_INTERFACES;

use super::{
    daemon::DaemonSettings,
    error::Reporter,
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

/// Keys of a file that only a start reads and that differ from the running settings. Keys at their default are not
/// compared, since a flag may have set them.
pub fn needs_restart(running: &DaemonSettings, file: &DaemonSettings) -> Vec<String> {
    let default = DaemonSettings::default();
    let DaemonSettings {
        interfaces,
        // Needs no restart: a daemon that waits already may go on waiting.
        wait_for_interfaces: _,
        xdp_mode,
        socket,
        state_dir,
        metrics,
        pin_dir,
        on_exit,
    } = file;
    let differs = [
        (
            "interfaces",
            !interfaces.iter().all(|name| running.interfaces.contains(name)),
        ),
        (
            "xdp_mode",
            *xdp_mode != default.xdp_mode && *xdp_mode != running.xdp_mode,
        ),
        ("socket", *socket != default.socket && *socket != running.socket),
        (
            "state_dir",
            *state_dir != default.state_dir && *state_dir != running.state_dir,
        ),
        (
            "metrics",
            *metrics != default.metrics && *metrics != running.metrics,
        ),
        (
            "pin_dir",
            *pin_dir != default.pin_dir && *pin_dir != running.pin_dir,
        ),
        (
            "on_exit",
            *on_exit != default.on_exit && *on_exit != running.on_exit,
        ),
    ];
    let keys = differs.into_iter().filter(|(_, differs)| *differs);
    keys.map(|(key, _)| format!("`{key}` of [lb] is read at the start of the daemon only"))
        .collect()
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
}
