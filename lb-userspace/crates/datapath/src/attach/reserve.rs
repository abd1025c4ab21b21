//! Links that are made while the programs are loaded.
//!
//! A driver may take tens of milliseconds to run a program for the first time: queues are made anew, and the kernel waits for packets
//! under way. Exchanging a program takes none of that. So a start where nothing forwards yet attaches a program that passes all
//! packets, as if there were none, and exchanges it once all stages are there.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    thread::{self, JoinHandle},
};

use super::{
    super::{XdpMode, loading, sys},
    modes,
};
use crate::state::xdp_mode::XdpModeChoice;

/// A link that passes all packets, on the interface of this index.
type Link = (u32, OwnedFd);

/// Links that are made on a thread, in the best mode that may be used. Dropping them takes their program away.
pub(in super::super) struct Reserved {
    mode: XdpMode,
    thread: Option<JoinHandle<Vec<Link>>>,
    links: Vec<Link>,
}

impl Reserved {
    /// Begins to attach to the interfaces of these indices. After a refusal, the attempt with the real program reports the
    /// reason.
    pub(in super::super) fn begin(interfaces: Vec<u32>, choice: XdpModeChoice) -> Option<Self> {
        let mode = *modes(choice).first()?;
        let work = move || {
            let Ok(program) = loading::load_pass() else {
                return Vec::new();
            };
            let link = |ifindex| {
                let link = sys::create_xdp_link(program.as_fd(), ifindex, mode).ok()?;
                Some((ifindex, link))
            };
            interfaces.into_iter().filter_map(link).collect()
        };
        let thread = thread::Builder::new().name("lb-reserve".to_owned()).spawn(work);
        Some(Self {
            mode,
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
