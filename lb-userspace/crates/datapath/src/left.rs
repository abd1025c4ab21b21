//! Programs that still forward without a daemon, wherever they are pinned.

use std::{iter, os::fd::AsFd as _};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
    programs::loaded_programs,
};
use lb_common::{map_names, service::Service, service_prefix::ServicePrefixKey, stage::ENTRY};

use super::{
    netlink::Client,
    programmed::{key_of_prefix, key_v4, key_v6},
    sys,
};
use crate::{interface::XdpMode, state::service::ServiceKey};

/// Programs of `lb` on the interfaces of this network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeftForwarding {
    /// Names of the interfaces, and the mode in which the program runs there.
    pub interfaces: Vec<(String, XdpMode)>,
    /// Services; empty also if the maps cannot be read.
    pub services: Vec<ServiceKey>,
}

/// The programs that run now. Empty without `CAP_SYS_ADMIN`, which the look-up needs.
pub fn left_forwarding() -> LeftForwarding {
    let ours = |id: u32| {
        loaded_programs()
            .filter_map(Result::ok)
            .find(|program| program.id() == id && program.name_as_str() == Some(ENTRY))
    };
    let links = Client::new().and_then(|mut client| client.links());
    let mut left = LeftForwarding::default();
    for link in links.unwrap_or_default() {
        let Some(xdp) = link.xdp else { continue };
        let Some(program) = ours(xdp.program_id) else {
            continue;
        };
        let mode = if xdp.generic {
            XdpMode::Generic
        } else {
            XdpMode::Native
        };
        left.interfaces.push((link.name, mode));
        if left.services.is_empty() {
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            left.services = maps.into_iter().flat_map(services).collect();
        }
    }
    left
}

/// Whether this process may see which programs are loaded, and so which are ours.
pub fn sees_programs() -> bool {
    loaded_programs().next().is_none_or(|program| program.is_ok())
}

/// The services in the map of this id, if it is a map of services.
fn services(map: u32) -> Vec<ServiceKey> {
    let Ok(data) = MapData::from_id(map) else {
        return Vec::new();
    };
    let name = data
        .info()
        .ok()
        .and_then(|info| info.name_as_str().map(str::to_owned));
    match name.as_deref() {
        Some(map_names::SERVICES_V4) => keys(data, key_v4),
        Some(map_names::SERVICES_V6) => keys(data, key_v6),
        Some(map_names::PREFIX_SERVICES) => prefix_keys(&data),
        Some(_) | None => Vec::new(),
    }
}

fn prefix_keys(data: &MapData) -> Vec<ServiceKey> {
    let map = data.fd().as_fd();
    let next = |key: Option<&ServicePrefixKey>| sys::next_key(map, key).ok().flatten();
    let entries = iter::successors(next(None), |key| next(Some(key)));
    entries.filter_map(|key| key_of_prefix(&key)).collect()
}

fn keys<K: Pod>(data: MapData, key: impl Fn(&K) -> Option<ServiceKey>) -> Vec<ServiceKey> {
    // A map of another layout cannot be read.
    let Ok(map) = HashMap::<_, K, Service>::try_from(Map::HashMap(data)) else {
        return Vec::new();
    };
    map.keys().filter_map(|entry| key(&entry.ok()?)).collect()
}
