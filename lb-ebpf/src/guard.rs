//! Guards of services: refuse packets of denied clients, and new flows beyond the rate limit.
//!
//! The functions at work are global to the verifier (see [`crate::global`]), one for both families, since they know addresses
//! only as records have them. A service without a guard costs its packets one test of a flag.

use core::{hint::black_box, mem::transmute, ptr};

use lb_common::{
    addr::NetAddr,
    budget::take,
    guard::{DENY, PrefixKey, SourceKey},
    reason::Reason,
    service::{GUARDS_CLIENTS, GUARDS_FLOWS, Service, ServiceId},
};

use crate::{
    budget,
    family::Family,
    maps::{guards, late},
};

/// Refuses a packet of a client that the service does not serve.
#[inline(always)]
pub(crate) fn admit_client<A: Family>(service: &Service, client: A) -> Result<(), Reason> {
    if !service.has(GUARDS_CLIENTS) {
        return Ok(());
    }
    let [high, low] = halves(client.to_record());
    // The verifier knows nothing about what a global function returns, so the compiler must not either.
    match black_box(guard_client(u32::from(service.id.0), high, low)) {
        DENY => Err(Reason::ClientDenied),
        _ => Ok(()),
    }
}

/// What the prefixes of a service say of an address. Whom none of them knows may send: where only some may, one of no
/// length denies all others.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn guard_client(service: u32, high: u64, low: u64) -> u32 {
    guards::prefix(&PrefixKey::new(
        id(service),
        whole([high, low]),
        PrefixKey::ADDRESS,
    ))
}

/// Refuses a packet that would begin a flow, where too many begin.
#[inline(always)]
pub(crate) fn admit_flow<A: Family>(service: &Service, client: A) -> Result<(), Reason> {
    if !service.has(GUARDS_FLOWS) || !late::are_there() {
        return Ok(());
    }
    let [high, low] = halves(client.to_record());
    // As above.
    match black_box(guard_flow(u32::from(service.id.0), high, low)) {
        OVER_SOURCE => Err(Reason::SourceRate),
        OVER_ALL => Err(Reason::NewFlowRate),
        _ => Ok(()),
    }
}

/// Results of [`guard_flow`].
const ADMITTED: u32 = 0;
const OVER_ALL: u32 = 1;
const OVER_SOURCE: u32 = 2;

/// Takes a flow out of the budgets of a service. The source is asked first, so that one alone does not use up what is there
/// for all; it is written last, so that no source of refused packets is remembered.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn guard_flow(service: u32, high: u64, low: u64) -> u32 {
    let service = id(service);
    // Every id has both.
    let (Ok(guard), Ok(buckets)) = (guards::of_flows(service), guards::buckets(service)) else {
        return ADMITTED;
    };
    let (all, each) = (guard.all, guard.of_source);
    let [mask_high, mask_low] = halves(guard.source_mask);
    let key = SourceKey {
        address: whole([high & mask_high, low & mask_low]),
        service,
        pad: 0,
    };
    let now = budget::now();
    let bucket = if each.interval == 0 {
        ptr::null_mut()
    } else {
        guards::source(&key).unwrap_or(ptr::null_mut())
    };
    // SAFETY: from the map's look-up.
    if !bucket.is_null() && take(unsafe { ptr::read_volatile(bucket) }, now, each).is_none() {
        return OVER_SOURCE;
    }
    // SAFETY: a field of the map's value.
    if all.interval != 0 && !unsafe { budget::take_from(&raw mut (*buckets).flows, now, all) } {
        return OVER_ALL;
    }
    if !bucket.is_null() {
        // SAFETY: from the map's look-up.
        if !unsafe { budget::take_from(bucket, now, each) } {
            return OVER_SOURCE;
        }
    } else if each.interval != 0 {
        guards::add_source(&key, now + each.interval);
    }
    ADMITTED
}

#[inline(always)]
fn id(service: u32) -> ServiceId {
    #[expect(clippy::cast_possible_truncation, reason = "made of an id")]
    let id = service as u16;
    ServiceId(id)
}

#[inline(always)]
fn halves(address: NetAddr) -> [u64; 2] {
    // SAFETY: 16 bytes without padding.
    unsafe { transmute::<NetAddr, [u64; 2]>(address) }
}

#[inline(always)]
fn whole(halves: [u64; 2]) -> NetAddr {
    // SAFETY: 16 bytes without padding.
    unsafe { transmute::<[u64; 2], NetAddr>(halves) }
}
