//! Faults of the set-up that make flows fail although checks succeed, as the diagnosis finds them.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use crate::state::names::{BackendName, ServiceName};

/// Faults by service; a service without any is missing.
pub type FaultsByService = BTreeMap<ServiceName, Vec<Fault>>;

/// The present faults, kept current.
pub type Faults = watch::Receiver<Arc<FaultsByService>>;

/// Why flows fail, whatever checks say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fault {
    /// The backend whose flows fail; `None`: all flows of the service do.
    pub backend: Option<BackendName>,
    /// The reason.
    pub message: String,
    /// Commands or changes that mend it, the best first; any of them is enough.
    pub remedies: Vec<String>,
}
