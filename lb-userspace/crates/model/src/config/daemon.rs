//! The `[lb]` table: what a start of the daemon reads, and the settings that can change while it runs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use lb_common::limits::MAX_INTERFACES;

use super::{
    error::Reporter,
    keys,
    table::{Spans, Table},
    values::ValueError,
};
use crate::state::{
    desired::{Desired, Settings},
    words::Word,
    xdp_mode::XdpModeChoice,
};

/// What happens to the program when the daemon exits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnExit {
    /// It is taken off the interfaces.
    #[default]
    Detach,
    /// It goes on forwarding until the next daemon takes over.
    Keep,
}

impl Word for OnExit {
    const KEY: &'static str = "on_exit";
    const WORDS: &'static [(Self, &'static str)] = &[(Self::Detach, "detach"), (Self::Keep, "keep")];
}

/// Settings that only a start of the daemon reads. Flags of `lb run` override them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonSettings {
    /// Interfaces to attach to; flags add to them.
    pub interfaces: Vec<String>,
    /// Start also where one of them is missing, and attach to it when it appears.
    pub wait_for_interfaces: bool,
    /// XDP modes that may be used.
    pub xdp_mode: XdpModeChoice,
    /// The admin API's socket.
    pub socket: PathBuf,
    /// Directory of the desired state.
    pub state_dir: PathBuf,
    /// Address that serves metrics and the health of the daemon.
    pub metrics: SocketAddr,
    /// Directory in which programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// Whether the program stays when the daemon exits.
    pub on_exit: OnExit,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            wait_for_interfaces: false,
            xdp_mode: XdpModeChoice::default(),
            socket: PathBuf::from("/run/lb/lb.sock"),
            state_dir: PathBuf::from("/var/lib/lb"),
            metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, 9900)),
            pin_dir: PathBuf::from("/sys/fs/bpf/lb"),
            on_exit: OnExit::default(),
        }
    }
}

/// Longest name of a network interface, in bytes: ALTIFNAMSIZ less the final zero (linux/if.h). Only alternative names are
/// longer than 15.
const MAX_INTERFACE_NAME: usize = 127;

/// Longest path of a unix socket: `sun_path` less the final zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// A name that a network interface can have.
///
/// # Errors
/// The text is no such name, for the reason in the error.
pub fn interface(text: &str) -> Result<String, ValueError> {
    let fits = (1..=MAX_INTERFACE_NAME).contains(&text.len()) && text != "." && text != "..";
    if fits && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(
        format!("{text:?} is no name of an interface"),
        "`ip link` lists them",
    ))
}

pub(super) fn path(text: &str) -> Result<PathBuf, ValueError> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(ValueError::new(
        format!("{text:?} is no absolute path"),
        "begin it with /",
    ))
}

pub(super) fn socket(text: &str) -> Result<PathBuf, ValueError> {
    if text.len() > MAX_SOCKET_PATH {
        return Err(ValueError::new(
            format!("a socket's path has at most {MAX_SOCKET_PATH} bytes"),
            "",
        ));
    }
    path(text)
}

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
