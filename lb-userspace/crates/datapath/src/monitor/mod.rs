//! Live packets: the monitored program in the place of the usual one, for as long as a [`Monitor`] is held.

pub(super) mod error;
pub(super) mod maps;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    ptr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aya::maps::{Map, MapData, RingBuf};
use lb_common::{
    addr::NetAddr,
    backend::BackendId,
    monitor::{Direction, FILTER_BACKENDS, Filter, Record},
    reason::Reason,
    service::ServiceId,
};
use tokio::{
    io::unix::AsyncFd,
    sync::{OwnedSemaphorePermit, watch},
    time::{Interval, MissedTickBehavior, interval},
};

use self::{error::MonitorError, maps::MonitorMaps};
use crate::{
    attach::keeper::handle::KeeperHandle,
    directory::{BackendEntry, Directory},
    error::DatapathError,
    interface::Interfaces,
    kernel_clock,
    stages::Stages,
    state::service::ServiceKey,
};

/// Time in which the allowance of records is given in parts, where the rate has as many.
const PART: Duration = Duration::from_millis(100);
/// Records that are taken from the ring buffer at a time, at most.
const BATCH: usize = 256;

/// Which packets to record.
#[derive(Clone, Debug)]
pub struct MonitorFilter {
    /// Those that end for one of these reasons.
    pub reasons: Vec<Reason>,
    /// Those of this service alone.
    pub service: Option<ServiceKey>,
    /// Those of these backends alone, if any are named.
    pub backends: Vec<(ServiceKey, SocketAddr)>,
    /// Those of clients in this prefix alone: address and length.
    pub client: Option<(IpAddr, u8)>,
    /// One of how many packets is looked at, on each CPU; at least 1.
    pub sample: u32,
    /// Records a second, at most; at least 1.
    pub rate: u32,
}

/// A packet, by the names that the daemon had for its numbers when it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonitoredPacket {
    /// When it left the program.
    pub at: SystemTime,
    /// The interface on which it came.
    pub interface: String,
    /// Its end.
    pub reason: Reason,
    /// Its service.
    pub service: Option<ServiceKey>,
    /// Its backend.
    pub backend: Option<SocketAddr>,
    /// Which way it went.
    pub direction: Direction,
    /// Bytes of the frame as it came.
    pub received_len: u32,
    /// Bytes of the frame as it left.
    pub sent_len: u32,
    /// The frame's first bytes as it came.
    pub before: Vec<u8>,
    /// The frame's first bytes as it left.
    pub after: Vec<u8>,
}

/// A monitor that runs. Dropping it puts the usual program back.
pub struct Monitor {
    ring: AsyncFd<RingBuf<MapData>>,
    maps: MonitorMaps,
    filter: Filter,
    /// Records in each part of the allowance.
    part: u64,
    parts: Interval,
    interfaces: Interfaces,
    directory: watch::Receiver<Arc<Directory>>,
    /// Behind the maps, which must be gone first.
    _end: End,
    _permit: OwnedSemaphorePermit,
}

/// Has the usual program put back when it is dropped.
struct End(KeeperHandle);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end_monitor();
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

impl Monitor {
    /// Has the monitored program run. Within a tokio runtime.
    pub(super) async fn begin(
        filter: MonitorFilter,
        permit: OwnedSemaphorePermit,
        stages: Stages,
        keeper: KeeperHandle,
        directory: watch::Receiver<Arc<Directory>>,
    ) -> Result<Self, MonitorError> {
        let interfaces = keeper.interfaces();
        if interfaces
            .borrow()
            .iter()
            .all(|interface| interface.attached.is_none())
        {
            return Err(MonitorError::NotAttached);
        }
        let rate = filter.rate.max(1);
        let filter = numbers(filter, &directory.borrow())?;
        // The first program of a start stands behind a gate, and lacks stages.
        let whole = tokio::task::spawn_blocking(move || stages.complete()).await;
        whole
            .unwrap_or_else(|_| Err("the daemon is leaving".to_owned()))
            .map_err(MonitorError::Refused)?;
        let maps = MonitorMaps::new().map_err(MonitorError::Program)?;
        let io = |source| {
            MonitorError::Program(DatapathError::Io {
                what: "cannot read records".to_owned(),
                source,
            })
        };
        let ring = maps.records().map_err(io)?;
        let ring = MapData::from_fd(ring)
            .and_then(|map| RingBuf::try_from(Map::RingBuf(map)))
            .map_err(|error| io(io::Error::other(error)))?;
        // SAFETY: its descriptor is the same, and open, until it is dropped.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(|error| io(error.into_parts().1))?;
        let every = PART.max(Duration::from_secs(1) / rate);
        let mut parts = interval(every);
        parts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let in_a_part = f64::from(rate) * every.as_secs_f64();
        maps.set_filter(&filter).map_err(io)?;
        let end = End(keeper);
        end.0.monitor(maps.clone()).await?;
        Ok(Self {
            ring,
            maps,
            filter,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of records"
            )]
            part: (in_a_part.round() as u64).max(1),
            parts,
            interfaces,
            directory,
            _end: end,
            _permit: permit,
        })
    }

    /// Waits for packets and returns them, in the order in which CPUs wrote them. While no caller waits, the allowance is not renewed, and
    /// further packets are lost. Cancel-safe.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub async fn packets(&mut self) -> io::Result<Vec<MonitoredPacket>> {
        loop {
            tokio::select! {
                _ = self.parts.tick() => {
                    self.filter.allowance = self.maps.recorded()?.records + self.part;
                    self.maps.set_filter(&self.filter)?;
                }
                ready = self.ring.readable_mut() => {
                    let mut ready = ready?;
                    let ring = ready.get_inner_mut();
                    let mut records = Vec::new();
                    while records.len() < BATCH && let Some(bytes) = ring.next() {
                        records.extend(record(&bytes));
                    }
                    if records.len() < BATCH {
                        ready.clear_ready();
                    }
                    if !records.is_empty() {
                        return Ok(self.named(&records));
                    }
                }
            }
        }
    }

    /// Packets that the filter asked for and that were not recorded, since the rate was reached or the reader was late.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn lost(&self) -> io::Result<u64> {
        Ok(self.maps.recorded()?.lost)
    }

    fn named(&self, records: &[Record]) -> Vec<MonitoredPacket> {
        let (now, clock) = (SystemTime::now(), kernel_clock::exact());
        let (directory, interfaces) = (self.directory.borrow(), self.interfaces.borrow());
        let named = |record: &Record| {
            let age = clock.saturating_sub(Duration::from_nanos(record.at));
            let mut interfaces = interfaces.iter();
            let interface = interfaces.find(|interface| interface.slot == record.interface_slot);
            MonitoredPacket {
                at: now.checked_sub(age).unwrap_or(now),
                interface: interface.map_or_else(String::new, |interface| interface.name.clone()),
                reason: Reason::from_number(record.reason).unwrap_or(Reason::Internal),
                service: directory.key(record.service),
                backend: directory.backend(record.backend).map(|backend| backend.address),
                direction: Direction::from_number(record.direction).unwrap_or(Direction::Unknown),
                received_len: record.received_len,
                sent_len: record.sent_len,
                before: start(&record.before, record.before_len),
                after: start(&record.after, record.after_len),
            }
        };
        records.iter().map(named).collect()
    }
}

fn start(bytes: &[u8], len: u16) -> Vec<u8> {
    bytes.get(..usize::from(len)).unwrap_or(bytes).to_vec()
}

/// The record in an item of the ring buffer; none if it has another size.
fn record(bytes: &[u8]) -> Option<Record> {
    if bytes.len() != size_of::<Record>() {
        return None;
    }
    // SAFETY: of that size; every bit pattern is valid.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// A filter by the numbers that the program knows.
fn numbers(filter: MonitorFilter, directory: &Directory) -> Result<Filter, MonitorError> {
    let MonitorFilter {
        reasons,
        service,
        backends,
        client,
        sample,
        rate: _,
    } = filter;
    let service = match service {
        None => ServiceId::NONE,
        Some(key) => {
            let mut all = directory.services.iter();
            let found = all.find(|(_, other)| *other == key);
            found
                .map(|(id, _)| *id)
                .ok_or_else(|| MonitorError::NotProgrammed(format!("service {key}")))?
        }
    };
    let is_wanted = |entry: &&BackendEntry| {
        let mut wanted = backends.iter();
        wanted.any(|(service, address)| (entry.service, entry.address) == (*service, *address))
    };
    let ids: Vec<BackendId> = directory
        .backends
        .iter()
        .filter(is_wanted)
        .map(|entry| entry.id)
        .collect();
    if ids.is_empty()
        && let Some((_, address)) = backends.first()
    {
        return Err(MonitorError::NotProgrammed(format!("backend {address}")));
    }
    let mut numbers = [BackendId::NONE; FILTER_BACKENDS];
    let places = numbers
        .get_mut(..ids.len())
        .ok_or(MonitorError::ManyBackends(ids.len()))?;
    places.copy_from_slice(&ids);
    let client_mask = client.map_or_else(NetAddr::default, |(address, length)| mask(address, length));
    let address = client.map_or_else(NetAddr::default, |(address, _)| NetAddr::from(address));
    let mut masked = address;
    for (word, mask) in masked.0.iter_mut().zip(client_mask.0) {
        *word &= mask;
    }
    Ok(Filter {
        reasons: reasons.iter().fold(0, |all, reason| all | 1 << *reason as u32),
        allowance: 0,
        client: masked,
        client_mask,
        sample: sample.max(1),
        service,
        #[expect(clippy::cast_possible_truncation, reason = "at most `FILTER_BACKENDS`")]
        backend_count: ids.len() as u16,
        backends: numbers,
        by_client: client.is_some().into(),
        pad: 0,
    })
}

/// The mask of a prefix of this length. An IPv4 address stands in the last of four words.
fn mask(address: IpAddr, length: u8) -> NetAddr {
    let before = if address.is_ipv4() { 96 } else { 0 };
    let bits = u32::from(length) + before;
    NetAddr(std::array::from_fn(|word| {
        let bits = bits.saturating_sub(32 * u32::try_from(word).unwrap_or(0)).min(32);
        u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be()
    }))
}

#[cfg(test)]
mod tests;
