//! Settings of the `[lb]` table that only a start of the daemon reads.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use crate::state::{guard::Prefix, hosts::HostName, words::Word, xdp_mode::XdpModeChoice};

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

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object for each line.
    Json,
}

impl Word for LogFormat {
    const KEY: &'static str = "log_format";
    const WORDS: &'static [(Self, &'static str)] = &[(Self::Text, "text"), (Self::Json, "json")];
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
    /// Group that may use it; `None`: the daemon's own.
    pub socket_group: Option<String>,
    /// Path of the socket that only reads; `None`: no such socket.
    pub socket_read: Option<PathBuf>,
    /// Group that may use that one; `None`: the daemon's own.
    pub socket_read_group: Option<String>,
    /// Address at which the admin API is served to clients with certificates; `None`: nowhere.
    pub api_address: Option<SocketAddr>,
    /// Certificates that it shows, PEM.
    pub api_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub api_key_file: Option<PathBuf>,
    /// Authorities of the clients' certificates, PEM.
    pub api_ca_file: Option<PathBuf>,
    /// Lists of revoked certificates of clients, PEM; `None`: none is revoked.
    pub api_crl_file: Option<PathBuf>,
    /// Names of certificates that may do everything.
    pub api_admin: Vec<String>,
    /// Names of certificates that may drain, enable and weigh backends, report health and flush flows.
    pub api_operate: Vec<String>,
    /// Names of certificates that may read.
    pub api_read: Vec<String>,
    /// Directory of the desired state.
    pub state_dir: PathBuf,
    /// Address that serves metrics, the health of the daemon and the web page.
    pub metrics: SocketAddr,
    /// Prefixes of clients that may connect to that address; empty: all may.
    pub metrics_access: Vec<Prefix>,
    /// Host names under which browsers may open the web page there, beside addresses and this machine's own name.
    pub metrics_names: Vec<HostName>,
    /// Directory in which programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// Whether the program stays when the daemon exits.
    pub on_exit: OnExit,
    /// How the log is written.
    pub log_format: LogFormat,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            wait_for_interfaces: false,
            xdp_mode: XdpModeChoice::default(),
            socket: PathBuf::from("/run/lb/lb.sock"),
            socket_group: None,
            socket_read: None,
            socket_read_group: None,
            api_address: None,
            api_cert_file: None,
            api_key_file: None,
            api_ca_file: None,
            api_crl_file: None,
            api_admin: Vec::new(),
            api_operate: Vec::new(),
            api_read: Vec::new(),
            state_dir: PathBuf::from("/var/lib/lb"),
            metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, 9900)),
            metrics_access: Vec::new(),
            metrics_names: Vec::new(),
            pin_dir: PathBuf::from("/sys/fs/bpf/lb"),
            on_exit: OnExit::default(),
            log_format: LogFormat::default(),
        }
    }
}
