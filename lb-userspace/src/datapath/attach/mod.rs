//! Bringing the program onto interfaces, by taking over the links of an earlier daemon or by new ones.

mod decision;
mod foreign;

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use lb_common::limits::MAX_INTERFACES;

use self::decision::{Action, decide, mode};
pub(super) use self::foreign::foreign;
use super::{
    AttachOptions, AttachedInterface, DatapathError, XdpMode, XdpModeChoice,
    load::{Loader, Program, take_over},
    maps,
    netlink::{Client, LinkState},
    pin::{self, PinnedLink, Pins},
    sys,
};

/// The modes to try, best first.
pub(super) fn modes(choice: XdpModeChoice) -> &'static [XdpMode] {
    match choice {
        XdpModeChoice::Auto => &[XdpMode::Native, XdpMode::Generic],
        XdpModeChoice::Native => &[XdpMode::Native],
        XdpModeChoice::Generic => &[XdpMode::Generic],
    }
}

/// The attached interfaces, and their links held open, so that a daemon elsewhere can tell whose they are.
pub(super) struct Attached {
    pub(super) interfaces: Vec<AttachedInterface>,
    pub(super) links: Vec<OwnedFd>,
}

/// Finds the interfaces by name, each once.
///
/// # Errors
/// [`DatapathError::InterfaceMissing`] or [`DatapathError::NotEthernet`] for the first that is not there or cannot be
/// served.
pub(super) fn find(client: &mut Client, options: &AttachOptions) -> Result<Vec<LinkState>, DatapathError> {
    let links = client.links().map_err(|source| DatapathError::Io {
        what: "cannot list interfaces".to_owned(),
        source,
    })?;
    let mut found: Vec<LinkState> = Vec::new();
    for name in &options.interfaces {
        let link = named(&links, name)?;
        if !found.contains(link) {
            found.push(link.clone());
        }
    }
    match found.len() {
        0 => Err(DatapathError::NoInterface),
        given if given > MAX_INTERFACES as usize => Err(DatapathError::TooManyInterfaces { given }),
        _ => Ok(found),
    }
}

/// As [`find`], for one interface.
pub(super) fn find_one(client: &mut Client, name: &str) -> Result<LinkState, DatapathError> {
    let links = client.links().map_err(|source| DatapathError::Io {
        what: "cannot list interfaces".to_owned(),
        source,
    })?;
    named(&links, name).cloned()
}

fn named<'a>(links: &'a [LinkState], name: &str) -> Result<&'a LinkState, DatapathError> {
    let link =
        links
            .iter()
            .find(|link| link.name == name)
            .ok_or_else(|| DatapathError::InterfaceMissing {
                name: name.to_owned(),
                present: links.iter().map(|link| link.name.clone()).collect(),
            })?;
    if !link.framed {
        return Err(DatapathError::NotEthernet(name.to_owned()));
    }
    Ok(link)
}

/// What attaching works with.
pub(super) struct Attacher<'a> {
    pub(super) client: &'a mut Client,
    pub(super) loader: Loader,
    pub(super) pins: &'a Pins,
    pub(super) choice: XdpModeChoice,
    /// Pins made by this run, which go again should it fail.
    made: Vec<u32>,
    /// Slots that get another interface, whose counts still to clear are those of the one before.
    fresh: Vec<u32>,
}

impl<'a> Attacher<'a> {
    pub(super) const fn new(
        client: &'a mut Client,
        loader: Loader,
        pins: &'a Pins,
        choice: XdpModeChoice,
    ) -> Self {
        Self {
            client,
            loader,
            pins,
            choice,
            made: Vec::new(),
            fresh: Vec::new(),
        }
    }

    /// Attaches to all `wanted` interfaces and detaches those that earlier links hold and that are not among them.
    /// Where one fails, new links go again; links that were taken over stay, and forward.
    pub(super) fn attach(mut self, wanted: &[LinkState]) -> Result<Attached, DatapathError> {
        let result = self.attach_all(wanted);
        if result.is_err() {
            for slot in &self.made {
                // The error that is on its way says more than one about cleaning up.
                let _ = pin::remove_link(&self.pins.link(*slot));
            }
        }
        result
    }

    fn attach_all(&mut self, wanted: &[LinkState]) -> Result<Attached, DatapathError> {
        let pinned = self.pins.links()?;
        let decision = decide(
            &wanted
                .iter()
                .map(|link| (link.ifindex, link.xdp))
                .collect::<Vec<_>>(),
            &pinned
                .iter()
                .map(|link| (link.slot, link.info))
                .collect::<Vec<_>>(),
            self.choice,
        );
        for (link, action) in wanted.iter().zip(&decision.actions) {
            if let Action::Foreign { program_id } = action {
                return Err(foreign(link, *program_id));
            }
        }
        let mut slots: Vec<(u32, u32)> = wanted
            .iter()
            .zip(&decision.actions)
            .filter_map(|(link, action)| match *action {
                Action::TakeOver { slot } | Action::Replace { slot, .. } | Action::Attach { slot } => {
                    Some((link.ifindex, slot))
                }
                Action::Foreign { .. } => None,
            })
            .collect();
        // In whatever order they are asked for, the program is the same.
        slots.sort_unstable_by_key(|(_, slot)| *slot);
        self.loader.serve(&slots)?;
        for PinnedLink { path, .. } in pinned.iter().filter(|link| decision.stale.contains(&link.slot)) {
            pin::remove_link(path)?;
        }
        let mut attached = Attached {
            interfaces: Vec::new(),
            links: Vec::new(),
        };
        for (link, action) in wanted.iter().zip(&decision.actions) {
            let (slot, took_over, note) = match *action {
                Action::TakeOver { slot } => (slot, true, self.take_over(link, slot)?),
                Action::Replace { slot, old } => (slot, false, self.replace(link, slot, old)?),
                Action::Attach { slot } => {
                    self.fresh.push(slot);
                    (slot, false, self.attach_new(link, slot, modes(self.choice))?)
                }
                Action::Foreign { program_id } => return Err(foreign(link, program_id)),
            };
            let (interface, fd) = self.confirm(link, slot, took_over, note)?;
            attached.interfaces.push(interface);
            attached.links.push(fd);
        }
        Ok(attached)
    }

    /// Replaces the program of the pinned link; returns what to tell about it.
    fn take_over(&mut self, link: &LinkState, slot: u32) -> Result<Option<String>, DatapathError> {
        let pin = self.pins.link(slot);
        let refused = match self
            .loader
            .load(true)
            .map_err(|e| e.to_string())
            .and_then(|program| take_over(&program, &pin))
        {
            Ok(()) => return Ok(self.generic_note(link)),
            Err(reason) => reason,
        };
        match take_over(&self.loader.load(false)?, &pin) {
            Ok(()) => Ok(Some(frags_note(&refused))),
            Err(reason) => Err(DatapathError::Attach {
                interface: link.name.clone(),
                reason: format!("the link of the daemon before cannot be taken over: {reason}"),
            }),
        }
    }

    /// That an interface that could be native is not, where an earlier daemon left it generic.
    fn generic_note(&self, link: &LinkState) -> Option<String> {
        let generic = link.xdp.is_some_and(|state| state.generic);
        (generic && self.choice == XdpModeChoice::Auto).then(|| {
            "in generic mode since an earlier start; `lb detach` before the next start tries native again"
                .to_owned()
        })
    }

    /// Replaces a link by one of another mode, with a gap between them, as the kernel has no other way.
    fn replace(
        &mut self,
        link: &LinkState,
        slot: u32,
        old: XdpMode,
    ) -> Result<Option<String>, DatapathError> {
        pin::remove_link(&self.pins.link(slot))?;
        match self.attach_new(link, slot, modes(self.choice)) {
            Ok(note) => Ok(note.or_else(|| Some(format!("was in {} mode before", old.name())))),
            Err(e) => {
                // It forwarded before, so it shall go on, whatever becomes of this start.
                self.attach_new(link, slot, &[old])?;
                self.made.retain(|made| *made != slot);
                Err(e)
            }
        }
    }

    /// Attaches by a new link in the best mode that works, and pins it; returns what to tell about it.
    fn attach_new(
        &mut self,
        link: &LinkState,
        slot: u32,
        modes: &[XdpMode],
    ) -> Result<Option<String>, DatapathError> {
        let mut refused: Vec<String> = Vec::new();
        for mode in modes {
            let mut without_frags: Option<String> = None;
            // With and without packets of several buffers; most drivers take the first.
            for frags in [true, false] {
                let program = match self.loader.load(frags) {
                    Ok(program) => program,
                    // Kernels before 5.18 do not know of them.
                    Err(e) if frags => {
                        without_frags = Some(e.to_string());
                        continue;
                    }
                    Err(e) => return Err(e),
                };
                match self.create_link(&program, link, slot, *mode) {
                    Ok(()) => {
                        let notes: Vec<String> = refused
                            .first()
                            .map(|reason| format!("{reason}, so the slower generic mode is used"))
                            .into_iter()
                            .chain(without_frags.as_deref().map(frags_note))
                            .collect();
                        return Ok((!notes.is_empty()).then(|| notes.join("; ")));
                    }
                    Err(reason) => without_frags = Some(without_frags.unwrap_or(reason)),
                }
            }
            let reason = without_frags.unwrap_or_default();
            refused.push(format!("{} mode does not work here ({reason})", mode.name()));
        }
        Err(DatapathError::Attach {
            interface: link.name.clone(),
            reason: refused.join("; "),
        })
    }

    fn create_link(
        &mut self,
        program: &Program,
        link: &LinkState,
        slot: u32,
        mode: XdpMode,
    ) -> Result<(), String> {
        if self.fresh.contains(&slot) {
            maps::clear_verdicts(&self.pins.current(), slot).map_err(|e| e.to_string())?;
        }
        let fd = sys::create_xdp_link(program.as_fd(), link.ifindex, mode).map_err(|e| explain(&e))?;
        sys::pin(fd.as_fd(), &self.pins.link(slot)).map_err(|e| format!("cannot pin the link: {e}"))?;
        self.made.push(slot);
        Ok(())
    }

    /// Reads back what the kernel holds, which is what users are told.
    fn confirm(
        &mut self,
        link: &LinkState,
        slot: u32,
        took_over: bool,
        note: Option<String>,
    ) -> Result<(AttachedInterface, OwnedFd), DatapathError> {
        let io = |what: String| move |source| DatapathError::Io { what, source };
        let pin = self.pins.link(slot);
        let (fd, info) = sys::pinned_xdp_link(&pin).map_err(io(format!("cannot open {}", pin.display())))?;
        let state = self
            .client
            .link(link.ifindex)
            .map_err(io(format!("cannot inspect interface \"{}\"", link.name)))?
            .and_then(|link| link.xdp)
            .filter(|state| state.program_id == info.program_id)
            .ok_or_else(|| DatapathError::Attach {
                interface: link.name.clone(),
                reason: format!("the kernel does not run program {} there", info.program_id),
            })?;
        let interface = AttachedInterface {
            name: link.name.clone(),
            ifindex: link.ifindex,
            xdp_mode: mode(state),
            program_id: info.program_id,
            link_id: info.id,
            slot,
            took_over,
            note,
        };
        Ok((interface, fd))
    }
}

fn frags_note(reason: &str) -> String {
    format!("packets of several buffers (jumbo frames, large receive offload) are not taken ({reason})")
}

/// The system call's error, with what it means here.
pub(super) fn explain(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver does not support it".to_owned(),
        Some(libc::ERANGE | libc::EMSGSIZE) => "the interface's MTU is too large for it".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => "another XDP program is on the interface".to_owned(),
        _ => e.to_string(),
    }
}
