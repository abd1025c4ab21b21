//! The start settings of the daemon: the file, overridden by the flags of `lb run`.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    config::{
        self, Config, DaemonSettings,
        daemon::{LogFormat, OnExit},
    },
    config_file::{FileError, read, texts},
    state::store::FileStore,
    state::{guard::Prefix, hosts::HostName, xdp_mode::XdpModeChoice},
};

/// Flags of `lb run`; absent ones come from the file, else from the defaults.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// Configuration files, and directories of such; empty: none.
    pub config: Vec<PathBuf>,
    /// Interfaces, in addition to the file's.
    pub interfaces: Vec<String>,
    /// Start also where one of them is missing.
    pub wait_for_interfaces: bool,
    /// XDP modes that may be used.
    pub xdp_mode: Option<XdpModeChoice>,
    /// The admin API's socket.
    pub socket: Option<PathBuf>,
    /// Group that may use it.
    pub socket_group: Option<String>,
    /// A second socket that only reads.
    pub socket_read: Option<PathBuf>,
    /// Group that may use that one.
    pub socket_read_group: Option<String>,
    /// Where the desired state is kept.
    pub state_dir: Option<PathBuf>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Clients that may connect there.
    pub metrics_access: Option<Vec<Prefix>>,
    /// Host names of the web page.
    pub metrics_names: Option<Vec<HostName>>,
    /// Where programs and maps are pinned.
    pub pin_dir: Option<PathBuf>,
    /// Whether the program stays at the exit.
    pub on_exit: Option<OnExit>,
    /// Refuses a start with a file that cannot be used.
    pub strict: bool,
    /// How the log is written.
    pub log_format: Option<LogFormat>,
    /// Removes the pins of an earlier daemon, with its flows, before starting.
    pub reset: bool,
}

impl Flags {
    /// The settings to start with, and the configuration file where there is one. A file that cannot be used does not
    /// stop a start that has a stored state: the settings then come from its `[lb]` table, else from the file that was
    /// applied last.
    ///
    /// # Errors
    /// [`FileError`] where no state is stored, or if the start is strict.
    pub fn resolve(&self) -> Result<(DaemonSettings, Option<Result<Config, FileError>>), FileError> {
        if self.config.is_empty() {
            return Ok((self.over(DaemonSettings::default()), None));
        }
        let (file, config) = match read(&self.config) {
            Ok(config) => (config.daemon.clone(), Some(Ok(config))),
            Err(error) if self.strict => return Err(error),
            Err(error) => match self.last_good() {
                Some(daemon) => (daemon, Some(Err(error))),
                None => return Err(error),
            },
        };
        Ok((self.over(file), config))
    }

    /// The settings of a start whose configuration cannot be used; `None` if no state is stored.
    fn last_good(&self) -> Option<DaemonSettings> {
        let texts = texts(&self.config).unwrap_or_default();
        let own = texts.iter().find_map(|text| config::parse_daemon(&text.text));
        let dir = self.over(own.clone().unwrap_or_default()).state_dir;
        // The lock is given back at once: the start takes it later.
        let stored = FileStore::open_to_read(&dir).ok()??.load().ok()??;
        let applied = stored.applied.map(|applied| applied.daemon.clone());
        let daemon = own.or(applied).unwrap_or_default();
        let settings = self.over(daemon.clone());
        (settings.wait_for_interfaces || !settings.interfaces.is_empty()).then_some(daemon)
    }

    /// The settings of a file with the flags over them.
    fn over(&self, file: DaemonSettings) -> DaemonSettings {
        let mut interfaces = file.interfaces;
        for interface in &self.interfaces {
            if !interfaces.contains(interface) {
                interfaces.push(interface.clone());
            }
        }
        DaemonSettings {
            interfaces,
            wait_for_interfaces: self.wait_for_interfaces || file.wait_for_interfaces,
            xdp_mode: self.xdp_mode.unwrap_or(file.xdp_mode),
            socket: self.socket.clone().unwrap_or(file.socket),
            socket_group: self.socket_group.clone().or(file.socket_group),
            socket_read: self.socket_read.clone().or(file.socket_read),
            socket_read_group: self.socket_read_group.clone().or(file.socket_read_group),
            state_dir: self.state_dir.clone().unwrap_or(file.state_dir),
            metrics: self.metrics.unwrap_or(file.metrics),
            metrics_access: self.metrics_access.clone().unwrap_or(file.metrics_access),
            metrics_names: self.metrics_names.clone().unwrap_or(file.metrics_names),
            pin_dir: self.pin_dir.clone().unwrap_or(file.pin_dir),
            on_exit: self.on_exit.unwrap_or(file.on_exit),
            log_format: self.log_format.unwrap_or(file.log_format),
            ..file
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Arc};

    use super::*;
    use crate::state::{desired::Desired, stored::Stored, testing};

    fn flags(toml: &str) -> (tempfile::NamedTempFile, Flags) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), toml).unwrap();
        let flags = Flags {
            config: vec![file.path().to_owned()],
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
        let (settings, file) = flags.resolve().unwrap();
        assert_eq!(settings.interfaces, ["eth0", "eth1"]);
        assert_eq!(settings.metrics.port(), 2);
        assert_eq!(settings.state_dir, Path::new("/a"));
        assert_eq!(file.unwrap().unwrap().desired, Desired::default());
        let (settings, file) = Flags::default().resolve().unwrap();
        assert!(settings == DaemonSettings::default() && file.is_none());
    }

    #[test]
    fn a_bad_file_is_an_error_with_its_name() {
        let (_file, flags) = flags("[lb]\nmetrics = 7\n");
        assert!(matches!(flags.resolve(), Err(FileError::Content { errors, .. }) if errors[0].line == 2));
        let missing = read(&["/no/such/file".into()]).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"), "{missing}");
    }

    /// A machine that restarts with a broken file must continue as before.
    #[test]
    fn a_file_that_cannot_be_used_does_not_stop_a_start_that_has_a_state() {
        let dir = tempfile::tempdir().unwrap();
        let good = format!("[lb]\ninterfaces = [\"eth0\"]\nstate_dir = {:?}\n", dir.path());
        let applied = config::parse(&good, "good").unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let stored = Stored {
            desired: Arc::new(testing::desired([testing::service("web", 1, &[("a", 1)])])),
            applied: Some(Arc::new(applied)),
            by: None,
        };
        let start_by = |toml: &str, named: bool, strict: bool| {
            let (file, flags) = flags(toml);
            let flags = Flags {
                state_dir: named.then(|| dir.path().to_owned()),
                strict,
                ..flags
            };
            let resolved = flags.resolve();
            drop(file);
            resolved.map(|(settings, config)| (settings.interfaces, config.unwrap().is_ok()))
        };
        let start = |toml: &str, named| start_by(toml, named, false);
        let (broken_service, broken) = (good.clone() + "[[service]]\n", "[lb");
        assert!(start(&broken_service, false).is_err(), "nothing is stored yet");
        store.save(&stored).unwrap();
        drop(store);
        let goes_on = (vec!["eth0".to_owned()], false);
        assert_eq!(start(&broken_service, false).unwrap(), goes_on);
        assert_eq!(start(broken, true).unwrap(), goes_on);
        assert!(start_by(broken, true, true).is_err(), "--strict");
        assert!(start_by(&good, true, true).is_ok());
        assert!(start(broken, false).is_err(), "the state directory is unknown");
    }
}
