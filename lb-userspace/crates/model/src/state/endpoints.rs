//! Endpoints of mode `dnat`: the source alone identifies the service of a reply, so no two services share an endpoint.

use std::net::SocketAddr;

use lb_common::service::Mode;

use super::{
    backend::Backend,
    desired::Desired,
    service::{Service, ServiceKey},
};

/// Source of a backend's replies, if its mode or its service's mode is `dnat`.
pub fn endpoint(service: &Service, backend: &Backend) -> Option<SocketAddr> {
    (backend.mode.unwrap_or(service.mode) == Mode::Dnat).then_some(backend.address)
}

/// Whether a packet can come from both of two endpoints: port 0 stands for every port.
pub fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() && (a.port() == b.port() || a.port() == 0 || b.port() == 0)
}

/// Whether replies from an endpoint, of the protocol of `key`, belong to another service than the one on `key`.
pub fn is_of_another(desired: &Desired, key: ServiceKey, from: SocketAddr) -> bool {
    let others = desired
        .services
        .values()
        .filter(|service| service.key != key && service.key.protocol == key.protocol);
    others
        .flat_map(|service| {
            service
                .backends
                .iter()
                .filter_map(|backend| endpoint(service, backend))
        })
        .any(|other| overlap(other, from))
}
