//! The settings of an interface, and its state.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::netlink::LinkState;
use crate::{needs::Needs, netlink::LinkOperation, state::xdp_mode::XdpModeChoice};

/// The problem of a missing interface.
const MISSING: &str = "is missing: nothing of it is forwarded";

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

/// Options of [`crate::Datapath::open`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachOptions {
    /// Names of the interfaces, which may be alternative ones. Other interfaces of an earlier daemon are detached.
    pub interfaces: Vec<String>,
    /// Starts also where one of them is missing, and attaches to it when it appears.
    pub wait_for_interfaces: bool,
    /// Modes that may be used.
    pub xdp_mode: XdpModeChoice,
    /// Directory in a BPF file system; one is mounted where there is none.
    pub pin_dir: PathBuf,
    /// Removes what an earlier daemon left before starting, with all its flows.
    pub reset: bool,
    /// The parts of the program that [`crate::Datapath::begin`] loads before anything is attached, see [`crate::needs_of`]. The
    /// whole comes later, by [`super::WriterHandle::load_rest`] or for what is programmed. A start that takes over has it at once.
    pub needs: Needs,
}

impl LinkOperation {
    /// Name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::NoCarrier => "no_carrier",
            Self::Down => "down",
            Self::Missing => "missing",
        }
    }
}

/// An interface for the program, and its present state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// The name it was asked for by.
    pub configured: String,
    /// Its name now; where it is missing, the last one.
    pub name: String,
    /// Its alternative names.
    pub altnames: Vec<String>,
    /// Its block of the verdict counters, 0 to 15; stays the same over a take-over, and when the interface is made anew.
    pub slot: u32,
    /// Whether it can carry packets.
    pub operation: LinkOperation,
    /// How the program runs on it; `None` where it does not.
    pub attached: Option<Attachment>,
    /// Why the program does not run on it.
    pub absence: Option<InterfaceProblem>,
    /// Times the program was put back while the daemon ran, since it was gone or replaced.
    pub repairs: u64,
}

impl Interface {
    /// One that is not there.
    pub(super) fn missing(configured: &str) -> Self {
        Self {
            configured: configured.to_owned(),
            name: configured.to_owned(),
            altnames: Vec::new(),
            slot: 0,
            operation: LinkOperation::Missing,
            attached: None,
            absence: Some(InterfaceProblem {
                message: MISSING.to_owned(),
                hint: Some(
                    "it is attached to as soon as it is there; `ip link` lists what there is".to_owned(),
                ),
            }),
            repairs: 0,
        }
    }

    /// Takes over the kernel's data about it.
    pub(super) fn is_now(&mut self, link: &LinkState) {
        self.name.clone_from(&link.name);
        self.altnames.clone_from(&link.altnames);
        self.operation = link.operation;
    }

    /// Its problem, with the remedy if there is one.
    pub fn problem(&self) -> Option<InterfaceProblem> {
        let problem = |message: &str, hint: &str| {
            Some(InterfaceProblem {
                message: message.to_owned(),
                hint: Some(hint.to_owned()),
            })
        };
        if self.absence.is_some() {
            return self.absence.clone();
        }
        let name = &self.name;
        match self.operation {
            LinkOperation::Down => problem(
                "is down: it receives and sends no packets",
                &format!("`ip link set dev {name} up`"),
            ),
            LinkOperation::NoCarrier => problem(
                "has no carrier: it receives and sends no packets",
                "look at its cable, its switch port or its peer",
            ),
            LinkOperation::Up | LinkOperation::Missing if self.is_renamed() => problem(
                &format!(
                    "was {} before it was renamed: the next start would not find it",
                    self.configured
                ),
                "configure its new name, or an alternative name that stays",
            ),
            LinkOperation::Up | LinkOperation::Missing => None,
        }
    }

    /// Whether it has lost the name that it was asked for by.
    fn is_renamed(&self) -> bool {
        self.attached.is_some() && self.name != self.configured && !self.altnames.contains(&self.configured)
    }
}

/// Why the program does not run on an interface, or another problem of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceProblem {
    /// The problem, as a continuation of "interface NAME".
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

/// How the program runs on an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The interface's index in this network namespace.
    pub ifindex: u32,
    /// The mode the program runs in.
    pub xdp_mode: XdpMode,
    /// Kernel's id of the program.
    pub program_id: u32,
    /// Kernel's tag of the program, as `bpftool prog` shows it: a hash of its instructions. Empty where it cannot be read.
    pub program_tag: String,
    /// Kernel's id of the link that holds it there; survives a take-over.
    pub link_id: u32,
    /// The link of an earlier daemon was taken over, with no gap in forwarding.
    pub took_over: bool,
    /// A remark for the operator about its attachment, such as why the mode is not native.
    pub note: Option<String>,
}

/// An event of an interface while the daemon ran.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceChange {
    /// The kind of event.
    pub kind: InterfaceChangeKind,
    /// One sentence.
    pub message: String,
}

/// Kinds of events of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterfaceChangeKind {
    /// The program runs on it, or does so again.
    Attached,
    /// The program does not run on it any more.
    Detached,
    /// It went down or came up, got another name, or cannot be attached to.
    Changed,
}

/// The interfaces, in the order they were asked for, kept current.
pub type Interfaces = watch::Receiver<Arc<[Interface]>>;

/// The first of `interfaces` that the program does not run on, in words; also where there is no interface.
pub fn missing(interfaces: &[Interface]) -> Option<String> {
    if interfaces.is_empty() {
        return Some("no interface is configured".to_owned());
    }
    let absent = |interface: &Interface| {
        let absence = interface.absence.as_ref()?;
        Some(format!("interface {} {}", interface.name, absence.message))
    };
    interfaces.iter().find_map(absent)
}
