//! What flows belong to, by the numbers in the tables.

use std::{collections::BTreeMap, io, sync::Arc};

use lb_common::{
    addr::NetAddr,
    backend::{BackendId, Generation},
    clients,
    guard::PrefixKey,
    hash::HashBy,
    ring_slot,
    service::{BY_CLIENTS, IN_TURN, Service},
};
use tokio::sync::watch;

use super::{address::Address, flow::FlowFilter};
use crate::{
    directory::{BackendEntry, Directory},
    maps::Maps,
    services,
    state::service::ServiceKey,
};

/// Backends by their numbers, and the records of services, as long as the directory stays the same.
pub(super) struct Owners<'a> {
    maps: &'a Maps,
    filter: &'a FlowFilter,
    source: watch::Receiver<Arc<Directory>>,
    directory: Arc<Directory>,
    /// By number.
    places: Vec<Option<Place>>,
    services: BTreeMap<ServiceKey, Option<Service>>,
}

#[derive(Clone, Copy)]
struct Place {
    /// In the directory's backends.
    at: usize,
    /// Whether the filter takes its flows.
    is_meant: bool,
}

impl<'a> Owners<'a> {
    pub(super) fn new(
        maps: &'a Maps,
        filter: &'a FlowFilter,
        source: watch::Receiver<Arc<Directory>>,
    ) -> Self {
        let directory = source.borrow().clone();
        let mut owners = Self {
            maps,
            filter,
            source,
            directory,
            places: Vec::new(),
            services: BTreeMap::new(),
        };
        owners.list();
        owners
    }

    /// Takes up a directory that has changed.
    pub(super) fn refresh(&mut self) {
        let directory = self.source.borrow().clone();
        if !Arc::ptr_eq(&directory, &self.directory) {
            self.directory = directory;
            self.list();
        }
    }

    fn list(&mut self) {
        self.services.clear();
        self.places.clear();
        let most = self.directory.backends.last().map_or(0, |entry| entry.id.0);
        self.places.resize(usize::from(most) + 1, None);
        for (at, entry) in self.directory.backends.iter().enumerate() {
            let is_meant = self.filter.takes_backend(&entry.service, entry.address);
            if let Some(place) = self.places.get_mut(usize::from(entry.id.0)) {
                *place = Some(Place { at, is_meant });
            }
        }
    }

    /// The backend of a flow, if it still is that backend's, and the filter takes it.
    pub(super) fn owner(&self, id: BackendId, generation: Generation) -> Option<&BackendEntry> {
        let place = (*self.places.get(usize::from(id.0))?)?;
        let entry = self.directory.backends.get(place.at).filter(|_| place.is_meant)?;
        (entry.generation == generation).then_some(entry)
    }

    /// The slot that the ring of a service and client gives a tuple. `None` where flows take turns, or there is no ring.
    pub(super) fn slot<A: Address>(
        &mut self,
        key: &ServiceKey,
        tuple: &lb_common::flow::Tuple<A>,
    ) -> io::Result<Option<u32>> {
        let service = match self.services.get(key) {
            Some(service) => *service,
            None => {
                let service = services::record(self.maps, key)?;
                self.services.insert(*key, service);
                service
            }
        };
        let Some(mut service) = service.filter(|service| !service.has(IN_TURN)) else {
            return Ok(None);
        };
        if service.has(BY_CLIENTS) {
            let client = NetAddr::from(tuple.src.ip());
            let key = PrefixKey::new(service.id, client, PrefixKey::ADDRESS);
            clients::select(&mut service, self.maps.client_rings.get(&key)?);
        }
        let hash = A::hash(tuple, HashBy::of(&service));
        Ok((service.ring_size != 0).then(|| ring_slot::index(hash, service.ring_size)))
    }
}
