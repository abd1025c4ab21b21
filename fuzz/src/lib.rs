//! What libFuzzer, and in small `cargo test`, try to break of the data plane on the host. Each target takes any bytes and
//! panics where something does not hold.
#![allow(clippy::panic, reason = "that is how a target says that it was broken")]

mod connection_ids;
mod extension;
mod family;
mod frames;
/// The XDP program's own parser, over a frame in memory.
#[path = "../../lb-ebpf/src/header.rs"]
mod header;
#[expect(dead_code, reason = "parsing names few of the stages")]
#[path = "../../lb-ebpf/src/next_stage.rs"]
mod next_stage;
mod packet;
#[path = "../../lb-ebpf/src/parse.rs"]
mod parse;
mod slot;
mod tags;
#[expect(dead_code, reason = "what is not parsing")]
#[path = "../../lb-ebpf/src/transport.rs"]
mod transport;
#[path = "../../lb-ebpf/src/walk.rs"]
mod walk;

/// Parses a frame as the XDP program does, and as etherparse does: who is sure about a packet's ports agrees with the other.
pub fn parse(frame: &[u8]) {
    frames::check(frame);
}

/// Takes the bytes for a history of one slot and some flows: no flow whose backend lives changes its backend if it sent a
/// packet within the window.
pub fn slots(history: &[u8]) {
    slot::check(history);
}

/// VLAN tags and connection ids of QUIC mean the same after a way there and back.
pub fn marks(bytes: &[u8]) {
    tags::check(bytes);
    connection_ids::check(bytes);
}
