//! Services in the kernel: the tables by key, and the service index with its records (see
//! [`lb_common::service_place`]).
//!
//! A packet may read a record until a grace period after the index has stopped naming it. So a changed service gets the record
//! that was released longest ago. A change waits for a grace period only if that record may still be read.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
};

use lb_common::{
    service::Service,
    service_place::{Holder, PLACE_WORDS, Place, RECORDS, ServiceRecord},
};

use super::maps::Maps;
use crate::{
    grace::GracePeriod,
    map_key::{MapKey, map_key},
    state::service::ServiceKey,
};

/// The maps to write.
pub(super) trait ServiceTables {
    /// All words of places.
    fn words(&self) -> io::Result<Vec<u64>>;
    fn set_word(&self, index: u32, word: u64) -> io::Result<()>;
    fn record(&self, number: u16) -> io::Result<ServiceRecord>;
    fn set_record(&self, number: u16, record: ServiceRecord) -> io::Result<()>;
    /// Writes to the table by key.
    fn set_service(&self, key: &MapKey, service: Service) -> io::Result<()>;
    /// Removes from the table by key.
    fn delete_service(&self, key: &MapKey) -> io::Result<()>;
    /// Waits until no packet is under way that was so when this was called.
    fn wait(&self) -> io::Result<()>;
}

/// The kernel's.
pub(super) struct Kernel<'a> {
    pub(super) maps: &'a Maps,
    pub(super) grace: &'a GracePeriod,
}

impl ServiceTables for Kernel<'_> {
    fn words(&self) -> io::Result<Vec<u64>> {
        let mut words = Vec::new();
        let places = &self.maps.service_places;
        places.read_range(0, PLACE_WORDS, |_, word| words.extend(word))?;
        Ok(words)
    }

    fn set_word(&self, index: u32, word: u64) -> io::Result<()> {
        self.maps.service_places.set(&index, word)
    }

    fn record(&self, number: u16) -> io::Result<ServiceRecord> {
        let record = self.maps.service_records.get(&number.into())?;
        Ok(record.unwrap_or_default())
    }

    fn set_record(&self, number: u16, record: ServiceRecord) -> io::Result<()> {
        self.maps.service_records.set(&number.into(), record)
    }

    fn set_service(&self, key: &MapKey, service: Service) -> io::Result<()> {
        match key {
            MapKey::V4(key) => self.maps.services_v4.set(key, service),
            MapKey::V6(key) => self.maps.services_v6.set(key, service),
        }
    }

    fn delete_service(&self, key: &MapKey) -> io::Result<()> {
        match key {
            MapKey::V4(key) => self.maps.services_v4.delete(key),
            MapKey::V6(key) => self.maps.services_v6.delete(key),
        }
        .map(drop)
    }

    fn wait(&self) -> io::Result<()> {
        self.grace.wait()
    }
}

/// The owners of records and places.
#[derive(Debug)]
pub(super) struct Places {
    words: Vec<u64>,
    records: BTreeMap<ServiceKey, u16>,
    of_place: BTreeMap<Place, BTreeSet<ServiceKey>>,
    /// Free records, in the order of their release.
    free: VecDeque<u16>,
    /// How many of them, from the first on, no packet reads.
    unread: usize,
}

impl Places {
    /// Reads the owners back from the tables by key. Repairs an interrupted change of an earlier daemon.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub(super) fn open(
        tables: &impl ServiceTables,
        services: &BTreeMap<ServiceKey, Service>,
    ) -> io::Result<Self> {
        // The first record that is ever written is the first. Before, no place names one.
        let fresh = tables.record(0)? == ServiceRecord::default();
        let words = if fresh {
            vec![0; PLACE_WORDS as usize]
        } else {
            tables.words()?
        };
        // Records that places name are not to be written, until they do not any more.
        let holders = words.iter().flat_map(|word| Place::holders(*word));
        let mut leave: BTreeSet<u16> = holders.filter_map(named).collect();
        let free: VecDeque<u16> = (0..)
            .take(RECORDS as usize)
            .filter(|number| !leave.contains(number))
            .collect();
        let (mut records, mut missing) = (BTreeMap::new(), Vec::new());
        for (key, service) in services {
            let map_key = map_key(key);
            let place = map_key.place();
            let word = words.get(place.word() as usize);
            let number = named(word.map_or(Holder::NONE, |word| place.holder(*word)));
            let number = number.filter(|number| leave.contains(number));
            match number {
                Some(number) if tables.record(number)? == map_key.record(*service) => {
                    leave.remove(&number);
                    records.insert(*key, number);
                }
                _ => missing.push((key, *service)),
            }
        }
        let mut places = Self {
            words,
            records,
            of_place: BTreeMap::new(),
            unread: if fresh { free.len() } else { 0 },
            free,
        };
        for (key, service) in missing {
            let number = places.take(tables)?;
            tables.set_record(number, map_key(key).record(service))?;
            places.records.insert(*key, number);
        }
        for key in services.keys() {
            let of_place = places.of_place.entry(map_key(key).place());
            of_place.or_default().insert(*key);
        }
        let mut wanted = vec![0; places.words.len()];
        for place in places.of_place.keys() {
            if let Some(word) = wanted.get_mut(place.word() as usize) {
                *word = place.set(*word, places.holder(*place));
            }
        }
        for (index, word) in (0..).zip(&wanted) {
            if places.words.get(index as usize) != Some(word) {
                tables.set_word(index, *word)?;
            }
        }
        places.words = wanted;
        places.free.extend(leave);
        Ok(places)
    }

    /// Writes a service's record: a packet sees the one before, or this one.
    ///
    /// # Errors
    /// A map could not be written; most packets see what they saw before.
    pub(super) fn write(
        &mut self,
        tables: &impl ServiceTables,
        key: &ServiceKey,
        service: Service,
    ) -> io::Result<()> {
        let of_map = map_key(key);
        let number = self.take(tables)?;
        let written = tables
            .set_record(number, of_map.record(service))
            .and_then(|()| tables.set_service(&of_map, service));
        if let Err(e) = written {
            self.give_back_unread(number);
            return Err(e);
        }
        let before = self.records.insert(*key, number);
        let place = of_map.place();
        self.of_place.entry(place).or_default().insert(*key);
        let pointed = self.point(tables, place);
        if pointed.is_ok() {
            self.free.extend(before);
        } else {
            // The place names the one before, as ever.
            match before {
                Some(before) => self.records.insert(*key, before),
                None => self.records.remove(key),
            };
            self.give_back_unread(number);
        }
        pointed
    }

    /// Removes a service.
    ///
    /// # Errors
    /// A map could not be written. The same again does what was not done.
    pub(super) fn remove(&mut self, tables: &impl ServiceTables, key: &ServiceKey) -> io::Result<()> {
        let of_map = map_key(key);
        tables.delete_service(&of_map)?;
        let place = of_map.place();
        if let Some(keys) = self.of_place.get_mut(&place) {
            keys.remove(key);
            if keys.is_empty() {
                self.of_place.remove(&place);
            }
        }
        self.point(tables, place)?;
        self.free.extend(self.records.remove(key));
        Ok(())
    }

    /// Takes back a record that no place has named.
    fn give_back_unread(&mut self, number: u16) {
        self.free.push_front(number);
        self.unread += 1;
    }

    /// Has a place say what it holds now.
    fn point(&mut self, tables: &impl ServiceTables, place: Place) -> io::Result<()> {
        let holder = self.holder(place);
        let Some(word) = self.words.get_mut(place.word() as usize) else {
            return Ok(());
        };
        let changed = place.set(*word, holder);
        if changed != *word {
            tables.set_word(place.word(), changed)?;
            *word = changed;
        }
        Ok(())
    }

    fn holder(&self, place: Place) -> Holder {
        let mut keys = self.of_place.get(&place).into_iter().flatten();
        match (keys.next(), keys.next()) {
            (None, _) => Holder::NONE,
            (Some(key), None) => self
                .records
                .get(key)
                .map_or(Holder::SHARED, |number| Holder::of_record(*number)),
            (Some(_), Some(_)) => Holder::SHARED,
        }
    }

    /// A record that no packet reads.
    fn take(&mut self, tables: &impl ServiceTables) -> io::Result<u16> {
        if self.unread == 0 {
            tables.wait()?;
            self.unread = self.free.len();
        }
        let number = self.free.pop_front();
        self.unread = self.unread.saturating_sub(1);
        number.ok_or_else(|| io::Error::other("there are more services than records"))
    }
}

/// The number of the record that a place holds, if it holds one.
fn named(holder: Holder) -> Option<u16> {
    let number = u16::try_from(holder.record()).ok()?;
    (!holder.is_none() && u32::from(number) < RECORDS).then_some(number)
}

#[cfg(test)]
mod tests;
