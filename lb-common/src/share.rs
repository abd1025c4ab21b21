//! Shares of the flow table: how much of it each service of mode `nat` uses, and may use.
//!
//! The program counts, and the daemon decides anew at each sweep how far the count may go. A service that is over its share
//! opens a flow in place of one of its own half-open ones, as long as it has some; established flows never give way.

use crate::plain_data;

/// What the flows of a service take of their family's table. All of it is added to, atomically, by the program.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowUse {
    /// Flows that were opened, less those that gave way; modulo 2^64. What the sweeper removes is not in it.
    pub opened: u64,
    /// Half-open flows that gave way to new ones.
    pub gave_way: u64,
}

const _: () = assert!(size_of::<FlowUse>() == 16);

plain_data!(FlowUse);
