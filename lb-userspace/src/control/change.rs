//! Changes of the desired state, and the pure function that applies one.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::error::ControlError;
use crate::{
    config::{
        Config,
        change::{self, Request},
    },
    state::{
        backend::Backend,
        change::ChangeError,
        desired::{Desired, Revision},
        discovered,
        names::{BackendName, ServiceName},
        removals::MayRemove,
        stored::{self, FileOrder, Stored},
    },
};

/// A change of the desired state.
#[derive(Clone, Debug)]
pub enum Change {
    /// A service comes.
    AddService(Request),
    /// A service changes.
    SetService(ServiceName, Request),
    /// A service goes, with its backends.
    RemoveService(ServiceName),
    /// A backend comes.
    AddBackend(ServiceName, Backend),
    /// A backend changes.
    SetBackend(ServiceName, BackendName, Request),
    /// A backend goes: `now`, or when its flows are finished.
    RemoveBackend {
        /// Its service.
        service: ServiceName,
        /// Its name.
        backend: BackendName,
        /// Its flows move at once.
        now: bool,
    },
    /// Host names were answered.
    Discovered(Vec<Discovered>),
    /// The services and settings of an earlier revision come back.
    Rollback(Arc<Desired>, MayRemove),
    /// A configuration file comes.
    File(Arc<Config>, FileOrder, MayRemove),
}

/// The addresses that a host name has now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovered {
    /// The service.
    pub service: ServiceName,
    /// The host name's `[[service.backend]]` table.
    pub host: BackendName,
    /// Its addresses; at least one.
    pub addresses: BTreeSet<IpAddr>,
}

impl Change {
    /// The state after this change; its revision is higher only if something that is desired is different.
    ///
    /// # Errors
    /// [`ControlError::Change`], [`ControlError::Values`] and [`ControlError::NoServices`]
    pub fn follow(&self, stored: &Stored) -> Result<Stored, ControlError> {
        let Self::File(config, order, may) = self else {
            let desired = self.apply(&stored.desired)?;
            return Ok(Stored {
                by: stored.author_of(&desired),
                desired: Arc::new(desired),
                applied: stored.applied.clone(),
            });
        };
        let content = stored::content_by_file(stored, &config.desired, *order, may.all)?;
        let desired = stored.desired.replace(content)?;
        // Services that are alike are shared, so that later comparisons end at once.
        let known = stored.applied.as_ref().map(|applied| &applied.daemon);
        let applied = Config {
            // An operator may apply an export, which lacks these keys: a start reads another file.
            daemon: match order {
                FileOrder::Apply => known.unwrap_or(&config.daemon).clone(),
                FileOrder::Reload => config.daemon.clone(),
            },
            desired: Desired {
                revision: Revision::default(),
                ..desired.replace(config.desired.clone())?
            },
        };
        Ok(Stored {
            by: stored.author_of(&desired),
            desired: Arc::new(desired),
            applied: Some(Arc::new(applied)),
        })
    }

    /// The desired state after a change that no file brings.
    fn apply(&self, desired: &Desired) -> Result<Desired, ControlError> {
        let next = match self {
            Self::AddService(request) => change::add_service(desired, request)?,
            Self::SetService(name, request) => change::set_service(desired, name, request)?,
            Self::RemoveService(name) => desired.remove_service(name)?,
            Self::AddBackend(service, backend) => desired.add_backend(service, backend.clone())?,
            Self::SetBackend(service, name, request) => change::set_backend(desired, service, name, request)?,
            Self::RemoveBackend {
                service,
                backend,
                now: _,
            } => desired.remove_backend(service, backend)?,
            Self::Discovered(answers) => {
                let mut next = desired.clone();
                for Discovered {
                    service,
                    host,
                    addresses,
                } in answers
                {
                    match discovered::answered(&next, service, host, addresses) {
                        Ok((after, _)) => next = after,
                        // It went while it was looked up.
                        Err(ChangeError::NotFound { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                // One change makes one revision.
                desired.replace(next)?
            }
            Self::Rollback(past, _) => desired.replace(discovered::carry(past, desired))?,
            Self::File(config, ..) => desired.replace(config.desired.clone())?,
        };
        Ok(next)
    }

    /// The backend that must not linger.
    pub fn at_once(&self) -> Option<(&ServiceName, &BackendName)> {
        match self {
            Self::RemoveBackend {
                service,
                backend,
                now: true,
            } => Some((service, backend)),
            Self::RemoveBackend { now: false, .. }
            | Self::AddService(_)
            | Self::SetService(..)
            | Self::RemoveService(_)
            | Self::AddBackend(..)
            | Self::SetBackend(..)
            | Self::Discovered(_)
            | Self::Rollback(..)
            | Self::File(..) => None,
        }
    }

    /// The same, as if all that it removes were confirmed.
    pub fn confirmed(&self) -> Self {
        match self.clone() {
            Self::File(config, order, _) => Self::File(config, order, MayRemove::ANY),
            Self::Rollback(past, _) => Self::Rollback(past, MayRemove::ANY),
            other @ (Self::RemoveBackend { .. }
            | Self::AddService(_)
            | Self::SetService(..)
            | Self::RemoveService(_)
            | Self::AddBackend(..)
            | Self::SetBackend(..)
            | Self::Discovered(_)) => other,
        }
    }

    /// What it may remove; `None` for changes that name what they remove.
    pub fn may_remove(&self) -> Option<MayRemove> {
        match self {
            Self::Rollback(_, may) | Self::File(_, _, may) => Some(*may),
            Self::RemoveBackend { .. }
            | Self::AddService(_)
            | Self::SetService(..)
            | Self::RemoveService(_)
            | Self::AddBackend(..)
            | Self::SetBackend(..)
            | Self::Discovered(_) => None,
        }
    }
}
