//! Errors between the daemon and the kernel, with their remedies.

use std::{io, path::PathBuf};

pub(super) use lb_model::chain::chain;

use crate::plan::{QuicStep, Step};

/// Why the data plane could not be opened or removed.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The binary was built without a BPF object.
    #[error("built without its data plane")]
    NoObject,
    /// The embedded object does not match this daemon.
    #[error("the embedded data plane is broken: {0}")]
    BadObject(String),
    /// No interface to attach to.
    #[error("no interface given")]
    NoInterface,
    /// More than [`lb_common::limits::MAX_INTERFACES`].
    #[error("{given} interfaces given, {max} can be served", max = lb_common::limits::MAX_INTERFACES)]
    TooManyInterfaces {
        /// How many were given.
        given: usize,
    },
    /// No interface of that name in this network namespace.
    #[error("no interface \"{name}\" here")]
    InterfaceMissing {
        /// The name that was asked for.
        name: String,
        /// The interfaces that exist.
        present: Vec<String>,
    },
    /// Frames on it have no Ethernet header, so the program would read them wrongly.
    #[error("interface \"{0}\" is not Ethernet")]
    NotEthernet(String),
    /// The process lacks rights.
    #[error("missing capabilities: {}", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    /// Another daemon holds the pin directory.
    #[error("{dir} is in use by another lb daemon{}", pid.map(|pid| format!(", pid {pid}")).unwrap_or_default())]
    PinDirBusy {
        /// The pin directory.
        dir: String,
        /// Its process, if the kernel reports it.
        pid: Option<u32>,
    },
    /// An XDP program that is not ours is on the interface.
    #[error("interface \"{interface}\" already has an XDP program (id {program_id}{}){}",
        name.as_ref().map(|name| format!(", \"{name}\"")).unwrap_or_default(),
        pid.map(|pid| format!(", attached by pid {pid}")).unwrap_or_default())]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// Kernel's id of the program.
        program_id: u32,
        /// Its name, if the kernel reports it.
        name: Option<String>,
        /// The process that holds its link, if one does.
        pid: Option<u32>,
    },
    /// No mode that may be used works on the interface.
    #[error("cannot attach to \"{interface}\": {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// The modes tried and the kernel's errors.
        reason: String,
    },
    /// A pinned map differs from this daemon's object.
    #[error("{path} is not the map that this version expects: {difference}")]
    PinMismatch {
        /// The pin.
        path: PathBuf,
        /// The first field that differs.
        difference: String,
    },
    /// Pins of a daemon with other map layouts.
    #[error("{path} holds the data plane of another version of lb")]
    OtherLayout {
        /// The other version's directory.
        path: PathBuf,
    },
    /// The directory cannot hold pins.
    #[error("cannot use {path} for pins: {reason}")]
    PinDir {
        /// The directory.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// The kernel refused the program.
    #[error("the kernel refuses the data plane: {reason}")]
    Load {
        /// The verifier's message or the system call's error.
        reason: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// The call and its object.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A map could not be read or written.
    #[error("map {map}: {reason}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What failed.
        reason: String,
    },
}

impl DatapathError {
    /// The remedy.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoObject => "build with `cargo xtask build`",
            Self::NoInterface => "name one with --iface, or with `interfaces` in the configuration",
            Self::TooManyInterfaces { .. } => "run a second balancer for the others, with its own --pin-dir",
            Self::InterfaceMissing { name: _, present } => {
                return Some(format!("there are: {}", present.join(", ")));
            }
            Self::NotEthernet(_) => "name the Ethernet interface that carries the packets",
            Self::Capabilities(_) => "run as root, or grant them, for example in the systemd unit",
            Self::PinDirBusy { .. } => "stop that daemon, or give this one its own interfaces and --pin-dir",
            Self::ForeignProgram { pid: Some(pid), .. } => {
                return Some(format!(
                    "stop process {pid}, or have it detach its program from the interface"
                ));
            }
            Self::ForeignProgram { interface, .. } => {
                return Some(format!(
                    "`ip link set dev {interface} xdp off`; where the kernel refuses that, a pinned link holds it: \
                     `bpftool link` lists them, and removing its pin lets go"
                ));
            }
            Self::Attach { .. } => "try --xdp-mode generic, which every Ethernet interface takes",
            Self::PinMismatch { .. } | Self::OtherLayout { .. } => {
                "start with --reset to replace what is pinned, or remove it with `lb detach`; its flows are lost"
            }
            Self::PinDir { .. } => {
                "name a directory in a BPF file system, or one that can be made, with --pin-dir"
            }
            Self::Load { .. } => "Linux 6.1 or later with BPF is needed; `dmesg` may say more",
            Self::BadObject(_) => "build again with `cargo xtask build`",
            Self::Io { .. } | Self::Map { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Why a target was not fully programmed. What was programmed before stays in effect.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// No way to the target exists, for example for want of ids.
    #[error("cannot plan the change: {0}")]
    Plan(String),
    /// A write failed; the steps after it were not begun.
    #[error("{what}: {reason}", what = describe(step))]
    Step {
        /// The step that failed.
        step: Box<Step>,
        /// The kernel's error.
        reason: String,
    },
    /// The writer has ended.
    #[error("the data plane is shut down")]
    Closed,
}

/// A step as text, for errors.
fn describe(step: &Step) -> String {
    match step {
        Step::WriteTunnelEnd { key } => {
            format!("cannot write {} to the ends of tunnels", key.address.to_ip())
        }
        Step::RemoveTunnelEnd { key } => {
            format!("cannot remove {} from the ends of tunnels", key.address.to_ip())
        }
        Step::WriteClients { prefix, .. } => format!("cannot write the ring of clients {prefix}"),
        Step::RemoveClients { prefix, .. } => format!("cannot remove the ring of clients {prefix}"),
        Step::WriteSettings { .. } => "cannot write the settings".to_owned(),
        Step::WriteBackend { backend, .. } => format!("cannot write backend {}", backend.address),
        Step::WriteRing { ring, slots } => {
            format!("cannot write ring {} of {} slots", ring.0, slots.len())
        }
        Step::WriteService { key, .. } => {
            format!("cannot write service {key}")
        }
        Step::RemoveService { key, .. } => {
            format!("cannot remove service {key}")
        }
        Step::WritePrefix { key, .. } => {
            format!("cannot write a prefix of {} to a guard", key.address.to_ip())
        }
        Step::WriteFlowGuard { service, .. } => {
            format!("cannot write the budget of new flows of service id {}", service.0)
        }
        Step::RemovePrefix { key } => {
            format!("cannot remove a prefix of {} from a guard", key.address.to_ip())
        }
        Step::WriteReply { endpoint, .. } => {
            format!(
                "cannot write replies from {} port {}",
                endpoint.address, endpoint.port
            )
        }
        Step::RemoveReply { endpoint } => {
            format!(
                "cannot remove replies from {} port {}",
                endpoint.address, endpoint.port
            )
        }
        Step::Quic(QuicStep::WriteConfig { key, .. } | QuicStep::RemoveConfig { key }) => {
            let service = key.service().0;
            format!("cannot change how connection ids of service {service} are read")
        }
        Step::Quic(QuicStep::WriteServer { key, .. } | QuicStep::RemoveServer { key }) => {
            format!("cannot change a server id of service {}", key.service.0)
        }
        Step::Barrier => "cannot wait for the data plane to take up a change".to_owned(),
        Step::RemoveRing { ring } => format!("cannot remove ring {}", ring.0),
        Step::FreeBackend { id } => format!("cannot free backend id {}", id.0),
    }
}

/// The error of a map that cannot be read.
pub(super) fn failed(map: &'static str, e: &io::Error) -> DatapathError {
    DatapathError::Map {
        map,
        reason: e.to_string(),
    }
}
