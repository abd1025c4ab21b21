//! Guards of services: whose packets are refused.
//!
//! What is at work is a global function for the verifier (see [`crate::open`]), one for both families, since it knows
//! addresses only as records have them. A service without a guard costs its packets one test of a flag.

use core::{hint::black_box, mem::transmute};

use lb_common::{
    addr::NetAddr,
    guard::{DENY, PrefixKey},
    reason::Reason,
    service::{GUARDS_CLIENTS, Service, ServiceId},
};

use crate::{family::Family, maps::guards};

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
