//! Leads health checks into the forwarding path (see [`lb_common::check`]).

mod device;
mod source;

use std::{
    collections::HashMap,
    fmt, io, mem,
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::{
    addr::{NetAddr, NetPort, NetV4, NetV6},
    backend::{BackendId, Generation},
    check::{Ends as _, IPV6, PathCheck},
};
use tokio::{
    sync::{Mutex, watch},
    task,
};

pub(super) use self::device::remove_leftovers;
use self::{device::Device, source::Sources};
use super::{directory::Directory, maps::Maps};
use crate::{
    health::{CheckPath, Paths, ProbeRoute, RouteFuture},
    interface::Interfaces,
};

/// Time after which what could not be made is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The ways of health checks into the forwarding path. Nothing is made before the first check asks.
pub struct CheckPaths {
    /// The pin directory, with the directory of this version, and in it the directory of programs.
    pub(super) pins: [PathBuf; 3],
    pub(super) maps: Arc<Maps>,
    pub(super) interfaces: Interfaces,
    pub(super) directory: watch::Receiver<Arc<Directory>>,
    pub(super) state: Mutex<State>,
}

impl fmt::Debug for CheckPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckPaths").finish_non_exhaustive()
    }
}

/// The present state.
#[derive(Default)]
pub(super) struct State {
    entry: Entry,
    /// Numbers of backends by their service (address, port and protocol) and their address, as this directory has them.
    numbers: HashMap<(SocketAddr, u8, SocketAddr), (BackendId, Generation)>,
    of: Option<Arc<Directory>>,
    sources: Sources,
}

/// The way in.
#[derive(Default)]
enum Entry {
    /// No check has asked for it.
    #[default]
    Unmade,
    Made(Made),
    /// It cannot be made; since when.
    Failed(String, Instant),
    /// It is not to be made any more.
    Closed,
}

struct Made {
    device: Device,
    /// The entries of its program's map, by the backend's number.
    written: HashMap<BackendId, PathCheck>,
}

impl Paths for CheckPaths {
    fn open<'a>(&'a self, path: &'a CheckPath, port: u16, source: Option<IpAddr>) -> RouteFuture<'a> {
        Box::pin(self.enter(path, port, source))
    }
}

impl CheckPaths {
    /// Removes what was made; nothing is made any more.
    pub async fn close(&self) {
        let entry = mem::replace(&mut self.state.lock().await.entry, Entry::Closed);
        // The kernel takes a while. An error means that the runtime is going down, and the entry with it.
        let _ = task::spawn_blocking(move || drop(entry)).await;
    }

    async fn enter(&self, path: &CheckPath, port: u16, source: Option<IpAddr>) -> Result<ProbeRoute, String> {
        let mut state = self.state.lock().await;
        self.make(&mut state.entry).await?;
        state.learn(&self.directory.borrow());
        let State {
            entry,
            numbers,
            of,
            sources,
        } = &mut *state;
        let (Entry::Made(made), Some(directory)) = (entry, of) else {
            return Err("it is not there".to_owned());
        };
        let known = numbers.get(&(path.vip, path.protocol, path.backend)).copied();
        let (id, generation) = known.ok_or("the backend is not programmed")?;
        let read = |e: io::Error| format!("cannot read the backend's record: {e}");
        let record = self.maps.backends.get(&u32::from(id.0)).map_err(read)?;
        let source = match source {
            Some(source) => Some(source),
            None => {
                let interfaces = self.interfaces.borrow().clone();
                sources.find(path, &record.unwrap_or_default(), &interfaces, directory)?
            }
        };
        let check = PathCheck {
            vip: path.vip.ip().into(),
            source: source.map_or_else(NetAddr::default, NetAddr::from),
            port: NetPort::new(port),
            generation,
            flags: if path.vip.ip().is_ipv6() { IPV6 } else { 0 },
        };
        let device = &made.device;
        if made.written.get(&id) != Some(&check) {
            device
                .put(id.0, check)
                .map_err(|e| format!("cannot update the program: {e}"))?;
            made.written.insert(id, check);
        }
        Ok(ProbeRoute {
            address: if path.vip.ip().is_ipv4() {
                SocketAddrV4::new(NetV4::FAR.to_std(), id.0).into()
            } else {
                SocketAddrV6::new(NetV6::FAR.to_std(), id.0, 0, device.ifindex).into()
            },
            device: Arc::clone(&device.name),
        })
    }

    /// Makes the way in, unless it is there.
    async fn make(&self, entry: &mut Entry) -> Result<(), String> {
        let is_there = match entry {
            Entry::Made(made) => made.device.is_there(),
            Entry::Unmade | Entry::Failed(..) | Entry::Closed => false,
        };
        match entry {
            Entry::Made(_) if is_there => return Ok(()),
            Entry::Failed(why, at) if at.elapsed() < RETRY => return Err(why.clone()),
            Entry::Closed => return Err("the daemon ends".to_owned()),
            Entry::Unmade | Entry::Made(_) | Entry::Failed(..) => {}
        }
        *entry = Entry::Unmade;
        let [pins, current, programs] = self.pins.clone();
        let device = task::spawn_blocking(move || Device::new(&pins, &current, &programs)).await;
        match device.map_err(|e| e.to_string()).flatten() {
            Ok(device) => {
                tracing::info!(interface = %device.name, "health checks go through the forwarding path");
                *entry = Entry::Made(Made {
                    device,
                    written: HashMap::new(),
                });
                Ok(())
            }
            Err(why) => {
                tracing::error!("health checks cannot enter the forwarding path: {why}");
                *entry = Entry::Failed(why.clone(), Instant::now());
                Err(why)
            }
        }
    }
}

impl State {
    /// Looks up numbers anew where they may have changed.
    fn learn(&mut self, directory: &Arc<Directory>) {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, directory)) {
            return;
        }
        let entries = directory.backends.iter();
        self.numbers = entries
            .map(|entry| {
                let key = entry.service;
                let vip = SocketAddr::new(key.address, key.port);
                (
                    (vip, key.protocol.number(), entry.address),
                    (entry.id, entry.generation),
                )
            })
            .collect();
        self.of = Some(Arc::clone(directory));
    }
}
