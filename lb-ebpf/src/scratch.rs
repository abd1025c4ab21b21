//! Data that is too large for the stack or passes from one stage to the next: a record of each CPU for the present packet.

use core::{
    ops::{Deref, DerefMut},
    ptr,
};

use aya_ebpf::{bindings::bpf_fib_lookup, btf_maps::PerCpuArray, macros::btf_map};
use lb_common::{
    addr::{NetV4, NetV6},
    backend::BackendId,
    flow::{NatFlow, Tuple},
    fragment::{Datagram, Went},
    reason::Reason,
    service::{Service, ServiceId},
    vlan::{Tags, Vlans},
};

use crate::{
    header::Ip,
    next_stage::NextStage,
    packet::{Macs, Packet},
};

#[btf_map]
static SCRATCH_V4: PerCpuArray<Scratch<NetV4>, 1> = PerCpuArray::new();
#[btf_map]
static SCRATCH_V6: PerCpuArray<Scratch<NetV6>, 1> = PerCpuArray::new();

/// The scratch of one CPU and family. Its fields hold what this packet's stages have put there, else what a packet before has
/// left, or zeroes: all of that is valid for their types.
#[repr(C)]
pub(crate) struct Scratch<A> {
    /// The packet's tuple. This and what follows up to the tags is all that the fast path touches.
    pub(crate) tuple: PacketTuple<A>,
    /// Its service, or none.
    pub(crate) service: Service,
    /// The flow's hash, for the outer headers of tunnels.
    pub(crate) hash: u32,
    /// Where packets of the interface are counted.
    pub(crate) interface_slot: u32,
    /// Bytes of the frame without tags, as it came.
    pub(crate) frame_len: u32,
    /// Tags that were taken off the frame.
    pub(crate) tags: Tags,
    /// The next stage, see [`Scratch::forget`].
    next: NextStage,
    /// The service that a drop counts for, too, if any.
    pub(crate) drop_counts_for: ServiceId,
    /// Whether a flow stands under the tuple whose place the new one takes.
    pub(crate) replaces: u32,
    /// The packet's header.
    pub(crate) ip: Ip,
    /// The backend that was selected, if any.
    pub(crate) selected: Selected,
    /// The way out.
    pub(crate) exit: Exit,
    /// The backend that a QUIC connection id names; [`BackendId::NONE`] where none is named.
    pub(crate) cid_backend: BackendId,
    /// The flow table's entry under it.
    pub(crate) flow: NatFlow<A>,
    /// A flow that begins.
    pub(crate) new_flow: NewFlow<A>,
    /// The tuple of the flow's other direction, or the addresses of a packet that quotes the one under `tuple`.
    pub(crate) peer_key: Tuple<A>,
    /// The flow table's entry under that.
    pub(crate) peer: NatFlow<A>,
    /// A fragment.
    pub(crate) fragments: FragmentScratch<A>,
}

/// A fragment and what is known about it.
#[repr(C)]
pub(crate) struct FragmentScratch<A> {
    /// The fragment.
    pub(crate) fragment: Fragment,
    /// Its datagram.
    pub(crate) datagram: Datagram<A>,
    /// Where its first one went.
    pub(crate) went: Went<A>,
    /// Keeps others from making one: see [`Part`].
    _own: (),
}

/// The tuple of the present packet. A type of its own, which only this module can make: see [`Part`].
#[repr(transparent)]
pub(crate) struct PacketTuple<A>(Tuple<A>);

impl<A> Deref for PacketTuple<A> {
    type Target = Tuple<A>;

    #[inline(always)]
    fn deref(&self) -> &Tuple<A> {
        &self.0
    }
}

impl<A> DerefMut for PacketTuple<A> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Tuple<A> {
        &mut self.0
    }
}

impl<A> Scratch<A> {
    /// Keeps what stages need to take the packet up again.
    #[inline(always)]
    pub(crate) fn keep(&mut self, packet: &Packet, interface_slot: u32) {
        (self.tags, self.frame_len, self.interface_slot) = (packet.tags, packet.frame_len, interface_slot);
    }

    /// Leaves the selection of the backend to the stages that follow.
    #[inline(always)]
    pub(crate) fn select_none(&mut self) {
        (self.cid_backend, self.selected.backend) = (BackendId::NONE, BackendId::NONE);
    }

    /// Returns `next` as the verifier knows nothing about it: it would walk the end of the program once for each of all values,
    /// and for each way to get to it.
    #[inline(always)]
    pub(crate) fn forget(&mut self, next: NextStage) -> NextStage {
        // SAFETY: a field, which holds what is written here.
        unsafe {
            ptr::write_volatile(&raw mut self.next, next);
            ptr::read_volatile(&raw const self.next)
        }
    }

    /// Keeps the packet's header, and returns it as the verifier knows nothing about it, as in [`Self::forget`].
    #[inline(always)]
    pub(crate) fn forget_header(&mut self, ip: Ip) -> Ip {
        // SAFETY: a field, which holds what is written here.
        unsafe {
            ptr::write_volatile(&raw mut self.ip, ip);
            ptr::read_volatile(&raw const self.ip)
        }
    }
}

/// The entries of a flow that begins.
#[repr(C)]
pub(crate) struct NewFlow<A> {
    /// The client's entry.
    pub(crate) forward: NatFlow<A>,
    /// The backend's entry.
    pub(crate) reply: NatFlow<A>,
    /// The backend's tuple.
    pub(crate) reply_key: Tuple<A>,
}

/// A backend that was selected for a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Selected {
    /// Its number.
    pub(crate) backend: BackendId,
    /// Whether the packet is a TCP SYN without ACK.
    pub(crate) is_syn: u16,
}

/// What is asked about a packet's way out.
#[repr(C)]
pub(crate) struct Exit {
    /// The largest packet that would have fit, where one was refused as too big.
    pub(crate) limit: u32,
    /// Bytes that are put before the packet, see [`Self::forget_overhead`].
    overhead: u32,
    /// Where the frame goes.
    pub(crate) hop: NextHop,
    /// A look-up in the kernel's routes and neighbours.
    pub(crate) route: bpf_fib_lookup,
}

impl Exit {
    /// Returns `overhead` as the verifier knows nothing about it: it would walk the rest once for each mode.
    #[inline(always)]
    pub(crate) fn forget_overhead(&mut self, overhead: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the bytes of headers")]
        let overhead = overhead as u32;
        // SAFETY: a field, which holds what is written here.
        unsafe {
            ptr::write_volatile(&raw mut self.overhead, overhead);
            ptr::read_volatile(&raw const self.overhead) as usize
        }
    }
}

/// Where a frame goes on layer 2.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NextHop {
    /// Index of the interface.
    pub(crate) ifindex: u32,
    /// VLANs of the frame.
    pub(crate) vlans: Vlans,
    /// Addresses of the frame.
    pub(crate) macs: Macs,
}

/// A fragment, as far as its way depends on it.
#[repr(C)]
pub(crate) struct Fragment {
    /// Its header. What it carries is known of the first one only.
    pub(crate) ip: Ip,
    /// Whether it is the first.
    pub(crate) first: bool,
    /// Where the identification stands: 16 bits in IPv4, 32 in IPv6.
    pub(crate) id_at: usize,
    /// As in [`Datagram`].
    pub(crate) id: u32,
    /// As in [`Datagram`].
    pub(crate) protocol: u32,
    /// What it carries, by the number in this fragment's header: in IPv6 perhaps an extension header.
    pub(crate) carries: u8,
}

/// The scratch of a family. Implemented by the family's address.
pub(crate) trait ScratchSpace: Sized + 'static {
    /// Where this CPU's scratch stands.
    fn place() -> Result<*mut Scratch<Self>, Reason>;

    /// This CPU's scratch.
    ///
    /// # Safety
    ///
    /// A program takes it once for each packet, and hands it down by reference: nothing else may refer to it.
    #[inline(always)]
    unsafe fn scratch() -> Result<&'static mut Scratch<Self>, Reason> {
        let scratch = Self::place()?;
        // SAFETY: from the map's look-up; a CPU runs one XDP program at a time, and by the contract no other reference lives.
        Ok(unsafe { &mut *scratch })
    }
}

macro_rules! scratch_space {
    ($address:ty, $map:ident) => {
        impl ScratchSpace for $address {
            #[inline(always)]
            fn place() -> Result<*mut Scratch<Self>, Reason> {
                $map.get_ptr_mut(0).ok_or(Reason::Internal)
            }
        }
    };
}

scratch_space!(NetV4, SCRATCH_V4);
scratch_space!(NetV6, SCRATCH_V6);

/// A part of the scratch that a global function works on, or all of it. Values of these types stand nowhere else, since they have
/// a private field: a reference to one is a reference to that of this CPU.
pub(crate) trait Part<A> {
    /// Where the part stands.
    ///
    /// # Safety
    ///
    /// There is a scratch.
    unsafe fn within(scratch: *mut Scratch<A>) -> *mut Self;
}

impl<A> Part<A> for Scratch<A> {
    #[inline(always)]
    unsafe fn within(scratch: *mut Self) -> *mut Self {
        scratch
    }
}

impl<A> Part<A> for PacketTuple<A> {
    #[inline(always)]
    unsafe fn within(scratch: *mut Scratch<A>) -> *mut Self {
        // SAFETY: by the contract.
        unsafe { &raw mut (*scratch).tuple }
    }
}

impl<A> Part<A> for FragmentScratch<A> {
    #[inline(always)]
    unsafe fn within(scratch: *mut Scratch<A>) -> *mut Self {
        // SAFETY: by the contract.
        unsafe { &raw mut (*scratch).fragments }
    }
}
