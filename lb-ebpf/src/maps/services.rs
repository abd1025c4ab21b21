//! Services by their keys, see [`lb_common::service_place`]. The daemon writes all of it: a record before the
//! place that names it, and the tables by key before a place is shared. Services whose address is a prefix have a map of their
//! own ([`lb_common::service_prefix`]).

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
    macros::btf_map,
};
use lb_common::{
    addr::{NetAddr, NetPort, NetV4, NetV6},
    flow::Tuple,
    limits::{MAX_PREFIX_SERVICES, MAX_SERVICES},
    service::{AddressServices, Service, ServiceKeyV4, ServiceKeyV6, TCP, UDP},
    service_place::{Holder, PLACE_WORDS, Place, RECORDS, ServiceRecord},
    service_prefix::{self, ServicePrefixKey},
};

#[btf_map]
static SERVICES_V4: HashMap<ServiceKeyV4, Service, { MAX_SERVICES as usize }> = HashMap::new();
#[btf_map]
static SERVICES_V6: HashMap<ServiceKeyV6, Service, { MAX_SERVICES as usize }> = HashMap::new();
#[btf_map]
static SERVICE_PLACES: Array<u64, { PLACE_WORDS as usize }> = Array::new();
#[btf_map]
static SERVICE_RECORDS: Array<ServiceRecord, { RECORDS as usize }> = Array::new();

#[btf_map]
static PREFIX_SERVICES: LpmTrie<PrefixData, Service, { MAX_PREFIX_SERVICES as usize }> = LpmTrie::new();

/// A [`ServicePrefixKey`] behind its first field.
type PrefixData = [u32; 5];
const _: () = assert!(size_of::<Key<PrefixData>>() == size_of::<ServicePrefixKey>());

#[inline(always)]
fn longest(key: &ServicePrefixKey) -> Option<&'static Service> {
    // SAFETY: the same bytes; the other type is aligned to 1.
    PREFIX_SERVICES.get(unsafe { &*core::ptr::from_ref(key).cast::<Key<PrefixData>>() })
}

/// The service whose prefix an address lies in, for a protocol and port: the longest prefix counts, then the port before every
/// port. Written by the daemon, before the settings say that there is one.
#[inline(always)]
pub(crate) fn of_prefix(address: NetAddr, port: NetPort, protocol: u8) -> Option<&'static Service> {
    let find = |port| {
        longest(&ServicePrefixKey::new(
            port,
            protocol,
            address,
            ServicePrefixKey::ADDRESS,
        ))
    };
    service_prefix::longest(find(port), find(NetPort(0)))
}

/// Adds to the services of an address those whose prefix it lies in, one of each protocol.
#[inline(always)]
pub(crate) fn with_prefixes(mut services: AddressServices, address: &NetAddr) -> AddressServices {
    for protocol in [TCP, UDP] {
        if services.of(protocol).is_none() {
            let key = ServicePrefixKey::whatever_port(protocol, *address, ServicePrefixKey::ADDRESS);
            services = services.with(protocol, longest(&key).map(|service| service.id));
        }
    }
    services
}

/// Where a key's service is found.
pub(crate) enum Found {
    /// Nowhere.
    None,
    /// In this record.
    Record(&'static ServiceRecord),
    /// In the table by key, if anywhere.
    Table,
}

/// The services of a family. Implemented by the family's address.
pub(crate) trait ServiceTable: Sized {
    /// Where the service on a tuple's destination and a port (0: the wildcard) is found.
    fn find_service(tuple: &Tuple<Self>, port: NetPort) -> Found;
    /// The same service by the table; without one, an empty record.
    fn service(tuple: &Tuple<Self>, port: NetPort) -> Service;
}

#[inline(always)]
fn find(place: Place, is_its: impl FnOnce(&ServiceRecord) -> bool) -> Found {
    let holder = SERVICE_PLACES
        .get(place.word())
        .map_or(Holder::NONE, |word| place.holder(*word));
    // Packets that are not ours, most of which end here.
    if holder.is_none() {
        return Found::None;
    }
    let record = SERVICE_RECORDS.get(holder.record());
    // The key is read again: the stack has no space for it.
    compiler_fence(Ordering::SeqCst);
    match record {
        Some(record) if is_its(record) => Found::Record(record),
        _ => Found::Table,
    }
}

macro_rules! service_table {
    ($address:ty, $map:ident, $key:ident, $is:ident) => {
        impl ServiceTable for $address {
            #[inline(always)]
            fn find_service(tuple: &Tuple<Self>, port: NetPort) -> Found {
                let key = || key!($key, tuple, port);
                find(key().place(), |record| record.$is(&key()))
            }

            #[inline(always)]
            fn service(tuple: &Tuple<Self>, port: NetPort) -> Service {
                // SAFETY: copied out at once; the daemon replaces records as a whole.
                unsafe { $map.get(&key!($key, tuple, port)) }
                    .copied()
                    .unwrap_or_default()
            }
        }
    };
}

macro_rules! key {
    ($key:ident, $tuple:expr, $port:expr) => {
        $key {
            address: $tuple.dst,
            port: $port,
            protocol: $tuple.protocol,
            pad: 0,
        }
    };
}

service_table!(NetV4, SERVICES_V4, ServiceKeyV4, is_v4);
service_table!(NetV6, SERVICES_V6, ServiceKeyV6, is_v6);
