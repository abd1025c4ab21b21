//! Bringing the program onto interfaces, by taking over the links of an earlier daemon or by new ones.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use lb_common::limits::MAX_INTERFACES;

use super::{
    AttachOptions, AttachedInterface, DatapathError, XdpMode, XdpModeChoice,
    load::{Loader, Program},
    maps,
    netlink::{Client, LinkState, XdpState},
    pin::{self, PinnedLink, Pins},
    sys,
};

/// What is to be done for one interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    /// The link in this slot is taken over.
    TakeOver { slot: u32 },
    /// The link in this slot runs in a mode that may not be used: it goes, and a new one comes.
    Replace { slot: u32, old: XdpMode },
    /// A new link in this slot.
    Attach { slot: u32 },
    /// A program that is not ours is there.
    Foreign { program_id: u32 },
}

/// What is to be done for interfaces, and which slots hold links that nobody wants any more.
#[derive(PartialEq, Eq, Debug)]
struct Decision {
    actions: Vec<Action>,
    stale: Vec<u32>,
}

/// Decides for each wanted interface, by its index and the program on it, given the pinned links by slot.
fn decide(
    wanted: &[(u32, Option<XdpState>)],
    pinned: &[(u32, sys::XdpLinkInfo)],
    choice: XdpModeChoice,
) -> Decision {
    // A link counts as that of an interface if its program is the one that is there: the same index may belong to
    // another interface in another network namespace.
    let own = |(ifindex, xdp): &(u32, Option<XdpState>)| {
        let state = (*xdp)?;
        let (slot, _) = pinned
            .iter()
            .find(|(_, link)| link.ifindex == *ifindex && link.program_id == state.program_id)?;
        Some((*slot, state))
    };
    let kept: BTreeSet<u32> = wanted.iter().filter_map(own).map(|(slot, _)| slot).collect();
    let mut free = (0..MAX_INTERFACES).filter(|slot| !kept.contains(slot));
    let actions = wanted
        .iter()
        .filter_map(|interface| {
            Some(match (own(interface), interface.1) {
                (Some((slot, state)), _) => match (choice, mode(state)) {
                    (XdpModeChoice::Native, old @ XdpMode::Generic)
                    | (XdpModeChoice::Generic, old @ XdpMode::Native) => Action::Replace { slot, old },
                    _ => Action::TakeOver { slot },
                },
                (None, Some(XdpState { program_id, .. })) => Action::Foreign { program_id },
                (None, None) => Action::Attach { slot: free.next()? },
            })
        })
        .collect();
    let stale = pinned
        .iter()
        .map(|(slot, _)| *slot)
        .filter(|slot| !kept.contains(slot))
        .collect();
    Decision { actions, stale }
}

fn mode(state: XdpState) -> XdpMode {
    if state.generic {
        XdpMode::Generic
    } else {
        XdpMode::Native
    }
}

/// The modes to try, best first.
fn modes(choice: XdpModeChoice) -> &'static [XdpMode] {
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
/// [`DatapathError::InterfaceMissing`] for the first that is not there.
pub(super) fn find(client: &mut Client, options: &AttachOptions) -> Result<Vec<LinkState>, DatapathError> {
    let links = client.links().map_err(|source| DatapathError::Io {
        what: "cannot list interfaces".to_owned(),
        source,
    })?;
    let mut found: Vec<LinkState> = Vec::new();
    for name in &options.interfaces {
        let link =
            links
                .iter()
                .find(|link| link.name == *name)
                .ok_or_else(|| DatapathError::InterfaceMissing {
                    name: name.clone(),
                    present: links.iter().map(|link| link.name.clone()).collect(),
                })?;
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
            .load(slot, true)
            .map_err(|e| e.to_string())
            .and_then(|mut program| program.take_over(&pin))
        {
            Ok(()) => return Ok(self.generic_note(link)),
            Err(reason) => reason,
        };
        match self.loader.load(slot, false)?.take_over(&pin) {
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
            let mut without_frags = None;
            for frags in [true, false] {
                let result = self
                    .loader
                    .load(slot, frags)
                    .map_err(|e| e.to_string())
                    .and_then(|program| self.create_link(program, link, slot, *mode));
                match result {
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
        mut program: Program,
        link: &LinkState,
        slot: u32,
        mode: XdpMode,
    ) -> Result<(), String> {
        if self.fresh.contains(&slot) {
            maps::clear_verdicts(&self.pins.current(), slot).map_err(|e| e.to_string())?;
        }
        let fd = program
            .with_fd(|program| sys::create_xdp_link(program, link.ifindex, mode))
            .map_err(|e| explain(&e))?;
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
fn explain(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver does not support it".to_owned(),
        Some(libc::ERANGE | libc::EMSGSIZE) => "the interface's MTU is too large for it".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => "another XDP program is on the interface".to_owned(),
        _ => e.to_string(),
    }
}

fn foreign(link: &LinkState, program_id: u32) -> DatapathError {
    let name = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == program_id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty());
    DatapathError::ForeignProgram {
        interface: link.name.clone(),
        program_id,
        name,
        pid: link_holder(program_id),
    }
}

/// A process that holds a link with this program open, by what the kernel tells of its descriptors. Only for an error
/// message, since it walks all processes.
fn link_holder(program_id: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .find(|pid: &u32| {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten();
            descriptors
                .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
                .any(|text| holds_link(&text, program_id))
        })
}

/// Whether the text of a descriptor's fdinfo is that of an XDP link with this program.
fn holds_link(fdinfo: &str, program_id: u32) -> bool {
    let field = |name: &str| {
        fdinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    field("link_type") == Some("xdp") && field("prog_id").and_then(|id| id.parse().ok()) == Some(program_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn link(ifindex: u32, program_id: u32) -> sys::XdpLinkInfo {
        sys::XdpLinkInfo {
            id: 1000 + program_id,
            program_id,
            ifindex,
        }
    }

    const fn xdp(program_id: u32, generic: bool) -> Option<XdpState> {
        Some(XdpState { program_id, generic })
    }

    #[test]
    fn a_restart_keeps_its_links_and_touches_no_foreign_program() {
        use Action::{Attach, Foreign, Replace, TakeOver};
        use XdpModeChoice::{Auto, Generic, Native};
        #[expect(clippy::type_complexity, reason = "a table of cases")]
        let cases: [(
            &str,
            &[(u32, Option<XdpState>)],
            &[(u32, sys::XdpLinkInfo)],
            XdpModeChoice,
            &[Action],
            &[u32],
        ); 10] = [
            (
                "first start",
                &[(2, None), (3, None)],
                &[],
                Auto,
                &[Attach { slot: 0 }, Attach { slot: 1 }],
                &[],
            ),
            (
                "restart",
                &[(2, xdp(70, false))],
                &[(0, link(2, 70))],
                Auto,
                &[TakeOver { slot: 0 }],
                &[],
            ),
            (
                "restart keeps each slot",
                &[(3, xdp(71, false)), (2, xdp(70, false))],
                &[(0, link(2, 70)), (1, link(3, 71))],
                Auto,
                &[TakeOver { slot: 1 }, TakeOver { slot: 0 }],
                &[],
            ),
            (
                "an interface more",
                &[(2, None), (3, xdp(71, true))],
                &[(0, link(3, 71))],
                Auto,
                &[Attach { slot: 1 }, TakeOver { slot: 0 }],
                &[],
            ),
            (
                "an interface less",
                &[(2, xdp(70, false))],
                &[(0, link(2, 70)), (1, link(3, 71))],
                Auto,
                &[TakeOver { slot: 0 }],
                &[1],
            ),
            (
                "a foreign program",
                &[(2, xdp(99, false))],
                &[],
                Auto,
                &[Foreign { program_id: 99 }],
                &[],
            ),
            (
                "the interface was made anew",
                &[(2, None)],
                &[(0, link(0, 70))],
                Auto,
                &[Attach { slot: 0 }],
                &[0],
            ),
            (
                "the same index in another namespace",
                &[(2, xdp(99, false))],
                &[(0, link(2, 70))],
                Auto,
                &[Foreign { program_id: 99 }],
                &[0],
            ),
            (
                "native is asked for now",
                &[(2, xdp(70, true))],
                &[(4, link(2, 70))],
                Native,
                &[Replace {
                    slot: 4,
                    old: XdpMode::Generic,
                }],
                &[],
            ),
            (
                "generic stays where it is asked for",
                &[(2, xdp(70, true))],
                &[(4, link(2, 70))],
                Generic,
                &[TakeOver { slot: 4 }],
                &[],
            ),
        ];
        for (name, wanted, pinned, choice, actions, stale) in cases {
            let decision = decide(wanted, pinned, choice);
            assert_eq!(decision.actions, actions, "{name}");
            assert_eq!(decision.stale, stale, "{name}");
        }
    }

    #[test]
    fn the_process_that_holds_an_interface_is_found_by_its_link() {
        let text = "pos:\t0\nflags:\t02000000\nlink_type:\txdp\nlink_id:\t12\nprog_tag:\tab\nprog_id:\t70\nifindex:\t2\n";
        assert!(holds_link(text, 70));
        assert!(!holds_link(text, 7));
        assert!(!holds_link(&text.replace("xdp", "tcx"), 70));
    }
}
