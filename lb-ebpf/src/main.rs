//! The XDP data plane of `lb`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{Global, bindings::xdp_action, macros::xdp, programs::XdpContext};
    use lb_common::reason::Reason;

    use crate::maps;

    /// Which of the interfaces of this daemon the program is loaded for, below `MAX_INTERFACES`; set by the loader.
    #[unsafe(no_mangle)]
    static INTERFACE_SLOT: Global<u32> = Global::new(0);

    /// What the kernel demands to see before it lends helpers that are under the GPL.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[xdp(frags)]
    pub(crate) fn lb(ctx: XdpContext) -> u32 {
        maps::count_verdict(
            INTERFACE_SLOT.load(),
            Reason::NotOurs,
            (ctx.data_end() - ctx.data()) as u64,
        );
        xdp_action::XDP_PASS
    }
}

/// Builds of the workspace for the host see an empty program.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
