//! Reading counters: only what is in use, in batches, summed over CPUs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Arc, OnceLock},
};

use lb_common::{
    counters::{PacketCount, ReasonCounts, Signals, Traffic, verdict_slot},
    map_names,
    reason::{REASON_SLOTS, Reason, TUNNELS_ENDED},
    ring_page,
    ring_slot::RingSlot,
    service::ServiceId,
    track,
};
use tokio::sync::watch;

use super::{
    directory::Directory,
    maps::{Counters, LateTable, Maps, Table},
    redirects::RedirectCounts,
    sweeper::FlowCounts,
};
use crate::{
    error::DatapathError,
    interface::{Interface, Interfaces, XdpMode},
    netlink::{Client, LinkOperation},
    snapshot::{BackendSignals, BackendStats, GaveWay, InterfaceStats, LinkLosses, MapUse, Snapshot},
    state::service::ServiceKey,
};

/// Ids that lie no further apart than this are read in one go: reading a few for nothing is cheaper than a call.
const GAP: u32 = 16;

/// Reads counters. Cheap to clone; reading takes some microseconds for each hundred services or backends and CPU.
#[derive(Clone)]
pub struct StatsReader {
    pub(super) maps: Arc<Maps>,
    pub(super) interfaces: Interfaces,
    pub(super) directory: watch::Receiver<Arc<Directory>>,
    pub(super) counts: watch::Receiver<Arc<FlowCounts>>,
    /// Set once frames that cannot be redirected are counted.
    pub(super) redirects: Arc<OnceLock<RedirectCounts>>,
}

impl fmt::Debug for StatsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsReader")
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

impl StatsReader {
    /// Reads all counters as they stand now. Blocks for the time of some system calls.
    ///
    /// # Errors
    /// [`DatapathError::Map`] if the kernel refuses to read a map.
    pub fn snapshot(&self) -> Result<Snapshot, DatapathError> {
        let directory = self.directory.borrow().clone();
        let counts = self.counts.borrow().clone();
        let maps = &self.maps;
        let interfaces = self.interfaces.borrow().clone();
        let interfaces = interfaces
            .iter()
            .map(|interface| self.interface(interface))
            .collect::<Result<_, _>>()?;

        let service_ids: Vec<u32> = directory.services.iter().map(|(id, _)| u32::from(id.0)).collect();
        let traffic = by_id(&maps.service_traffic, &service_ids, add_traffic)?;
        let drops = by_id(&maps.service_drops, &service_ids, add_reasons)?;
        let mut services = BTreeMap::new();
        let mut service_drops = BTreeMap::new();
        for (id, key) in directory.services.iter() {
            services.insert(*key, traffic.get(&u32::from(id.0)).copied().unwrap_or_default());
            let dropped = drops.get(&u32::from(id.0)).copied().unwrap_or_default();
            for reason in Reason::ALL {
                match dropped.0.get(*reason as usize) {
                    None | Some(0) => {}
                    Some(count) => drop(service_drops.insert((*key, *reason), *count)),
                }
            }
        }

        let backend_ids: Vec<u32> = directory
            .backends
            .iter()
            .map(|entry| u32::from(entry.id.0))
            .collect();
        let traffic = by_id(&maps.backend_traffic, &backend_ids, add_traffic)?;
        let signals = by_id(&maps.backend_signals, &backend_ids, add_signals)?;
        let mut backends: BTreeMap<_, BackendStats> = BTreeMap::new();
        for entry in directory.backends.iter() {
            // Two ids for one backend happen while one replaces the other; together they are the backend.
            let stats = backends.entry((entry.service, entry.address)).or_default();
            let traffic = traffic.get(&u32::from(entry.id.0)).copied().unwrap_or_default();
            stats.traffic = add_traffic(stats.traffic, &traffic);
            let counted = signals.get(&u32::from(entry.id.0)).copied().unwrap_or_default();
            stats.signals = add_signals(stats.signals, &counted);
            let active = counts.active.get(&(entry.id, entry.generation));
            stats.active_flows += active.copied().unwrap_or_default();
        }

        let uses = by_id(&maps.flow_uses, &service_ids, |_, uses| *uses)?;
        let gave_way = directory.services.iter().filter_map(|(id, key)| {
            let total = uses.get(&u32::from(id.0))?.gave_way;
            let lately = counts.gave_way.get(id).is_some_and(|count| count.lately > 0);
            (total > 0).then_some((*key, GaveWay { total, lately }))
        });

        Ok(Snapshot {
            gave_way: gave_way.collect(),
            interfaces,
            // Losing these beside all other counts would be worse than leaving them out.
            redirect_errors: self.redirects.get().and_then(|counts| counts.read().ok()),
            services,
            backends,
            service_drops,
            maps: self.map_uses(&directory, &counts),
            flows_counted_at: counts.at,
            flows_counted_in: counts.took,
        })
    }

    /// Counts frames that the kernel cannot redirect from now on, for as long as a reader lives. Blocks for some 10 ms.
    ///
    /// # Errors
    /// As of the kernel. The counters stay unknown then.
    pub fn count_redirects(&self) -> io::Result<()> {
        // An error means that they are counted already.
        let _ = self.redirects.set(RedirectCounts::begin()?);
        Ok(())
    }

    /// Half-open flows that gave way so far, by service.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub fn gave_way(&self) -> Result<BTreeMap<ServiceKey, u64>, DatapathError> {
        let directory = self.directory.borrow().clone();
        let ids: Vec<u32> = directory.services.iter().map(|(id, _)| u32::from(id.0)).collect();
        let uses = by_id(&self.maps.flow_uses, &ids, |_, uses| *uses)?;
        let count = |(id, key): &(ServiceId, ServiceKey)| {
            let uses = uses.get(&u32::from(id.0)).copied().unwrap_or_default();
            (*key, uses.gave_way)
        };
        Ok(directory.services.iter().map(count).collect())
    }

    /// Signals of flows about programmed backends, as counted now; without backends that have none.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub fn signals(&self) -> Result<BackendSignals, DatapathError> {
        let directory = self.directory.borrow().clone();
        let ids: Vec<u32> = directory
            .backends
            .iter()
            .map(|entry| u32::from(entry.id.0))
            .collect();
        let signals = by_id(&self.maps.backend_signals, &ids, add_signals)?;
        let mut backends = BackendSignals::new();
        for entry in directory.backends.iter() {
            let counted = signals.get(&u32::from(entry.id.0)).copied().unwrap_or_default();
            if counted.total() > 0 {
                let sum = backends.entry((entry.service, entry.address)).or_default();
                *sum = add_signals(*sum, &counted);
            }
        }
        Ok(backends)
    }

    fn interface(&self, interface: &Interface) -> Result<InterfaceStats, DatapathError> {
        let mut slots = BTreeMap::new();
        let mut by_cpu: Vec<u64> = Vec::new();
        let first = verdict_slot(interface.slot, 0);
        read(&self.maps.verdicts, first, REASON_SLOTS, |slot, counts| {
            if slot - first != TUNNELS_ENDED {
                by_cpu.resize(counts.len(), 0);
                by_cpu
                    .iter_mut()
                    .zip(counts)
                    .for_each(|(sum, count)| *sum += count.packets);
            }
            let total = counts
                .iter()
                .fold(PacketCount::default(), |sum, count| PacketCount {
                    packets: sum.packets + count.packets,
                    bytes: sum.bytes + count.bytes,
                });
            slots.insert(slot - first, total);
        })?;
        let count = |slot: u32| slots.get(&slot).copied().unwrap_or_default();
        Ok(InterfaceStats {
            name: interface.name.clone(),
            attached: interface.attached.is_some(),
            native: interface
                .attached
                .as_ref()
                .is_some_and(|attached| attached.xdp_mode == XdpMode::Native),
            up: interface.operation == LinkOperation::Up,
            repairs: interface.repairs,
            by_reason: Reason::ALL
                .iter()
                .map(|reason| (*reason, count(*reason as u32)))
                .collect(),
            tunnels_ended: count(TUNNELS_ENDED),
            by_cpu,
            losses: losses(interface),
        })
    }

    fn map_uses(&self, directory: &Directory, counts: &FlowCounts) -> Vec<MapUse> {
        let maps = &self.maps;
        let services = |v4: bool| {
            let keys = directory.services.iter().map(|(_, key)| key);
            let keys = keys.chain(directory.aliases.keys());
            keys.filter(|key| !key.is_prefix() && key.address.is_ipv4() == v4)
                .count()
        };
        let of_ring = |slots: &Arc<[RingSlot]>| u32::try_from(slots.len()).map_or(0, ring_page::pages);
        let pages: u32 = directory.rings.values().map(of_ring).sum();
        let mut uses = vec![
            map_use(&maps.services_v4, services(true)),
            map_use(&maps.services_v6, services(false)),
            map_use(&maps.prefix_services, prefix_entries(directory)),
            map_use(maps.rings.table(), pages as usize),
            map_use(&maps.backends, directory.backends.len()),
            map_use(&maps.replies_v4, directory.replies_v4),
            map_use(&maps.replies_v6, directory.replies_v6),
            map_use(&maps.snat_addresses, directory.snat_addresses),
            map_use(&maps.guard_prefixes, directory.prefixes),
            map_use(&maps.client_rings, directory.client_prefixes),
        ];
        uses.push(flow_map_use(&maps.flows_v4, counts));
        uses.push(flow_map_use(&maps.flows_v6, counts));
        for table in track::Table::SWEEP_ORDER {
            uses.push(record_map_use(maps.flow_records_v4.of(table), counts));
            uses.push(record_map_use(maps.flow_records_v6.of(table), counts));
        }
        uses
    }
}

/// What the kernel counted as lost on an interface. Losing this beside all other counts would be worse than leaving it out.
fn losses(interface: &Interface) -> Option<LinkLosses> {
    let ifindex = interface.attached.as_ref()?.ifindex;
    Client::new().ok()?.losses(ifindex).ok()?
}

/// Entries of services whose address is a prefix: one for each port, and one for each prefix and protocol.
fn prefix_entries(directory: &Directory) -> usize {
    let keys = directory.services.iter().map(|(_, key)| key);
    let keys: BTreeSet<&ServiceKey> = keys
        .chain(directory.aliases.keys())
        .filter(|key| key.is_prefix())
        .collect();
    let prefixes: BTreeSet<_> = keys.iter().map(|key| (key.prefix(), key.protocol)).collect();
    keys.len() + prefixes.len()
}

/// As [`flow_map_use`], of a table that may not be there yet.
fn record_map_use<K: aya::Pod + Default, V: aya::Pod>(
    table: &LateTable<K, V>,
    counts: &FlowCounts,
) -> MapUse {
    MapUse {
        name: table.name(),
        entries: counts.entries.get(table.name()).copied().unwrap_or_default(),
        capacity: u64::from(table.capacity()),
        update_errors: table.errors(),
    }
}

/// As [`map_use`], with the entries that were counted last.
fn flow_map_use<K: aya::Pod + Default, V: aya::Pod>(table: &Table<K, V>, counts: &FlowCounts) -> MapUse {
    let entries = counts.entries.get(table.name()).copied().unwrap_or_default();
    map_use(table, usize::try_from(entries).unwrap_or(usize::MAX))
}

fn map_use<K: aya::Pod + Default, V: aya::Pod>(table: &Table<K, V>, entries: usize) -> MapUse {
    MapUse {
        name: table.name(),
        entries: entries as u64,
        capacity: u64::from(table.capacity()),
        update_errors: table.errors(),
    }
}

fn read<V>(
    table: &impl Counters<V>,
    first: u32,
    count: u32,
    visit: impl FnMut(u32, &[V]),
) -> Result<(), DatapathError> {
    table
        .read_range(first, count, visit)
        .map_err(|e: io::Error| DatapathError::Map {
            map: table.name(),
            reason: e.to_string(),
        })
}

/// Reads the entries with these ids, which are sorted, and sums each over CPUs.
fn by_id<V: Default + Copy>(
    table: &impl Counters<V>,
    ids: &[u32],
    add: impl Fn(V, &V) -> V,
) -> Result<BTreeMap<u32, V>, DatapathError> {
    let mut sums = BTreeMap::new();
    for (first, count) in ranges(ids) {
        read(table, first, count, |id, values| {
            let sum = sums.entry(id).or_default();
            *sum = values.iter().fold(*sum, &add);
        })?;
    }
    Ok(sums)
}

/// Ranges, as first and count, that cover sorted ids with gaps of at most [`GAP`].
fn ranges(ids: &[u32]) -> Vec<(u32, u32)> {
    ids.chunk_by(|a, b| b - a <= GAP)
        .filter_map(|chunk| Some((*chunk.first()?, chunk.last()? - chunk.first()? + 1)))
        .collect()
}

const fn add_traffic(sum: Traffic, traffic: &Traffic) -> Traffic {
    let Traffic {
        packets,
        bytes,
        new_flows,
        reply_packets,
        reply_bytes,
    } = *traffic;
    Traffic {
        packets: sum.packets + packets,
        bytes: sum.bytes + bytes,
        new_flows: sum.new_flows + new_flows,
        reply_packets: sum.reply_packets + reply_packets,
        reply_bytes: sum.reply_bytes + reply_bytes,
    }
}

const fn add_signals(sum: Signals, signals: &Signals) -> Signals {
    let Signals {
        unanswered,
        refused,
        unreachable,
    } = *signals;
    Signals {
        unanswered: sum.unanswered + unanswered,
        refused: sum.refused + refused,
        unreachable: sum.unreachable + unreachable,
    }
}

fn add_reasons(mut sum: ReasonCounts, counts: &ReasonCounts) -> ReasonCounts {
    sum.0
        .iter_mut()
        .zip(counts.0)
        .for_each(|(sum, count)| *sum += count);
    sum
}

const _: () = assert!(
    map_names::PINNED.len() == 43,
    "a new map needs its place in `map_uses`, or needs none"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_where_they_are_used_only() {
        for (ids, expected) in [
            (&[][..], vec![]),
            (&[0], vec![(0, 1)]),
            (&[1, 2, 3], vec![(1, 3)]),
            (&[1, 17, 34], vec![(1, 17), (34, 1)]),
            (&[5, 60_000], vec![(5, 1), (60_000, 1)]),
        ] {
            assert_eq!(ranges(ids), expected);
        }
    }
}
