//! What should be programmed: the desired state under what agents, checks and time lay over it.

pub mod agents;
pub mod backups;
pub mod down_grace;
pub mod effective;
pub mod moves;
pub mod removal;
pub mod ring_sizes;
pub mod slow_start;

use lb_model::state::{backend, desired, guard, names, quic, service, shared};
