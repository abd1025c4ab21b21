//! Packets that the balancer itself sends back in place of the one that came: a TCP reset, an echo reply, or an ICMP error that
//! quotes it.

pub(crate) mod echo;
mod error;
pub(crate) mod reject;
mod reset;
pub(crate) mod too_big;
mod write;
