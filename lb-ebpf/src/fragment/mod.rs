//! Fragments. The first one of a datagram has the ports, so it is handled like any packet, and recorded; the others follow
//! it. A fragment that arrives before its first has no known destination.

pub(crate) mod follow;
mod header;
pub(crate) mod record;
