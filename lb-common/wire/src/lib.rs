//! Headers of packets: the XDP program parses frames with this, and so do the fuzz targets on the host.
//!
//! Everything is written over [`Frame`], which the program implements by pointers that the verifier follows, and [`Bytes`] by a
//! slice. What to do next for a packet is a [`next_stage::NextStage`], and [`order`] has the order of such decisions.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod address;
mod bytes;
mod frame;
pub mod header;
pub mod load;
pub mod next_stage;
pub mod order;
pub mod parse;
pub mod transport;
pub mod walk;

pub use self::{
    address::Address,
    bytes::Bytes,
    frame::{Frame, MAX_OFFSET, Ports, Wire},
};
