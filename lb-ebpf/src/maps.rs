//! The maps, reached only through these functions. Their comments state who writes the map, and the result of misses and full
//! maps.

pub(crate) mod atomic;
pub(crate) mod checks;
pub(crate) mod client_rings;
pub(crate) mod counters;
pub(crate) mod cursors;
pub(crate) mod flows;
pub(crate) mod fragments;
pub(crate) mod guards;
pub(crate) mod late;
#[cfg(feature = "monitor")]
pub(crate) mod monitor;
pub(crate) mod own_macs;
pub(crate) mod quic;
pub(crate) mod records;
pub(crate) mod replies;
pub(crate) mod services;
pub(crate) mod shares;
pub(crate) mod tables;
pub(crate) mod tunnel_ends;
