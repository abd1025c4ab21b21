//! What should be programmed: the desired state under what agents, checks and time lay over it.
//!
//! [`compute`] applies the layers, in this order:
//!
//! 1. the operator, then agents ([`agents`]): drains, maintenance, weights, and backends that an agent calls down;
//! 2. backups ([`backups`]): they take new flows while too few other backends can. A backend that drains, is disabled, has weight
//!    0, is down or cannot be reached cannot take flows; one that was never checked can. Those in reserve have weight 0
//!    and keep the flows that they have, as any backend that drains;
//! 3. panic mode ([`removal`]): checks take out no more than `max_removed_percent`, of which backups are no part. A backend
//!    that takes flows by panic mode alone does not count as one that can: the backups serve beside it;
//! 4. the verdicts that are left ([`effective`]): weights, whose flows stay, and `on_empty = "all"`: with nobody left,
//!    enabled backends take flows, backups among them. Backends that were removed finish their flows;
//! 5. caution: a backend without a verdict takes no new flows where another of its service is known to work;
//! 6. ring sizes ([`ring_sizes`]): a ring that has become too large keeps its size for a while;
//! 7. flows of backends that just went down ([`down_grace`]) stay for `on_down_after`;
//! 8. slow start ([`slow_start`]): weights rise. A backup that is called helps with its whole weight at once.

pub mod agents;
pub mod backups;
mod caution;
mod compute;
pub mod down_grace;
pub mod effective;
pub mod moves;
pub mod removal;
pub mod ring_sizes;
pub mod slow_start;

pub use self::{
    caution::{Before, Standings},
    compute::{Inputs, Pace, compute},
};

use lb_model::state::{backend, desired, guard, names, quic, service, shared};
