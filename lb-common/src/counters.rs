//! Layout of the counters. Each CPU has its own record, the daemon adds them up.

use crate::{
    limits::{MAX_BACKENDS, MAX_INTERFACES, MAX_SERVICES},
    plain_data,
    reason::REASON_SLOTS,
};

/// Packets and bytes of one verdict on one interface. Bytes are whole frames as received, from the Ethernet header
/// on, without the check sequence.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PacketCount {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames as received.
    pub bytes: u64,
}

/// Traffic of one service or one backend. Bytes as in [`PacketCount`], but without VLAN tags, which are of the network.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Packets from clients that were forwarded.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows that began.
    pub new_flows: u64,
    /// Packets from backends that were translated and sent back (modes in which replies pass the balancer).
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
}

/// Passive signals about one backend, from flows of mode `nat`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Signals {
    /// SYNs that a client repeated since the backend had not answered the one before.
    pub unanswered: u64,
    /// Flows whose first answer was a reset.
    pub refused: u64,
    /// ICMP errors that report the backend unreachable.
    pub unreachable: u64,
}

impl Signals {
    /// All together.
    pub const fn total(&self) -> u64 {
        let Self {
            unanswered,
            refused,
            unreachable,
        } = *self;
        unanswered + refused + unreachable
    }
}

/// Dropped packets of one service by the number of the reason.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReasonCounts(pub [u64; REASON_SLOTS as usize]);

impl Default for ReasonCounts {
    fn default() -> Self {
        Self([0; REASON_SLOTS as usize])
    }
}

/// Slots of the verdict map.
pub const VERDICT_SLOTS: u32 = MAX_INTERFACES * REASON_SLOTS;

/// Where the verdict map counts a reason (its number, below [`REASON_SLOTS`]) for the interface in `interface_slot`.
#[inline(always)]
pub const fn verdict_slot(interface_slot: u32, reason: u32) -> u32 {
    interface_slot * REASON_SLOTS + reason
}

/// Where CPU `cpu` counts for a backend. Such a map is a plain array with a row for each possible CPU, which the
/// loader gives its length: the kernel allocates each entry of a per-CPU map on its own, which takes 10 ms for each service
/// and half of a cold start for each backend.
#[inline(always)]
pub const fn backend_slot(cpu: u32, backend: u32) -> u32 {
    cpu.wrapping_mul(MAX_BACKENDS).wrapping_add(backend)
}

/// Where CPU `cpu` counts for a service, as in [`backend_slot`].
#[inline(always)]
pub const fn service_slot(cpu: u32, service: u32) -> u32 {
    cpu.wrapping_mul(MAX_SERVICES).wrapping_add(service)
}

const _: () = assert!(size_of::<PacketCount>() == 16);
const _: () = assert!(size_of::<Traffic>() == 40);
const _: () = assert!(size_of::<Signals>() == 24);

plain_data!(PacketCount, Traffic, Signals, ReasonCounts);
