//! Live packets: the monitored program in the place of the usual one, for as long as a [`Monitor`] is held.

pub(super) mod error;
pub(super) mod maps;

use std::{
    collections::BTreeSet,
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
    directory::Directory,
    error::DatapathError,
    interface::Interfaces,
    kernel_clock,
    stages::Stages,
    state::{guard::Prefix, service::ServiceKey},
};

/// Parts a second in which the allowance of records is given, where the rate has as many records.
const PARTS: u32 = 10;
/// Records that are taken from the ring buffer at a time, at most.
const BATCH: usize = 256;

/// Which packets to record.
#[derive(Clone, Debug)]
pub struct MonitorFilter {
    /// Those that end for one of these reasons.
    pub reasons: Vec<Reason>,
    /// Those of this service and these backends alone.
    pub places: Places,
    /// Those of clients in this prefix alone.
    pub client: Option<Prefix>,
    /// One of how many packets is looked at, on each CPU; at least 1.
    pub sample: u32,
    /// Records a second, at most; at least 1.
    pub rate: u32,
}

/// A service and backends, by address and not by number: a free number is given to another service or backend.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Places {
    /// This service; `None`: all.
    pub service: Option<ServiceKey>,
    /// These backends; `None`: all.
    pub backends: Option<BTreeSet<(ServiceKey, SocketAddr)>>,
}

impl Places {
    /// Whether packets of this service and backend are wanted.
    fn want(&self, service: Option<ServiceKey>, backend: Option<SocketAddr>) -> bool {
        self.service.is_none_or(|wanted| service == Some(wanted))
            && self.backends.as_ref().is_none_or(|wanted| {
                let place = service.zip(backend);
                place.is_some_and(|place| wanted.contains(&place))
            })
    }
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
    wanted: MonitorFilter,
    /// The same by numbers, as written last.
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
        wanted: MonitorFilter,
        permit: OwnedSemaphorePermit,
        stages: Stages,
        keeper: KeeperHandle,
        mut directory: watch::Receiver<Arc<Directory>>,
    ) -> Result<Self, MonitorError> {
        let interfaces = keeper.interfaces();
        if interfaces
            .borrow()
            .iter()
            .all(|interface| interface.attached.is_none())
        {
            return Err(MonitorError::NotAttached);
        }
        let filter = numbers(&wanted, &directory.borrow_and_update())?;
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
        let (part, every) = parts(wanted.rate);
        let mut parts = interval(every);
        parts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        maps.set_filter(&filter).map_err(io)?;
        let end = End(keeper);
        end.0.monitor(maps.clone()).await?;
        Ok(Self {
            ring,
            maps,
            wanted,
            filter,
            part,
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
    /// A map cannot be read or written, or more backends are at the wanted places than a filter holds.
    pub async fn packets(&mut self) -> Result<Vec<MonitoredPacket>, MonitorError> {
        loop {
            tokio::select! {
                _ = self.parts.tick() => {
                    let recorded = self.maps.recorded().map_err(MonitorError::Records)?;
                    self.filter.allowance = recorded.records + self.part;
                    self.maps.set_filter(&self.filter).map_err(MonitorError::Records)?;
                }
                // An error means that the writer has ended, and numbers change no more.
                Ok(()) = self.directory.changed() => self.renumber()?,
                ready = self.ring.readable_mut() => {
                    let mut ready = ready.map_err(MonitorError::Records)?;
                    let ring = ready.get_inner_mut();
                    let mut records = Vec::new();
                    while records.len() < BATCH && let Some(bytes) = ring.next() {
                        records.extend(record(&bytes));
                    }
                    if records.len() < BATCH {
                        ready.clear_ready();
                    }
                    let packets = self.named(&records);
                    if !packets.is_empty() {
                        return Ok(packets);
                    }
                }
            }
        }
    }

    /// Records packets of these places instead; none while they are not programmed (yet).
    ///
    /// # Errors
    /// More backends are there than a filter holds, or the filter cannot be written.
    pub fn follow(&mut self, places: Places) -> Result<(), MonitorError> {
        if self.wanted.places == places {
            return Ok(());
        }
        self.wanted.places = places;
        self.renumber()
    }

    /// Writes the filter with the numbers that the wanted places have now. The allowance stays.
    fn renumber(&mut self) -> Result<(), MonitorError> {
        let filter = match numbers(&self.wanted, &self.directory.borrow_and_update()) {
            Ok(filter) => filter,
            // Without a reason, the filter takes no packet.
            Err(MonitorError::NotProgrammed(_)) => Filter {
                reasons: 0,
                ..self.filter
            },
            Err(error) => return Err(error),
        };
        self.filter = Filter {
            allowance: self.filter.allowance,
            ..filter
        };
        self.maps.set_filter(&self.filter).map_err(MonitorError::Records)
    }

    /// Packets that the filter asked for and that were not recorded, since the rate was reached or the reader was late.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn lost(&self) -> Result<u64, MonitorError> {
        let recorded = self.maps.recorded().map_err(MonitorError::Records)?;
        Ok(recorded.lost)
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
        // A number may have gone to another service before the filter followed.
        let is_wanted = |packet: &MonitoredPacket| self.wanted.places.want(packet.service, packet.backend);
        records.iter().map(named).filter(is_wanted).collect()
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

/// Splits a rate (records a second) into parts of the allowance: records in each, and the time between them.
fn parts(rate: u32) -> (u64, Duration) {
    let rate = rate.max(1);
    let part = rate.div_ceil(PARTS);
    (part.into(), Duration::from_secs(part.into()) / rate)
}

/// A filter by the numbers that the program knows.
fn numbers(filter: &MonitorFilter, directory: &Directory) -> Result<Filter, MonitorError> {
    let MonitorFilter {
        reasons,
        places: Places { service, backends },
        client,
        sample,
        rate: _,
    } = filter;
    let service = match service {
        None => ServiceId::NONE,
        Some(key) => {
            let mut all = directory.services.iter();
            let found = all.find(|(_, other)| other == key);
            found
                .map(|(id, _)| *id)
                .ok_or_else(|| MonitorError::NotProgrammed(format!("service {key}")))?
        }
    };
    let ids: Vec<BackendId> = backends.as_ref().map_or_else(Vec::new, |wanted| {
        let all = directory.backends.iter();
        all.filter(|entry| wanted.contains(&(entry.service, entry.address)))
            .map(|entry| entry.id)
            .collect()
    });
    if ids.is_empty()
        && let Some(wanted) = backends
    {
        let mut addresses = wanted.iter().map(|(_, address)| format!("backend {address}"));
        let what = addresses.next().unwrap_or_else(|| "no backend".to_owned());
        return Err(MonitorError::NotProgrammed(what));
    }
    let mut numbers = [BackendId::NONE; FILTER_BACKENDS];
    let places = numbers
        .get_mut(..ids.len())
        .ok_or(MonitorError::ManyBackends(ids.len()))?;
    places.copy_from_slice(&ids);
    let client_mask = client.map_or_else(NetAddr::default, |client| mask(client.address(), client.length()));
    let client_address = client.map_or_else(NetAddr::default, |client| NetAddr::from(client.address()));
    Ok(Filter {
        reasons: reasons.iter().fold(0, |all, reason| all | 1 << *reason as u32),
        allowance: 0,
        client: client_address,
        client_mask,
        sample: (*sample).max(1),
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
