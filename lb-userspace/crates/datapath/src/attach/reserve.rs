//! Links that are made while the programs are loaded, with a [`Gate`] as their program.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    thread::{self, JoinHandle},
};

use super::super::{gate::Gate, sys};
use crate::{attach::mode::modes, interface::XdpMode, state::xdp_mode::XdpModeChoice};

/// A link with the gate, on the interface of this index.
type Link = (u32, OwnedFd);

/// Links that are made on a thread, in the best mode that may be used. Dropping them takes the gate away.
pub(in super::super) struct Reserved {
    mode: XdpMode,
    /// What the links run.
    pub(in super::super) gate: Gate,
    thread: Option<JoinHandle<Vec<Link>>>,
    links: Vec<Link>,
}

impl Reserved {
    /// Begins to attach to the interfaces of these indices. After a refusal, the attempt with the real program reports the
    /// reason.
    pub(in super::super) fn begin(interfaces: Vec<u32>, choice: XdpModeChoice) -> Option<Self> {
        let mode = *modes(choice).first()?;
        let gate = Gate::new().ok()?;
        let program = gate.program.try_clone().ok()?;
        let work = move || {
            let link = |ifindex| {
                let link = sys::create_xdp_link(program.as_fd(), ifindex, mode).ok()?;
                Some((ifindex, link))
            };
            interfaces.into_iter().filter_map(link).collect()
        };
        let thread = thread::Builder::new().name("lb-reserve".to_owned()).spawn(work);
        Some(Self {
            mode,
            gate,
            thread: Some(thread.ok()?),
            links: Vec::new(),
        })
    }

    /// The link on an interface, in a mode, if there is one.
    pub(super) fn take(&mut self, ifindex: u32, mode: XdpMode) -> Option<OwnedFd> {
        if let Some(thread) = self.thread.take() {
            // Nothing is reserved where it died.
            self.links = thread.join().unwrap_or_default();
        }
        let place = self.links.iter().position(|(index, _)| *index == ifindex)?;
        let (_, link) = self.links.swap_remove(place);
        (mode == self.mode).then_some(link)
    }
}
