//! The consistent snapshot that the control task publishes for the API, the metrics and start-up.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::SystemTime};

use super::removed::RemovedBackend;
use crate::{
    config::Config,
    datapath::{self, Interface},
    plan::{Target, TargetBackend, TargetService},
    state::{
        desired::Desired,
        names::{BackendName, ServiceName},
        service::{Service, ServiceKey},
        stored::Stored,
    },
};

/// A configuration file that is not in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedFile {
    /// Which file, and why.
    pub why: String,
    /// When.
    pub at: SystemTime,
}

/// Desired against programmed at one moment.
#[derive(Clone, Debug)]
pub struct ControlView {
    /// The desired state.
    pub desired: Arc<Desired>,
    /// The wanted target.
    pub wanted: Arc<Target>,
    /// The programmed target; `None` before the first success.
    pub programmed: Option<Arc<Target>>,
    /// Why `programmed` is not `wanted`.
    pub failure: Option<String>,
    /// Removed backends that finish their flows.
    pub lingering: Vec<RemovedBackend>,
    /// When drains end by themselves.
    pub drain_deadlines: BTreeMap<(ServiceName, BackendName), SystemTime>,
    /// When backends that begin slowly have their whole weight.
    pub whole_at: BTreeMap<(ServiceName, BackendName), SystemTime>,
    /// Whether the latest requested change is in force.
    pub last_apply_ok: bool,
    /// The configuration file that was applied last.
    pub applied: Option<Arc<Config>>,
    /// The latest configuration file, if it was refused.
    pub refused: Option<RefusedFile>,
}

impl ControlView {
    /// The state that a restart begins with.
    pub fn stored(&self) -> Stored {
        Stored {
            desired: Arc::clone(&self.desired),
            applied: self.applied.clone(),
            by: None,
        }
    }

    /// Whether the data plane does all that is wanted.
    pub fn is_programmed(&self) -> bool {
        self.programmed.as_deref() == Some(&*self.wanted)
    }

    /// Why the balancer is not ready: the wanted state is not programmed, or the program is missing on an interface.
    /// `None`: it is ready.
    pub fn not_ready(&self, interfaces: &[Interface]) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        if !self.is_programmed() {
            return Some("not programmed yet".to_owned());
        }
        datapath::missing(interfaces)
    }

    /// Whether the wanted state of one service is programmed.
    pub fn service_is_programmed(&self, key: &ServiceKey) -> bool {
        let there = self
            .programmed
            .as_ref()
            .and_then(|target| target.services.get(key));
        there.is_some() && there == self.wanted.services.get(key)
    }

    /// The programmed service of this key, else the wanted one.
    pub fn target_service(&self, key: &ServiceKey) -> Option<&TargetService> {
        let programmed = self
            .programmed
            .as_ref()
            .and_then(|target| target.services.get(key));
        programmed
            .or_else(|| self.wanted.services.get(key))
            .map(|service| &**service)
    }

    /// A backend as it is programmed, else as it is wanted.
    pub fn target_backend(&self, key: &ServiceKey, address: SocketAddr) -> Option<&TargetBackend> {
        self.target_service(key)?.backends.get(&address)
    }

    /// Removed backends of a service that finish their flows.
    pub fn lingering_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a RemovedBackend> {
        self.lingering
            .iter()
            .filter(move |lingering| lingering.key == service.key)
    }

    /// All backends with their place in the data plane: desired ones first, then removed ones whose flows finish. A
    /// name comes twice when a backend was moved or replaced.
    pub fn backends(&self) -> impl Iterator<Item = ((ServiceName, BackendName), ServiceKey, SocketAddr)> {
        let desired = self.desired.services.values().flat_map(|service| {
            service.backends.iter().map(|backend| {
                let id = (service.name.clone(), backend.name.clone());
                (id, service.key, backend.address)
            })
        });
        let lingering = self.lingering.iter().map(|lingering| {
            let id = (lingering.service.clone(), lingering.name.clone());
            (id, lingering.key, lingering.address)
        });
        desired.chain(lingering)
    }
}
