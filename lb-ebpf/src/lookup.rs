//! The service that a packet is addressed to.

use core::{
    hint::cold_path,
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

use lb_common::{
    addr::NetPort,
    flow::Tuple,
    reason::Reason,
    service::Service,
    settings::{HAS_WILDCARD, Settings},
};

use lb_wire::load::{load64, store64};

use crate::{
    family::Family,
    global::global,
    maps::{
        services::{self, Found},
        tables,
    },
    scratch::Scratch,
};

/// Copies the service that the tuple is addressed to into the scratch: by its port, else the wildcard, else none.
#[inline(always)]
pub(crate) fn find<A: Family>(scratch: &mut Scratch<A>) {
    _ = find_or_settings(scratch);
    // Or the compiler makes a program of its own of each way to get here, and the verifier walks them all.
    compiler_fence(Ordering::SeqCst);
}

/// As [`find`]. The settings if there is no service: what follows needs them, and each look-up of them costs foreign packets time.
#[inline(always)]
pub(crate) fn find_or_settings<A: Family>(
    scratch: &mut Scratch<A>,
) -> Result<Option<&'static Settings>, Reason> {
    find_on(scratch, scratch.tuple.dst_port);
    if scratch.service.is_some() {
        return Ok(None);
    }
    let settings = tables::settings()?;
    if settings.flags & HAS_WILDCARD != 0 {
        cold_path();
        find_on(scratch, NetPort(0));
        // As above.
        compiler_fence(Ordering::SeqCst);
        if scratch.service.is_some() {
            return Ok(None);
        }
    }
    Ok(Some(settings))
}

#[inline(always)]
fn find_on<A: Family>(scratch: &mut Scratch<A>, port: NetPort) {
    match A::find_service(&scratch.tuple, port) {
        Found::None => set(&mut scratch.service, [0; 2]),
        Found::Record(record) => {
            let from = (&raw const record.service).cast();
            // SAFETY: 16 bytes.
            set(&mut scratch.service, unsafe {
                [load64::<0>(from), load64::<8>(from)]
            });
        }
        Found::Table => {
            cold_path();
            _ = find_by_key(scratch, port.0);
        }
    }
}

/// Writes a record in words: as a whole, it is copied by a call of memmove, byte by byte.
#[inline(always)]
fn set(service: &mut Service, [first, second]: [u64; 2]) {
    const { assert!(size_of::<Service>() == 16) };
    let to = ptr::from_mut(service).cast();
    // SAFETY: 16 bytes.
    unsafe {
        store64::<0>(to, first);
        store64::<8>(to, second);
    }
}

global! {
    /// [`find_on`] the table by key.
    fn find_by_key(&mut Scratch, port: u16) -> u32 = shared_v4, shared_v6: by_key
}

#[inline(always)]
fn by_key<A: Family>(scratch: &mut Scratch<A>, port: u16) -> u32 {
    scratch.service = A::service(&scratch.tuple, NetPort(port));
    0
}

/// Copies the service whose prefix the tuple's destination lies in into the scratch, or none.
#[inline(always)]
pub(crate) fn find_by_prefix<A: Family>(scratch: &mut Scratch<A>) {
    _ = find_longest(scratch);
}

global! {
    /// [`find_by_prefix`].
    fn find_longest(&mut Scratch) -> u32 = longest_v4, longest_v6: by_prefix
}

#[inline(always)]
fn by_prefix<A: Family>(scratch: &mut Scratch<A>) -> u32 {
    let Scratch { tuple, service, .. } = scratch;
    *service = services::of_prefix(tuple.dst.to_record(), tuple.dst_port, tuple.protocol)
        .copied()
        .unwrap_or_default();
    0
}

/// As [`find`], of any tuple, by the tables by key: for what is rare.
#[inline(always)]
pub(crate) fn in_table<A: Family>(tuple: &Tuple<A>) -> Service {
    let exact = A::service(tuple, tuple.dst_port);
    if exact.is_some() || !tables::has_wildcard() {
        return exact;
    }
    A::service(tuple, NetPort(0))
}
