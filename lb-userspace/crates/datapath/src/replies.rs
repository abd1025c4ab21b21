//! The tables of mode `dnat` from the endpoint of a reply to its service. Their keys have the layout of services' keys.

use std::{collections::BTreeSet, io};

use lb_common::{addr::NetPort, reply::ReplyAs, service::FilterBit};

use super::{maps::Maps, services};
use crate::{
    map_key::{MapKey, map_key},
    plan::{Endpoint, ReplyTarget},
    state::service::ServiceKey,
};

/// Writes the translation of replies from an endpoint. Until then the filter lets them pass.
pub(super) fn write(maps: &Maps, endpoint: &Endpoint, reply: &ReplyTarget) -> io::Result<()> {
    let key = map_key(endpoint);
    services::change_filter(maps, key.filter_bit(), |word, mask| word | mask)?;
    let of_service = ServiceKey::new(reply.address, reply.port, endpoint.protocol);
    match (key, map_key(&of_service)) {
        (MapKey::V4(key), MapKey::V4(service)) => maps.replies_v4.set(&key, reply_as(service.address, reply)),
        (MapKey::V6(key), MapKey::V6(service)) => maps.replies_v6.set(&key, reply_as(service.address, reply)),
        (MapKey::V4(_), MapKey::V6(_)) | (MapKey::V6(_), MapKey::V4(_)) => Err(io::Error::other(
            "a backend of mode dnat is of another family than its service",
        )),
    }
}

fn reply_as<A>(address: A, reply: &ReplyTarget) -> ReplyAs<A> {
    ReplyAs {
        address,
        port: NetPort::new(reply.port),
        service: reply.service,
        backend: reply.backend,
        pad: 0,
    }
}

/// Removes endpoints; `others` stay.
pub(super) fn remove<'a>(
    maps: &Maps,
    endpoints: &[&Endpoint],
    others: impl Iterator<Item = &'a ServiceKey>,
) -> io::Result<()> {
    for endpoint in endpoints {
        match map_key(endpoint) {
            MapKey::V4(key) => maps.replies_v4.delete(&key),
            MapKey::V6(key) => maps.replies_v6.delete(&key),
        }?;
    }
    let bit = |key: &ServiceKey| map_key(key).filter_bit();
    let unused: BTreeSet<FilterBit> = endpoints.iter().map(|endpoint| bit(endpoint)).collect();
    services::clear_filter(maps, unused, others)
}
