//! Changes of the desired state, one function each. All leave their input alone and return the next state, with a higher
//! revision only if something changed.

use std::{fmt, net::SocketAddr, ptr, time::SystemTime};

use lb_common::service::Mode;

use super::{
    backend::{Admin, Backend},
    check::{self, Problem, ProblemKind},
    desired::{Desired, Revision},
    hosts::HostBackend,
    names::{BackendName, GroupName, ServiceName},
    quic::ServerId,
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

/// New values of a backend; `None` keeps the old one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackendChange {
    /// Destination of packets.
    pub address: Option<SocketAddr>,
    /// Share of new flows.
    pub weight: Option<u16>,
    /// Its mode; `Some(None)`: the service's.
    pub mode: Option<Option<Mode>>,
    /// Server ids by which QUIC connection ids name it.
    pub server_ids: Option<Vec<ServerId>>,
    /// Port of its agent; 0: it has none.
    pub agent_port: Option<u16>,
    /// Whether it takes new flows only while too few others can.
    pub backup: Option<bool>,
    /// Its group; `Some(None)`: none.
    pub group: Option<Option<GroupName>>,
    /// State that the operator wants.
    pub admin: Option<Admin>,
    /// With a change of `admin` to a drain: the time at which it ends. A change of `admin` without it removes the time.
    pub drain_until: Option<SystemTime>,
}

impl BackendChange {
    /// Whether it changes only values that an operator may set of a backend that a host name found.
    fn is_by_hand(&self) -> bool {
        let Self {
            address,
            weight: _,
            mode,
            server_ids,
            agent_port,
            backup,
            group,
            admin: _,
            drain_until: _,
        } = self;
        address.is_none()
            && mode.is_none()
            && server_ids.is_none()
            && agent_port.is_none()
            && backup.is_none()
            && group.is_none()
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
        change: BackendChange,
    ) -> Result<Self, ChangeError> {
        let there = self.backend(service, name)?;
        if there.discovered_by.is_some() && !change.is_by_hand() {
            return Err(found_by_host(
                service,
                there,
                "only its weight and its state can be set",
            ));
        }
        let mut changed = self.service(service)?.clone();
        let BackendChange {
            address,
            weight,
            mode,
            server_ids,
            agent_port,
            backup,
            group,
            admin,
            drain_until,
        } = change;
        for backend in changed
            .backends
            .iter_mut()
            .filter(|backend| backend.name == *name)
        {
            backend.address = address.unwrap_or(backend.address);
            backend.weight = weight.unwrap_or(backend.weight);
            backend.mode = mode.unwrap_or(backend.mode);
            backend.agent_port = agent_port.or(backend.agent_port);
            backend.backup = backup.unwrap_or(backend.backup);
            if let Some(group) = &group {
                backend.group.clone_from(group);
            }
            if let Some(server_ids) = &server_ids {
                backend.server_ids.clone_from(server_ids);
            }
            if let Some(admin) = admin {
                backend.admin = admin;
                backend.drain_until = drain_until;
            }
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
