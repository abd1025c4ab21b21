//! Services and their addresses, and the filter before the tables of endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use lb_common::{
    addr::{NetAddr, NetPort},
    service::{FilterBit, Service, ServiceId, ServiceKeyV4, ServiceKeyV6, TCP, UDP},
    service_place::{Place, ServiceRecord},
};

use super::{
    maps::Maps,
    places::{Kernel, Places},
};
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

    pub(super) const fn place(&self) -> Place {
        match self {
            Self::V4(key) => key.place(),
            Self::V6(key) => key.place(),
        }
    }

    pub(super) const fn record(&self, service: Service) -> ServiceRecord {
        match self {
            Self::V4(key) => ServiceRecord::v4(key, service),
            Self::V6(key) => ServiceRecord::v6(key, service),
        }
    }
}

/// Writes a service.
pub(super) fn write(
    kernel: &Kernel<'_>,
    places: &mut Places,
    key: &ServiceKey,
    service: Service,
) -> io::Result<()> {
    kernel.maps.addresses.set(&key.address.into(), service.id)?;
    places.write(kernel, key, service)
}

/// Removes a service, which is one of `all`.
pub(super) fn remove(
    kernel: &Kernel<'_>,
    places: &mut Places,
    key: &ServiceKey,
    all: &BTreeMap<ServiceKey, Service>,
) -> io::Result<()> {
    places.remove(kernel, key)?;
    let address = NetAddr::from(key.address);
    let addresses = &kernel.maps.addresses;
    let first = ServiceKey {
        port: 0,
        protocol: Protocol::Tcp,
        ..*key
    };
    let mut of_address = all
        .range(first..)
        .take_while(|(other, _)| other.address == key.address);
    match of_address.find(|(other, _)| *other != key) {
        Some((_, service)) => addresses.set(&address, service.id),
        None => addresses.delete(&address).map(drop),
    }
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
    let word = maps.reply_filter.get(&bit.word())?.unwrap_or_default();
    let changed = change(word, bit.mask());
    if changed == word {
        return Ok(());
    }
    maps.reply_filter.set(&bit.word(), changed)
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
