//! The end of the tunnels of modes `ipip` and `gue`, on a backend's interface: takes the outer header off and hands the
//! packet to the kernel as if it had come without.
//!
//! A packet that is no tunnel to one of this machine's addresses passes untouched; a tunnel that does not come from a balancer
//! is dropped, since its packet could claim any sender. GUE is taken in both of its variants.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The daemon's build of the workspace sees an empty program.

#[cfg(target_arch = "bpf")]
mod entry {
    use core::ptr;

    use aya_ebpf::{
        bindings::xdp_action,
        btf_maps::{HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
        macros::{btf_map, xdp},
        programs::XdpContext,
    };
    use lb_common::{
        addr::NetAddr,
        decap::{MAX_ENTRIES, Outcome, Tables},
        tunnel,
    };
    use lb_packet::{packet::Walks, tunnel_end};

    /// This program reads no extension headers.
    enum Plain {}

    impl Walks for Plain {}

    type Packet = lb_packet::packet::Packet<Plain>;

    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    /// Bits of an address in the map of sources.
    const ADDRESS_BITS: u32 = 128;

    /// The port of GUE. Set by the command when it loads the program.
    #[unsafe(no_mangle)]
    static GUE_PORT: u16 = tunnel::GUE_PORT;

    #[btf_map]
    static SOURCES: LpmTrie<NetAddr, u8, { MAX_ENTRIES as usize }> = LpmTrie::new();
    #[btf_map]
    static ADDRESSES: HashMap<NetAddr, u8, { MAX_ENTRIES as usize }> = HashMap::new();
    #[btf_map]
    static OUTCOMES: PerCpuArray<u64, { Outcome::ALL.len() }> = PerCpuArray::new();

    /// The program.
    #[xdp(frags)]
    pub(crate) fn decap(ctx: XdpContext) -> u32 {
        // SAFETY: the context of this run.
        let packet = unsafe { Packet::new(ctx.ctx) };
        let outcome = match tunnel_end::open(&packet, &OfCommand) {
            Ok(()) => Outcome::Decapsulated,
            Err(outcome) => outcome,
        };
        if let Some(count) = OUTCOMES.get_ptr_mut(outcome as u32) {
            // SAFETY: from the map's look-up; a CPU runs one XDP program at a time.
            unsafe { *count += 1 };
        }
        match outcome {
            Outcome::Passed | Outcome::Decapsulated => xdp_action::XDP_PASS,
            Outcome::UnknownSource | Outcome::Malformed | Outcome::Congestion | Outcome::Failed => {
                xdp_action::XDP_DROP
            }
        }
    }

    /// The tables that the command fills.
    struct OfCommand;

    impl Tables for OfCommand {
        #[inline(always)]
        fn gue_port(&self) -> u16 {
            // SAFETY: a constant; the compiler must not take it for the one that it is built with.
            unsafe { ptr::read_volatile(&raw const GUE_PORT) }
        }

        #[inline(always)]
        fn is_end(&self, address: &NetAddr) -> bool {
            // SAFETY: the entry is only tested for presence, never written.
            unsafe { ADDRESSES.get(address) }.is_some()
        }

        #[inline(always)]
        fn is_source(&self, family: u8, address: &NetAddr) -> bool {
            SOURCES.get(&Key::new(ADDRESS_BITS, *address)) == Some(&family)
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
