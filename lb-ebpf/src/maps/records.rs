//! The tables of flows that are recorded without translation, as [`lb_common::track`] wants them.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{HashMap, LruHashMap},
    macros::btf_map,
};
use lb_common::{
    addr::{NetV4, NetV6},
    backend::{ALIVE, BackendId, Generation, IN_USE},
    flow::{Tuple, TupleV4, TupleV6},
    limits::{MAX_OPENING, MAX_SEEN, MAX_TRACKED},
    track::{FlowRecord, FlowTables, Table, Tick, fold},
};

use super::{atomic::NO_PREALLOC, tables};

#[btf_map]
static TRACKED_V4: HashMap<TupleV4, FlowRecord, { MAX_TRACKED as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static TRACKED_V6: HashMap<TupleV6, FlowRecord, { MAX_TRACKED as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static OPENING_V4: LruHashMap<TupleV4, FlowRecord, { MAX_OPENING as usize }> = LruHashMap::new();
#[btf_map]
static OPENING_V6: LruHashMap<TupleV6, FlowRecord, { MAX_OPENING as usize }> = LruHashMap::new();
#[btf_map]
static SEEN_V4: LruHashMap<TupleV4, FlowRecord, { MAX_SEEN as usize }> = LruHashMap::new();
#[btf_map]
static SEEN_V6: LruHashMap<TupleV6, FlowRecord, { MAX_SEEN as usize }> = LruHashMap::new();

/// The record tables of a family: written by this program, swept by the daemon. Implemented by the family's address.
pub(crate) trait RecordTables: Sized {
    /// [`TupleV4::check`].
    fn tuple_check(tuple: &Tuple<Self>) -> u32;
    /// The record of a tuple. Its memory may pass to another tuple once it is removed.
    fn record(table: Table, tuple: &Tuple<Self>) -> Option<*mut FlowRecord>;
    /// Writes a record, whether one stands there or not; whether there was room.
    fn write_record(table: Table, tuple: &Tuple<Self>, record: &FlowRecord) -> bool;
    /// Removes a record, if it stands there.
    fn remove_record(table: Table, tuple: &Tuple<Self>);
}

macro_rules! record_tables {
    ($address:ty, $tracked:ident, $opening:ident, $seen:ident) => {
        impl RecordTables for $address {
            #[inline(always)]
            fn tuple_check(tuple: &Tuple<Self>) -> u32 {
                tuple.check()
            }

            #[inline(always)]
            fn record(table: Table, tuple: &Tuple<Self>) -> Option<*mut FlowRecord> {
                match table {
                    Table::Tracked => $tracked.get_ptr_mut(tuple),
                    Table::Opening => $opening.get_ptr_mut(tuple),
                    Table::Seen => $seen.get_ptr_mut(tuple),
                }
            }

            #[inline(always)]
            fn write_record(table: Table, tuple: &Tuple<Self>, record: &FlowRecord) -> bool {
                let any = u64::from(BPF_ANY);
                match table {
                    Table::Tracked => $tracked.insert(tuple, record, any),
                    Table::Opening => $opening.insert(tuple, record, any),
                    Table::Seen => $seen.insert(tuple, record, any),
                }
                .is_ok()
            }

            #[inline(always)]
            fn remove_record(table: Table, tuple: &Tuple<Self>) {
                // The only failure is that it is not there any more.
                let _ = match table {
                    Table::Tracked => $tracked.remove(tuple),
                    Table::Opening => $opening.remove(tuple),
                    Table::Seen => $seen.remove(tuple),
                };
            }
        }
    };
}

record_tables!(NetV4, TRACKED_V4, OPENING_V4, SEEN_V4);
record_tables!(NetV6, TRACKED_V6, OPENING_V6, SEEN_V6);

/// The generation of a backend, or [`DEAD`].
// Not inlined: it is asked in many places, none of which is on the way of most packets.
#[inline(never)]
fn generation(backend: BackendId) -> u32 {
    match tables::backend(backend) {
        Ok(backend) if backend.has(IN_USE | ALIVE) => u32::from(backend.generation.0),
        _ => DEAD,
    }
}

/// No generation.
const DEAD: u32 = u32::MAX;

/// The record tables as a packet with this tuple sees them.
pub(crate) struct Records<'a, A>(pub(crate) &'a Tuple<A>);

impl<A: RecordTables> Records<'_, A> {
    #[inline(always)]
    fn check(&self) -> u16 {
        fold(A::tuple_check(self.0))
    }
}

impl<A: RecordTables> FlowTables for Records<'_, A> {
    #[inline(always)]
    fn living(&self, backend: BackendId) -> Option<Generation> {
        match generation(backend) {
            DEAD => None,
            #[expect(clippy::cast_possible_truncation, reason = "made of a generation")]
            number => Some(Generation(number as u16)),
        }
    }

    #[inline(always)]
    fn find(&mut self, table: Table) -> Option<FlowRecord> {
        let record = A::record(table, self.0)?;
        // SAFETY: from the map's look-up. One load, so that no half of it is another's.
        let record = FlowRecord::from_word(unsafe { ptr::read_volatile(record.cast::<u64>()) });
        (record.check == self.check()).then_some(record)
    }

    #[inline(always)]
    fn insert(&mut self, table: Table, mut record: FlowRecord) -> bool {
        record.check = self.check();
        A::write_record(table, self.0, &record)
    }

    #[inline(always)]
    fn refresh(&mut self, table: Table, now: Tick) {
        // Once in a tick and flow, so looking it up again costs nothing that counts.
        if let Some(record) = A::record(table, self.0) {
            // SAFETY: from the map's look-up. Should its memory be another flow's by now, that one lives a little longer.
            unsafe { (*record).last_seen = now };
        }
    }

    #[inline(always)]
    fn remove(&mut self, table: Table) {
        A::remove_record(table, self.0);
    }
}
