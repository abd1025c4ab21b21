//! What an interface is asked for, and what became of it.

use std::path::PathBuf;

/// Which XDP modes may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpModeChoice {
    /// Native where the driver takes it, else generic with a note that says why.
    #[default]
    Auto,
    /// Native or nothing.
    Native,
    /// Generic, in the kernel's network stack.
    Generic,
}

/// The XDP mode a program really runs in, as the kernel reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// Run by the driver.
    Native,
    /// Run by the network stack.
    Generic,
}

impl XdpMode {
    /// Name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What [`super::Datapath::open`] shall do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachOptions {
    /// Names of the interfaces; those that an earlier daemon served and that are not among them are detached.
    pub interfaces: Vec<String>,
    /// Modes that may be used.
    pub xdp_mode: XdpModeChoice,
    /// Directory in a BPF file system; one is mounted where there is none.
    pub pin_dir: PathBuf,
    /// Removes what an earlier daemon left before starting, with all its flows.
    pub reset: bool,
}

/// An interface that the program is attached to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachedInterface {
    /// Its name.
    pub name: String,
    /// Its index in this network namespace.
    pub ifindex: u32,
    /// The mode the program runs in.
    pub xdp_mode: XdpMode,
    /// Kernel's id of the program.
    pub program_id: u32,
    /// Kernel's id of the link that holds it there; survives a take-over.
    pub link_id: u32,
    /// Which block of the verdict counters it has, 0 to 15; kept over a take-over.
    pub slot: u32,
    /// The link of an earlier daemon was taken over, with no gap in forwarding.
    pub took_over: bool,
    /// What the operator should know about how it is attached, such as why the mode is not native.
    pub note: Option<String>,
}
