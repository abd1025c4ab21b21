//! The maps, reached only through these functions: each says who writes the map, and what becomes of misses and full maps.

pub(crate) mod checks;
mod fragments;
pub(crate) mod guards;
mod own_macs;
pub(crate) mod quic;
mod records;
mod replies;
mod services;
pub(crate) mod shares;

use core::{
    cell::Cell,
    ops::{Deref, DerefMut},
    ptr,
};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_EXIST, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    helpers::generated::{bpf_get_prandom_u32, bpf_get_smp_processor_id},
    macros::btf_map,
};
use lb_common::{
    addr::{NetAddr, NetV4, NetV6},
    backend::{Backend, BackendId},
    counters::{PacketCount, ReasonCounts, Signals, Traffic, VERDICT_SLOTS, backend_slot, verdict_slot},
    flow::{NatFlow, NatFlowV4, NatFlowV6, Tuple, TupleV4, TupleV6},
    fragment::{Datagram, Went},
    limits::{MAX_BACKENDS, MAX_FLOWS, MAX_SERVICES, MAX_SNAT_ADDRESSES},
    reason::{REASON_SLOTS, Reason},
    ring_page::{self, RING_ENTRIES, RingPage},
    ring_slot::RingSlot,
    service::{AddressServices, RingId, Service, ServiceId},
    settings::Settings,
};

pub(crate) use self::{
    checks::path_check,
    fragments::FragmentTable,
    own_macs::{is_own_mac, own_mac},
    records::{RecordTables, Records},
    replies::ReplyTable,
    services::{Found, ServiceTable},
};
use crate::{forward::dnat::Chosen, fragment::Part, next_hop::Route, parse::Ip, track::now_secs};

/// Flow tables allocate an entry when a flow begins: a million idle entries of two families would cost 300 MB.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static ADDRESSES: HashMap<NetAddr, AddressServices, { MAX_SERVICES as usize }> = HashMap::new();
#[btf_map]
static RINGS: ArrayOfMaps<Array<RingPage, 1>, { RING_ENTRIES as usize }> = ArrayOfMaps::new();
#[btf_map]
static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
static SNAT_ADDRESSES: Array<NetAddr, { 2 * MAX_SNAT_ADDRESSES as usize }> = Array::new();
#[btf_map]
static FLOWS_V4: HashMap<TupleV4, NatFlowV4, { MAX_FLOWS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static FLOWS_V6: HashMap<TupleV6, NatFlowV6, { MAX_FLOWS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static VERDICTS: PerCpuArray<PacketCount, { VERDICT_SLOTS as usize }> = PerCpuArray::new();
#[btf_map]
static SERVICE_TRAFFIC: PerCpuArray<Traffic, { MAX_SERVICES as usize }> = PerCpuArray::new();
#[btf_map]
static BACKEND_TRAFFIC: Array<Traffic, { MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
static BACKEND_SIGNALS: Array<Signals, { MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
static SERVICE_DROPS: PerCpuArray<ReasonCounts, { MAX_SERVICES as usize }> = PerCpuArray::new();

#[btf_map]
static SCRATCH_V4: PerCpuArray<Scratch<NetV4>, 1> = PerCpuArray::new();
#[btf_map]
static SCRATCH_V6: PerCpuArray<Scratch<NetV6>, 1> = PerCpuArray::new();

/// Where the search for a source port towards a backend goes on. Not pinned: where it begins does not matter.
#[btf_map]
static SCRATCH_PORT_CURSORS: Array<u64, { MAX_BACKENDS as usize }> = Array::new();

/// Who last repeated a SYN to a backend that had not answered: a hash of the address, and the time in seconds. Not pinned:
/// it matters for seconds.
#[btf_map]
static SCRATCH_REPEATERS: Array<u64, { MAX_BACKENDS as usize }> = Array::new();

/// Whose turn it is among the slots of a service. Not pinned: where it begins does not matter.
#[btf_map]
static SCRATCH_TURNS: Array<u64, { MAX_SERVICES as usize }> = Array::new();

/// Room for what is too large for the stack. Private to one run of the program: it holds nothing from one packet to
/// the next.
#[repr(C)]
pub(crate) struct Scratch<A> {
    /// The packet's header, and its service: for those that get it as it is.
    pub(crate) ip: Ip,
    /// See above.
    pub(crate) service: Service,
    /// What became of its slot, where the backend's mode is `dnat`.
    pub(crate) chosen: Chosen,
    /// The largest packet that would have fit, where one was refused as too big. Set through shared references.
    pub(crate) limit: Cell<u32>,
    /// The flow's hash, for the outer headers of tunnels. As above.
    pub(crate) hash: Cell<u32>,
    /// A way that the kernel was asked for.
    pub(crate) route: Route,
    /// The backend that a packet to a service names itself; see [`crate::quic`].
    pub(crate) named: BackendId,
    /// The packet's tuple.
    pub(crate) tuple: Tuple<A>,
    /// What the flow table holds under it, if anything.
    pub(crate) known: NatFlow<A>,
    /// A flow that is being opened.
    pub(crate) opening: Opening<A>,
    /// Another tuple, or the addresses of a packet that quotes the one under `tuple`.
    pub(crate) spare_key: Tuple<A>,
    /// What the flow table holds under that.
    pub(crate) spare: NatFlow<A>,
    /// A fragment.
    pub(crate) part: Part,
    /// Its datagram.
    pub(crate) datagram: Datagram<A>,
    /// Where its first one went.
    pub(crate) went: Went<A>,
}

/// This CPU's [`Scratch`]. References to it end before a function is called that looks it up for itself.
#[derive(Clone, Copy)]
pub(crate) struct Room<A: 'static>(*mut Scratch<A>);

impl<A: 'static> Deref for Room<A> {
    type Target = Scratch<A>;

    #[inline(always)]
    fn deref(&self) -> &Scratch<A> {
        // SAFETY: from the map's look-up; a CPU runs one XDP program at a time, and no other reference lives.
        unsafe { &*self.0 }
    }
}

impl<A: 'static> DerefMut for Room<A> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Scratch<A> {
        // SAFETY: as above.
        unsafe { &mut *self.0 }
    }
}

/// The entries of a flow that is being opened.
#[repr(C)]
pub(crate) struct Opening<A> {
    /// The client's entry.
    pub(crate) forward: NatFlow<A>,
    /// The backend's entry.
    pub(crate) reply: NatFlow<A>,
    /// The backend's tuple.
    pub(crate) reply_key: Tuple<A>,
}

/// What the daemon has set. An array of one: only a broken kernel misses it.
#[inline(always)]
pub(crate) fn settings() -> Result<&'static Settings, Reason> {
    SETTINGS.get(0).ok_or(Reason::Internal)
}

/// The services on this address, if there are any. Written by the daemon, before the first of them.
#[inline(always)]
pub(crate) fn services_on(address: &NetAddr) -> Option<AddressServices> {
    // SAFETY: copied out at once; the daemon replaces values as a whole.
    unsafe { ADDRESSES.get(address) }.copied()
}

/// A slot of a ring. Written by the daemon, which puts a ring there before the service that names it. All pages are alike,
/// so that the kernel puts both look-ups in line.
#[inline(always)]
pub(crate) fn ring_slot(ring: RingId, index: u32) -> Result<RingSlot, Reason> {
    RINGS
        .get_value(ring_page::entry(ring, index), &0)
        .map(|page| page.slot(index))
        .ok_or(Reason::RingMissing)
}

/// A backend's record, in use or not. Written by the daemon; every id has a place.
#[inline(always)]
pub(crate) fn backend(id: BackendId) -> Result<&'static Backend, Reason> {
    BACKENDS.get(u32::from(id.0)).ok_or(Reason::Internal)
}

/// A source NAT address given for all backends. Written by the daemon; places beyond the counts in the settings hold
/// nothing of meaning.
#[inline(always)]
pub(crate) fn snat_address(slot: u32) -> Result<NetAddr, Reason> {
    SNAT_ADDRESSES.get(slot).copied().ok_or(Reason::NoSnatAddress)
}

/// The next turn of the search for a source port towards a backend. Turns follow each other, so that a port that was
/// just freed comes again after all others: the backend may still hold its last connection in TIME_WAIT. CPUs never
/// get the same turn.
#[inline(always)]
pub(crate) fn port_turn(backend: BackendId) -> Result<u64, Reason> {
    let cursor = SCRATCH_PORT_CURSORS
        .get_ptr_mut(u32::from(backend.0))
        .ok_or(Reason::Internal)?;
    // SAFETY: from the map's look-up.
    let turn = unsafe { fetch_add(cursor, 1) };
    if turn != 0 {
        return Ok(turn);
    }
    // The first: not where an earlier program began. One turn is taken already.
    // SAFETY: takes no arguments.
    let start = u64::from(unsafe { bpf_get_prandom_u32() });
    // SAFETY: as above.
    Ok(unsafe { fetch_add(cursor, start) } + start - 1)
}

/// Remembers that a client of a backend repeats its SYN. Returns whether another one did within the last `secs` seconds.
#[inline(always)]
pub(crate) fn follows_another(backend: BackendId, client: u32, secs: u32) -> bool {
    let Some(last) = SCRATCH_REPEATERS.get_ptr_mut(u32::from(backend.0)) else {
        return false;
    };
    let now = now_secs();
    // SAFETY: from the map's look-up. What CPUs overwrite of each other counts for nothing.
    let before = unsafe { ptr::read_volatile(last) };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(last, u64::from(now) << 32 | u64::from(client)) };
    #[expect(clippy::cast_possible_truncation, reason = "the half that it is")]
    let (at, who) = ((before >> 32) as u32, before as u32);
    who != client && now.wrapping_sub(at) < secs
}

/// The next turn of a service's new flows. CPUs never get the same one.
#[inline(always)]
pub(crate) fn service_turn(service: ServiceId) -> Result<u64, Reason> {
    let turns = SCRATCH_TURNS
        .get_ptr_mut(u32::from(service.0))
        .ok_or(Reason::Internal)?;
    // SAFETY: from the map's look-up.
    Ok(unsafe { fetch_add(turns, 1) })
}

/// Writes `new` where `old` stands; whether it stood there. As [`fetch_add`].
///
/// # Safety
///
/// `value` may be read and written, by atomic access only.
#[inline(always)]
pub(crate) unsafe fn compare_exchange(value: *mut u64, old: u64, new: u64) -> bool {
    let mut seen = old;
    // SAFETY: by the contract.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({value} + 0, r0, {new})",
            value = in(reg) value,
            new = in(reg) new,
            inout("r0") seen,
            options(nostack)
        );
    }
    seen == old
}

/// Adds to a value that other CPUs change too, and returns what it was before. The library has no such operation for
/// this target; the instruction is there since Linux 5.12.
///
/// # Safety
///
/// `value` may be read and written, by atomic access only.
#[inline(always)]
unsafe fn fetch_add(value: *mut u64, mut addend: u64) -> u64 {
    // SAFETY: by the contract.
    unsafe {
        core::arch::asm!(
            "{addend} = atomic_fetch_add((u64 *)({value} + 0), {addend})",
            value = in(reg) value,
            addend = inout(reg) addend,
            options(nostack)
        );
    }
    addend
}

/// Why an entry of a flow table was not written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// An entry stands there already.
    Exists,
    /// The table is at its capacity, or the kernel has no memory for another entry.
    Full,
    /// A failure that the kernel does not name for this operation.
    Unexpected,
}

impl Refused {
    #[inline(always)]
    const fn from_errno(errno: i32) -> Self {
        const E2BIG: i32 = -7;
        const ENOMEM: i32 = -12;
        const EEXIST: i32 = -17;
        match errno {
            EEXIST => Self::Exists,
            E2BIG | ENOMEM => Self::Full,
            _ => Self::Unexpected,
        }
    }
}

/// The flow table of a family: written by this program, swept by the daemon. Implemented by the family's address.
pub(crate) trait FlowTable: Sized {
    /// The entry of a tuple. It stays readable and writable to the end of this run, but its memory may pass to
    /// another tuple once it is removed.
    fn find(tuple: &Tuple<Self>) -> Option<*mut NatFlow<Self>>;

    /// Writes an entry where none stands.
    fn insert(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), Refused>;

    /// Replaces an entry that stands there, as a whole.
    fn replace(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), Refused>;

    /// Writes an entry as a whole, whether one stands there or not.
    fn write(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), Refused>;

    /// Removes an entry, if it stands there.
    fn remove(tuple: &Tuple<Self>);

    /// This CPU's room, with anything in it that this run has not put there.
    fn room() -> Result<Room<Self>, Reason>;
}

macro_rules! flow_table {
    ($map:ident, $scratch:ident, $address:ty) => {
        impl FlowTable for $address {
            #[inline(always)]
            fn find(tuple: &Tuple<Self>) -> Option<*mut NatFlow<Self>> {
                $map.get_ptr_mut(tuple)
            }

            #[inline(always)]
            fn insert(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), Refused> {
                $map.insert(tuple, flow, u64::from(BPF_NOEXIST))
                    .map_err(Refused::from_errno)
            }

            #[inline(always)]
            fn replace(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), Refused> {
                $map.insert(tuple, flow, u64::from(BPF_EXIST))
                    .map_err(Refused::from_errno)
            }

            #[inline(always)]
            fn write(tuple: &Tuple<Self>, flow: &NatFlow<Self>) -> Result<(), Refused> {
                $map.insert(tuple, flow, u64::from(BPF_ANY))
                    .map_err(Refused::from_errno)
            }

            #[inline(always)]
            fn remove(tuple: &Tuple<Self>) {
                // The only failure is that it is not there any more.
                let _ = $map.remove(tuple);
            }

            #[inline(always)]
            fn room() -> Result<Room<Self>, Reason> {
                $scratch.get_ptr_mut(0).map(Room).ok_or(Reason::Internal)
            }
        }
    };
}

flow_table!(FLOWS_V4, SCRATCH_V4, NetV4);
flow_table!(FLOWS_V6, SCRATCH_V6, NetV6);

/// Counts a packet of `bytes` for `reason` on the interface in `interface_slot`. A slot out of range counts nowhere;
/// the loader sets it within.
#[inline(always)]
pub(crate) fn count_verdict(interface_slot: u32, reason: Reason, bytes: u64) {
    if let Some(count) = VERDICTS.get_ptr_mut(verdict_slot(interface_slot, reason as u32)) {
        // SAFETY: from the map's look-up; a CPU runs one XDP program at a time.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += bytes;
        }
    }
}

/// Applies `count` to the traffic of a service and of a backend.
#[inline(always)]
fn count_traffic(service: ServiceId, backend: BackendId, count: impl Fn(&mut Traffic)) {
    if let Some(traffic) = SERVICE_TRAFFIC.get_ptr_mut(u32::from(service.0)) {
        // SAFETY: from the map's look-up; a CPU runs one XDP program at a time.
        count(unsafe { &mut *traffic });
    }
    // SAFETY: takes no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(traffic) = BACKEND_TRAFFIC.get_ptr_mut(backend_slot(cpu, u32::from(backend.0))) {
        // SAFETY: as above, and each CPU has a row of its own.
        count(unsafe { &mut *traffic });
    }
}

/// Counts a packet of `bytes` from a client to its backend, and the flow if it begins one.
#[inline(always)]
pub(crate) fn count_forward(service: ServiceId, backend: BackendId, bytes: u64, new_flow: bool) {
    count_traffic(service, backend, |traffic| {
        traffic.packets += 1;
        traffic.bytes += bytes;
        traffic.new_flows += u64::from(new_flow);
    });
}

/// Counts a packet of `bytes` from a backend to its client.
#[inline(always)]
pub(crate) fn count_reply(service: ServiceId, backend: BackendId, bytes: u64) {
    count_traffic(service, backend, |traffic| {
        traffic.reply_packets += 1;
        traffic.reply_bytes += bytes;
    });
}

/// Applies `count` to what flows tell about a backend.
#[inline(always)]
pub(crate) fn count_signal(backend: BackendId, count: impl Fn(&mut Signals)) {
    // SAFETY: takes no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(signals) = BACKEND_SIGNALS.get_ptr_mut(backend_slot(cpu, u32::from(backend.0))) {
        // SAFETY: as in `count_traffic`.
        count(unsafe { &mut *signals });
    }
}

/// Counts a packet of a service that is dropped, or that we answer ourselves.
#[inline(always)]
pub(crate) fn count_service_drop(service: ServiceId, reason: Reason) {
    if let Some(drops) = SERVICE_DROPS.get_ptr_mut(u32::from(service.0)) {
        // The compiler knows that reasons are below the array's length, and would leave out the bound that the
        // verifier asks for.
        let slot = core::hint::black_box(reason as u32) % REASON_SLOTS;
        // SAFETY: from the map's look-up; a CPU runs one XDP program at a time; the bound is just above.
        unsafe { *(*drops).0.as_mut_ptr().add(slot as usize) += 1 };
    }
}
