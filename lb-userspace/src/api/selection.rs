//! Services and backends that requests name, and where they are.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    api::{error::ApiError, requests::ErrorCode},
    config::values,
    control::ControlView,
    datapath::Places,
    state::{
        names::{BackendName, ServiceName},
        service::ServiceKey,
    },
};

/// Names that an error lists at most.
const LISTED: usize = 8;

/// A service, a backend, both or none, as a request names them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Selection {
    pub(super) service: Option<ServiceName>,
    pub(super) backend: Option<BackendMeant>,
}

/// How a request names a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BackendMeant {
    Name(BackendName),
    Address(SocketAddr),
}

impl Selection {
    /// Reads names of a service and a backend.
    ///
    /// # Errors
    /// A text that cannot be a name.
    pub(super) fn named(service: Option<&str>, backend: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self {
            service: service.map(values::name).transpose()?,
            backend: backend.map(values::name).transpose()?.map(BackendMeant::Name),
        })
    }

    /// Finds the places of what is selected. Removed backends that finish their flows are found, too.
    ///
    /// # Errors
    /// A service or backend that does not exist, with those that do.
    pub(super) fn find(&self, view: &ControlView) -> Result<Places, ApiError> {
        Ok(Places {
            service: self.service.as_ref().map(|name| key(name, view)).transpose()?,
            backends: self
                .backend
                .as_ref()
                .map(|meant| self.backends(meant, view))
                .transpose()?,
        })
    }

    fn backends(
        &self,
        meant: &BackendMeant,
        view: &ControlView,
    ) -> Result<BTreeSet<(ServiceKey, SocketAddr)>, ApiError> {
        let service = self.service.as_ref();
        let all = || {
            view.backends()
                .filter(|((name, _), ..)| service.is_none_or(|meant| meant == name))
        };
        let is_meant = |name: &BackendName, at: SocketAddr| match meant {
            BackendMeant::Name(meant) => meant == name,
            BackendMeant::Address(address) => *address == at,
        };
        let found = all().filter(|((_, name), _, address)| is_meant(name, *address));
        let places: BTreeSet<_> = found.map(|(_, key, address)| (key, address)).collect();
        if places.is_empty() {
            let names: BTreeSet<_> = all().map(|((_, name), ..)| name).collect();
            return Err(missing("backend", &self.backend_text(meant), names.iter()));
        }
        Ok(places)
    }

    /// `web/a`, or `a` where no service is named.
    pub(super) fn backend_text(&self, meant: &BackendMeant) -> String {
        let backend = match meant {
            BackendMeant::Name(name) => name.to_string(),
            BackendMeant::Address(address) => address.to_string(),
        };
        match &self.service {
            Some(service) => format!("{service}/{backend}"),
            None => backend,
        }
    }
}

fn key(name: &ServiceName, view: &ControlView) -> Result<ServiceKey, ApiError> {
    let services = &view.desired.services;
    let found = services.get(name);
    found
        .map(|service| service.key)
        .ok_or_else(|| missing("service", name.as_str(), services.keys()))
}

fn missing(kind: &str, name: &str, there: impl ExactSizeIterator<Item = impl ToString>) -> ApiError {
    let count = there.len();
    let mut names: Vec<String> = there.take(LISTED).map(|name| name.to_string()).collect();
    if count > names.len() {
        names.push(format!("and {} more", count - names.len()));
    }
    let hint = match count {
        0 => format!("there are no {kind}s"),
        _ => format!("{kind}s: {}", names.join(", ")),
    };
    let what = format!("{kind} \"{name}\": no such {kind}");
    ApiError::new(ErrorCode::NotFound, what, Some(hint))
}
