//! Walks the tables of flow records: for slots that wait for it, and to delete records that are no longer needed.

use std::{collections::BTreeMap, io, net::IpAddr, sync::Arc, time::Duration};

use aya::Pod;
use lb_common::{
    backend::{ALIVE, IN_USE},
    flow::{Tuple, TupleV4, TupleV6},
    hash::HashBy,
    ring_slot,
    service::{RingId, TCP},
    track::{self, FlowRecord, Tick},
};
use tokio::sync::watch;

use crate::{
    directory::Directory,
    kernel_clock::monotonic,
    maps::{LateTable, Maps},
    slots::{Round, Subject, Subjects},
    state::{
        guard::Prefix,
        service::{Protocol, ServiceKey},
    },
    sweeper::counts::{FlowCounts, remove_unchanged},
    transition::{Fate, Sweep, Walked},
};

/// The result of a round.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    /// Of each ring.
    pub(crate) rings: Vec<(RingId, Walked)>,
    /// Records that are left.
    pub(super) records: u64,
}

/// Walks all tables for all rings of the round.
pub(super) fn walk(
    maps: &Maps,
    directory: &watch::Receiver<Arc<Directory>>,
    round: &Round,
    counts: &mut FlowCounts,
) -> io::Result<Walks> {
    let sweeps = round.subjects.iter().map(|(key, subjects)| {
        let rings = subjects.rings.iter();
        let sweeps = rings.map(|subject| Sweep::begin(&subject.slots, subject.rules, round.began));
        (*key, (subjects, sweeps.collect()))
    });
    let mut walk = Walk {
        maps,
        directory,
        sweeps: sweeps.collect(),
        counts,
        records: 0,
    };
    for table in track::Table::SWEEP_ORDER {
        walk.table(table, maps.flow_records_v4.of(table))?;
        walk.table(table, maps.flow_records_v6.of(table))?;
    }
    Ok(Walks {
        records: walk.records,
        rings: walk
            .sweeps
            .into_values()
            .flat_map(|(subjects, sweeps)| subjects.rings.iter().zip(sweeps))
            .map(|(subject, sweep)| (subject.ring, sweep.end()))
            .collect(),
    })
}

/// The parts of a family's tuples that a walk needs.
trait Recorded {
    /// The hash that selects the slot.
    fn hash(&self, by: HashBy) -> u32;
    /// The client's address.
    fn source(&self) -> IpAddr;
    /// Address, port and protocol that it goes to.
    fn destination(&self) -> (IpAddr, u16, u8);
}

impl Recorded for TupleV4 {
    fn hash(&self, by: HashBy) -> u32 {
        by.hash_v4(self)
    }
    fn source(&self) -> IpAddr {
        self.src.to_std().into()
    }
    fn destination(&self) -> (IpAddr, u16, u8) {
        (self.dst.to_std().into(), self.dst_port.get(), self.protocol)
    }
}

impl Recorded for TupleV6 {
    fn hash(&self, by: HashBy) -> u32 {
        by.hash_v6(self)
    }
    fn source(&self) -> IpAddr {
        self.src.to_std().into()
    }
    fn destination(&self) -> (IpAddr, u16, u8) {
        (self.dst.to_std().into(), self.dst_port.get(), self.protocol)
    }
}

/// The rings of a service, and a walk for each.
type OfService<'a> = (&'a Subjects, Vec<Sweep<'a>>);

struct Walk<'a> {
    maps: &'a Maps,
    directory: &'a watch::Receiver<Arc<Directory>>,
    sweeps: BTreeMap<ServiceKey, OfService<'a>>,
    counts: &'a mut FlowCounts,
    records: u64,
}

impl Walk<'_> {
    fn table<A>(&mut self, kind: track::Table, table: &LateTable<Tuple<A>, FlowRecord>) -> io::Result<()>
    where
        Tuple<A>: Pod + Default + Recorded,
    {
        let Some(table) = table.get()? else {
            return Ok(());
        };
        let mut entries = 0;
        table.for_each_chunk(|tuples, records| {
            let directory = self.directory.borrow().clone();
            let now = Tick::from_secs(monotonic().as_secs());
            for (tuple, record) in tuples.iter().zip(records) {
                let lives = self.lives(&directory, record)?;
                let mut counts = false;
                let fate = match sweep_of(&mut self.sweeps, &directory, tuple) {
                    Some((subject, sweep)) => {
                        let idle = Duration::from_secs(u64::from(record.last_seen.secs_until(now)));
                        counts = lives && idle <= subject.counts_for(kind);
                        let slot = ring_slot::index(tuple.hash(subject.rules.hash_by), subject.size());
                        sweep.flow(slot, *record, lives, now)
                    }
                    // A service that came after the round began, or none at all: then its backends are dead.
                    None if lives => Fate::Keep,
                    None => Fate::Delete,
                };
                match fate {
                    Fate::Delete if remove_unchanged(table, tuple, record)? => {}
                    Fate::Delete | Fate::Keep => {
                        entries += 1;
                        let owner = (record.backend, record.generation);
                        *self.counts.active.entry(owner).or_default() += u64::from(counts);
                    }
                }
            }
            Ok(())
        })?;
        self.counts.entries.insert(table.name(), entries);
        self.records += entries;
        Ok(())
    }

    /// Whether the record's backend is alive and of the record's generation. As with its owner: what the directory does
    /// not know is looked up in the map before it counts as gone.
    fn lives(&self, directory: &Directory, record: &FlowRecord) -> io::Result<bool> {
        if directory.lives(record.backend, record.generation) {
            return Ok(true);
        }
        let backend = self
            .maps
            .backends
            .get(&u32::from(record.backend.0))?
            .unwrap_or_default();
        Ok(backend.has(IN_USE | ALIVE) && backend.generation == record.generation)
    }
}

/// The ring of a flow's client, of its service: by its port, else the wildcard, then by the longest prefix, as the program finds it.
fn sweep_of<'s, 'a, K: Recorded>(
    sweeps: &'s mut BTreeMap<ServiceKey, OfService<'a>>,
    directory: &Directory,
    tuple: &K,
) -> Option<(&'a Subject, &'s mut Sweep<'a>)> {
    let (address, port, protocol) = tuple.destination();
    let protocol = if protocol == TCP {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let key = |length, port| ServiceKey::of_prefix(Prefix::around(address, length), port, protocol);
    let most = Prefix::most(address);
    let lengths = directory.prefix_lengths.iter().filter(|length| **length < most);
    let found = [most].into_iter().chain(lengths.copied()).find_map(|length| {
        [port, 0].into_iter().find_map(|port| {
            let key = key(length, port);
            let of_port = directory.aliases.get(&key).copied();
            of_port.or_else(|| sweeps.contains_key(&key).then_some(key))
        })
    });
    let (subjects, sweeps) = sweeps.get_mut(&found?)?;
    let place = subjects.of_client(tuple.source());
    Some((subjects.rings.get(place)?, sweeps.get_mut(place)?))
}
