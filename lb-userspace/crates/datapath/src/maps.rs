//! The pinned maps as typed handles. They are opened once, and their sizes compared with the layouts of `lb-common`
//! then, so that a layout that does not fit stops the start instead of a packet.

mod late;
mod rings;

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{Pod, maps::MapData, util::nr_cpus};
use lb_common::{
    addr::NetAddr,
    backend::Backend,
    clients::ClientRing,
    counters::{PacketCount, ReasonCounts, Signals, Traffic, verdict_slot},
    decap::EndKey,
    flow::{NatFlowV4, NatFlowV6, TupleV4, TupleV6},
    guard::{FlowGuard, PrefixKey},
    limits::{MAX_BACKENDS, MAX_SERVICES},
    map_names,
    own_mac::{Mac, OwnMac},
    quic,
    quic_place::{PlacedConfig, PlacedServer},
    reason::REASON_SLOTS,
    reply::{ReplyAsV4, ReplyAsV6},
    service::{AddressServices, Service, ServiceKeyV4, ServiceKeyV6},
    service_place::ServiceRecord,
    service_prefix::ServicePrefixKey,
    settings::Settings,
    share::FlowUse,
};

pub(super) use self::{
    late::{LateTable, RecordTables},
    rings::Rings,
};
use super::{DatapathError, sys};

/// Entries that one batch call reads or writes: large enough that calls do not count, small enough that buffers stay
/// below 100 KiB for plain maps.
const BATCH: usize = 1024;
/// Bytes that the values of one batch of a per-CPU map may take.
const PER_CPU_BATCH_BYTES: usize = 256 * 1024;

/// A map of `K` to `V`. For per-CPU maps a value is one `V` for each possible CPU.
pub(super) struct Table<K, V> {
    map: MapData,
    name: &'static str,
    capacity: u32,
    /// Values for each key: 1, or the number of possible CPUs.
    width: usize,
    /// Writes and deletions that the kernel refused.
    errors: AtomicU64,
    layout: PhantomData<fn(K) -> V>,
}

impl<K: Pod + Default, V: Pod> Table<K, V> {
    fn open(pins: &Path, name: &'static str, width: usize) -> Result<Self, DatapathError> {
        let error = |reason: String| DatapathError::Map { map: name, reason };
        let map = MapData::from_pin(pins.join(name)).map_err(|e| error(super::error::chain(&e)))?;
        let info = map.info().map_err(|e| error(super::error::chain(&e)))?;
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(error(format!(
                "key and value have {} and {} bytes, {} and {} are expected",
                sizes.0,
                sizes.1,
                size_of::<K>(),
                size_of::<V>()
            )));
        }
        Ok(Self {
            map,
            name,
            capacity: info.max_entries(),
            width,
            errors: AtomicU64::new(0),
            layout: PhantomData,
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// The map's name, one of [`map_names`].
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Entries at most.
    pub(super) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Writes and deletions that the kernel has refused since the map was opened.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    fn counted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Deletes an entry; `false` if it was not there.
    pub(super) fn delete(&self, key: &K) -> io::Result<bool> {
        self.counted(sys::delete(self.fd(), key))
    }

    /// Calls `visit` with chunks of all entries of a hash map. Entries that come or go meanwhile may be seen or not.
    pub(super) fn for_each_chunk(&self, mut visit: impl FnMut(&[K], &[V]) -> io::Result<()>) -> io::Result<()>
    where
        V: Default,
    {
        let mut keys = vec![K::default(); BATCH];
        let mut values = vec![V::default(); BATCH];
        let mut cursor = None;
        loop {
            let batch = match sys::lookup_batch(self.fd(), cursor, &mut keys, &mut values) {
                Ok(batch) => batch,
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                    // One bucket holds more than fits: the same again with more room.
                    keys.resize(2 * keys.len(), K::default());
                    values.resize(keys.len(), V::default());
                    continue;
                }
                Err(e) => return Err(e),
            };
            visit(&keys[..batch.count], &values[..batch.count])?;
            match batch.next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }
}

impl<K: Pod + Default, V: Pod + Default> Table<K, V> {
    /// Calls `visit` with each entry of a map that only this process writes. For maps that batch calls cannot read.
    pub(super) fn for_each(&self, mut visit: impl FnMut(K, V)) -> io::Result<()> {
        let mut key = sys::next_key::<K>(self.fd(), None)?;
        while let Some(found) = key {
            if let Some(value) = self.get(&found)? {
                visit(found, value);
            }
            key = sys::next_key(self.fd(), Some(&found))?;
        }
        Ok(())
    }

    /// The value of a key in a map that is not per CPU.
    pub(super) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = [V::default()];
        Ok(sys::lookup(self.fd(), key, &mut value)?.then_some(value[0]))
    }

    /// Sets a value in a map that is not per CPU.
    pub(super) fn set(&self, key: &K, value: V) -> io::Result<()> {
        self.counted(sys::update(self.fd(), key, &[value]))
    }
}

/// Counters by number, for each CPU.
pub(super) trait Counters<V> {
    /// The map's name, one of [`map_names`].
    fn name(&self) -> &'static str;

    /// Calls `visit` with each of `count` numbers from `first` on, and the counters of CPUs for it: of all CPUs at once, or in
    /// several calls.
    fn read_range(&self, first: u32, count: u32, visit: impl FnMut(u32, &[V])) -> io::Result<()>;
}

impl<V: Pod + Default> Counters<V> for Table<u32, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn read_range(&self, first: u32, count: u32, visit: impl FnMut(u32, &[V])) -> io::Result<()> {
        Self::read_range(self, first, count, visit)
    }
}

/// Counters of services or backends: a row of `LENGTH` for each possible CPU.
pub(super) struct Rows<V, const LENGTH: u32>(Table<u32, V>);

impl<V: Pod + Default, const LENGTH: u32> Rows<V, LENGTH> {
    fn open(pins: &Path, name: &'static str) -> Result<Self, DatapathError> {
        Table::open(pins, name, 1).map(Self)
    }

    /// Where each row begins.
    fn rows(&self) -> impl Iterator<Item = u32> {
        (0..self.0.capacity / LENGTH).map(|cpu| cpu * LENGTH)
    }

    /// Sets the counters of a service or backend to zero, on all CPUs.
    pub(super) fn clear(&self, id: u32) -> io::Result<()> {
        self.rows().try_for_each(|row| self.0.clear_range(row + id, 1))
    }
}

impl<V: Pod + Default, const LENGTH: u32> Counters<V> for Rows<V, LENGTH> {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn read_range(&self, first: u32, count: u32, mut visit: impl FnMut(u32, &[V])) -> io::Result<()> {
        let count = count.min(LENGTH.saturating_sub(first));
        self.rows().try_for_each(|row| {
            self.0
                .read_range(row + first, count, |slot, counts| visit(slot - row, counts))
        })
    }
}

impl<V: Pod + Default> Table<u32, V> {
    /// Calls `visit` with each index from `first` on, `count` of them, and its value: one `V`, or one for each CPU.
    pub(super) fn read_range(
        &self,
        first: u32,
        count: u32,
        mut visit: impl FnMut(u32, &[V]),
    ) -> io::Result<()> {
        let chunk = if self.width == 1 {
            BATCH
        } else {
            (PER_CPU_BATCH_BYTES / (self.width * size_of::<V>())).max(1)
        };
        let chunk = u32::try_from(chunk).unwrap_or(u32::MAX).min(count);
        let mut keys = vec![0u32; chunk as usize];
        let mut values = vec![V::default(); chunk as usize * self.width];
        let mut index = first;
        let end = first.saturating_add(count).min(self.capacity);
        while index < end {
            let want = chunk.min(end - index) as usize;
            let from = index.checked_sub(1).map(sys::Cursor::after);
            let got = match sys::lookup_batch(
                self.fd(),
                from,
                &mut keys[..want],
                &mut values[..want * self.width],
            ) {
                Ok(batch) => batch.count,
                Err(e) if sys::lacks_batch(&e) => {
                    keys[0] = index;
                    usize::from(sys::lookup(self.fd(), &index, &mut values[..self.width])?)
                }
                Err(e) => return Err(e),
            };
            if got == 0 {
                return Err(io::Error::other(format!("entry {index} cannot be read")));
            }
            for (key, value) in keys[..got].iter().zip(values.chunks_exact(self.width)) {
                visit(*key, value);
            }
            index += u32::try_from(got).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Sets `count` entries from `first` on to zero, on all CPUs.
    fn clear_range(&self, first: u32, count: u32) -> io::Result<()> {
        let keys: Vec<u32> = (first..first + count).collect();
        let zeroes = vec![V::default(); self.width * keys.len()];
        match sys::update_batch(self.fd(), &keys, &zeroes) {
            Err(e) if sys::lacks_batch(&e) => keys
                .iter()
                .try_for_each(|index| self.counted(sys::update(self.fd(), index, &zeroes[..self.width]))),
            result => self.counted(result),
        }
    }
}

/// Clears the verdict counters of an interface slot, before the first program counts there for another interface.
pub(super) fn clear_verdicts(pins: &Path, slot: u32) -> Result<(), DatapathError> {
    let table: Table<u32, PacketCount> = Table::open(pins, map_names::VERDICTS, cpus()?)?;
    table
        .clear_range(verdict_slot(slot, 0), REASON_SLOTS)
        .map_err(|e| DatapathError::Map {
            map: map_names::VERDICTS,
            reason: e.to_string(),
        })
}

/// Number of possible CPUs: how many values a per-CPU map has for each key.
pub(super) fn cpus() -> Result<usize, DatapathError> {
    nr_cpus().map_err(|(path, source)| DatapathError::Io {
        what: format!("cannot read {path}"),
        source,
    })
}

/// All pinned maps.
pub(super) struct Maps {
    pub(super) settings: Table<u32, Settings>,
    pub(super) services_v4: Table<ServiceKeyV4, Service>,
    pub(super) services_v6: Table<ServiceKeyV6, Service>,
    pub(super) service_places: Table<u32, u64>,
    pub(super) service_records: Table<u32, ServiceRecord>,
    pub(super) prefix_services: Table<ServicePrefixKey, Service>,
    pub(super) tunnel_ends: Table<EndKey, u32>,
    pub(super) reply_filter: Table<u32, u64>,
    pub(super) addresses: Table<NetAddr, AddressServices>,
    pub(super) rings: Rings,
    pub(super) backends: Table<u32, Backend>,
    pub(super) replies_v4: Table<ServiceKeyV4, ReplyAsV4>,
    pub(super) replies_v6: Table<ServiceKeyV6, ReplyAsV6>,
    pub(super) snat_addresses: Table<u32, NetAddr>,
    pub(super) flows_v4: Table<TupleV4, NatFlowV4>,
    pub(super) flows_v6: Table<TupleV6, NatFlowV6>,
    pub(super) flow_uses: Table<u32, FlowUse>,
    pub(super) flow_shares: Table<u32, u64>,
    pub(super) flow_records_v4: RecordTables<TupleV4>,
    pub(super) flow_records_v6: RecordTables<TupleV6>,
    pub(super) verdicts: Table<u32, PacketCount>,
    pub(super) service_traffic: Rows<Traffic, MAX_SERVICES>,
    pub(super) backend_traffic: Rows<Traffic, MAX_BACKENDS>,
    pub(super) backend_signals: Rows<Signals, MAX_BACKENDS>,
    pub(super) service_drops: Rows<ReasonCounts, MAX_SERVICES>,
    pub(super) guard_prefixes: Table<PrefixKey, u32>,
    pub(super) client_rings: Table<PrefixKey, ClientRing>,
    pub(super) quic_configs: Table<quic::ConfigKey, quic::Config>,
    pub(super) quic_servers: Table<quic::ServerKey, quic::Server>,
    pub(super) quic_config_places: Table<u32, PlacedConfig>,
    pub(super) quic_server_places: Table<u32, PlacedServer>,
    pub(super) flow_guards: Table<u32, FlowGuard>,
    pub(super) interface_macs: Table<u32, Mac>,
    pub(super) own_macs: Table<OwnMac, u32>,
}

impl Maps {
    /// Opens all maps below the directory of pins.
    pub(super) fn open(pins: &Path) -> Result<Self, DatapathError> {
        let cpus = cpus()?;
        Ok(Self {
            settings: Table::open(pins, map_names::SETTINGS, 1)?,
            services_v4: Table::open(pins, map_names::SERVICES_V4, 1)?,
            services_v6: Table::open(pins, map_names::SERVICES_V6, 1)?,
            service_places: Table::open(pins, map_names::SERVICE_PLACES, 1)?,
            service_records: Table::open(pins, map_names::SERVICE_RECORDS, 1)?,
            prefix_services: Table::open(pins, map_names::PREFIX_SERVICES, 1)?,
            tunnel_ends: Table::open(pins, map_names::TUNNEL_ENDS, 1)?,
            reply_filter: Table::open(pins, map_names::REPLY_FILTER, 1)?,
            addresses: Table::open(pins, map_names::ADDRESSES, 1)?,
            rings: Rings(Table::open(pins, map_names::RINGS, 1)?),
            backends: Table::open(pins, map_names::BACKENDS, 1)?,
            replies_v4: Table::open(pins, map_names::REPLIES_V4, 1)?,
            replies_v6: Table::open(pins, map_names::REPLIES_V6, 1)?,
            snat_addresses: Table::open(pins, map_names::SNAT_ADDRESSES, 1)?,
            flows_v4: Table::open(pins, map_names::FLOWS_V4, 1)?,
            flows_v6: Table::open(pins, map_names::FLOWS_V6, 1)?,
            flow_uses: Table::open(pins, map_names::FLOW_USES, 1)?,
            flow_shares: Table::open(pins, map_names::FLOW_SHARES, 1)?,
            flow_records_v4: RecordTables::open(
                pins,
                [map_names::TRACKED_V4, map_names::OPENING_V4, map_names::SEEN_V4],
            )?,
            flow_records_v6: RecordTables::open(
                pins,
                [map_names::TRACKED_V6, map_names::OPENING_V6, map_names::SEEN_V6],
            )?,
            verdicts: Table::open(pins, map_names::VERDICTS, cpus)?,
            service_traffic: Rows::open(pins, map_names::SERVICE_TRAFFIC)?,
            backend_traffic: Rows::open(pins, map_names::BACKEND_TRAFFIC)?,
            backend_signals: Rows::open(pins, map_names::BACKEND_SIGNALS)?,
            service_drops: Rows::open(pins, map_names::SERVICE_DROPS)?,
            guard_prefixes: Table::open(pins, map_names::GUARD_PREFIXES, 1)?,
            client_rings: Table::open(pins, map_names::CLIENT_RINGS, 1)?,
            quic_configs: Table::open(pins, map_names::QUIC_CONFIGS, 1)?,
            quic_servers: Table::open(pins, map_names::QUIC_SERVERS, 1)?,
            quic_config_places: Table::open(pins, map_names::QUIC_CONFIG_PLACES, 1)?,
            quic_server_places: Table::open(pins, map_names::QUIC_SERVER_PLACES, 1)?,
            flow_guards: Table::open(pins, map_names::FLOW_GUARDS, 1)?,
            interface_macs: Table::open(pins, map_names::INTERFACE_MACS, 1)?,
            own_macs: Table::open(pins, map_names::OWN_MACS, 1)?,
        })
    }
}
