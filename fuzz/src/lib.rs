//! Parts of `lb` that read what others wrote, and that libFuzzer, and with few inputs `cargo test`, test on the host. Each target takes any
//! bytes and panics if an invariant is broken.
#![allow(clippy::panic, reason = "targets report failures by a panic")]

mod agents;
mod answers;
mod configurations;
mod connection_ids;
mod frames;
mod kernel_answers;
mod slot;
mod sources;
mod state_files;
mod tags;

/// Parses a frame as the XDP program and as etherparse do: if both find ports, these are equal.
pub fn parse(frame: &[u8]) {
    frames::check(frame);
}

/// Interprets the bytes as a history of one slot and some flows: no flow whose backend lives changes its backend if it
/// sent a packet within the window.
pub fn slots(history: &[u8]) {
    slot::check(history);
}

/// VLAN tags and connection ids of QUIC mean the same after a way there and back.
pub fn marks(bytes: &[u8]) {
    tags::check(bytes);
    connection_ids::check(bytes);
}

/// Imports the text as a configuration of each kind: it is refused, or gives a file that `lb check-config` accepts.
pub fn import(text: &[u8]) {
    sources::check(text);
}

/// Reads the text as a configuration file, and as a request about a service or a backend: what is accepted is written, and read
/// again as the same.
pub fn config(text: &[u8]) {
    configurations::check(text);
}

/// Answers a health check with the bytes behind the first, which selects the check: it ends, whatever the answer is.
pub fn answers(bytes: &[u8]) {
    answers::check(bytes);
}

/// Takes up the lines in the bytes as an agent's answers: each is bounded and printable, and changes the parts that it mentions alone.
pub fn agents(bytes: &[u8]) {
    agents::check(bytes);
}

/// Reads the bytes as a datagram of the kernel's: each message means the same with and without others behind it.
pub fn netlink(datagram: &[u8]) {
    kernel_answers::check(datagram);
}

/// Reads the bytes as files of the state directory: what was read is saved, and read again as the same.
pub fn state(bytes: &[u8]) {
    state_files::check(bytes);
}
