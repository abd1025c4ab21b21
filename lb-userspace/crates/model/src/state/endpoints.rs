//! Endpoints of mode `dnat`: a reply says by its source alone which service it is of, so no two services share one.

use std::net::SocketAddr;

use lb_common::service::Mode;

use super::{
    backend::Backend,
    desired::Desired,
    service::{Service, ServiceKey},
};

/// Where replies of a backend come from if it is of mode `dnat`, also by its service's mode.
pub fn endpoint(service: &Service, backend: &Backend) -> Option<SocketAddr> {
    (backend.mode.unwrap_or(service.mode) == Mode::Dnat).then_some(backend.address)
}

/// Whether a packet can come from both of two endpoints: port 0 stands for every port.
pub fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() && (a.port() == b.port() || a.port() == 0 || b.port() == 0)
}

/// Whether replies from an endpoint belong to another service than the one on `key`, whose protocol they have.
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
