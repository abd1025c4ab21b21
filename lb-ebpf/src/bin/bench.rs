//! What `cargo xtask bench dataplane` runs beside the program under test: a wrapper that writes a fresh packet of
//! another flow and calls it, and the programs to compare it with.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The daemon's build of the workspace sees an empty program.

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{
        Global,
        bindings::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC, xdp_action},
        btf_maps::{Array, HashMap, PerCpuArray, ProgramArray},
        macros::{btf_map, xdp},
        programs::XdpContext,
    };
    use lb_common::{
        flow::{NatFlowV4, NatFlowV6, TupleV4, TupleV6},
        ring_slot::RingSlot,
    };

    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
    /// Words of a packet.
    const WORDS: usize = 10;

    /// The packets, in the order in which they come; the loader sets the capacity.
    #[btf_map]
    static PACKETS: Array<[u64; WORDS], 1> = Array::new();
    /// Packets so far.
    #[btf_map]
    static NEXT: PerCpuArray<u32, 1> = PerCpuArray::new();
    /// The program under test.
    #[btf_map]
    static TARGET: ProgramArray<1> = ProgramArray::new();
    /// Tables to look a packet's flow up in and do nothing else; capacities as above.
    #[btf_map]
    static LOOKUP_V4: HashMap<TupleV4, NatFlowV4, 1, NO_PREALLOC> = HashMap::new();
    #[btf_map]
    static LOOKUP_V6: HashMap<TupleV6, NatFlowV6, 1, NO_PREALLOC> = HashMap::new();
    /// The ring of the service.
    #[btf_map]
    static RING: Array<RingSlot, 65_537, { BPF_F_INNER_MAP as usize }> = Array::new();
    /// Packets less one; their number is a power of two.
    #[unsafe(no_mangle)]
    static MASK: Global<u32> = Global::new(0);

    /// The frame, if it has room for a packet of the table.
    #[inline(always)]
    fn frame(ctx: &XdpContext) -> Option<*mut [u64; WORDS]> {
        let start = ctx.data();
        (start + size_of::<[u64; WORDS]>() <= ctx.data_end()).then_some(start as *mut _)
    }

    /// Writes the next packet over the frame and calls the program under test.
    #[xdp(frags)]
    pub(crate) fn wrapper(ctx: XdpContext) -> u32 {
        let Some(next) = NEXT.get_ptr_mut(0) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: from the map's look-up; a CPU runs one program at a time.
        let index = unsafe { *next };
        // SAFETY: as above.
        unsafe { *next = index.wrapping_add(1) };
        let Some(packet) = PACKETS.get(index & MASK.load()) else {
            return xdp_action::XDP_ABORTED;
        };
        let Some(frame) = frame(&ctx) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: within the frame, whose alignment is not assumed.
        unsafe { frame.write_unaligned(*packet) };
        // SAFETY: nothing here is used after the call, unless it fails.
        unsafe { TARGET.tail_call(&ctx, 0) };
        xdp_action::XDP_ABORTED
    }

    /// Does nothing.
    #[xdp(frags)]
    pub(crate) fn pass(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// Sends the frame back.
    #[xdp(frags)]
    pub(crate) fn swap(ctx: XdpContext) -> u32 {
        let Some(frame) = frame(&ctx) else {
            return xdp_action::XDP_ABORTED;
        };
        let macs = frame.cast::<[[u8; 6]; 2]>();
        // SAFETY: within the frame; bytes need no alignment.
        unsafe { *macs = [(*macs)[1], (*macs)[0]] };
        xdp_action::XDP_TX
    }

    /// Looks the flow of an IPv4 packet up.
    #[xdp(frags)]
    pub(crate) fn lookup_v4(ctx: XdpContext) -> u32 {
        let Some(frame) = frame(&ctx) else {
            return xdp_action::XDP_ABORTED;
        };
        // Addresses and ports follow each other in the packet as they do in the tuple.
        let mut tuple = TupleV4 {
            protocol: 6,
            ..TupleV4::default()
        };
        // SAFETY: within the frame, whose alignment is not assumed.
        unsafe {
            (&raw mut tuple)
                .cast::<[u8; 12]>()
                .write(*frame.cast::<u8>().add(26).cast())
        };
        // SAFETY: nothing writes the table while it is read.
        verdict(unsafe { LOOKUP_V4.get(tuple) }.is_some())
    }

    /// Looks the flow of an IPv6 packet up.
    #[xdp(frags)]
    pub(crate) fn lookup_v6(ctx: XdpContext) -> u32 {
        let Some(frame) = frame(&ctx) else {
            return xdp_action::XDP_ABORTED;
        };
        let mut tuple = TupleV6 {
            protocol: 6,
            ..TupleV6::default()
        };
        // SAFETY: within the frame, whose alignment is not assumed.
        unsafe {
            (&raw mut tuple)
                .cast::<[u8; 36]>()
                .write(*frame.cast::<u8>().add(22).cast())
        };
        // SAFETY: nothing writes the table while it is read.
        verdict(unsafe { LOOKUP_V6.get(tuple) }.is_some())
    }

    #[inline(always)]
    fn verdict(found: bool) -> u32 {
        if found {
            xdp_action::XDP_TX
        } else {
            xdp_action::XDP_DROP
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
