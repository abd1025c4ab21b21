//! The flows in the tables, one by one: NAT flows, and the records of other modes.
//!
//! A walk reads the tables in chunks, as the sweeper does, and never holds more than a chunk. One walk at a time reads: a
//! lock is taken for each chunk, so that walks together use one CPU at most, and a walk whose reader is slow holds up none.

mod address;
pub(crate) mod flow;
mod owners;
mod pairs;
mod walk;
pub(crate) mod walking;

use std::{
    fmt, io,
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use self::{
    flow::{Flow, FlowFilter, ReadFlows},
    owners::Owners,
    walk::{Act, Walk},
    walking::Walking,
};
use crate::{directory::Directory, maps::Maps};

/// Reads and removes the flows of a running data plane.
#[derive(Clone)]
pub struct FlowReader {
    maps: Arc<Maps>,
    directory: watch::Receiver<Arc<Directory>>,
    /// Held by the walk that reads a chunk.
    turn: Arc<Mutex<()>>,
    walking: Walking,
}

impl fmt::Debug for FlowReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowReader").finish_non_exhaustive()
    }
}

impl FlowReader {
    pub(super) fn new(maps: Arc<Maps>, directory: watch::Receiver<Arc<Directory>>, walking: Walking) -> Self {
        Self {
            maps,
            directory,
            turn: Arc::default(),
            walking,
        }
    }

    fn walk_of<'a>(&'a self, filter: &'a FlowFilter, act: Act<'a>) -> Walk<'a> {
        let owners = Owners::new(&self.maps, filter, self.directory.clone());
        Walk::new(&self.maps, &self.turn, filter, owners, act)
    }
}

impl ReadFlows for FlowReader {
    fn walk(&self, filter: &FlowFilter, visit: &mut dyn FnMut(&[Flow]) -> ControlFlow<()>) -> io::Result<()> {
        let _under_way = self.walking.begin();
        self.walk_of(filter, Act::Show(visit)).run()
    }

    fn flush(&self, filter: &FlowFilter, removed: &mut u64) -> io::Result<()> {
        self.walk_of(filter, Act::Remove(removed)).run()
    }
}
