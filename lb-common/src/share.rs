//! Shares of the flow table: how much of it each service of mode `nat` uses, and may use. The program counts, and the
//! daemon sets the limit at each sweep. In a service over its share, a new flow replaces one of its own half-open
//! flows, if there are any; established flows never give way.

use crate::plain_data;

/// Entries of the family's table that a service uses. The program adds to all fields atomically.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowUse {
    /// Flows opened, less flows that gave way, modulo 2^64. The sweeper's removals are not subtracted.
    pub opened: u64,
    /// Half-open flows that gave way to new ones.
    pub gave_way: u64,
}

const _: () = assert!(size_of::<FlowUse>() == 16);

plain_data!(FlowUse);
