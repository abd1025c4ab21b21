//! Services and their addresses, and the filter before the tables of endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use lb_common::{
    addr::{NetAddr, NetPort},
    service::{AddressServices, FilterBit, Service, ServiceId},
    service_prefix::ServicePrefixKey,
};

use super::{
    maps::Maps,
    places::{Kernel, Places},
};
use crate::{
    map_key::{MapKey, map_key},
    state::service::ServiceKey,
};

/// Writes a service.
pub(super) fn write(
    kernel: &Kernel<'_>,
    places: &mut Places,
    key: &ServiceKey,
    service: Service,
) -> io::Result<()> {
    if key.is_prefix() {
        set_prefix(kernel.maps, key, Some(service))?;
        return kernel.maps.prefix_services.set(&prefix_key(key), service);
    }
    set_address(kernel.maps, key, Some(service.id))?;
    places.write(kernel, key, service)
}

/// Removes a service, which is one of `all`.
pub(super) fn remove(
    kernel: &Kernel<'_>,
    places: &mut Places,
    key: &ServiceKey,
    all: &BTreeMap<ServiceKey, Service>,
) -> io::Result<()> {
    let first = ServiceKey { port: 0, ..*key };
    let mut others = all
        .range(first..)
        .take_while(|(other, _)| (other.address, other.length) == (key.address, key.length))
        .filter(|(other, _)| other.protocol == key.protocol && *other != key);
    let other = others.next().map(|(_, service)| *service);
    if key.is_prefix() {
        kernel.maps.prefix_services.delete(&prefix_key(key))?;
        return set_prefix(kernel.maps, key, other);
    }
    places.remove(kernel, key)?;
    set_address(kernel.maps, key, other.map(|service| service.id))
}

/// The record of a service, as packets find it.
pub(super) fn record(maps: &Maps, key: &ServiceKey) -> io::Result<Option<Service>> {
    if key.is_prefix() {
        return maps.prefix_services.get(&prefix_key(key));
    }
    match map_key(key) {
        MapKey::V4(key) => maps.services_v4.get(&key),
        MapKey::V6(key) => maps.services_v6.get(&key),
    }
}

/// The key of a service whose address is a prefix.
fn prefix_key(key: &ServiceKey) -> ServicePrefixKey {
    ServicePrefixKey::new(
        NetPort::new(key.port),
        key.protocol.number(),
        key.address.into(),
        in_record(key),
    )
}

/// The key of the entry that says whether its prefix has a service of its protocol.
fn whatever_port(key: &ServiceKey) -> ServicePrefixKey {
    ServicePrefixKey::whatever_port(key.protocol.number(), key.address.into(), in_record(key))
}

/// Bits of a prefix as they count in a [`NetAddr`].
fn in_record(key: &ServiceKey) -> u32 {
    let before = if key.address.is_ipv4() {
        ServicePrefixKey::ADDRESS - u32::BITS
    } else {
        0
    };
    before + u32::from(key.length)
}

/// Has the prefix of a key say that it has this service of its protocol, or none.
fn set_prefix(maps: &Maps, key: &ServiceKey, service: Option<Service>) -> io::Result<()> {
    let entry = whatever_port(key);
    match service {
        Some(service) => maps.prefix_services.set(&entry, service),
        None => maps.prefix_services.delete(&entry).map(drop),
    }
}

/// Marks the address of a key as having this service of its protocol, or none.
fn set_address(maps: &Maps, key: &ServiceKey, service: Option<ServiceId>) -> io::Result<()> {
    let address = NetAddr::from(key.address);
    let before = maps.addresses.get(&address)?.unwrap_or_default();
    match before.with(key.protocol.number(), service) {
        AddressServices::NONE => maps.addresses.delete(&address).map(drop),
        services => maps.addresses.set(&address, services),
    }
}

/// Makes the addresses match the services: a daemon that was stopped between two writes may leave a stale one.
pub(super) fn reconcile(maps: &Maps, services: &BTreeMap<ServiceKey, Service>) -> io::Result<()> {
    let mut wanted: BTreeMap<NetAddr, AddressServices> = BTreeMap::new();
    let (prefixes, addresses): (Vec<_>, Vec<_>) = services.iter().partition(|(key, _)| key.is_prefix());
    reconcile_prefixes(maps, &prefixes)?;
    for (key, service) in addresses {
        let of_address = wanted.entry(key.address.into()).or_default();
        *of_address = of_address.with(key.protocol.number(), Some(service.id));
    }
    let (mut stale, mut there) = (Vec::new(), BTreeMap::new());
    maps.addresses.for_each_chunk(|addresses, values| {
        for (address, services) in addresses.iter().zip(values) {
            if wanted.contains_key(address) {
                there.insert(*address, *services);
            } else {
                stale.push(*address);
            }
        }
        Ok(())
    })?;
    for address in stale {
        maps.addresses.delete(&address)?;
    }
    wanted
        .into_iter()
        .filter(|(address, services)| there.get(address) != Some(services))
        .try_for_each(|(address, services)| maps.addresses.set(&address, services))
}

/// As [`reconcile`], of the entries that say which protocols a prefix has services of.
fn reconcile_prefixes(maps: &Maps, services: &[(&ServiceKey, &Service)]) -> io::Result<()> {
    let wanted: BTreeMap<ServicePrefixKey, Service> = services
        .iter()
        .map(|(key, service)| (whatever_port(key), **service))
        .collect();
    let mut there = BTreeMap::new();
    maps.prefix_services.for_each(|key, service| {
        if key.whatever_port != 0 {
            there.insert(key, service);
        }
    })?;
    for key in there.keys().filter(|key| !wanted.contains_key(key)) {
        maps.prefix_services.delete(key)?;
    }
    wanted
        .iter()
        .filter(|(key, service)| there.get(key) != Some(service))
        .try_for_each(|(key, service)| maps.prefix_services.set(key, *service))
}

/// Clears bits, except the bits of `others`.
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
