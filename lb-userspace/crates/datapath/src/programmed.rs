//! Reading back the state that an earlier daemon programmed, so that a restart plans from it instead of from nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use lb_common::{
    addr::NetAddr,
    backend::{ALIVE, Backend, BackendId, IN_USE, IPV6},
    guard::FlowGuard,
    limits::MAX_SNAT_ADDRESSES,
    reply::ReplyAs,
    service::{Mode, Service, ServiceId, ServiceKeyV4, ServiceKeyV6, TCP, UDP},
    service_prefix::ServicePrefixKey,
    settings::{ENDS_TUNNELS, HAS_DNAT, HAS_PREFIX, HAS_WILDCARD, Settings},
};

use super::{clients, maps::Maps, quic, records};
use crate::{
    error::{DatapathError, failed},
    plan::{Endpoint, Programmed, ProgrammedBackend, ReplyTarget},
    state::service::{Protocol, ServiceKey},
};

/// What is programmed, read on a thread beside the rest of a start.
pub(super) struct ReadBack {
    pins: PathBuf,
    thread: Option<JoinHandle<Result<(Maps, Programmed), DatapathError>>>,
}

impl ReadBack {
    /// Begins, with the maps pinned in this directory.
    pub(super) fn begin(pins: &Path) -> Self {
        let pins = pins.to_owned();
        let from = pins.clone();
        let thread = thread::Builder::new().name("lb-read".to_owned());
        Self {
            pins,
            thread: thread.spawn(move || read(&from)).ok(),
        }
    }

    /// The maps, and what is programmed. To be called once programs are attached: maps that a new version adds are there only then,
    /// so all is read again where the first attempt failed.
    pub(super) fn finish(self) -> Result<(Maps, Programmed), DatapathError> {
        match self.thread.map(JoinHandle::join) {
            Some(Ok(Ok(read))) => Ok(read),
            Some(Ok(Err(_)) | Err(_)) | None => read(&self.pins),
        }
    }
}

/// The maps below the directory of a layout's pins, and what is programmed.
pub(super) fn read(pins: &Path) -> Result<(Maps, Programmed), DatapathError> {
    let maps = Maps::open(pins)?;
    let programmed = read_back(&maps)?;
    Ok((maps, programmed))
}

/// Reads all control maps.
///
/// A record that makes no sense (an unknown mode or protocol) is left out, so that the planner writes it anew. So is a
/// ring that this process may not read, which takes CAP_SYS_ADMIN: writing it again with the same content changes
/// nothing for any packet.
fn read_back(maps: &Maps) -> Result<Programmed, DatapathError> {
    let mut programmed = Programmed::default();
    let settings = maps
        .settings
        .get(&0)
        .map_err(|e| failed(maps.settings.name(), &e))?
        .unwrap_or_default();
    read_settings(maps, settings, &mut programmed).map_err(|e| failed(maps.snat_addresses.name(), &e))?;
    maps.services_v4
        .for_each_chunk(|keys, services| {
            for (key, service) in keys.iter().zip(services) {
                read_service(key_v4(key), service, &mut programmed);
            }
            Ok(())
        })
        .map_err(|e| failed(maps.services_v4.name(), &e))?;
    maps.services_v6
        .for_each_chunk(|keys, services| {
            for (key, service) in keys.iter().zip(services) {
                read_service(key_v6(key), service, &mut programmed);
            }
            Ok(())
        })
        .map_err(|e| failed(maps.services_v6.name(), &e))?;
    maps.prefix_services
        .for_each(|key, service| read_service(key_of_prefix(&key), &service, &mut programmed))
        .map_err(|e| failed(maps.prefix_services.name(), &e))?;
    maps.replies_v4
        .for_each_chunk(|keys, replies| {
            for (key, reply) in keys.iter().zip(replies) {
                read_reply(key_v4(key), reply, reply.address.to_std(), &mut programmed);
            }
            Ok(())
        })
        .map_err(|e| failed(maps.replies_v4.name(), &e))?;
    maps.replies_v6
        .for_each_chunk(|keys, replies| {
            for (key, reply) in keys.iter().zip(replies) {
                read_reply(key_v6(key), reply, reply.address.to_std(), &mut programmed);
            }
            Ok(())
        })
        .map_err(|e| failed(maps.replies_v6.name(), &e))?;
    maps.backends
        .read_range(0, maps.backends.capacity(), |index, record| {
            if let Ok(index) = u16::try_from(index) {
                read_backend(BackendId(index), &record[0], &mut programmed);
            }
        })
        .map_err(|e| failed(maps.backends.name(), &e))?;
    let prefixes = &mut programmed.prefixes;
    maps.guard_prefixes
        .for_each(|key, verdict| {
            prefixes.insert(key, verdict);
        })
        .map_err(|e| failed(maps.guard_prefixes.name(), &e))?;
    let ends = &mut programmed.tunnel_ends;
    maps.tunnel_ends
        .for_each(|key, _| {
            ends.insert(key);
        })
        .map_err(|e| failed(maps.tunnel_ends.name(), &e))?;
    clients::read_back(maps, &mut programmed).map_err(|e| failed(maps.client_rings.name(), &e))?;
    programmed.quic = quic::read_back(maps)?;
    let flow_guards = &mut programmed.flow_guards;
    maps.flow_guards
        .read_range(0, maps.flow_guards.capacity(), |index, guard| {
            if let Ok(index) = u16::try_from(index)
                && guard[0] != FlowGuard::default()
            {
                flow_guards.insert(ServiceId(index), guard[0]);
            }
        })
        .map_err(|e| failed(maps.flow_guards.name(), &e))?;
    for ring in maps
        .rings
        .present()
        .map_err(|e| failed(maps.rings.table().name(), &e))?
    {
        match maps.rings.read(ring) {
            Ok(Some(slots)) => drop(programmed.rings.insert(ring, slots.into())),
            Ok(None) => {}
            Err(e) => tracing::debug!(ring = ring.0, error = %e, "cannot read a ring back"),
        }
    }
    Ok(programmed)
}

fn read_settings(maps: &Maps, settings: Settings, programmed: &mut Programmed) -> io::Result<()> {
    // A range of no ports is what a map holds that was never written.
    if let Some(last) = settings.snat_port_count.checked_sub(1) {
        let first = settings.snat_port_first;
        programmed.snat_ports = Some(first..=first.saturating_add(last));
    }
    programmed.gue_port = settings.gue_port;
    programmed.wildcard = settings.flags & HAS_WILDCARD != 0;
    programmed.dnat = settings.flags & HAS_DNAT != 0;
    programmed.prefix_services = settings.flags & HAS_PREFIX != 0;
    programmed.ends_tunnels = settings.flags & ENDS_TUNNELS != 0;
    for (first, count) in [
        (0, settings.snat_v4_count),
        (MAX_SNAT_ADDRESSES, settings.snat_v6_count),
    ] {
        let addresses = &mut programmed.snat_addresses;
        maps.snat_addresses
            .read_range(first, u32::from(count), |_, address| {
                addresses.push(address[0].to_ip())
            })?;
    }
    Ok(())
}

fn read_service(key: Option<ServiceKey>, service: &Service, programmed: &mut Programmed) {
    let Some(key) = key else { return };
    match service.alias {
        0 => programmed.services.insert(key, *service),
        _ => programmed.aliases.insert(key, *service),
    };
}

fn read_backend(id: BackendId, record: &Backend, programmed: &mut Programmed) {
    if record.generation.0 != 0 {
        programmed.generations.insert(id, record.generation);
    }
    let Some(mode) = Mode::from_u8(record.mode) else {
        return;
    };
    if record.has(IN_USE) {
        programmed.backends.insert(
            id,
            ProgrammedBackend {
                address: SocketAddr::new(ip(record.address, record.has(IPV6)), record.port.get()),
                service: record.service,
                generation: record.generation,
                mode,
                protocol: record.protocol,
                alive: record.has(ALIVE),
                held_back: record.held_back(),
                tunnel_source: records::tunnel_source(record),
            },
        );
    }
}

fn read_reply<A>(
    endpoint: Option<Endpoint>,
    reply: &ReplyAs<A>,
    address: impl Into<IpAddr>,
    programmed: &mut Programmed,
) {
    let Some(endpoint) = endpoint else { return };
    let reply = ReplyTarget {
        address: address.into(),
        port: reply.port.get(),
        service: reply.service,
        backend: reply.backend,
    };
    programmed.replies.insert(endpoint, reply);
}

fn ip(address: NetAddr, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(address.v6().to_std())
    } else {
        IpAddr::V4(address.v4().to_std())
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// The key of a service whose address is a prefix; `None` of an entry that is no service's own.
pub(super) fn key_of_prefix(key: &ServicePrefixKey) -> Option<ServiceKey> {
    let address = key.address.to_ip();
    let before = if address.is_ipv4() {
        ServicePrefixKey::ADDRESS - u32::BITS
    } else {
        0
    };
    let length = u8::try_from(key.address_bits().checked_sub(before)?).ok()?;
    (key.whatever_port == 0).then_some(ServiceKey {
        length,
        ..ServiceKey::new(address, key.port.get(), protocol(key.protocol)?)
    })
}

pub(super) fn key_v4(key: &ServiceKeyV4) -> Option<ServiceKey> {
    Some(ServiceKey::new(
        key.address.to_std().into(),
        key.port.get(),
        protocol(key.protocol)?,
    ))
}

pub(super) fn key_v6(key: &ServiceKeyV6) -> Option<ServiceKey> {
    Some(ServiceKey::new(
        key.address.to_std().into(),
        key.port.get(),
        protocol(key.protocol)?,
    ))
}
