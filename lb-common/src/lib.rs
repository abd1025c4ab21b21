//! Definitions that the XDP program and the daemon share: layouts of map keys and values, map names, limits, reasons,
//! and the arithmetic that both sides must agree on (hash, checksum, ring slots).
//!
//! The crate does no I/O, allocates nothing and depends on nothing by default, so that it compiles for BPF and every
//! line of it is tested on the host. Everything that crosses the map boundary is `#[repr(C)]`, has no implicit
//! padding, no `bool` and no niche, and its size is asserted.
#![cfg_attr(not(test), no_std)]

pub mod addr;
pub mod aes;
pub mod backend;
pub mod budget;
pub mod check;
pub mod clients;
pub mod counters;
pub mod csum;
pub mod decap;
pub mod flow;
pub mod fragment;
pub mod guard;
pub mod hash;
pub mod interfaces;
pub mod limits;
pub mod map_names;
pub mod monitor;
pub mod own_mac;
pub mod quic;
pub mod quic_place;
pub mod reason;
pub mod reply;
pub mod ring_page;
pub mod ring_slot;
pub mod service;
pub mod service_place;
pub mod service_prefix;
pub mod settings;
pub mod share;
pub mod stage;
pub mod track;
pub mod tunnel;
pub mod vlan;

/// Implements aya's marker for plain data, so that the daemon can read and write the layout as map key or value.
macro_rules! plain_data {
    ($($type:ty),+ $(,)?) => {$(
        #[cfg(feature = "aya")]
        // SAFETY: `#[repr(C)]` or `#[repr(transparent)]` over integers and arrays of them, without implicit padding
        // (sizes are asserted beside the definition), so every bit pattern is valid and every byte initialised.
        unsafe impl aya::Pod for $type {}
    )+};
}
pub(crate) use plain_data;
