//! What is to be diagnosed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use lb_common::service::Mode;

use crate::{
    datapath::XdpMode,
    state::{desired::Desired, service::Service, xdp_mode::XdpModeChoice},
};

/// What is to be diagnosed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Interfaces, by any of their names.
    pub interfaces: Vec<String>,
    /// XDP modes that may be used.
    pub xdp_mode: XdpModeChoice,
    /// The mode in which the program runs on each interface now, if a daemon runs.
    pub running: BTreeMap<String, XdpMode>,
    /// Whether a daemon runs.
    pub has_daemon: bool,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// Services and settings.
    pub desired: Desired,
    /// Addresses of services that are looked at, beside those of `desired`.
    pub addresses: Vec<IpAddr>,
    /// Looks at services of these addresses alone, unless empty.
    pub only: Vec<IpAddr>,
}

impl Setup {
    /// The services that are looked at.
    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.desired
            .services
            .values()
            .map(|service| &**service)
            .filter(|service| {
                self.only.is_empty() || self.only.iter().any(|address| service.key.has_address(*address))
            })
    }

    /// Addresses of services that are looked at, each on its own: no prefixes.
    pub(super) fn service_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let services = self.services().filter(|service| !service.key.is_prefix());
        services
            .map(|service| service.key.address)
            .chain(self.addresses.iter().copied())
    }

    /// Addresses of backends that are looked at.
    pub(super) fn backend_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.services()
            .flat_map(|service| service.backends.iter().map(|backend| backend.address.ip()))
    }

    /// Addresses of backends in mode l2dsr.
    pub(super) fn direct_addresses(&self) -> BTreeSet<IpAddr> {
        let direct = self.services().flat_map(|service| {
            let backends = service.backends.iter();
            backends.filter(|backend| backend.mode.unwrap_or(service.mode) == Mode::L2dsr)
        });
        direct.map(|backend| backend.address.ip()).collect()
    }
}
