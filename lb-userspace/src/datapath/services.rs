//! The tables of services, the filter before them and before the tables of endpoints, and their addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use lb_common::{
    addr::{NetAddr, NetPort},
    service::{FilterBit, Service, ServiceId, ServiceKeyV4, ServiceKeyV6, TCP, UDP},
};

use super::maps::Maps;
use crate::state::service::{Protocol, ServiceKey};

/// A key in the table of its family.
pub(super) enum MapKey {
    V4(ServiceKeyV4),
    V6(ServiceKeyV6),
}

impl MapKey {
    pub(super) const fn filter_bit(&self) -> FilterBit {
        match self {
            Self::V4(key) => key.filter_bit(),
            Self::V6(key) => key.filter_bit(),
        }
    }
}

/// Writes a service's record. The filter lets its packets pass before it is there.
pub(super) fn write(maps: &Maps, key: &ServiceKey, service: Service) -> io::Result<()> {
    maps.addresses.set(&key.address.into(), service.id)?;
    let key = map_key(key);
    change_filter(maps, key.filter_bit(), |word, mask| word | mask)?;
    match key {
        MapKey::V4(key) => maps.services_v4.set(&key, service),
        MapKey::V6(key) => maps.services_v6.set(&key, service),
    }
}

/// Removes a service, which is one of `all`; `endpoints` share its filter.
pub(super) fn remove<'a>(
    maps: &Maps,
    key: &ServiceKey,
    all: &'a BTreeMap<ServiceKey, Service>,
    endpoints: impl Iterator<Item = &'a ServiceKey>,
) -> io::Result<()> {
    let bit = map_key(key).filter_bit();
    match map_key(key) {
        MapKey::V4(key) => maps.services_v4.delete(&key),
        MapKey::V6(key) => maps.services_v6.delete(&key),
    }?;
    let others = || all.iter().filter(|(other, _)| *other != key);
    let address = NetAddr::from(key.address);
    match others().find(|(other, _)| other.address == key.address) {
        Some((_, service)) => maps.addresses.set(&address, service.id)?,
        None => drop(maps.addresses.delete(&address)?),
    }
    let others = others().map(|(other, _)| other);
    clear_filter(maps, BTreeSet::from([bit]), others.chain(endpoints))
}

/// Brings addresses to what the services say: a daemon that was stopped between two writes leaves one behind.
pub(super) fn reconcile(maps: &Maps, services: &BTreeMap<ServiceKey, Service>) -> io::Result<()> {
    let mut wanted: BTreeMap<NetAddr, ServiceId> = services
        .iter()
        .map(|(key, service)| (key.address.into(), service.id))
        .collect();
    let mut stale = Vec::new();
    maps.addresses.for_each_chunk(|addresses, _| {
        stale.extend(
            addresses
                .iter()
                .filter(|address| wanted.remove(address).is_none()),
        );
        Ok(())
    })?;
    for address in stale {
        maps.addresses.delete(&address)?;
    }
    wanted
        .into_iter()
        .try_for_each(|(address, service)| maps.addresses.set(&address, service))
}

/// Clears bits, but for those of `others`.
pub(super) fn clear_filter<'a>(
    maps: &Maps,
    mut unused: BTreeSet<FilterBit>,
    others: impl Iterator<Item = &'a ServiceKey>,
) -> io::Result<()> {
    for other in others {
        unused.remove(&map_key(other).filter_bit());
    }
    unused
        .into_iter()
        .try_for_each(|bit| change_filter(maps, bit, |word, mask| word & !mask))
}

pub(super) fn change_filter(
    maps: &Maps,
    bit: FilterBit,
    change: impl FnOnce(u64, u64) -> u64,
) -> io::Result<()> {
    let word = maps.service_filter.get(&bit.word())?.unwrap_or_default();
    let changed = change(word, bit.mask());
    if changed == word {
        return Ok(());
    }
    maps.service_filter.set(&bit.word(), changed)
}

/// A key as the map of its family has it.
pub(super) fn map_key(key: &ServiceKey) -> MapKey {
    let port = NetPort::new(key.port);
    let protocol = match key.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    match key.address {
        std::net::IpAddr::V4(v4) => MapKey::V4(ServiceKeyV4 {
            address: v4.into(),
            port,
            protocol,
            pad: 0,
        }),
        std::net::IpAddr::V6(v6) => MapKey::V6(ServiceKeyV6 {
            address: v6.into(),
            port,
            protocol,
            pad: 0,
        }),
    }
}
