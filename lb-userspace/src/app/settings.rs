//! What the daemon is started with: the file, with the flags of `lb run` over it.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    config::{self, Config, ConfigError, DaemonSettings, daemon::OnExit},
    datapath::XdpModeChoice,
    state::desired::Desired,
};

/// Flags of `lb run`; what is absent comes from the file, else from the defaults.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// Interfaces, beside those of the file.
    pub interfaces: Vec<String>,
    /// Start also where one of them is missing.
    pub wait_for_interfaces: bool,
    /// XDP modes that may be used.
    pub xdp_mode: Option<XdpModeChoice>,
    /// The admin API's socket.
    pub socket: Option<PathBuf>,
    /// Where the desired state is kept.
    pub state_dir: Option<PathBuf>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Where programs and maps are pinned.
    pub pin_dir: Option<PathBuf>,
    /// What becomes of the program in the end.
    pub on_exit: Option<OnExit>,
    /// Removes what an earlier daemon left, with its flows, before starting.
    pub reset: bool,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It does not make sense.
    #[error("{}: {} {}", file.display(), errors.len(), if errors.len() == 1 { "error" } else { "errors" })]
    Content {
        /// The file.
        file: PathBuf,
        /// Every error with its place.
        errors: Vec<ConfigError>,
    },
}

/// Reads a configuration file.
///
/// # Errors
/// [`FileError`]
pub fn read(file: &Path) -> Result<Config, FileError> {
    let text = fs::read_to_string(file).map_err(|source| FileError::Read {
        file: file.to_owned(),
        source,
    })?;
    config::parse(&text, &file.display().to_string()).map_err(|errors| FileError::Content {
        file: file.to_owned(),
        errors,
    })
}

impl Flags {
    /// The settings to start with, and the desired state of the file where there is one.
    ///
    /// # Errors
    /// [`FileError`]
    pub fn resolve(&self) -> Result<(DaemonSettings, Option<Desired>), FileError> {
        let (file, desired) = match &self.config {
            Some(path) => {
                let Config { daemon, desired } = read(path)?;
                (daemon, Some(desired))
            }
            None => (DaemonSettings::default(), None),
        };
        let mut interfaces = file.interfaces;
        for interface in &self.interfaces {
            if !interfaces.contains(interface) {
                interfaces.push(interface.clone());
            }
        }
        let settings = DaemonSettings {
            interfaces,
            wait_for_interfaces: self.wait_for_interfaces || file.wait_for_interfaces,
            xdp_mode: self.xdp_mode.unwrap_or(file.xdp_mode),
            socket: self.socket.clone().unwrap_or(file.socket),
            state_dir: self.state_dir.clone().unwrap_or(file.state_dir),
            metrics: self.metrics.unwrap_or(file.metrics),
            pin_dir: self.pin_dir.clone().unwrap_or(file.pin_dir),
            on_exit: self.on_exit.unwrap_or(file.on_exit),
        };
        Ok((settings, desired))
    }
}

/// What a file asks for that only a start of the daemon reads and that is not as it runs. What the file leaves at its
/// default may have been set by a flag and is not compared.
pub fn needs_restart(running: &DaemonSettings, file: &DaemonSettings) -> Vec<String> {
    let default = DaemonSettings::default();
    let DaemonSettings {
        interfaces,
        // Whoever waits already may as well go on.
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

    fn flags(toml: &str) -> (tempfile::NamedTempFile, Flags) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), toml).unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            ..Flags::default()
        };
        (file, flags)
    }

    #[test]
    fn flags_come_before_the_file_and_interfaces_add_up() {
        let toml = "[lb]\ninterfaces = [\"eth0\"]\nmetrics = \"127.0.0.1:1\"\nstate_dir = \"/a\"\n";
        let (_file, flags) = flags(toml);
        let flags = Flags {
            interfaces: vec!["eth1".into(), "eth0".into()],
            metrics: Some("127.0.0.1:2".parse().unwrap()),
            ..flags
        };
        let (settings, desired) = flags.resolve().unwrap();
        assert_eq!(settings.interfaces, ["eth0", "eth1"]);
        assert_eq!(settings.metrics.port(), 2);
        assert_eq!(settings.state_dir, Path::new("/a"));
        assert_eq!(desired, Some(Desired::default()));
        assert_eq!(
            Flags::default().resolve().unwrap(),
            (DaemonSettings::default(), None)
        );
    }

    #[test]
    fn a_bad_file_is_an_error_with_its_name() {
        let (_file, flags) = flags("[lb]\nmetrics = 7\n");
        assert!(matches!(flags.resolve(), Err(FileError::Content { errors, .. }) if errors[0].line == 2));
        let missing = read(Path::new("/no/such/file")).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"), "{missing}");
    }

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
