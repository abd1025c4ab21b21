//! The frame under work, of all programs, and the end of tunnels, of two.
#![cfg_attr(
    target_arch = "bpf",
    no_std,
    feature(asm_experimental_arch, core_intrinsics),
    allow(internal_features)
)]
// The daemon's build of the workspace sees an empty library.

#[cfg(target_arch = "bpf")]
pub mod packet;
#[cfg(target_arch = "bpf")]
pub mod tunnel_end;
