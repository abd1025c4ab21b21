//! Keeps the program on its interfaces for as long as the daemon runs: an interface that is made anew, appears late or has lost
//! the program gets it again.

mod change;
mod complete;
pub(in super::super) mod handle;
mod judge;
mod pins;
mod task;

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use self::{
    change::changes,
    judge::{Held, Judgement, Seen, judge},
};
use super::{
    super::{
        faults::PartReporter,
        held::HeldPins,
        load::Loader,
        netlink::{Client, LinkState},
        pin::Pins,
        sys,
    },
    foreign,
};
use crate::{
    attach::attacher::{Attached, Attacher},
    error::DatapathError,
    interface::{Attachment, Interface, InterfaceChange, InterfaceProblem},
    monitor::maps::MonitorMaps,
    netlink::LinkOperation,
    state::xdp_mode::XdpModeChoice,
};

/// Time to the next attempt after one that failed, doubled each time up to the second: an attempt may load the program,
/// which takes a good part of a second of one CPU.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The interfaces and what holds the program on them.
pub(in super::super) struct Keeper {
    client: Client,
    pins: Pins,
    held: HeldPins,
    choice: XdpModeChoice,
    entries: Vec<Entry>,
    shown: watch::Sender<std::sync::Arc<[Interface]>>,
    reporter: PartReporter,
    /// The monitor whose program is to run in the place of the usual one.
    monitor: Option<MonitorMaps>,
    /// When to try again to put the usual program back, where that failed after a monitor.
    usual: Option<Retry>,
    /// Pins could not be made again at the latest attempt.
    lacks_pins: bool,
}

/// An interface that is to have the program.
struct Entry {
    interface: Interface,
    /// Held open so that another daemon on the interface can find this process.
    link: Option<OwnedFd>,
    /// The remark of attaching. It holds for every program that the link has later.
    note: Option<String>,
    /// The latest attempt to attach, where it failed.
    failed: Option<Failed>,
    /// The foreign program that the interface was found with.
    foreign: Option<u32>,
    /// It had the program before.
    served: bool,
}

/// The next attempt after one that failed.
struct Retry {
    at: Instant,
    /// The time from the failure to it.
    wait: Duration,
}

/// An attempt that failed.
struct Failed {
    /// On this interface, as it was.
    link: LinkState,
    at: Instant,
    wait: Duration,
}

impl Keeper {
    /// Keeps what was attached at the start. `client` asks the network namespace of the interfaces.
    pub(in super::super) fn new(
        client: Client,
        (pins, held): (Pins, HeldPins),
        choice: XdpModeChoice,
        attached: Attached,
        shown: watch::Sender<std::sync::Arc<[Interface]>>,
        reporter: PartReporter,
    ) -> Self {
        let Attached { interfaces, links } = attached;
        shown.send_replace(interfaces.clone().into());
        let entries = interfaces.into_iter().zip(links).map(|(interface, link)| Entry {
            served: interface.attached.is_some(),
            note: interface
                .attached
                .as_ref()
                .and_then(|attached| attached.note.clone()),
            interface,
            link,
            failed: None,
            foreign: None,
        });
        Self {
            client,
            pins,
            held,
            choice,
            entries: entries.collect(),
            shown,
            reporter,
            monitor: None,
            usual: None,
            lacks_pins: false,
        }
    }

    /// Looks at all interfaces: some system calls for each.
    fn look(&mut self) -> io::Result<Vec<Judgement>> {
        let served: Vec<Option<u32>> = self.entries.iter().map(Entry::ifindex).collect();
        let mut judgements = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            let named = self.client.link_named(&entry.interface.configured)?;
            let held = match (&entry.link, &entry.interface.attached) {
                (Some(link), Some(attachment)) => {
                    let now = sys::xdp_link(link.as_fd())?;
                    let is_anothers = served
                        .iter()
                        .enumerate()
                        .any(|(other, index)| other != place && *index == Some(now.ifindex));
                    let device = if now.ifindex == 0 || is_anothers {
                        None
                    } else {
                        self.client.link(now.ifindex)?
                    };
                    Some(Held {
                        program_id: attachment.program_id,
                        now,
                        device,
                    })
                }
                (None, _) | (_, None) => None,
            };
            judgements.push(judge(&Seen { named, held }));
        }
        Ok(judgements)
    }

    /// Whether judgements need loading or attaching, which may take a second.
    fn is_work(&self, judgements: &[Judgement], now: Instant) -> bool {
        let mut both = self.entries.iter().zip(judgements);
        both.any(|(entry, judgement)| entry.is_due(judgement, now) || entry.gives_up(judgement))
            || self.lacks_pins(judgements)
    }

    /// Carries out the judgements and publishes the result; returns the changes to report.
    fn act(&mut self, judgements: &[Judgement], now: Instant) -> Vec<InterfaceChange> {
        let before: Vec<Interface> = self.entries.iter().map(|entry| entry.interface.clone()).collect();
        for (entry, judgement) in self.entries.iter_mut().zip(judgements) {
            if entry.gives_up(judgement) {
                entry.give_up(&self.pins);
            }
        }
        // Before anything is attached: a program that finds no pins would get maps of its own.
        self.restore_pins(judgements);
        let due: Vec<bool> = self
            .entries
            .iter()
            .zip(judgements)
            .map(|(entry, judgement)| entry.is_due(judgement, now))
            .collect();
        if due.contains(&true)
            && let Err(error) = self.attach(judgements, &due, now).map(drop)
        {
            for (entry, judgement) in self.entries.iter_mut().zip(judgements) {
                if let Judgement::Attach(link) = judgement {
                    entry.fail(link, &error, now);
                }
            }
        }
        let programs: Vec<u32> = self.entries.iter().filter_map(Entry::program).collect();
        for (entry, judgement) in self.entries.iter_mut().zip(judgements) {
            entry.show(judgement, &programs);
        }
        let pairs = before.iter().zip(&self.entries).zip(judgements);
        let reports =
            pairs.flat_map(|((before, entry), judgement)| changes(before, &entry.interface, judgement));
        let reports = reports.collect();
        self.shown.send_if_modified(|shown| {
            let now = self.entries.iter().map(|entry| &entry.interface);
            let changed = !shown.iter().eq(now.clone());
            if changed {
                *shown = now.cloned().collect();
            }
            changed
        });
        reports
    }

    /// Attaches to the interfaces that are due, and has all others run the same program, which knows all of them. The inner error
    /// is the first of those that run what they did before.
    fn attach(
        &mut self,
        judgements: &[Judgement],
        due: &[bool],
        now: Instant,
    ) -> Result<Result<(), DatapathError>, DatapathError> {
        let loader =
            Loader::whole(&self.pins, self.monitor.as_ref()).map_err(|source| DatapathError::Io {
                what: "cannot hold the maps of a monitor".to_owned(),
                source,
            })?;
        let mut attacher = Attacher::new(&mut self.client, loader, &self.pins, self.choice);
        let mut slots = Vec::new();
        for ((entry, judgement), due) in self.entries.iter().zip(judgements).zip(due) {
            match judgement {
                Judgement::Keep(link) | Judgement::TakeBack { link, .. } => {
                    slots.push((link.ifindex, entry.interface.slot));
                }
                Judgement::Attach(link) if *due => slots.push((link.ifindex, entry.interface.slot)),
                Judgement::Attach(_)
                | Judgement::Foreign { .. }
                | Judgement::NotEthernet(_)
                | Judgement::Missing => {}
            }
        }
        attacher.serve(slots)?;
        attacher.load()?;
        let mut renewed = Ok(());
        for ((entry, judgement), due) in self.entries.iter_mut().zip(judgements).zip(due) {
            match judgement {
                Judgement::Keep(link) | Judgement::TakeBack { link, .. } => {
                    renewed = renewed.and(entry.renew(&mut attacher, link, *due));
                }
                Judgement::Attach(link) if *due => entry.attach(&mut attacher, link, now),
                Judgement::Attach(_)
                | Judgement::Foreign { .. }
                | Judgement::NotEthernet(_)
                | Judgement::Missing => {}
            }
        }
        attacher.finish()?;
        // The loader has created what was missing, and pinned and removed programs.
        self.held.renew(&self.pins)?;
        Ok(renewed)
    }

    /// Takes programs, links and maps out of the kernel.
    ///
    /// # Errors
    /// [`DatapathError`] if something could not be removed.
    fn detach(self) -> Result<(), DatapathError> {
        drop(self.entries);
        let removed = self.pins.remove_all().map(drop);
        self.pins.remove_base();
        removed
    }
}

impl Entry {
    fn ifindex(&self) -> Option<u32> {
        self.interface.attached.as_ref().map(|attached| attached.ifindex)
    }

    fn program(&self) -> Option<u32> {
        self.interface
            .attached
            .as_ref()
            .map(|attached| attached.program_id)
    }

    /// Whether something is to be attached or put back now.
    fn is_due(&self, judgement: &Judgement, now: Instant) -> bool {
        match judgement {
            Judgement::TakeBack { .. } => true,
            Judgement::Attach(link) => self
                .failed
                .as_ref()
                .is_none_or(|failed| failed.link != *link || now >= failed.at + failed.wait),
            Judgement::Keep(_)
            | Judgement::Foreign { .. }
            | Judgement::NotEthernet(_)
            | Judgement::Missing => false,
        }
    }

    /// Whether its link is of no use any more.
    const fn gives_up(&self, judgement: &Judgement) -> bool {
        self.link.is_some() && !judgement.keeps_link()
    }

    fn give_up(&mut self, pins: &Pins) {
        if let Some(link) = self.link.take() {
            // It fails where the interface is gone. Where that is in another network namespace, or has another name while
            // a new one has its own, the program leaves it: packets would go out by the wrong interfaces.
            let _ = sys::detach_link(link.as_fd());
        }
        // It may have been removed already.
        let _ = fs::remove_file(pins.link(self.interface.slot));
        self.interface.attached = None;
    }

    fn attach(&mut self, attacher: &mut Attacher<'_>, link: &LinkState, now: Instant) {
        let slot = self.interface.slot;
        let attached = attacher
            .attach_new(link, slot)
            .and_then(|note| attacher.confirm(link, slot, false, note));
        match attached {
            Ok((attachment, fd)) => {
                self.note.clone_from(&attachment.note);
                self.interface.attached = Some(attachment);
                self.link = Some(fd);
                self.failed = None;
                self.interface.repairs += u64::from(self.served);
                self.served = true;
            }
            Err(error) => self.fail(link, &error, now),
        }
    }

    fn fail(&mut self, link: &LinkState, error: &DatapathError, now: Instant) {
        let wait = self.failed.as_ref().map_or(RETRY, |failed| failed.wait * 2);
        self.failed = Some(Failed {
            link: link.clone(),
            at: now,
            wait: wait.min(RETRY_MAX),
        });
        self.interface.absence = Some(InterfaceProblem {
            message: format!("has no program: {}", super::super::error::chain(error)),
            hint: error.hint(),
        });
    }

    /// Has the link hold the program that is loaded now.
    ///
    /// # Errors
    /// It does not: the present program serves this interface as before.
    fn renew(
        &mut self,
        attacher: &mut Attacher<'_>,
        link: &LinkState,
        put_back: bool,
    ) -> Result<(), DatapathError> {
        let slot = self.interface.slot;
        let took_over = self
            .interface
            .attached
            .as_ref()
            .is_some_and(|attached| attached.took_over);
        let renewed = attacher
            .take_over(link, slot)
            .and_then(|note| attacher.confirm(link, slot, took_over, note));
        match renewed {
            Ok((attachment, fd)) => {
                self.interface.attached = Some(Attachment {
                    note: attachment.note.or_else(|| self.note.clone()),
                    ..attachment
                });
                self.link = Some(fd);
                self.interface.repairs += u64::from(put_back);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(
                    interface = link.name,
                    error = super::super::error::chain(&error),
                    "cannot renew the program"
                );
                Err(error)
            }
        }
    }

    /// Publishes the state. `programs` run on the other interfaces.
    fn show(&mut self, judgement: &Judgement, programs: &[u32]) {
        let interface = &mut self.interface;
        if interface.attached.is_some() {
            interface.absence = None;
        }
        match judgement {
            Judgement::Keep(link) | Judgement::TakeBack { link, .. } | Judgement::Attach(link) => {
                interface.is_now(link);
                self.foreign = None;
            }
            Judgement::Foreign { link, program_id } => {
                interface.is_now(link);
                self.failed = None;
                // Finding its owner takes a while.
                if self.foreign.replace(*program_id) != Some(*program_id) {
                    interface.absence = Some(if programs.contains(program_id) {
                        InterfaceProblem {
                            message: "is listed twice, by two of its names".to_owned(),
                            hint: Some("remove one of them from `interfaces` and --iface".to_owned()),
                        }
                    } else {
                        let error = foreign(link, *program_id);
                        InterfaceProblem {
                            message: format!("is not served: {error}"),
                            hint: error.hint(),
                        }
                    });
                }
            }
            Judgement::NotEthernet(link) => {
                interface.is_now(link);
                (self.failed, self.foreign) = (None, None);
                interface.absence = Some(InterfaceProblem {
                    message: "is not Ethernet".to_owned(),
                    hint: None,
                });
            }
            Judgement::Missing => {
                interface.operation = LinkOperation::Missing;
                interface.absence = Interface::missing(&interface.configured).absence;
                (self.failed, self.foreign) = (None, None);
            }
        }
    }
}
