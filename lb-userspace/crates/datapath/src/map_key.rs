//! Keys of services, as the maps have them.

use lb_common::{
    addr::NetPort,
    service::{FilterBit, Service, ServiceKeyV4, ServiceKeyV6},
    service_place::{Place, ServiceRecord},
};

use crate::state::service::ServiceKey;

/// A key in the table of its family.
pub(super) enum MapKey {
    V4(ServiceKeyV4),
    V6(ServiceKeyV6),
}

impl MapKey {
    pub(super) const fn filter_bit(&self) -> FilterBit {
        match self {
            Self::V4(key) => key.filter_bit(),
            Self::V6(key) => key.filter_bit(),
        }
    }

    pub(super) const fn place(&self) -> Place {
        match self {
            Self::V4(key) => key.place(),
            Self::V6(key) => key.place(),
        }
    }

    pub(super) const fn record(&self, service: Service) -> ServiceRecord {
        match self {
            Self::V4(key) => ServiceRecord::v4(key, service),
            Self::V6(key) => ServiceRecord::v6(key, service),
        }
    }
}

/// A key as the map of its family has it.
pub(super) fn map_key(key: &ServiceKey) -> MapKey {
    let port = NetPort::new(key.port);
    let protocol = key.protocol.number();
    match key.address {
        std::net::IpAddr::V4(v4) => MapKey::V4(ServiceKeyV4 {
            address: v4.into(),
            port,
            protocol,
            pad: 0,
        }),
        std::net::IpAddr::V6(v6) => MapKey::V6(ServiceKeyV6 {
            address: v6.into(),
            port,
            protocol,
            pad: 0,
        }),
    }
}
