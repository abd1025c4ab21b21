//! The ways to backends: follows routes, neighbours, links and addresses, and keeps the neighbours in question alive,
//! so that forwarding in XDP, which the kernel's neighbour table does not see, never meets an entry that ran out.

pub(super) mod next_hop;
mod resolve;
mod way;

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::next_hop::{NextHop, NextHopState, NextHops};
pub(super) use self::resolve::look_up;
use self::{
    resolve::{Seen, resolve},
    way::{Exit, Last, Way},
};
use super::{
    faults::{DatapathPart, PartReporter},
    netlink::{Client, Notice, Notices},
    own_macs::{OwnMacs, served},
};
use crate::{command::Command, host::HostAddresses, interface::Interfaces};

/// How long a new backend waits for the first answer of its neighbour before it takes packets all the same.
pub const FIRST_ANSWER_WAIT: Duration = Duration::from_millis(250);

/// Time from a notice to looking at what changed, in which further notices of the same event arrive.
const SETTLE: Duration = Duration::from_millis(20);

/// Time between looking at everything, and confirming neighbours that the kernel has not confirmed lately. Below the
/// 30 s after which the kernel calls an entry stale (`base_reachable_time`).
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Time between asking again for neighbours that do not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Addresses looked at before other tasks of this thread get their turn; each takes some 20 µs.
const TURN: usize = 32;

/// The addresses to follow, and their state.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    addresses: Arc<watch::Sender<BTreeSet<IpAddr>>>,
    states: watch::Receiver<Arc<NextHops>>,
    host: watch::Receiver<Arc<HostAddresses>>,
}

impl Wanted {
    /// Follows these addresses and no others.
    pub(super) fn set(&self, addresses: BTreeSet<IpAddr>) {
        self.addresses.send_if_modified(|now| {
            let changed = *now != addresses;
            *now = addresses;
            changed
        });
    }

    /// Follows these addresses, too, and waits until the way to each new one is known, or known not to be there, or
    /// [`FIRST_ANSWER_WAIT`] has passed.
    pub(super) async fn settle(&self, addresses: BTreeSet<IpAddr>) {
        let new: Vec<IpAddr> = addresses.difference(&self.addresses.borrow()).copied().collect();
        if new.is_empty() {
            return;
        }
        self.addresses.send_modify(|now| now.extend(&new));
        let mut states = self.states.clone();
        let settled = states.wait_for(|states| {
            new.iter()
                .all(|address| states.get(address).is_some_and(NextHopState::is_settled))
        });
        // Neither running out of time nor the end of the task is an error: packets then ask the kernel's routes.
        let _ = timeout(FIRST_ANSWER_WAIT, settled).await;
    }

    /// Returns when the task has ended, whether it was asked to or not.
    pub(super) async fn stopped(&self) {
        self.addresses.closed().await;
    }

    pub(super) fn host_addresses(&self) -> watch::Receiver<Arc<HostAddresses>> {
        self.host.clone()
    }

    pub(super) fn next_hops(&self) -> watch::Receiver<Arc<NextHops>> {
        self.states.clone()
    }
}

/// Follows the next hops of the wanted addresses and reports each change to the writer.
pub(super) struct NeighbourTask {
    client: Client,
    reporter: PartReporter,
    /// Parts that failed at their latest attempt.
    failing: BTreeSet<Lookup>,
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    states: watch::Sender<Arc<NextHops>>,
    /// Weak, so that the writer ends when its users are gone.
    writer: mpsc::WeakSender<Command>,
    ways: BTreeMap<IpAddr, Way>,
    /// Next hops from an earlier daemon that were not looked up yet.
    remembered: BTreeMap<IpAddr, Last>,
    /// Interfaces whose frames are forwarded.
    interfaces: Interfaces,
    /// The addresses of this machine.
    host: watch::Sender<Arc<HostAddresses>>,
    /// Changes since [`Self::look_at_host`].
    links_changed: bool,
    addresses_changed: bool,
}

/// Data read from the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lookup {
    NextHops,
    OwnAddresses,
}

/// Which ways to look at.
enum Scope {
    All,
    Only(BTreeSet<IpAddr>),
}

impl NeighbourTask {
    /// Starts the task with the ways that the maps hold; it ends with `cancel` or with the writer.
    pub(super) fn spawn(
        mut client: Client,
        notices: Notices,
        reporter: PartReporter,
        interfaces: Interfaces,
        known: &BTreeMap<IpAddr, NextHop>,
        writer: mpsc::WeakSender<Command>,
        cancel: CancellationToken,
    ) -> Wanted {
        let remembered = known.iter().map(|(address, hop)| {
            let last = Last {
                via: None,
                exit: Exit {
                    ifindex: hop.ifindex,
                    vlans: hop.vlans,
                },
                mac: hop.mac,
            };
            (*address, last)
        });
        let remembered = remembered.collect();
        let (addresses, wanted) = watch::channel(known.keys().copied().collect());
        let (states, state_receiver) = watch::channel(Arc::new(NextHops::new()));
        let own = client.addresses();
        // A failed read is retried within [`RETRY`].
        let addresses_changed = own.is_err();
        let (host, host_receiver) = watch::channel(Arc::new(HostAddresses::of(own.unwrap_or_default())));
        let task = Self {
            client,
            reporter,
            failing: BTreeSet::new(),
            wanted,
            states,
            writer,
            ways: BTreeMap::new(),
            remembered,
            interfaces,
            host,
            links_changed: false,
            addresses_changed,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task.run(notices) => {}
            }
        });
        Wanted {
            addresses: Arc::new(addresses),
            states: state_receiver,
            host: host_receiver,
        }
    }

    /// Cancel-safe: all state is in the kernel or read from it anew.
    async fn run(mut self, mut notices: Notices) {
        let mut keep_alive = interval(KEEP_ALIVE);
        let mut retry = interval(RETRY);
        for timer in [&mut keep_alive, &mut retry] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut dirty: Option<(Scope, Instant)> = None;
        // The ways that the task was started with.
        self.wanted.mark_changed();
        loop {
            let due = dirty.as_ref().map(|(_, due)| *due);
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let new = self.adopt();
                    self.look(Scope::Only(new), false).await;
                }
                Ok(()) = self.interfaces.changed() => {
                    self.links_changed = true;
                    self.look_at_host().await;
                }
                notices = notices.next() => dirty = self.concerned(&notices, dirty.take()),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((scope, _)) = dirty.take() {
                        self.look_at_host().await;
                        self.look(scope, false).await;
                    }
                }
                _ = keep_alive.tick() => self.look(Scope::All, true).await,
                _ = retry.tick() => {
                    self.look_at_host().await;
                    let silent = self.ways.iter().filter(|(_, way)| way.is_silent());
                    let silent: BTreeSet<IpAddr> = silent.map(|(address, _)| *address).collect();
                    if !silent.is_empty() {
                        self.look(Scope::Only(silent), true).await;
                    }
                }
            }
        }
    }

    /// Takes up the wanted addresses; returns those that are new.
    fn adopt(&mut self) -> BTreeSet<IpAddr> {
        let wanted = self.wanted.borrow_and_update();
        self.ways.retain(|address, _| wanted.contains(address));
        wanted
            .iter()
            .filter(|address| !self.ways.contains_key(address))
            .copied()
            .collect()
    }

    /// The work after notices, added to the work that was waiting already.
    fn concerned(
        &mut self,
        notices: &[Notice],
        waiting: Option<(Scope, Instant)>,
    ) -> Option<(Scope, Instant)> {
        self.links_changed |= notices.contains(&Notice::Link);
        // Lost notices may include changes of addresses.
        self.addresses_changed |= notices.contains(&Notice::Link) || notices.contains(&Notice::Address);
        let due = waiting
            .as_ref()
            .map_or_else(|| Instant::now() + SETTLE, |(_, due)| *due);
        let mut addresses = match waiting {
            Some((Scope::All, due)) => return Some((Scope::All, due)),
            Some((Scope::Only(addresses), _)) => addresses,
            None => BTreeSet::new(),
        };
        for notice in notices {
            match notice {
                Notice::Link | Notice::Address | Notice::Route => return Some((Scope::All, due)),
                Notice::Neighbour(changed) => addresses.extend(
                    self.ways
                        .iter()
                        .filter(|(_, way)| way.via() == Some(*changed))
                        .map(|(address, _)| *address),
                ),
            }
        }
        (!addresses.is_empty()).then_some((Scope::Only(addresses), due))
    }

    /// Reads the addresses of this machine anew, where they may have changed.
    async fn look_at_host(&mut self) {
        if !self.links_changed && !self.addresses_changed {
            return;
        }
        let mut failed = None;
        if mem::take(&mut self.links_changed) {
            match self.client.links() {
                Ok(links) => {
                    if let Some(writer) = self.writer.upgrade() {
                        let macs = OwnMacs::of(&served(&self.interfaces.borrow()), &links);
                        // An error means that the writer has ended.
                        let _ = writer.send(Command::OwnMacs(macs)).await;
                    }
                }
                Err(e) => {
                    self.links_changed = true;
                    failed = Some(format!("cannot list the interfaces of this machine: {e}"));
                }
            }
        }
        if mem::take(&mut self.addresses_changed) {
            match self.client.addresses() {
                Ok(addresses) => {
                    let addresses = Arc::new(HostAddresses::of(addresses));
                    self.host.send_if_modified(|now| {
                        let changed = *now != addresses;
                        *now = addresses;
                        changed
                    });
                }
                Err(e) => {
                    self.addresses_changed = true;
                    failed = Some(format!("cannot list the addresses of this machine: {e}"));
                }
            }
        }
        self.report(Lookup::OwnAddresses, failed);
    }

    /// Reports whether the latest attempt of a look-up failed. The next one has a socket of its own.
    fn report(&mut self, lookup: Lookup, failed: Option<String>) {
        let (part, works) = match lookup {
            Lookup::NextHops => (
                DatapathPart::NextHops,
                "next hops of backends are looked up again",
            ),
            Lookup::OwnAddresses => (
                DatapathPart::OwnAddresses,
                "the addresses of this machine are read again",
            ),
        };
        if let Some(message) = failed {
            self.failing.insert(lookup);
            let hint = "look for a limit on memory or a seccomp filter; restart the daemon if it lasts";
            self.reporter.failed(part, message, hint);
            if let Ok(client) = Client::new() {
                self.client = client;
            }
        } else if self.failing.remove(&lookup) {
            self.reporter.works(part, works);
        }
    }

    /// Looks next hops up again and reports changes. With `confirm`, asks neighbours that the kernel has not confirmed.
    async fn look(&mut self, scope: Scope, confirm: bool) {
        let addresses: Vec<IpAddr> = match scope {
            Scope::All => self.ways.keys().copied().collect(),
            Scope::Only(addresses) => addresses.into_iter().collect(),
        };
        let mut seen = Seen::default();
        let mut changed = BTreeMap::new();
        let mut published = false;
        let everything = addresses.len() >= self.ways.len();
        let mut failed = None;
        for (turn, address) in addresses.into_iter().enumerate() {
            if turn % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            match self.examine(address, &mut seen, confirm) {
                Ok(way) => {
                    let old = self.ways.insert(address, way.clone());
                    published |= old.as_ref().map(Way::state) != Some(way.state());
                    if old.as_ref().map(Way::hop) != Some(way.hop()) {
                        changed.insert(address, *way.hop());
                    }
                }
                Err(e) => {
                    failed.get_or_insert_with(|| {
                        format!("cannot look up the next hop of backend address {address}: {e}")
                    });
                }
            }
        }
        // Where only some were looked at, others may still fail.
        if failed.is_some() || everything {
            self.report(Lookup::NextHops, failed);
        }
        let gone = self.states.borrow().len() != self.ways.len();
        if !changed.is_empty()
            && let Some(writer) = self.writer.upgrade()
        {
            // An error means that the writer has ended.
            let _ = writer.send(Command::NextHops(changed)).await;
        }
        if published || gone {
            let states = self
                .ways
                .iter()
                .map(|(address, way)| (*address, way.state().clone()));
            self.states.send_replace(Arc::new(states.collect()));
        }
    }

    fn examine(&mut self, address: IpAddr, seen: &mut Seen, confirm: bool) -> io::Result<Way> {
        let before = self.ways.get(&address).map(Way::last);
        let last = before.or_else(|| self.remembered.remove(&address));
        resolve(&mut self.client, address, seen, confirm, last)
    }
}
