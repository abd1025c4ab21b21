use lb_common::vlan::Vlan;

use super::*;
use crate::netlink::{LinkOperation, Stacking, VlanLink};

const BACKEND: &str = "10.0.0.11";
const ROUTER: &str = "10.0.0.254";
const OLD: [u8; 6] = [8; 6];
const NEW: [u8; 6] = [9; 6];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(ifindex: u32, mac: Option<[u8; 6]>) -> LinkState {
    LinkState {
        ifindex,
        name: format!("if{ifindex}"),
        framed: true,
        mac,
        mtu: 9000,
        vlan: None,
        stacking: Stacking::default(),
        xdp: None,
        alias: None,
        altnames: Vec::new(),
        operation: LinkOperation::Up,
    }
}

fn vlan(ifindex: u32, parent: u32, id: u16, service: bool) -> LinkState {
    LinkState {
        vlan: Some(VlanLink {
            parent,
            vlan: Vlan { id, service },
        }),
        ..link(ifindex, Some([2; 6]))
    }
}

#[test]
fn frames_leave_by_the_link_below_their_vlans() {
    let links = [
        link(1, Some([1; 6])),
        vlan(2, 1, 100, true),
        vlan(3, 2, 200, false),
        vlan(4, 3, 300, false),
        vlan(5, 9, 50, false),
    ];
    let (outer, inner) = (
        Vlan {
            id: 100,
            service: true,
        },
        Vlan {
            id: 200,
            service: false,
        },
    );
    let lost = Vlan {
        id: 50,
        service: false,
    };
    let exit = |ifindex, outer, inner| Vlans::new(outer, inner).map(|vlans| Exit { ifindex, vlans });
    let wanted = [
        exit(1, None, None),
        exit(1, Some(outer), None),
        exit(1, Some(outer), Some(inner)),
        None,
        exit(9, Some(lost), None),
    ];
    let find = |index| Ok::<_, ()>(links.iter().find(|link| link.ifindex == index).cloned());
    for (link, wanted) in links.iter().zip(wanted) {
        assert_eq!(Exit::by(link, find), Ok(wanted), "{}", link.name);
        let way = way(
            ip(BACKEND),
            unicast(link.ifindex, None),
            Some((link, wanted)),
            neighbour(Some(OLD)),
            None,
        );
        assert_eq!(way.hop().mac, wanted.map(|_| OLD));
        assert_eq!(way.hop().vlans, wanted.map_or(Vlans::NONE, |exit| exit.vlans));
        let error = "the route leads over if4, whose frames have more than two VLAN tags";
        assert_eq!(way.state().error(), wanted.is_none().then(|| error.to_owned()));
    }
}

fn unicast(ifindex: u32, gateway: Option<&str>) -> Route {
    Route::Unicast {
        ifindex,
        gateway: gateway.map(ip),
        source: Some(ip("10.0.0.1")),
        mtu: Some(1400),
    }
}

fn plain(link: &LinkState) -> Option<(&LinkState, Option<Exit>)> {
    let exit = Exit {
        ifindex: link.ifindex,
        vlans: Vlans::NONE,
    };
    Some((link, Some(exit)))
}

const fn neighbour(mac: Option<[u8; 6]>) -> Option<Neighbour> {
    Some(Neighbour { mac, confirmed: true })
}

#[test]
fn packets_go_where_the_kernel_would_send_them() {
    let ethernet = link(4, Some([2; 6]));
    let other = link(5, Some([3; 6]));
    let tunnel = link(6, None);
    let known = way(
        ip(BACKEND),
        unicast(4, None),
        plain(&ethernet),
        neighbour(Some(OLD)),
        None,
    );
    #[expect(clippy::type_complexity, reason = "a table of cases")]
    let cases: [(
        &str,
        Route,
        Option<&LinkState>,
        Option<Neighbour>,
        Option<Last>,
        Option<[u8; 6]>,
        Option<&str>,
    ); 11] = [
        (
            "on the same link",
            unicast(4, None),
            Some(&ethernet),
            neighbour(Some(OLD)),
            None,
            Some(OLD),
            None,
        ),
        (
            "behind a router",
            unicast(4, Some(ROUTER)),
            Some(&ethernet),
            neighbour(Some(OLD)),
            None,
            Some(OLD),
            None,
        ),
        (
            "no neighbour yet",
            unicast(4, None),
            Some(&ethernet),
            None,
            None,
            None,
            Some("next hop 10.0.0.11 on if4 does not answer"),
        ),
        (
            "a router that never answered",
            unicast(4, Some(ROUTER)),
            Some(&ethernet),
            neighbour(None),
            None,
            None,
            Some("next hop 10.0.0.254 on if4 does not answer"),
        ),
        (
            "another MAC address",
            unicast(4, None),
            Some(&ethernet),
            neighbour(Some(NEW)),
            Some(known.last()),
            Some(NEW),
            None,
        ),
        (
            "stopped answering",
            unicast(4, None),
            Some(&ethernet),
            neighbour(None),
            Some(known.last()),
            Some(OLD),
            Some("next hop 10.0.0.11 on if4 does not answer"),
        ),
        (
            "moved to another link",
            unicast(5, None),
            Some(&other),
            None,
            Some(known.last()),
            None,
            Some("next hop 10.0.0.11 on if5 does not answer"),
        ),
        (
            "this host",
            Route::Local,
            None,
            None,
            Some(known.last()),
            None,
            Some("the address is one of this host; a backend must be another machine"),
        ),
        (
            "no route",
            Route::Unreachable,
            None,
            None,
            Some(known.last()),
            None,
            Some("no route to it"),
        ),
        (
            "the link is gone",
            unicast(4, None),
            None,
            None,
            Some(known.last()),
            None,
            Some("no route to it"),
        ),
        (
            "a link without MAC addresses",
            unicast(6, None),
            Some(&tunnel),
            None,
            None,
            None,
            Some("the route leads over if6, which is not Ethernet"),
        ),
    ];
    for (name, route, link, neighbour, before, mac, error) in cases {
        let way = way(ip(BACKEND), route, link.and_then(plain), neighbour, before);
        assert_eq!(way.hop().mac, mac, "{name}");
        assert_eq!(way.state().error().as_deref(), error, "{name}");
    }
    assert_eq!(known.hop().mtu, 1400, "the smaller of path and link");
    assert_eq!(known.hop().source, Some(ip("10.0.0.1")));
}
