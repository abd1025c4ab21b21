//! Backends by host name: looks names up while the daemon runs, and applies their addresses as backends. `Board`
//! decides when to look a name up and how an answer changes the desired state; it gets the time passed in. `task` asks
//! a [`Provider`]; the resolver of this machine is one, and others (files, HTTP) fit the same trait. A source that
//! fails or has no answer changes nothing.

mod board;
mod limits;
mod provider;
mod resolver;
mod status;
mod task;

pub use self::{
    limits::{
        ASK_AGAIN_MAX, ASK_AGAIN_MIN, FAILED_MAX, GATHER, LOOKUP_TIMEOUT, MAX_ADDRESSES, MAX_LOOKUPS, RETRY,
        SPACING,
    },
    provider::{Answer, Families, Provider},
    resolver::SystemResolver,
    status::{HostId, HostStatus, HostStatuses, Hosts, addresses},
    task::run,
};
