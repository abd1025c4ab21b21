//! Finds the other end of a veth, in whatever network namespace it is.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    thread,
};

use super::{
    ethtool::Offloads,
    network::{HostLink, HostNetwork},
};

/// Where tools keep namespaces by name.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The other end of a veth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its namespace: a name for `ip -n`, or a process in it.
    pub place: Place,
    /// Its name there.
    pub name: String,
    /// Settings of its driver.
    pub offloads: Offloads,
    /// Whether it is a port of a bridge: packets come from other ports, none begin at it.
    pub is_port: bool,
}

/// A network namespace, as a user refers to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// The one of this process.
    Here,
    /// One with a name.
    Named(String),
    /// One without a name, by a process in it.
    Process(u32),
}

impl Place {
    /// A command that runs in it.
    pub fn command(&self, command: &str) -> String {
        match self {
            Self::Here => command.to_owned(),
            Self::Named(name) => format!("ip netns exec {name} {command}"),
            Self::Process(pid) => format!("nsenter -t {pid} -n {command}"),
        }
    }
}

impl HostNetwork {
    /// The other end of a veth.
    pub fn peer(&mut self, link: &HostLink) -> Option<Peer> {
        find(self, link)
    }
}

/// Finds the peer of `link`, here or in another namespace. `None` where it cannot be found: without privileges, or in a namespace
/// that has neither name nor process.
fn find(here: &mut HostNetwork, link: &HostLink) -> Option<Peer> {
    let tied_to = link.tied_to?;
    let Some(id) = tied_to.namespace else {
        return peer(here, tied_to.ifindex, Place::Here);
    };
    let mut seen = BTreeSet::new();
    elsewhere().find_map(|(place, path)| {
        if !seen.insert(fs::metadata(&path).ok()?.ino()) {
            return None;
        }
        let file = File::open(path).ok()?;
        if here.client.namespace_id(&file).ok()? != Some(id) {
            return None;
        }
        let look = || {
            enter(&file).ok()?;
            peer(&mut HostNetwork::open().ok()?, tied_to.ifindex, place)
        };
        thread::scope(|scope| scope.spawn(look).join().ok().flatten())
    })
}

/// A link of the namespace that `network` asks.
fn peer(network: &mut HostNetwork, ifindex: u32, place: Place) -> Option<Peer> {
    let link = network.client.link(ifindex).ok()??;
    Some(Peer {
        place,
        offloads: network.offloads(&link.name),
        is_port: link.stacking.controller.is_some(),
        name: link.name,
    })
}

/// Namespaces with a name, then those of processes.
fn elsewhere() -> impl Iterator<Item = (Place, PathBuf)> {
    let entries = |dir: &str| fs::read_dir(dir).into_iter().flatten().flatten();
    let named = NAMED
        .iter()
        .flat_map(move |dir| entries(dir))
        .filter_map(|entry| Some((Place::Named(entry.file_name().into_string().ok()?), entry.path())));
    let processes = entries("/proc").filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((Place::Process(pid), entry.path().join("ns/net")))
    });
    named.chain(processes)
}

fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open until the call returns.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
