//! Changes of the desired state, one function each. All leave their input alone and return the next state, with a higher
//! revision only if something changed.

use std::{fmt, ptr};

use super::{
    backend::Backend,
    check::{self, Problem, ProblemKind},
    desired::{Desired, Revision},
    hosts::HostBackend,
    names::{BackendName, ServiceName},
    service::Service,
};

/// The kind of thing that was not found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A service.
    Service,
    /// A backend.
    Backend,
    /// A host name that stands for backends.
    Host,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "service",
            Self::Backend => "backend",
            Self::Host => "host name of a backend",
        })
    }
}

/// Why a change is refused; the desired state stays as it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// Nothing has this name. `name` is `service/backend` for backends.
    #[error("no {kind} named {name}")]
    NotFound {
        /// The kind of thing.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Something else has the name, address or endpoint already.
    #[error("{what}")]
    Conflict {
        /// The two things in conflict.
        what: String,
        /// The remedy.
        hint: Option<String>,
    },
    /// The result would be invalid.
    #[error("{what}")]
    Invalid {
        /// The problem.
        what: String,
        /// The remedy.
        hint: Option<String>,
    },
}

impl ChangeError {
    /// The remedy.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NotFound {
                kind: Kind::Service, ..
            } => Some("`lb service list` shows what there is"),
            Self::NotFound {
                kind: Kind::Backend, ..
            } => Some("`lb backend list` shows what there is"),
            Self::NotFound { kind: Kind::Host, .. } => Some("`lb service show` shows what there is"),
            Self::Conflict { hint, .. } | Self::Invalid { hint, .. } => hint.as_deref(),
        }
    }
}

impl From<Problem> for ChangeError {
    fn from(problem: Problem) -> Self {
        let Problem {
            kind,
            what,
            hint,
            place: _,
        } = problem;
        match kind {
            ProblemKind::Conflict => Self::Conflict { what, hint },
            ProblemKind::Invalid => Self::Invalid { what, hint },
        }
    }
}

/// Whether two values of a backend that a host name found differ only in what an operator may set of it.
fn differ_by_hand(before: &Backend, after: &Backend) -> bool {
    let Backend {
        weight,
        admin,
        drain_until,
        ..
    } = before.clone();
    *before
        == Backend {
            weight,
            admin,
            drain_until,
            ..after.clone()
        }
}

/// The error for a change by hand of a backend that a host name found.
fn found_by_host(service: &ServiceName, backend: &Backend, why: &str) -> ChangeError {
    let name = &backend.name;
    let host = backend.discovered_by.as_ref().unwrap_or(name);
    ChangeError::Conflict {
        what: format!("backend {service}/{name} was found by the host name of {service}/{host}: {why}"),
        hint: Some(format!(
            "`lb backend disable {service} {name}` takes it out of use; other values stand in the configuration file, at {host}"
        )),
    }
}

impl Service {
    /// The host name of a backend's name.
    ///
    /// # Errors
    /// Not found.
    pub fn host(&self, name: &BackendName) -> Result<&HostBackend, ChangeError> {
        let host = self.hosts.iter().find(|host| host.name == *name);
        host.ok_or_else(|| ChangeError::NotFound {
            kind: Kind::Host,
            name: format!("{}/{name}", self.name),
        })
    }
}

impl Desired {
    /// Adds a service with its backends. An existing one with the same content stays as it is.
    ///
    /// # Errors
    /// Conflict if the name, or the address, port and protocol, are taken; invalid content.
    pub fn add_service(&self, service: Service) -> Result<Self, ChangeError> {
        match self.services.get(&service.name) {
            Some(there) if **there == service => Ok(self.clone()),
            Some(_) => Err(ChangeError::Conflict {
                what: format!("service {} exists with other settings", service.name),
                hint: Some(format!("`lb service set {}` changes them", service.name)),
            }),
            None => self.with_service(service),
        }
    }

    /// Replaces the service of this name, with its backends.
    ///
    /// # Errors
    /// Not found; conflict with another service; invalid content.
    pub fn set_service(&self, service: Service) -> Result<Self, ChangeError> {
        self.service(&service.name)?;
        self.with_service(service)
    }

    /// Removes a service and its backends.
    ///
    /// # Errors
    /// Not found.
    pub fn remove_service(&self, name: &ServiceName) -> Result<Self, ChangeError> {
        self.service(name)?;
        let mut next = self.clone();
        next.services.remove(name);
        Ok(next.after(self))
    }

    /// Adds a backend to a service. An existing one with the same content stays as it is.
    ///
    /// # Errors
    /// Service not found; conflict if the name or the address is taken in this service; invalid content.
    pub fn add_backend(&self, service: &ServiceName, backend: Backend) -> Result<Self, ChangeError> {
        let mut changed = self.service(service)?.clone();
        match changed.backends.iter().find(|there| there.name == backend.name) {
            Some(there) if *there == backend => Ok(self.clone()),
            Some(_) => Err(ChangeError::Conflict {
                what: format!("backend {service}/{} exists with other settings", backend.name),
                hint: Some(format!(
                    "`lb backend set {service} {}` changes them",
                    backend.name
                )),
            }),
            None => {
                // Backends that host names found stay last.
                let found = changed
                    .backends
                    .iter()
                    .position(|there| there.discovered_by.is_some());
                let place = found.unwrap_or(changed.backends.len());
                changed.backends.insert(place, backend);
                self.with_service(changed)
            }
        }
    }

    /// Changes a backend; also drains (`Admin::Draining`), disables and enables.
    ///
    /// # Errors
    /// Not found; conflict with another backend of the service; invalid content.
    pub fn set_backend(
        &self,
        service: &ServiceName,
        name: &BackendName,
        change: impl FnOnce(&mut Backend),
    ) -> Result<Self, ChangeError> {
        let there = self.backend(service, name)?;
        let mut backend = there.clone();
        change(&mut backend);
        if there.discovered_by.is_some() && !differ_by_hand(there, &backend) {
            return Err(found_by_host(
                service,
                there,
                "only its weight and its state can be set",
            ));
        }
        let mut changed = self.service(service)?.clone();
        if let Some(there) = changed.backends.iter_mut().find(|there| there.name == *name) {
            *there = backend;
        }
        self.with_service(changed)
    }

    /// Removes a backend.
    ///
    /// # Errors
    /// Not found.
    pub fn remove_backend(&self, service: &ServiceName, name: &BackendName) -> Result<Self, ChangeError> {
        let there = self.backend(service, name)?;
        if there.discovered_by.is_some() {
            return Err(found_by_host(
                service,
                there,
                "it goes when the name loses its address",
            ));
        }
        let mut changed = self.service(service)?.clone();
        changed.backends.retain(|backend| backend.name != *name);
        self.with_service(changed)
    }

    /// Makes settings and services equal to those of `other`, whose revision does not count.
    ///
    /// # Errors
    /// Invalid content.
    pub fn replace(&self, mut other: Self) -> Result<Self, ChangeError> {
        for (name, service) in &mut other.services {
            if let Some(there) = self.services.get(name).filter(|there| *there == service) {
                *service = there.clone();
            }
        }
        other.valid(self).map(|next| next.after(self))
    }

    /// The service of this name.
    ///
    /// # Errors
    /// Not found.
    pub fn service(&self, name: &ServiceName) -> Result<&Service, ChangeError> {
        let service = self.services.get(name).map(|service| &**service);
        service.ok_or_else(|| ChangeError::NotFound {
            kind: Kind::Service,
            name: name.to_string(),
        })
    }

    /// The backend of this name.
    ///
    /// # Errors
    /// Service or backend not found.
    pub fn backend(&self, service: &ServiceName, name: &BackendName) -> Result<&Backend, ChangeError> {
        let of = self.service(service)?;
        let backend = of.backends.iter().find(|backend| backend.name == *name);
        backend.ok_or_else(|| match of.host(name) {
            Ok(host) => ChangeError::Conflict {
                what: format!("{service}/{name} is the host name {}, not a backend", host.host),
                hint: Some(
                    "change it in the configuration file and apply that; its backends can be drained, disabled and given \
                     weights one by one"
                        .to_owned(),
                ),
            },
            Err(_) => ChangeError::NotFound {
                kind: Kind::Backend,
                name: format!("{service}/{name}"),
            },
        })
    }

    fn with_service(&self, service: Service) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        next.services.insert(service.name.clone(), service.into());
        next.valid(self).map(|next| next.after(self))
    }

    /// This content, if it is valid; `before` is known to be.
    fn valid(self, before: &Self) -> Result<Self, ChangeError> {
        let changed = |service: &Service| {
            let there = before.services.get(&service.name);
            !there.is_some_and(|there| ptr::eq(&raw const **there, service))
        };
        let services: Vec<&Service> = self.services.values().map(|service| &**service).collect();
        match check::problems_of(&self.settings, &services, changed)
            .into_iter()
            .next()
        {
            Some(problem) => Err(problem.into()),
            None => Ok(self),
        }
    }

    /// This content as the successor of `before`.
    fn after(self, before: &Self) -> Self {
        let same = self.settings == before.settings && self.services == before.services;
        let revision = if same {
            before.revision
        } else {
            Revision(before.revision.0 + 1)
        };
        Self { revision, ..self }
    }
}

#[cfg(test)]
mod tests;
