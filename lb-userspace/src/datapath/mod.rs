//! The only place that talks to the kernel's BPF: loading, pins, links, maps, counters, neighbours.
//!
//! [`Datapath::open`] brings the program onto the interfaces, or takes over what an earlier daemon left there.
//! [`WriterTask`] then owns the maps and executes plans; [`StatsReader`] reads counters beside it. What stays in the
//! kernel when the daemon goes, by [`WriterHandle::keep`] or by a kill, goes on forwarding.

mod error;
mod interface;
mod snapshot;

pub use error::{DatapathError, ProgramError};
pub use interface::{AttachOptions, AttachedInterface, XdpMode, XdpModeChoice};
pub use snapshot::{BackendStats, InterfaceStats, MapUse, Snapshot};

/// Where pins go unless `--pin-dir` says otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/lb";
