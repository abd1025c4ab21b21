//! The pinned maps as typed handles. They are opened once, and their sizes compared with the layouts of `lb-common`
//! then, so that a layout that does not fit stops the start instead of a packet.

mod chunks;
mod late;
mod rings;
mod table;

use std::path::Path;

use lb_common::{
    addr::NetAddr,
    backend::Backend,
    clients::ClientRing,
    counters::{PacketCount, ReasonCounts, Signals, Traffic, verdict_slot},
    decap::EndKey,
    flow::{NatFlowV4, NatFlowV6, TupleV4, TupleV6},
    guard::{FlowGuard, PrefixKey},
    limits::{MAX_BACKENDS, MAX_SERVICES},
    map_names,
    own_mac::{Mac, OwnMac},
    quic,
    quic_place::{PlacedConfig, PlacedServer},
    reason::REASON_SLOTS,
    reply::{ReplyAsV4, ReplyAsV6},
    service::{AddressServices, Service, ServiceKeyV4, ServiceKeyV6},
    service_place::ServiceRecord,
    service_prefix::ServicePrefixKey,
    settings::Settings,
    share::FlowUse,
};

pub(super) use self::{
    late::{LateTable, RecordTables},
    rings::Rings,
    table::{Counters, Rows, Table},
};
use crate::{cpus::cpus, error::DatapathError};

/// Clears the verdict counters of an interface slot, before the first program counts there for another interface.
pub(super) fn clear_verdicts(pins: &Path, slot: u32) -> Result<(), DatapathError> {
    let table: Table<u32, PacketCount> = Table::open(pins, map_names::VERDICTS, cpus()?)?;
    table
        .clear_range(verdict_slot(slot, 0), REASON_SLOTS)
        .map_err(|e| DatapathError::Map {
            map: map_names::VERDICTS,
            reason: e.to_string(),
        })
}

/// All pinned maps.
pub(super) struct Maps {
    pub(super) settings: Table<u32, Settings>,
    pub(super) services_v4: Table<ServiceKeyV4, Service>,
    pub(super) services_v6: Table<ServiceKeyV6, Service>,
    pub(super) service_places: Table<u32, u64>,
    pub(super) service_records: Table<u32, ServiceRecord>,
    pub(super) prefix_services: Table<ServicePrefixKey, Service>,
    pub(super) tunnel_ends: Table<EndKey, u32>,
    pub(super) reply_filter: Table<u32, u64>,
    pub(super) addresses: Table<NetAddr, AddressServices>,
    pub(super) rings: Rings,
    pub(super) backends: Table<u32, Backend>,
    pub(super) replies_v4: Table<ServiceKeyV4, ReplyAsV4>,
    pub(super) replies_v6: Table<ServiceKeyV6, ReplyAsV6>,
    pub(super) snat_addresses: Table<u32, NetAddr>,
    pub(super) flows_v4: Table<TupleV4, NatFlowV4>,
    pub(super) flows_v6: Table<TupleV6, NatFlowV6>,
    pub(super) flow_uses: Table<u32, FlowUse>,
    pub(super) flow_shares: Table<u32, u64>,
    pub(super) flow_records_v4: RecordTables<TupleV4>,
    pub(super) flow_records_v6: RecordTables<TupleV6>,
    pub(super) verdicts: Table<u32, PacketCount>,
    pub(super) service_traffic: Rows<Traffic, MAX_SERVICES>,
    pub(super) backend_traffic: Rows<Traffic, MAX_BACKENDS>,
    pub(super) backend_signals: Rows<Signals, MAX_BACKENDS>,
    pub(super) service_drops: Rows<ReasonCounts, MAX_SERVICES>,
    pub(super) guard_prefixes: Table<PrefixKey, u32>,
    pub(super) client_rings: Table<PrefixKey, ClientRing>,
    pub(super) quic_configs: Table<quic::ConfigKey, quic::Config>,
    pub(super) quic_servers: Table<quic::ServerKey, quic::Server>,
    pub(super) quic_config_places: Table<u32, PlacedConfig>,
    pub(super) quic_server_places: Table<u32, PlacedServer>,
    pub(super) flow_guards: Table<u32, FlowGuard>,
    pub(super) interface_macs: Table<u32, Mac>,
    pub(super) own_macs: Table<OwnMac, u32>,
}

impl Maps {
    /// Opens all maps below the directory of pins.
    pub(super) fn open(pins: &Path) -> Result<Self, DatapathError> {
        let cpus = cpus()?;
        Ok(Self {
            settings: Table::open(pins, map_names::SETTINGS, 1)?,
            services_v4: Table::open(pins, map_names::SERVICES_V4, 1)?,
            services_v6: Table::open(pins, map_names::SERVICES_V6, 1)?,
            service_places: Table::open(pins, map_names::SERVICE_PLACES, 1)?,
            service_records: Table::open(pins, map_names::SERVICE_RECORDS, 1)?,
            prefix_services: Table::open(pins, map_names::PREFIX_SERVICES, 1)?,
            tunnel_ends: Table::open(pins, map_names::TUNNEL_ENDS, 1)?,
            reply_filter: Table::open(pins, map_names::REPLY_FILTER, 1)?,
            addresses: Table::open(pins, map_names::ADDRESSES, 1)?,
            rings: Rings(Table::open(pins, map_names::RINGS, 1)?),
            backends: Table::open(pins, map_names::BACKENDS, 1)?,
            replies_v4: Table::open(pins, map_names::REPLIES_V4, 1)?,
            replies_v6: Table::open(pins, map_names::REPLIES_V6, 1)?,
            snat_addresses: Table::open(pins, map_names::SNAT_ADDRESSES, 1)?,
            flows_v4: Table::open(pins, map_names::FLOWS_V4, 1)?,
            flows_v6: Table::open(pins, map_names::FLOWS_V6, 1)?,
            flow_uses: Table::open(pins, map_names::FLOW_USES, 1)?,
            flow_shares: Table::open(pins, map_names::FLOW_SHARES, 1)?,
            flow_records_v4: RecordTables::open(
                pins,
                [map_names::TRACKED_V4, map_names::OPENING_V4, map_names::SEEN_V4],
            )?,
            flow_records_v6: RecordTables::open(
                pins,
                [map_names::TRACKED_V6, map_names::OPENING_V6, map_names::SEEN_V6],
            )?,
            verdicts: Table::open(pins, map_names::VERDICTS, cpus)?,
            service_traffic: Rows::open(pins, map_names::SERVICE_TRAFFIC)?,
            backend_traffic: Rows::open(pins, map_names::BACKEND_TRAFFIC)?,
            backend_signals: Rows::open(pins, map_names::BACKEND_SIGNALS)?,
            service_drops: Rows::open(pins, map_names::SERVICE_DROPS)?,
            guard_prefixes: Table::open(pins, map_names::GUARD_PREFIXES, 1)?,
            client_rings: Table::open(pins, map_names::CLIENT_RINGS, 1)?,
            quic_configs: Table::open(pins, map_names::QUIC_CONFIGS, 1)?,
            quic_servers: Table::open(pins, map_names::QUIC_SERVERS, 1)?,
            quic_config_places: Table::open(pins, map_names::QUIC_CONFIG_PLACES, 1)?,
            quic_server_places: Table::open(pins, map_names::QUIC_SERVER_PLACES, 1)?,
            flow_guards: Table::open(pins, map_names::FLOW_GUARDS, 1)?,
            interface_macs: Table::open(pins, map_names::INTERFACE_MACS, 1)?,
            own_macs: Table::open(pins, map_names::OWN_MACS, 1)?,
        })
    }
}
