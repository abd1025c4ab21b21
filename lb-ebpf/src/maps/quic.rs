//! How to read QUIC connection ids, and the backends that they name.

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    limits::{MAX_QUIC_CONFIGS, MAX_QUIC_SERVERS},
    quic::{Config, ConfigKey, Halves, Server, ServerKey},
    quic_place::{CONFIG_PLACES, PlacedConfig, PlacedServer, SERVER_PLACES},
};

use super::atomic::NO_PREALLOC;

#[btf_map]
static QUIC_CONFIGS: HashMap<ConfigKey, Config, { MAX_QUIC_CONFIGS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static QUIC_SERVERS: HashMap<ServerKey, Server, { MAX_QUIC_SERVERS as usize }, NO_PREALLOC> = HashMap::new();
/// Copies of entries of both, see [`lb_common::quic_place`].
#[btf_map]
static QUIC_CONFIG_PLACES: Array<PlacedConfig, { CONFIG_PLACES as usize }> = Array::new();
#[btf_map]
static QUIC_SERVER_PLACES: Array<PlacedServer, { SERVER_PLACES as usize }> = Array::new();
#[btf_map]
static SCRATCH_QUIC: PerCpuArray<Halves, 1> = PerCpuArray::new();

/// Where this CPU decrypts a connection id.
///
/// # Safety
///
/// No other reference to it is in use.
#[inline(always)]
pub(crate) unsafe fn halves() -> Option<&'static mut Halves> {
    let halves = SCRATCH_QUIC.get_ptr_mut(0)?;
    // SAFETY: from the map's look-up; a CPU runs one XDP program at a time, and by the contract no other reference is used.
    Some(unsafe { &mut *halves })
}

/// How to read connection ids. Written by the daemon before the service that needs it; missing: they name no backend.
#[inline(always)]
pub(crate) fn config(key: ConfigKey) -> Option<&'static Config> {
    let copy = QUIC_CONFIG_PLACES.get(PlacedConfig::place(key));
    if let Some(config) = copy.and_then(|copy| copy.of(key)) {
        return Some(config);
    }
    let config = QUIC_CONFIGS.get_ptr(key)?;
    // SAFETY: from the map's look-up. While the daemon replaces it, an id may be read by half of the old and half of the
    // new, and then names no backend.
    Some(unsafe { &*config })
}

/// The backend with a server id. Written by the daemon; missing: none has it.
#[inline(always)]
pub(crate) fn server(key: &ServerKey) -> Option<Server> {
    let copy = QUIC_SERVER_PLACES.get(PlacedServer::place(key));
    if let Some(server) = copy.and_then(|copy| copy.of(key)) {
        return Some(server);
    }
    let server = QUIC_SERVERS.get_ptr(key)?;
    // SAFETY: from the map's look-up.
    Some(unsafe { *server })
}
