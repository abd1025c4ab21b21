//! Maps of the monitored program. The daemon makes them for each monitor, and reads the records.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    backend::BackendId,
    monitor::{Direction, Filter, Record, Recorded, Seen},
    service::ServiceId,
};

use super::atomic::fetch_add;

/// Bytes of the ring buffer: some 700 records wait for a daemon that is late.
const RECORDS_LEN: usize = 1 << 18;

#[btf_map]
static SCRATCH_FILTER: Array<Filter, 1> = Array::new();
#[btf_map]
static SCRATCH_SEEN: PerCpuArray<Seen, 1> = PerCpuArray::new();
#[btf_map]
static SCRATCH_COUNTED: Array<Recorded, 1> = Array::new();
#[btf_map]
static SCRATCH_RECORDS: RingBuf<(), { RECORDS_LEN }> = RingBuf::new();

/// The filter, which the daemon changes meanwhile: to be read word by word.
#[inline(always)]
pub(crate) fn filter() -> Option<*const Filter> {
    SCRATCH_FILTER.get_ptr(0)
}

/// The packet under work. A CPU runs one XDP program at a time, so nothing else refers to it.
#[inline(always)]
pub(crate) fn seen() -> Option<*mut Seen> {
    SCRATCH_SEEN.get_ptr_mut(0)
}

/// The counts, which other CPUs change meanwhile.
#[inline(always)]
pub(crate) fn recorded() -> Option<*mut Recorded> {
    SCRATCH_COUNTED.get_ptr_mut(0)
}

/// Adds one to a count of [`recorded`].
///
/// # Safety
///
/// It points into the map.
#[inline(always)]
pub(crate) unsafe fn count(count: *mut u64) {
    // SAFETY: by the contract.
    unsafe { fetch_add(count, 1) };
}

/// Writes a record. `false`: the ring buffer is full.
#[inline(always)]
pub(crate) fn write(record: &Record) -> bool {
    SCRATCH_RECORDS.output_untyped::<Record>(record, 0).is_ok()
}

/// Keeps what has become known of the packet.
#[inline(always)]
pub(crate) fn note(service: ServiceId, backend: BackendId, direction: Direction) {
    if let Some(seen) = seen() {
        // SAFETY: from the map's look-up.
        unsafe {
            (*seen).record.service = service;
            (*seen).record.backend = backend;
            (*seen).record.direction = direction as u16;
        }
    }
}
