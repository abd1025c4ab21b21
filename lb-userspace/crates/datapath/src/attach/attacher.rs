//! Attaching: by taking over the link of an earlier daemon, or by a new one.

use std::os::fd::{AsFd as _, OwnedFd};

use super::{
    super::{
        load::{Loader, SharedProgram, take_over},
        loading, maps,
        netlink::{Client, LinkState},
        pin::{self, PinnedLink, Pins},
        sys,
    },
    decision::{Action, Decision, decide},
    find::Wanted,
    reserve::Reserved,
};
use crate::{
    attach::{
        foreign::foreign,
        mode::{explain, mode, modes},
    },
    error::DatapathError,
    interface::{Attachment, Interface, XdpMode},
    state::xdp_mode::XdpModeChoice,
};

/// The interfaces and their links, held open, so that another daemon can find this process by them.
pub(in super::super) struct Attached {
    pub(in super::super) interfaces: Vec<Interface>,
    pub(in super::super) links: Vec<Option<OwnedFd>>,
}

/// Inputs of attaching.
pub(in super::super) struct Attacher<'a> {
    client: &'a mut Client,
    loader: Loader,
    pins: &'a Pins,
    choice: XdpModeChoice,
    /// Links made beforehand.
    reserved: Option<Reserved>,
    /// Pins made by this run, which go again should it fail.
    made: Vec<u32>,
}

/// The work on interfaces at a start.
pub(in super::super) struct AttachPlan {
    pinned: Vec<PinnedLink>,
    decision: Decision,
    /// Interfaces that are there, by index, and the slots that they count in.
    pub(in super::super) slots: Vec<(u32, u32)>,
}

impl AttachPlan {
    /// Compares the interfaces that are wanted with what runs on them, and with the links that are pinned.
    pub(in super::super) fn new(
        wanted: &[Wanted],
        pins: &Pins,
        choice: XdpModeChoice,
    ) -> Result<Self, DatapathError> {
        let pinned = pins.links()?;
        let present = |wanted: &Wanted| wanted.link.as_ref().map(|link| (link.ifindex, link.xdp));
        let decision = decide(
            &wanted.iter().map(present).collect::<Vec<_>>(),
            &pinned
                .iter()
                .map(|link| (link.slot, link.info))
                .collect::<Vec<_>>(),
            choice,
        );
        let mut slots = Vec::new();
        for (wanted, action) in wanted.iter().zip(&decision.actions) {
            match (action, &wanted.link) {
                (Action::Foreign { program_id }, Some(link)) => return Err(foreign(link, *program_id)),
                (
                    Action::TakeOver { slot } | Action::Replace { slot, .. } | Action::Attach { slot },
                    Some(link),
                ) => slots.push((link.ifindex, *slot)),
                (Action::Missing { .. }, _) | (_, None) => {}
            }
        }
        // Sorted, so that the program is the same in any order of interfaces.
        slots.sort_unstable_by_key(|(_, slot)| *slot);
        Ok(Self {
            pinned,
            decision,
            slots,
        })
    }

    /// Whether links of an earlier daemon are there.
    pub(in super::super) const fn takes_over(&self) -> bool {
        !self.pinned.is_empty()
    }
}

impl<'a> Attacher<'a> {
    pub(in super::super) fn new(
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
            reserved: None,
            made: Vec::new(),
        }
    }

    /// Uses links that were made beforehand.
    pub(in super::super) fn with_reserved(self, reserved: Option<Reserved>) -> Self {
        Self { reserved, ..self }
    }

    /// Attaches to all `wanted` interfaces that exist, as planned, and detaches other interfaces of earlier links. After a
    /// failure, new links are removed; links that were taken over stay and forward.
    pub(in super::super) fn attach(
        mut self,
        wanted: &[Wanted],
        plan: &AttachPlan,
    ) -> Result<Attached, DatapathError> {
        let attached = self.attach_all(wanted, plan);
        if attached.is_err() {
            for slot in &self.made {
                // The first error matters more than one of cleaning up.
                let _ = pin::remove_link(&self.pins.link(*slot));
            }
        }
        attached
    }

    fn attach_all(&mut self, wanted: &[Wanted], plan: &AttachPlan) -> Result<Attached, DatapathError> {
        let AttachPlan { pinned, decision, .. } = plan;
        self.load()?;
        for PinnedLink { path, .. } in pinned.iter().filter(|link| decision.stale.contains(&link.slot)) {
            pin::remove_link(path)?;
        }
        let mut attached = Attached {
            interfaces: Vec::new(),
            links: Vec::new(),
        };
        for (wanted, action) in wanted.iter().zip(&decision.actions) {
            let (interface, link) = self.bring(wanted, *action)?;
            attached.interfaces.push(interface);
            attached.links.push(link);
        }
        self.finish()?;
        Ok(attached)
    }

    /// Carries out the decision for one interface.
    fn bring(
        &mut self,
        wanted: &Wanted,
        action: Action,
    ) -> Result<(Interface, Option<OwnedFd>), DatapathError> {
        let mut interface = Interface::missing(&wanted.configured);
        let (slot, link) = match (action, &wanted.link) {
            (
                Action::TakeOver { slot } | Action::Replace { slot, .. } | Action::Attach { slot },
                Some(link),
            ) => (slot, link),
            (Action::Foreign { program_id }, Some(link)) => return Err(foreign(link, program_id)),
            (Action::Missing { slot }, _) => {
                // Its counts begin at zero, not with the counts of an earlier interface in the slot.
                maps::clear_verdicts(&self.pins.current(), slot)?;
                interface.slot = slot;
                return Ok((interface, None));
            }
            (_, None) => return Ok((interface, None)),
        };
        let (took_over, note) = match action {
            Action::TakeOver { slot } => {
                let note = self.take_over(link, slot)?;
                (true, note.or_else(|| self.generic_note(link)))
            }
            Action::Replace { slot, old } => (false, self.replace(link, slot, old)?),
            Action::Attach { slot } => {
                maps::clear_verdicts(&self.pins.current(), slot)?;
                (false, self.attach_new(link, slot)?)
            }
            Action::Foreign { .. } | Action::Missing { .. } => (false, None),
        };
        let (attachment, fd) = self.confirm(link, slot, took_over, note)?;
        interface.slot = slot;
        interface.is_now(link);
        interface.absence = None;
        interface.attached = Some(attachment);
        Ok((interface, Some(fd)))
    }

    /// Loads the program, also where no interface is there yet: this creates the maps that are programmed.
    pub(super) fn load(&mut self) -> Result<(), DatapathError> {
        self.loader
            .load(true)
            .or_else(|_| self.loader.load(false))
            .map(drop)
    }

    /// Sets the slot in which each interface, by its index, counts. To be called first.
    pub(super) fn serve(&mut self, mut slots: Vec<(u32, u32)>) -> Result<(), DatapathError> {
        // Sorted, so that the program is the same in any order of interfaces.
        slots.sort_unstable_by_key(|(_, slot)| *slot);
        self.loader.serve(&slots)
    }

    /// Removes the pins of programs that no link runs any more. To be called last.
    pub(super) fn finish(&self) -> Result<(), DatapathError> {
        self.loader.forget_others(self.pins)
    }

    /// Replaces the program of the pinned link; returns a remark for the operator.
    pub(super) fn take_over(&mut self, link: &LinkState, slot: u32) -> Result<Option<String>, DatapathError> {
        let pin = self.pins.link(slot);
        let refused = match self
            .loader
            .load(true)
            .map_err(|e| e.to_string())
            .and_then(|program| take_over(&program, &pin))
        {
            Ok(()) => return Ok(None),
            Err(reason) => reason,
        };
        match take_over(&self.loader.load(false)?, &pin) {
            Ok(()) => Ok(Some(frags_note(&refused))),
            Err(reason) => Err(DatapathError::Attach {
                interface: link.name.clone(),
                reason: format!("the link of the previous daemon cannot be taken over: {reason}"),
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
        match self.attach_new(link, slot) {
            Ok(note) => Ok(note.or_else(|| Some(format!("was in {} mode before", old.name())))),
            Err(e) => {
                // It forwarded before, so it goes on also if this start fails.
                self.attach_in(link, slot, &[old])?;
                self.made.retain(|made| *made != slot);
                Err(e)
            }
        }
    }

    /// Attaches by a new link in the best mode that works, and pins it; returns a remark for the operator.
    pub(super) fn attach_new(
        &mut self,
        link: &LinkState,
        slot: u32,
    ) -> Result<Option<String>, DatapathError> {
        self.attach_in(link, slot, modes(self.choice))
    }

    fn attach_in(
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
        program: &SharedProgram,
        link: &LinkState,
        slot: u32,
        mode: XdpMode,
    ) -> Result<(), String> {
        let reserved = self
            .reserved
            .as_mut()
            .and_then(|reserved| reserved.take(link.ifindex, mode));
        // If its program cannot be exchanged, it is removed, and a new one reports the reason.
        let runs =
            |fd: &OwnedFd| program.stands_behind_gate() || loading::update_link(fd, program.as_fd()).is_ok();
        let fd = match reserved.filter(runs) {
            Some(fd) => fd,
            None => sys::create_xdp_link(program.as_fd(), link.ifindex, mode).map_err(|e| explain(&e))?,
        };
        sys::pin(fd.as_fd(), &self.pins.link(slot)).map_err(|e| format!("cannot pin the link: {e}"))?;
        self.made.push(slot);
        Ok(())
    }

    /// Reads back the kernel's state, for output.
    pub(super) fn confirm(
        &mut self,
        link: &LinkState,
        slot: u32,
        took_over: bool,
        note: Option<String>,
    ) -> Result<(Attachment, OwnedFd), DatapathError> {
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
        let attachment = Attachment {
            ifindex: link.ifindex,
            xdp_mode: mode(state),
            program_id: info.program_id,
            program_tag: sys::program_tag(fd.as_fd()).unwrap_or_default(),
            link_id: info.id,
            took_over,
            note,
        };
        Ok((attachment, fd))
    }
}

fn frags_note(reason: &str) -> String {
    format!("multi-buffer packets (jumbo frames, large receive offload) are not accepted ({reason})")
}
