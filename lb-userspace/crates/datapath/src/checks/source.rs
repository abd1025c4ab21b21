//! The address of this machine that a check leaves with.
//!
//! A backend answers it there, so answers must come in where the balancer's program runs: on one of its interfaces.

use std::{
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_common::{
    backend::{Backend, IPV6},
    service::Mode,
};

use super::super::{directory::Directory, netlink::Client};
use crate::{health::CheckPath, interface::Interface};

/// Time for which addresses count as known.
const KNOWN: Duration = Duration::from_secs(10);

/// Addresses that checks may leave with.
#[derive(Default)]
pub(super) struct Sources {
    /// Addresses of the balancer's interfaces, and of VLANs on them, with the interface's index.
    addresses: Vec<(u32, IpAddr)>,
    read: Option<Instant>,
}

impl Sources {
    /// The address for checks of a path; `None`: the source in the backend's record. In modes that translate, clients' flows
    /// leave with that source.
    pub(super) fn find(
        &mut self,
        path: &CheckPath,
        record: &Backend,
        interfaces: &[Interface],
        directory: &Directory,
    ) -> Result<Option<IpAddr>, String> {
        let serves = is_served(interfaces, record.ifindex);
        let same_family = record.has(IPV6) == path.vip.ip().is_ipv6();
        let is_its_own = record.source_bits() == 0;
        if matches!(path.mode, Mode::Nat | Mode::Dnat) || (serves && same_family && is_its_own) {
            return Ok(None);
        }
        if self.read.is_none_or(|read| read.elapsed() >= KNOWN) {
            self.addresses = read(interfaces).map_err(|e| format!("cannot list addresses: {e}"))?;
            self.read = Some(Instant::now());
        }
        choose(&self.addresses, path.vip.ip(), record.ifindex, |address| {
            directory.services.iter().any(|(_, key)| key.has_address(address))
        })
        .map(Some)
        .ok_or_else(|| {
            let family = if path.vip.ip().is_ipv4() { "IPv4" } else { "IPv6" };
            format!("the balancer's interfaces have no {family} address as a source of checks: set `source`")
        })
    }
}

/// An address of the service's family, on the interface towards the backend if it has one. Backends hold the services'
/// addresses themselves.
fn choose(
    addresses: &[(u32, IpAddr)],
    vip: IpAddr,
    towards: u32,
    is_service: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut fit = addresses
        .iter()
        .filter(|(_, address)| address.is_ipv4() == vip.is_ipv4() && !is_service(*address))
        .collect::<Vec<_>>();
    fit.sort_by_key(|(ifindex, _)| *ifindex != towards);
    fit.first().map(|(_, address)| *address)
}

fn is_served(interfaces: &[Interface], ifindex: u32) -> bool {
    let mut attached = interfaces
        .iter()
        .filter_map(|interface| interface.attached.as_ref());
    attached.any(|attached| attached.ifindex == ifindex)
}

fn read(interfaces: &[Interface]) -> io::Result<Vec<(u32, IpAddr)>> {
    let mut client = Client::new()?;
    let links = client.links()?;
    let serves = |index: u32| is_served(interfaces, index);
    let mut all = client.link_addresses()?;
    all.retain(|(index, address)| {
        let vlan = links.iter().find(|link| link.ifindex == *index);
        let parent = vlan.and_then(|link| link.vlan).map(|vlan| vlan.parent);
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        (serves(*index) || parent.is_some_and(serves)) && !link_local
    });
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_comes_from_where_its_answer_finds_back() {
        let addresses = [
            (1, "192.0.2.10"),
            (1, "10.0.0.1"),
            (2, "10.9.0.1"),
            (2, "fd00::1"),
        ];
        let addresses = addresses.map(|(index, address)| (index, address.parse().unwrap()));
        let is_service = |address: IpAddr| address.to_string() == "192.0.2.10";
        for (vip, towards, expected) in [
            // Backends take the service's address for their own.
            ("192.0.2.10", 1, Some("10.0.0.1")),
            ("192.0.2.10", 2, Some("10.9.0.1")),
            ("192.0.2.10", 3, Some("10.0.0.1")),
            ("2001:db8::1", 1, Some("fd00::1")),
        ] {
            let chosen = choose(&addresses, vip.parse().unwrap(), towards, is_service);
            assert_eq!(
                chosen.map(|address| address.to_string()).as_deref(),
                expected,
                "{vip} {towards}"
            );
        }
        assert_eq!(
            choose(&addresses[..3], "::1".parse().unwrap(), 1, is_service),
            None
        );
    }
}
