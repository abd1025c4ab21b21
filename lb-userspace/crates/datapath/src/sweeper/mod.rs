//! Removes ended flows, and counts the others.

mod counts;
mod records;
mod shares;

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::Pod;
use lb_common::{
    backend::{BackendId, Generation, IN_USE},
    check::{self, Ends},
    flow::{FORWARD, IdleTimeouts, NatFlow, PROVEN, Tuple},
    limits::TCP_OPENING_IDLE_SECS,
    service::{ServiceId, TCP, UDP},
    share::FlowUse,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(super) use self::{counts::FlowCounts, records::Walks};
use super::{
    directory::Directory,
    flows::walking::Walking,
    half::{Half, half, is_over},
    kernel_clock::monotonic,
    maps::Maps,
    slots::Round,
};
use crate::{
    command::Command,
    maps::Table,
    sweeper::counts::{GaveWayCount, remove_unchanged},
};

/// Time between the end of a sweep and the next one, at least.
const PERIOD: Duration = Duration::from_secs(1);

/// Rest after a sweep, as a multiple of its duration: the sweeper takes at most a twentieth of one CPU with any number of
/// flows.
const REST: u32 = 19;

/// Time for which a sweep rests at most while flows are listed: reading the tables twice at a time takes a second CPU from clients.
const FOR_WALKS: Duration = Duration::from_secs(2);

/// Time between sweeps while a table is at least half full: room is what new flows wait for.
const SHORT_PERIOD: Duration = Duration::from_millis(50);

/// Seconds that half-open flows stay at least, however full the table is: a client whose SYN was lost sends it again sooner.
const OPENING_LEAST_SECS: u32 = 5;

/// Seconds for which one direction of a flow may stand without the other: the program writes them one after the other,
/// and its clock and ours tick apart.
const ORPHAN_SECS: u32 = 10;

/// Seconds that half-open flows stay in a table with this use, in 256ths: all of their time up to one half, and less
/// from there on.
fn opening_secs(fill: u32) -> u32 {
    const HALF: u32 = 128;
    const NEARLY_FULL: u32 = 224;
    let over = fill.clamp(HALF, NEARLY_FULL) - HALF;
    TCP_OPENING_IDLE_SECS - (TCP_OPENING_IDLE_SECS - OPENING_LEAST_SECS) * over / (NEARLY_FULL - HALF)
}

/// Sweeps until `cancel`, or until the writer has ended. Cancel-safe: a sweep under way on its thread goes on to its
/// end.
pub(super) async fn run(
    maps: Arc<Maps>,
    directory: watch::Receiver<Arc<Directory>>,
    counts: watch::Sender<Arc<FlowCounts>>,
    walking: Walking,
    writer: mpsc::WeakSender<Command>,
    cancel: CancellationToken,
) {
    let mut records = 0;
    // New tables count as swept: walking them would only keep programs from loading.
    let is_swept = counts.borrow().at.is_some();
    if is_swept && !rested(PERIOD, &cancel).await {
        return;
    }
    loop {
        let Some(round) = begin_round(&writer).await else {
            return;
        };
        // Without slots that wait for a sweep there is nothing to walk for, unless records of theirs are left.
        let is_needed = round.is_needed() || records > 0 || counts.borrow().at.is_none();
        let round = is_needed.then_some(round);
        let (swept_maps, directory) = (maps.clone(), directory.clone());
        let before = counts.borrow().clone();
        let walking = walking.clone();
        let swept = tokio::task::spawn_blocking(move || {
            Sweep::new(&swept_maps, &directory, monotonic(), before, &walking).run(round.as_ref())
        });
        match swept.await {
            Ok(Ok((new, walked))) => {
                records = walked.records;
                counts.send_replace(Arc::new(new));
                if let Some(writer) = writer.upgrade() {
                    // An error means that the writer has ended, as the next round will find.
                    let _ = writer.send(Command::Walked(walked.rings)).await;
                }
            }
            Ok(Err(e)) => tracing::error!(error = %e, "cannot sweep flows"),
            // The runtime is going down.
            Err(_) => return,
        }
        let fill = {
            let counts = counts.borrow();
            counts.fill(&maps.flows_v4).max(counts.fill(&maps.flows_v6))
        };
        let rest = if opening_secs(fill) < TCP_OPENING_IDLE_SECS {
            SHORT_PERIOD
        } else {
            PERIOD.max(counts.borrow().took * REST)
        };
        if !rested(rest, &cancel).await {
            return;
        }
    }
}

/// Waits; `false` if `cancel` came meanwhile.
async fn rested(time: Duration, cancel: &CancellationToken) -> bool {
    tokio::time::timeout(time, cancel.cancelled()).await.is_err()
}

/// Asks the writer for the rings to walk for; `None` if it has ended.
async fn begin_round(writer: &mpsc::WeakSender<Command>) -> Option<Round> {
    let (reply, answer) = oneshot::channel();
    writer.upgrade()?.send(Command::Walk(reply)).await.ok()?;
    answer.await.ok()
}

/// The decision about a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// It stays and counts as active.
    Active,
    /// It stays until the last segments have passed, but is over.
    Closed,
    /// It goes.
    Remove,
}

/// Decides about a flow by its two directions. A flow without a reply direction or without its owner cannot work: it is
/// removed at once.
///
/// `timeouts` are its service's; while they are not known, an idle flow stays.
/// `opening_secs`: half-open flows stay no longer than that.
fn decide(
    now: u32,
    protocol: u8,
    forward: Half,
    reply: Option<Half>,
    owned: bool,
    timeouts: Option<IdleTimeouts>,
    opening_secs: u32,
) -> Verdict {
    let Some(reply) = reply.filter(|_| owned) else {
        return Verdict::Remove;
    };
    let (forward, reply) = (forward.as_believed_by(reply), reply.as_believed_by(forward));
    // A packet may have been seen after `now` was read.
    let idle = now
        .saturating_sub(forward.last_seen)
        .min(now.saturating_sub(reply.last_seen));
    let limit = timeouts.map(|timeouts| timeouts.secs(protocol, forward.state, reply.state));
    let half_open = forward.state & PROVEN == 0 && opening_secs < TCP_OPENING_IDLE_SECS;
    let limit = limit.map(|limit| if half_open { limit.min(opening_secs) } else { limit });
    if limit.is_some_and(|limit| idle >= limit) {
        return Verdict::Remove;
    }
    if protocol == TCP && is_over(forward, reply) {
        Verdict::Closed
    } else {
        Verdict::Active
    }
}

struct Sweep<'a> {
    maps: &'a Maps,
    directory: &'a watch::Receiver<Arc<Directory>>,
    /// Seconds on [`monotonic`]'s clock, which a flow counts modulo 136 years.
    now: u32,
    counts: FlowCounts,
    /// The result of the sweep before.
    before: Arc<FlowCounts>,
    /// Flows that stay, by service.
    used: BTreeMap<ServiceId, u64>,
    /// Seconds that half-open flows of the table at hand stay.
    opening_secs: u32,
    walking: &'a Walking,
    /// How long it has rested for walks.
    rested: Duration,
}

impl<'a> Sweep<'a> {
    fn new(
        maps: &'a Maps,
        directory: &'a watch::Receiver<Arc<Directory>>,
        now: Duration,
        before: Arc<FlowCounts>,
        walking: &'a Walking,
    ) -> Self {
        Self {
            maps,
            directory,
            now: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            counts: FlowCounts::default(),
            before,
            used: BTreeMap::new(),
            opening_secs: TCP_OPENING_IDLE_SECS,
            walking,
            rested: Duration::ZERO,
        }
    }

    fn run(mut self, round: Option<&Round>) -> io::Result<(FlowCounts, Walks)> {
        // The beginning: only flows that were recorded before it are sure to be counted.
        let begin = Instant::now();
        self.counts.at = Some(begin);
        let uses = self.uses()?;
        self.family(&self.maps.flows_v4)?;
        self.family(&self.maps.flows_v6)?;
        self.share_out(&uses)?;
        let walked = match round {
            Some(round) => records::walk(self.maps, self.directory, round, &mut self.counts)?,
            None => Walks::default(),
        };
        self.counts.took = begin.elapsed().saturating_sub(self.rested);
        Ok((self.counts, walked))
    }

    /// Reads the program's counts of the services' flows, and notes flows that gave way.
    fn uses(&mut self) -> io::Result<BTreeMap<ServiceId, FlowUse>> {
        let directory = self.directory.borrow().clone();
        let mut uses = BTreeMap::new();
        for (id, _) in directory.services.iter() {
            let of_service = self.maps.flow_uses.get(&u32::from(id.0))?.unwrap_or_default();
            let total = of_service.gave_way;
            // An earlier daemon has reported these.
            let before = self.before.gave_way.get(id).map_or(total, |count| count.total);
            let lately = total.saturating_sub(before);
            self.counts.gave_way.insert(*id, GaveWayCount { total, lately });
            uses.insert(*id, of_service);
        }
        Ok(uses)
    }

    /// Sets how many flows each service may open from now on.
    fn share_out(&self, uses: &BTreeMap<ServiceId, FlowUse>) -> io::Result<()> {
        let directory = self.directory.borrow().clone();
        for v4 in [true, false] {
            let of_family = directory
                .services
                .iter()
                .filter(|(_, key)| key.address.is_ipv4() == v4);
            let ids: Vec<ServiceId> = of_family.map(|(id, _)| *id).collect();
            let used: Vec<u64> = ids
                .iter()
                .map(|id| self.used.get(id).copied().unwrap_or_default())
                .collect();
            for (id, more) in ids.iter().zip(shares::allowances(&used)) {
                if let Some(uses) = uses.get(id) {
                    // 0 would be no limit.
                    let until = uses.opened.wrapping_add(more).max(1);
                    self.maps.flow_shares.set(&u32::from(id.0), until)?;
                }
            }
        }
        Ok(())
    }

    /// Sweeps one table and counts how many entries stay.
    fn family<A: Ends>(&mut self, table: &Table<Tuple<A>, NatFlow<A>>) -> io::Result<()>
    where
        Tuple<A>: Pod + Default + PartialEq,
        NatFlow<A>: Pod + Default + PartialEq,
    {
        let mut entries = 0;
        self.opening_secs = opening_secs(self.before.fill(table));
        table.for_each_chunk(|tuples, flows| {
            self.rested += self.walking.rest(FOR_WALKS.saturating_sub(self.rested));
            let directory = self.directory.borrow().clone();
            for (tuple, flow) in tuples.iter().zip(flows) {
                let removed = if flow.direction == FORWARD {
                    self.forward(table, &directory, tuple, flow)?
                } else {
                    self.reply(table, tuple, flow)?
                };
                entries += u64::from(!removed);
                if flow.direction == FORWARD && !removed {
                    *self.used.entry(flow.service).or_default() += 1;
                }
            }
            Ok(())
        })?;
        self.counts.entries.insert(table.name(), entries);
        Ok(())
    }

    /// Decides about a flow at its forward entry; whether that was removed.
    fn forward<A: Ends>(
        &mut self,
        table: &Table<Tuple<A>, NatFlow<A>>,
        directory: &Directory,
        tuple: &Tuple<A>,
        flow: &NatFlow<A>,
    ) -> io::Result<bool>
    where
        Tuple<A>: Pod + Default + PartialEq,
        NatFlow<A>: Pod + Default + PartialEq,
    {
        let reply_tuple = flow.peer(tuple.protocol);
        // A reply entry that leads elsewhere has gone to another flow.
        let reply = table
            .get(&reply_tuple)?
            .filter(|reply| reply.direction != FORWARD && reply.peer(tuple.protocol) == *tuple);
        let owned = self.is_owned(directory, flow.backend, flow.generation)?;
        let (mut ours, mut theirs) = (half(flow), reply.as_ref().map(half));
        if check::is_check(tuple) && tuple.protocol == UDP {
            // Asked once and answered once: over as soon as one that was never answered.
            (ours, theirs) = (ours.unproven(), theirs.map(Half::unproven));
        }
        let timeouts = directory.idle(flow.service, tuple.protocol);
        match decide(
            self.now,
            tuple.protocol,
            ours,
            theirs,
            owned,
            timeouts,
            self.opening_secs,
        ) {
            // The balancer's own are no client's.
            Verdict::Active if check::is_check(tuple) => Ok(false),
            Verdict::Active => {
                *self
                    .counts
                    .active
                    .entry((flow.backend, flow.generation))
                    .or_default() += 1;
                Ok(false)
            }
            Verdict::Closed => Ok(false),
            Verdict::Remove => {
                // The forward entry first: were the reply entry gone before it, its port could be given to another
                // flow while this one still sends from it.
                let removed = remove_unchanged(table, tuple, flow)?;
                if let Some(reply) = reply.filter(|_| removed) {
                    remove_unchanged(table, &reply_tuple, &reply)?;
                }
                Ok(removed)
            }
        }
    }

    /// Removes a reply entry that no flow leads to, once it is old enough not to be a flow in the making.
    fn reply<A: Ends>(
        &self,
        table: &Table<Tuple<A>, NatFlow<A>>,
        tuple: &Tuple<A>,
        flow: &NatFlow<A>,
    ) -> io::Result<bool>
    where
        Tuple<A>: Pod + Default + PartialEq,
        NatFlow<A>: Pod + Default + PartialEq,
    {
        if self.now.saturating_sub(flow.last_seen) < ORPHAN_SECS {
            return Ok(false);
        }
        let forward = table.get(&flow.peer(tuple.protocol))?;
        let orphan = forward.is_none_or(|forward| forward.peer(tuple.protocol) != *tuple);
        Ok(orphan && remove_unchanged(table, tuple, flow)?)
    }

    /// Whether the backend that a flow was recorded for is still there. The writer publishes the directory after the
    /// maps, so what the directory does not know is looked up in the map before it counts as gone.
    fn is_owned(&self, directory: &Directory, id: BackendId, generation: Generation) -> io::Result<bool> {
        if directory.owns(id, generation) {
            return Ok(true);
        }
        let record = self.maps.backends.get(&u32::from(id.0))?.unwrap_or_default();
        Ok(record.has(IN_USE) && record.generation == generation)
    }
}

#[cfg(test)]
mod tests;
