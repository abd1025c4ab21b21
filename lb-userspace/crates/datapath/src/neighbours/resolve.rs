//! Asks the kernel for the way to an address: route, link, neighbour.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::IpAddr,
};

use super::{
    super::netlink::{Client, LinkState, Neighbour, Route},
    next_hop::{NextHop, NextHopState},
    way::{Exit, Last, Way, way},
};

/// Results of look-ups to reuse: thousands of backends may be behind one router.
#[derive(Default)]
pub(super) struct Seen {
    links: BTreeMap<u32, Option<LinkState>>,
    neighbours: BTreeMap<(u32, IpAddr), Option<Neighbour>>,
}

/// Asks the kernel for the way to `address`, and makes it resolve a neighbour that it does not know, or that it should confirm.
pub(super) fn resolve(
    client: &mut Client,
    address: IpAddr,
    seen: &mut Seen,
    confirm: bool,
    last: Option<Last>,
) -> io::Result<Way> {
    let route = client.route(address)?;
    let (mut link, mut neighbour) = (None, None);
    if let Route::Unicast { ifindex, gateway, .. } = route {
        let Seen { links, neighbours } = seen;
        let mut find = |ifindex| -> io::Result<Option<LinkState>> {
            Ok(match links.entry(ifindex) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(unknown) => unknown.insert(client.link(ifindex)?).clone(),
            })
        };
        if let Some(found) = find(ifindex)? {
            let exit = Exit::by(&found, find)?;
            link = Some((found, exit));
        }
        if link.as_ref().is_some_and(|(link, _)| link.mac.is_some()) {
            let via = gateway.unwrap_or(address);
            neighbour = match neighbours.entry((ifindex, via)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    let neighbour = client.neighbour(ifindex, via)?;
                    if neighbour.is_none_or(|neighbour| confirm && !neighbour.confirmed) {
                        // Not being able to ask shows in the neighbour's silence.
                        let _ = client.probe(ifindex, via);
                    }
                    *unknown.insert(neighbour)
                }
            };
        }
    }
    let link = link.as_ref().map(|(link, exit)| (link, *exit));
    Ok(way(address, route, link, neighbour, last))
}

/// The way to each of `addresses` as the kernel knows it now, with the largest IP packet on it in bytes.
///
/// # Errors
/// When the kernel cannot be asked.
pub(in super::super) fn look_up(
    client: &mut Client,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> io::Result<BTreeMap<IpAddr, (NextHopState, NextHop)>> {
    let mut seen = Seen::default();
    addresses
        .into_iter()
        .map(|address| {
            let way = resolve(client, address, &mut seen, true, None)?;
            Ok((address, (way.state().clone(), *way.hop())))
        })
        .collect()
}
