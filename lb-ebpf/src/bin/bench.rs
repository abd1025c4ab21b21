//! What `cargo xtask bench dataplane` runs beside the program under test: a wrapper that writes a fresh packet of
//! another flow and calls it, and the programs to compare it with.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The daemon's build of the workspace sees an empty program.

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{
        Global,
        bindings::{BPF_F_NO_PREALLOC, xdp_action},
        btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, ProgramArray},
        helpers::{
            bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
            generated::{
                bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6,
                bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
            },
        },
        macros::{btf_map, xdp},
        programs::XdpContext,
    };
    use lb_common::{
        budget::Buckets,
        flow::{NatFlowV4, NatFlowV6, TupleV4, TupleV6},
        limits::MAX_SERVICES,
    };

    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
    /// Words of a packet.
    const WORDS: usize = 14;

    /// The packets, in the order in which they come; the loader sets the capacity.
    #[btf_map]
    static PACKETS: Array<[u64; WORDS], 1> = Array::new();
    /// Packets so far.
    #[btf_map]
    static NEXT: PerCpuArray<u32, 1> = PerCpuArray::new();
    /// The program under test.
    #[btf_map]
    static TARGET: ProgramArray<1> = ProgramArray::new();
    /// Tables only for look-ups of a packet's flow, with the same capacities.
    #[btf_map]
    static LOOKUP_V4: HashMap<TupleV4, NatFlowV4, 1, NO_PREALLOC> = HashMap::new();
    #[btf_map]
    static LOOKUP_V6: HashMap<TupleV6, NatFlowV6, 1, NO_PREALLOC> = HashMap::new();
    /// The devices that [`generate`] and [`forward`] send to.
    #[btf_map]
    static DEVICES: Array<u32, 2> = Array::new();
    /// Frames that have come to [`sink`].
    #[btf_map]
    static RECEIVED: PerCpuArray<u64, 1> = PerCpuArray::new();
    /// Bytes that an answer of the program has before the packet that it quotes.
    #[unsafe(no_mangle)]
    static QUOTED_AFTER: Global<u32> = Global::new(0);
    /// Bytes of such an answer's frame.
    #[unsafe(no_mangle)]
    static ANSWER: Global<u32> = Global::new(0);
    /// Packets less one; their number is a power of two.
    #[unsafe(no_mangle)]
    static MASK: Global<u32> = Global::new(0);

    /// The frame, if it has room for a packet of the table.
    #[inline(always)]
    fn frame(ctx: &XdpContext) -> Option<*mut [u64; WORDS]> {
        let start = ctx.data();
        (start + size_of::<[u64; WORDS]>() <= ctx.data_end()).then_some(start as *mut _)
    }

    /// The program's buckets, which [`wrapper_quoted`] fills.
    #[btf_map]
    static REFILLED: ArrayOfMaps<Array<Buckets, { MAX_SERVICES as usize }>, 1> = ArrayOfMaps::new();
    /// The service of these buckets.
    const SERVICE: u32 = 1;

    /// Bytes of the frame. To the compiler of any number: it would count with pointers in 32 bits, which the verifier
    /// refuses.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "frames are of some KiB")]
    fn length(ctx: &XdpContext) -> u32 {
        core::hint::black_box(ctx.data_end() - ctx.data()) as u32
    }

    /// Bytes of the frame that a run begins with; see [`wrapper_whole`].
    const FRAME: usize = 128;
    /// The same of [`wrapper_quoted`].
    #[unsafe(no_mangle)]
    static LONG_FRAME: Global<u32> = Global::new(0);

    /// Writes the next packet over the frame and calls the program under test.
    #[xdp(frags)]
    pub(crate) fn wrapper(ctx: XdpContext) -> u32 {
        run(&ctx)
    }

    /// As [`wrapper`], for programs that put headers before the frame: takes those of the run before away, since all
    /// runs share one frame.
    #[xdp(frags)]
    pub(crate) fn wrapper_whole(ctx: XdpContext) -> u32 {
        let longer = (ctx.data_end() - ctx.data()).saturating_sub(FRAME);
        #[expect(clippy::cast_possible_truncation, reason = "the headers of one tunnel")]
        let longer = longer as i32;
        // SAFETY: the context of this run.
        if longer != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, longer) } != 0 {
            return xdp_action::XDP_ABORTED;
        }
        run(&ctx)
    }

    /// As [`wrapper`], for programs that answer a packet, and perhaps quote it: takes away what the run before put before the
    /// frame, puts back what it cut off, and lets the program answer once more.
    #[xdp(frags)]
    pub(crate) fn wrapper_quoted(ctx: XdpContext) -> u32 {
        if let Some(buckets) = REFILLED.get_value_ptr_mut(0, &SERVICE) {
            // SAFETY: from the map's look-up; no other program writes there meanwhile.
            unsafe {
                (&raw mut (*buckets).messages).write_volatile(0);
                (&raw mut (*buckets).echoes).write_volatile(0);
            }
        }
        let whole = LONG_FRAME.load();
        if length(&ctx) != whole {
            // SAFETY: the context of this run.
            if unsafe { bpf_xdp_adjust_head(ctx.ctx, QUOTED_AFTER.load().cast_signed()) } != 0 {
                return xdp_action::XDP_ABORTED;
            }
            let longer = whole.wrapping_sub(length(&ctx)).cast_signed();
            // SAFETY: the context of this run.
            if unsafe { bpf_xdp_adjust_tail(ctx.ctx, longer) } != 0 {
                return xdp_action::XDP_ABORTED;
            }
        }
        run(&ctx)
    }

    /// Puts room for an outer IPv4 header before the frame and sends it back.
    #[xdp(frags)]
    pub(crate) fn push(ctx: XdpContext) -> u32 {
        const OUTER: i32 = 20;
        // SAFETY: the context of this run.
        if unsafe { bpf_xdp_adjust_head(ctx.ctx, -OUTER) } != 0 {
            return xdp_action::XDP_ABORTED;
        }
        let Some(frame) = frame(&ctx) else {
            return xdp_action::XDP_ABORTED;
        };
        for word in 0..5 {
            // SAFETY: within the frame, whose bytes need no alignment on the machines that this runs on.
            unsafe { frame.cast::<u64>().add(word).write_unaligned(word as u64) };
        }
        xdp_action::XDP_TX
    }

    /// Puts room for two headers before the frame, cuts it to an answer's length, swaps MAC addresses and sends it back.
    #[xdp(frags)]
    pub(crate) fn answer(ctx: XdpContext) -> u32 {
        // SAFETY: the context of this run.
        if unsafe { bpf_xdp_adjust_head(ctx.ctx, -QUOTED_AFTER.load().cast_signed()) } != 0 {
            return xdp_action::XDP_ABORTED;
        }
        let longer = ANSWER.load().wrapping_sub(length(&ctx)).cast_signed();
        // SAFETY: the context of this run.
        if unsafe { bpf_xdp_adjust_tail(ctx.ctx, longer) } != 0 {
            return xdp_action::XDP_ABORTED;
        }
        match swap_macs(&ctx) {
            Some(()) => xdp_action::XDP_TX,
            None => xdp_action::XDP_ABORTED,
        }
    }

    #[inline(always)]
    fn run(ctx: &XdpContext) -> u32 {
        if write_next(ctx).is_none() {
            return xdp_action::XDP_ABORTED;
        }
        // SAFETY: nothing here is used after the call, unless it fails.
        unsafe { TARGET.tail_call(ctx, 0) };
        xdp_action::XDP_ABORTED
    }

    /// Writes the next packet over the frame.
    #[inline(always)]
    fn write_next(ctx: &XdpContext) -> Option<()> {
        let next = NEXT.get_ptr_mut(0)?;
        // SAFETY: from the map's look-up; a CPU runs one program at a time.
        let index = unsafe { *next };
        // SAFETY: from the map's look-up; a CPU runs one program at a time.
        unsafe { *next = index.wrapping_add(1) };
        let packet = PACKETS.get(index & MASK.load())?;
        let frame = frame(ctx)?;
        for (word, value) in packet.iter().enumerate() {
            // SAFETY: within the frame, which a test run places at a multiple of 8. Volatile, so that each word is
            // written as one.
            unsafe { frame.cast::<u64>().add(word).write_volatile(*value) };
        }
        Some(())
    }

    /// Writes the next packet over the frame, which is a live one, and sends it to the first device.
    #[xdp(frags)]
    pub(crate) fn generate(ctx: XdpContext) -> u32 {
        if write_next(&ctx).is_none() {
            return xdp_action::XDP_ABORTED;
        }
        redirect(0)
    }

    /// Swaps MAC addresses and sends the frame to the second device.
    #[xdp(frags)]
    pub(crate) fn forward(ctx: XdpContext) -> u32 {
        match swap_macs(&ctx) {
            Some(()) => redirect(1),
            None => xdp_action::XDP_ABORTED,
        }
    }

    #[inline(always)]
    fn redirect(device: u32) -> u32 {
        let Some(ifindex) = DEVICES.get(device) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: takes numbers.
        let action = unsafe { bpf_redirect(*ifindex, 0) };
        u32::try_from(action).unwrap_or(xdp_action::XDP_ABORTED)
    }

    /// Counts the frame and drops it.
    #[xdp(frags)]
    pub(crate) fn sink(_ctx: XdpContext) -> u32 {
        let Some(received) = RECEIVED.get_ptr_mut(0) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: from the map's look-up; a CPU runs one program at a time.
        unsafe { *received += 1 };
        xdp_action::XDP_DROP
    }

    /// Does nothing.
    #[xdp(frags)]
    pub(crate) fn pass(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// Sends the frame back.
    #[xdp(frags)]
    pub(crate) fn swap(ctx: XdpContext) -> u32 {
        match swap_macs(&ctx) {
            Some(()) => xdp_action::XDP_TX,
            None => xdp_action::XDP_ABORTED,
        }
    }

    #[inline(always)]
    fn swap_macs(ctx: &XdpContext) -> Option<()> {
        let macs = frame(ctx)?.cast::<[[u8; 6]; 2]>();
        // SAFETY: within the frame; bytes need no alignment.
        unsafe { *macs = [(*macs)[1], (*macs)[0]] };
        Some(())
    }

    /// The protocol of the packets.
    const TCP: u64 = 6;

    /// A tuple in words.
    #[repr(C)]
    struct Words<const N: usize>([u64; N]);

    impl Words<2> {
        fn as_tuple(&self) -> &TupleV4 {
            const { assert!(size_of::<Self>() == size_of::<TupleV4>()) };
            // SAFETY: integers, of the same size and alignment.
            unsafe { &*core::ptr::from_ref(self).cast() }
        }
    }

    impl Words<5> {
        fn as_tuple(&self) -> &TupleV6 {
            const { assert!(size_of::<Self>() == size_of::<TupleV6>()) };
            // SAFETY: integers, of the same size and alignment.
            unsafe { &*core::ptr::from_ref(self).cast() }
        }
    }

    /// Looks the flow of an IPv4 packet up.
    #[xdp(frags)]
    pub(crate) fn lookup_v4(ctx: XdpContext) -> u32 {
        let Some(frame) = frame(&ctx) else {
            return xdp_action::XDP_ABORTED;
        };
        // Addresses and ports follow each other in the packet as they do in the tuple, from byte 26 on.
        // SAFETY: within the frame, which is aligned to words.
        let [three, four] = unsafe { [(*frame)[3], (*frame)[4]] };
        let [first, second] = [(three >> 16) | (four << 48), (four >> 16) & 0xffff_ffff];
        let tuple = Words([first, second | TCP << 32]);
        // SAFETY: nothing writes the table while it is read.
        verdict(unsafe { LOOKUP_V4.get(tuple.as_tuple()) }.is_some())
    }

    /// Looks the flow of an IPv6 packet up.
    #[xdp(frags)]
    pub(crate) fn lookup_v6(ctx: XdpContext) -> u32 {
        let Some(frame) = frame(&ctx) else {
            return xdp_action::XDP_ABORTED;
        };
        // As above, from byte 22 on.
        let mut tuple = Words([0; 5]);
        for (index, word) in tuple.0.iter_mut().enumerate() {
            // SAFETY: within the frame, which is aligned to words.
            *word = unsafe { ((*frame)[2 + index] >> 48) | ((*frame)[3 + index] << 16) };
        }
        tuple.0[4] = (tuple.0[4] & 0xffff_ffff) | TCP << 32;
        // SAFETY: nothing writes the table while it is read.
        verdict(unsafe { LOOKUP_V6.get(tuple.as_tuple()) }.is_some())
    }

    /// Bytes of an Ethernet, an IPv4 and an IPv6 header.
    const ETHERNET: usize = 14;
    const IPV4: usize = 20;
    const IPV6: usize = 40;
    /// Bytes of a TCP header without options.
    const TCP_HEADER: u32 = 20;

    /// Defines programs that make, and check, the SYN cookie of a packet and do nothing else.
    macro_rules! cookies {
        ($($made:ident: $make:path, $checked:ident: $check:path, $ip:expr;)+) => {$(
            #[xdp(frags)]
            pub(crate) fn $made(ctx: XdpContext) -> u32 {
                let Some(frame) = frame(&ctx).map(|frame| frame.cast::<u8>()) else {
                    return xdp_action::XDP_ABORTED;
                };
                // SAFETY: both headers are within the frame.
                let cookie = unsafe { $make(frame.add(ETHERNET).cast(), frame.add(ETHERNET + $ip).cast(), TCP_HEADER) };
                verdict(cookie >= 0)
            }

            #[xdp(frags)]
            pub(crate) fn $checked(ctx: XdpContext) -> u32 {
                let Some(frame) = frame(&ctx).map(|frame| frame.cast::<u8>()) else {
                    return xdp_action::XDP_ABORTED;
                };
                // SAFETY: both headers are within the frame.
                let refused = unsafe { $check(frame.add(ETHERNET).cast(), frame.add(ETHERNET + $ip).cast()) };
                // The packet has none; finding that out takes as long.
                verdict(refused != 0)
            }
        )+};
    }

    cookies! {
        cookie_made_v4: bpf_tcp_raw_gen_syncookie_ipv4, cookie_checked_v4: bpf_tcp_raw_check_syncookie_ipv4, IPV4;
        cookie_made_v6: bpf_tcp_raw_gen_syncookie_ipv6, cookie_checked_v6: bpf_tcp_raw_check_syncookie_ipv6, IPV6;
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
