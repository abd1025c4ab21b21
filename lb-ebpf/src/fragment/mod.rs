//! Fragments. The first one of a datagram has the ports, so it takes the way of any packet, and is recorded; the others follow
//! it. Where one comes before its first, nobody knows where to.

pub(crate) mod follow;
mod header;
pub(crate) mod record;
