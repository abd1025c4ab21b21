//! The names of services and backends of flows and packets.

use std::{borrow::Cow, collections::HashMap, net::SocketAddr, sync::Arc};

use lb_common::backend::Generation;

use crate::{
    control::ControlView,
    datapath::Flow,
    state::{
        names::{BackendName, ServiceName},
        service::ServiceKey,
    },
};

/// A service and a backend of it by name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Named {
    pub(super) service: Arc<str>,
    pub(super) backend: Arc<str>,
}

/// Names at one moment. They are looked up once for each backend, since there may be a million flows.
pub(super) struct Names {
    services: HashMap<ServiceKey, ServiceName>,
    backends: HashMap<(ServiceKey, SocketAddr), BackendName>,
    /// By the backend's number.
    known: Vec<Option<(Generation, Named)>>,
}

impl Names {
    pub(super) fn new(view: &ControlView) -> Self {
        let services = view.desired.services.values();
        let mut backends = HashMap::new();
        for ((_, name), key, address) in view.backends() {
            // The desired one comes before a removed one at the same place.
            backends.entry((key, address)).or_insert(name);
        }
        Self {
            services: services
                .map(|service| (service.key, service.name.clone()))
                .collect(),
            backends,
            known: Vec::new(),
        }
    }

    /// The name of a service; its address where it has none, as one that is being removed.
    pub(super) fn service(&self, key: &ServiceKey) -> Cow<'_, str> {
        let name = self.services.get(key);
        name.map_or_else(|| key.to_string().into(), |name| name.as_str().into())
    }

    /// The name of a backend; its address where it has none.
    pub(super) fn backend(&self, service: ServiceKey, address: SocketAddr) -> Cow<'_, str> {
        let name = self.backends.get(&(service, address));
        name.map_or_else(|| address.to_string().into(), |name| name.as_str().into())
    }

    /// The names of a flow's service and backend; their addresses where they have none, as of a service that is being removed.
    pub(super) fn of(&mut self, flow: &Flow) -> Named {
        let (id, generation) = flow.owner;
        let at = usize::from(id.0);
        if let Some(Some((of, named))) = self.known.get(at)
            && *of == generation
        {
            return named.clone();
        }
        let named = Named {
            service: self.service(&flow.service).into(),
            backend: self.backend(flow.service, flow.backend).into(),
        };
        if self.known.len() <= at {
            self.known.resize(at + 1, None);
        }
        if let Some(place) = self.known.get_mut(at) {
            *place = Some((generation, named.clone()));
        }
        named
    }
}
