//! Programs that still forward without a daemon, wherever they are pinned.

use std::{
    collections::BTreeMap,
    fs, io, iter,
    net::SocketAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
    programs::loaded_programs,
};
use lb_common::{
    backend::BackendId,
    map_names,
    service::{Mode, Service},
    service_prefix::ServicePrefixKey,
    stage::ENTRY,
};

use super::{
    netlink::Client,
    pin,
    programmed::{self, key_of_prefix, key_v4, key_v6},
    sys,
};
use crate::{interface::XdpMode, plan::Programmed, state::service::ServiceKey};

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

/// An interface on which a program forwards without a daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftInterface {
    /// Its name.
    pub name: String,
    /// The mode in which the program runs there.
    pub mode: XdpMode,
    /// The kernel's id of the program.
    pub program: u32,
    /// When it was loaded.
    pub loaded: Option<SystemTime>,
}

/// A service of maps that no daemon writes.
#[derive(Clone, PartialEq, Debug)]
pub struct LeftService {
    /// Its address, port and protocol.
    pub key: ServiceKey,
    /// How packets reach its backends.
    pub mode: Option<Mode>,
    /// Its backends, by id.
    pub backends: Vec<LeftBackend>,
}

/// A backend of maps that no daemon writes.
#[derive(Clone, PartialEq, Debug)]
pub struct LeftBackend {
    /// Where packets go.
    pub address: SocketAddr,
    /// Share of the service's new flows that go to it, from 0 to 1; `None` if the ring cannot be read.
    pub share: Option<f64>,
    /// Whether flows that it has go to it.
    pub keeps_flows: bool,
}

/// What forwards on without a daemon.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LeftState {
    /// The interfaces that have the program.
    pub interfaces: Vec<LeftInterface>,
    /// The directory that it is pinned in; `None` if none was found.
    pub pin_dir: Option<PathBuf>,
    /// The services; `None` if the maps cannot be read.
    pub services: Option<Vec<LeftService>>,
}

/// All that forwards on, from the programs of interfaces and their pinned maps. Empty without `CAP_SYS_ADMIN`.
pub fn left_state() -> LeftState {
    let links = Client::new().and_then(|mut client| client.links());
    let mut left = LeftState::default();
    for link in links.unwrap_or_default() {
        let Some(xdp) = link.xdp else { continue };
        let ours = loaded_programs().filter_map(Result::ok);
        let mut ours = ours.filter(|program| program.name_as_str() == Some(ENTRY));
        let Some(program) = ours.find(|program| program.id() == xdp.program_id) else {
            continue;
        };
        left.interfaces.push(LeftInterface {
            name: link.name,
            mode: if xdp.generic {
                XdpMode::Generic
            } else {
                XdpMode::Native
            },
            program: xdp.program_id,
            loaded: program.loaded_at(),
        });
        if left.services.is_some() {
            continue;
        }
        let maps = program.map_ids().ok().flatten().unwrap_or_default();
        let has_map = |dir: &PathBuf| {
            let pin = pin::layout(dir).join(map_names::SERVICES_V4);
            let map = MapData::from_pin(pin).and_then(|map| map.info());
            map.is_ok_and(|map| maps.contains(&map.id()))
        };
        left.pin_dir = pin_dirs().into_iter().find(has_map);
        let read = left
            .pin_dir
            .as_deref()
            .map(|dir| programmed::read(&pin::layout(dir)));
        left.services = read.and_then(|read| match read {
            Ok((_, programmed)) => Some(left_services(&programmed)),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot read the maps");
                None
            }
        });
    }
    left
}

/// Directories of BPF file systems that may be pin directories: the parents of directories that hold our maps.
fn pin_dirs() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "bpf").then(|| PathBuf::from(place))
    });
    let mut found = Vec::new();
    for mount in mounted {
        // What cannot be read has none of ours.
        let _ = find_pin_dirs(&mount, PIN_DEPTH, &mut found);
    }
    found
}

/// Pin directories lie at most this deep below a BPF file system.
const PIN_DEPTH: usize = 4;

fn find_pin_dirs(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if pin::layout(dir).join(map_names::SERVICES_V4).exists() {
        found.push(dir.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find_pin_dirs(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

/// The services of maps, with the backends of each.
fn left_services(programmed: &Programmed) -> Vec<LeftService> {
    let of_service = |(key, record): (&ServiceKey, &Service)| LeftService {
        key: *key,
        mode: Mode::from_u8(record.mode),
        backends: left_backends(programmed, record),
    };
    programmed.services.iter().map(of_service).collect()
}

fn left_backends(programmed: &Programmed, service: &Service) -> Vec<LeftBackend> {
    let ring = programmed
        .rings
        .get(&service.ring)
        .filter(|_| service.ring_size > 0);
    let mut slots: BTreeMap<BackendId, u32> = BTreeMap::new();
    for slot in ring.into_iter().flat_map(|ring| ring.iter()) {
        *slots.entry(slot.current).or_default() += 1;
    }
    let share = |id: &BackendId| {
        let own = f64::from(slots.get(id).copied().unwrap_or_default());
        match (service.ring_size, ring) {
            (0, _) => Some(0.0),
            (size, Some(_)) => Some(own / f64::from(size)),
            (_, None) => None,
        }
    };
    let own = programmed.backends.iter();
    let own = own.filter(|(_, backend)| backend.service == service.id);
    own.map(|(id, backend)| LeftBackend {
        address: backend.address,
        share: share(id),
        keeps_flows: backend.alive,
    })
    .collect()
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
