//! Reads the tables for an explanation of a packet.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{
    addr::{NetAddr, NetPort, NetV4, NetV6},
    backend::{Backend, BackendId},
    clients::ClientRing,
    decap::EndKey,
    flow::{NatFlow, REPLY},
    guard::{DENY, PrefixKey},
    quic::{Config, ConfigKey, ServerKey},
    reply::ReplyAs,
    ring_slot::RingSlot,
    service::{RingId, Service, ServiceId},
    service_prefix::{self, ServicePrefixKey},
    settings::Settings,
    track::{FlowRecord, Table},
};
use tokio::sync::watch;

use super::{
    directory::Directory,
    maps::Maps,
    tables::{Answers, AnyTuple, ReadTables, Translated},
};
use crate::{
    map_key::{MapKey, map_key},
    neighbours::next_hop::{NextHopState, NextHops},
    state::service::{Protocol, ServiceKey},
};

/// Reads the tables of a running data plane. Rings come from the writer: reading a map by its number needs CAP_SYS_ADMIN.
#[derive(Clone)]
pub struct LiveTables {
    pub(super) maps: Arc<Maps>,
    pub(super) directory: watch::Receiver<Arc<Directory>>,
    pub(super) next_hops: watch::Receiver<Arc<NextHops>>,
}

impl fmt::Debug for LiveTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveTables").finish_non_exhaustive()
    }
}

impl ReadTables for LiveTables {
    fn settings(&self) -> io::Result<Settings> {
        Ok(self.maps.settings.get(&0)?.unwrap_or_default())
    }

    fn service(&self, key: &ServiceKey) -> io::Result<Option<Service>> {
        match map_key(key) {
            MapKey::V4(key) => self.maps.services_v4.get(&key),
            MapKey::V6(key) => self.maps.services_v6.get(&key),
        }
    }

    fn service_of_prefix(
        &self,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> io::Result<Option<Service>> {
        let find = |port| {
            let address = NetAddr::from(address);
            let key = ServicePrefixKey::new(
                NetPort::new(port),
                protocol.number(),
                address,
                ServicePrefixKey::ADDRESS,
            );
            self.maps.prefix_services.get(&key)
        };
        Ok(service_prefix::longest(find(port)?, find(0)?))
    }

    fn ends_tunnels(&self, kind: u8, address: IpAddr) -> io::Result<bool> {
        let key = EndKey::new(kind, NetAddr::from(address), EndKey::ADDRESS);
        Ok(self.maps.tunnel_ends.get(&key)?.is_some())
    }

    fn service_key(&self, id: ServiceId) -> Option<ServiceKey> {
        self.directory.borrow().key(id)
    }

    fn slot(&self, ring: RingId, index: u32) -> Option<RingSlot> {
        let directory = self.directory.borrow();
        directory.rings.get(&ring)?.get(index as usize).copied()
    }

    fn backend(&self, id: BackendId) -> io::Result<Option<Backend>> {
        self.maps.backends.get(&u32::from(id.0))
    }

    fn denies(&self, service: ServiceId, client: IpAddr) -> io::Result<bool> {
        let key = PrefixKey::new(service, NetAddr::from(client), PrefixKey::ADDRESS);
        Ok(self.maps.guard_prefixes.get(&key)? == Some(DENY))
    }

    fn client_ring(&self, service: ServiceId, client: IpAddr) -> io::Result<Option<ClientRing>> {
        let key = PrefixKey::new(service, NetAddr::from(client), PrefixKey::ADDRESS);
        self.maps.client_rings.get(&key)
    }

    fn answers_from(&self, endpoint: &ServiceKey) -> io::Result<Option<Answers>> {
        Ok(match map_key(endpoint) {
            MapKey::V4(key) => {
                let reply = self.maps.replies_v4.get(&key)?;
                reply.map(|reply| answers(&reply, |address: NetV4| address.to_std().into()))
            }
            MapKey::V6(key) => {
                let reply = self.maps.replies_v6.get(&key)?;
                reply.map(|reply| answers(&reply, |address: NetV6| address.to_std().into()))
            }
        })
    }

    fn translated(&self, tuple: &AnyTuple) -> io::Result<Option<Translated>> {
        Ok(match tuple {
            AnyTuple::V4(tuple) => {
                let flow = self.maps.flows_v4.get(tuple)?;
                flow.map(|flow| translated(&flow, |address: NetV4| address.to_std().into()))
            }
            AnyTuple::V6(tuple) => {
                let flow = self.maps.flows_v6.get(tuple)?;
                flow.map(|flow| translated(&flow, |address: NetV6| address.to_std().into()))
            }
        })
    }

    fn record(&self, tuple: &AnyTuple, table: Table) -> io::Result<Option<FlowRecord>> {
        let record = match tuple {
            AnyTuple::V4(tuple) => {
                let table = self.maps.flow_records_v4.of(table).get()?;
                table.map(|table| table.get(tuple)).transpose()?
            }
            AnyTuple::V6(tuple) => {
                let table = self.maps.flow_records_v6.of(table).get()?;
                table.map(|table| table.get(tuple)).transpose()?
            }
        };
        Ok(record.flatten())
    }

    fn quic_config(&self, key: &ConfigKey) -> io::Result<Option<Config>> {
        self.maps.quic_configs.get(key)
    }

    fn quic_server(&self, key: &ServerKey) -> io::Result<Option<BackendId>> {
        Ok(self.maps.quic_servers.get(key)?.map(|server| server.backend))
    }

    fn next_hop(&self, address: IpAddr) -> Option<NextHopState> {
        self.next_hops.borrow().get(&address).cloned()
    }
}

fn answers<A: Copy>(reply: &ReplyAs<A>, ip: impl Fn(A) -> IpAddr) -> Answers {
    Answers {
        source: SocketAddr::new(ip(reply.address), reply.port.get()),
        service: reply.service,
        backend: reply.backend,
    }
}

fn translated<A: Copy>(flow: &NatFlow<A>, ip: impl Fn(A) -> IpAddr) -> Translated {
    Translated {
        is_reply: flow.direction == REPLY,
        source: SocketAddr::new(ip(flow.src), flow.src_port.get()),
        destination: SocketAddr::new(ip(flow.dst), flow.dst_port.get()),
        backend: flow.backend,
        generation: flow.generation,
        service: flow.service,
        state: flow.state,
        ifindex: flow.last_hop.ifindex,
    }
}
