//! Faults of the set-up that make flows fail although checks succeed, as the diagnosis finds them.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use crate::state::names::{BackendName, ServiceName};

/// Faults by service; a service without any is missing.
pub type FaultsByService = BTreeMap<ServiceName, Vec<Fault>>;

/// The present faults, kept current.
pub type Faults = watch::Receiver<Arc<FaultsByService>>;

/// Why flows fail, whatever checks say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The backend whose flows fail; `None` for a reason of the service itself.
    pub backend: Option<BackendName>,
    /// Whether all flows of the service fail: those of each other backend do, too, maybe for another reason.
    pub is_total: bool,
    /// The reason.
    pub message: String,
    /// Commands or changes that mend it, the best first; any of them is enough.
    pub remedies: Vec<String>,
}

impl Fault {
    /// The reason, with the backend's name in front where it stands for all flows of the service.
    pub fn reason(&self) -> String {
        match &self.backend {
            Some(backend) if self.is_total => format!("{backend}: {}", self.message),
            Some(_) | None => self.message.clone(),
        }
    }
}
