//! The target: the desired state with the layers of agents, checks and time. [`compute`] applies them in this order:
//!
//! 1. the operator, then agents ([`agents`]): drains, maintenance, weights, and backends that an agent reports down;
//! 2. backups ([`backups`]): they take new flows while too few other backends can. A backend that drains, is disabled,
//!    has weight 0, is down or cannot be reached cannot take flows; an unchecked one can. Idle backups have weight 0
//!    and keep their flows, like any draining backend;
//! 3. panic mode ([`removal`]): checks take out no more than `max_removed_percent`, without counting backups. A backend
//!    that takes flows by panic mode only does not count as able to: the backups serve beside it;
//! 4. the remaining health states ([`effective`]): weights, flows that stay, and `on_empty = "all"`: without other
//!    backends, all enabled ones take flows, including backups. Flows of removed backends may finish;
//! 5. caution: an unchecked backend takes no new flows if another of its service is up;
//! 6. ring sizes ([`ring_sizes`]): a ring that has become too large keeps its size for a while;
//! 7. flows of backends that just went down ([`down_grace`]) stay for `on_down_after`;
//! 8. slow start ([`slow_start`]): weights rise. An activated backup has its whole weight at once.

pub mod agents;
pub mod backups;
mod caution;
mod compute;
pub(crate) mod content;
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
