//! What the daemon and the monitored program share: which packets to record, and the records.
//!
//! The monitored program is the packet path, built once more with the feature `monitor`. It takes the place of the usual one while
//! `lb monitor` runs.

use crate::{
    addr::NetAddr,
    backend::BackendId,
    plain_data,
    reason::{Action, REASON_SLOTS, Reason},
    service::ServiceId,
};

/// The program of the stage that records packets. No other stage names it in [`crate::stage::Stage`], since the usual program has none.
pub const PROGRAM: &str = "lb_monitor";
/// Its slot among the stages: the last one.
pub const SLOT: u32 = crate::stage::STAGE_SLOTS - 1;

/// Bytes of a frame as it came that are recorded, at most. They are copied before the packet's fate is known: headers with tags and
/// options of either family fit, and little more.
pub const BEFORE_LEN: usize = 128;
/// Bytes of a frame as it leaves that are recorded, at most: [`BEFORE_LEN`], and the outer headers of a tunnel.
pub const AFTER_LEN: usize = 192;
/// Backends that a filter may name: those of one name in several services.
pub const FILTER_BACKENDS: usize = 16;

/// Bits as in [`Filter::reasons`]: packets that may leave changed. Others leave as they came, so that nothing has to be copied before
/// their fate is known.
pub const CHANGED: u64 = {
    let (mut bits, mut at) = (1 << Reason::ReplyByKernel as u32, 0);
    while at < Reason::ALL.len() {
        if matches!(Reason::ALL[at].action(), Action::Tx | Action::Redirect) {
            bits |= 1 << Reason::ALL[at] as u32;
        }
        at += 1;
    }
    bits
};

/// Which packets to record. Written by the daemon, word by word: a packet in between meets a filter that was or will be.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filter {
    /// Bit `n`: packets that end for the reason of number `n`.
    pub reasons: u64,
    /// Records that may be made since the monitor began. The daemon raises it; without a daemon it is reached, and nothing more is
    /// recorded.
    pub allowance: u64,
    /// The bits of [`Self::client_mask`] that a client's address has.
    pub client: NetAddr,
    /// Bits of a client's address that count.
    pub client_mask: NetAddr,
    /// One of how many packets is looked at, for each CPU; at least 1.
    pub sample: u32,
    /// The service, or none for all.
    pub service: ServiceId,
    /// How many of `backends` count; 0: all backends, and packets without one.
    pub backend_count: u16,
    /// The backends.
    pub backends: [BackendId; FILTER_BACKENDS],
    /// Whether `client` and `client_mask` count.
    pub by_client: u32,
    /// Zero.
    pub pad: u32,
}

/// Records made so far, and those that the filter asked for in vain. Written by the program.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recorded {
    /// Records in the ring buffer.
    pub records: u64,
    /// Packets without a record: the allowance was reached, or the ring buffer full.
    pub lost: u64,
}

/// Which way a packet went, as far as it is of a service.
#[repr(u16)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Of no service, or it ended before that was known.
    Unknown = 0,
    /// From a client.
    Request = 1,
    /// From a backend to a client.
    Reply = 2,
}

impl Direction {
    /// Of a number in a record.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Unknown),
            1 => Some(Self::Request),
            2 => Some(Self::Reply),
            _ => None,
        }
    }
}

/// One packet.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When it left the program: nanoseconds of the monotonic clock.
    pub at: u64,
    /// Bytes of the frame as it came.
    pub received_len: u32,
    /// Bytes of the frame as it leaves.
    pub sent_len: u32,
    /// Slot of the interface on which it came.
    pub interface_slot: u32,
    /// Number of the reason.
    pub reason: u32,
    /// Its service, or none.
    pub service: ServiceId,
    /// Its backend, or none.
    pub backend: BackendId,
    /// A [`Direction`].
    pub direction: u16,
    /// Bytes of [`Self::before`].
    pub before_len: u16,
    /// Bytes of [`Self::after`].
    pub after_len: u16,
    /// Zero.
    pub pad: [u16; 3],
    /// The frame's first bytes as it came.
    pub before: [u8; BEFORE_LEN],
    /// The frame's first bytes as it leaves.
    pub after: [u8; AFTER_LEN],
}

/// The packet under work, of one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Seen {
    /// [`Filter::reasons`] if the packet is looked at, else 0.
    pub reasons: u64,
    /// [`Filter::service`].
    pub service: ServiceId,
    /// Whether [`Filter::allowance`] was not reached.
    pub is_allowed: u16,
    /// Whether no record is made of the packet, whatever else is known of it.
    pub is_surely_lost: u32,
    /// Packets since the last one that was looked at.
    pub skipped: u32,
    /// Zero.
    pub pad: u32,
    /// What is known of it.
    pub record: Record,
}

const _: () = assert!(REASON_SLOTS <= u64::BITS);
const _: () = assert!(size_of::<Filter>() == 96);
const _: () = assert!(size_of::<Recorded>() == 16);
const _: () = assert!(size_of::<Record>() == 40 + BEFORE_LEN + AFTER_LEN);
const _: () = assert!(size_of::<Seen>() == 24 + size_of::<Record>());

plain_data!(Filter, Recorded, Record, Seen);
