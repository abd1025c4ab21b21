//! Questions to the kernel about routes and neighbours, and the socket of all questions.

use std::{io, net::IpAddr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The kernel's answer about the way to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Route {
    /// Over a link.
    Unicast {
        /// Index of the link.
        ifindex: u32,
        /// The router in between; `None` on the same link.
        gateway: Option<IpAddr>,
        /// The address that packets of our own would leave with.
        source: Option<IpAddr>,
        /// MTU of the path if the kernel knows one smaller than the link's.
        mtu: Option<u32>,
    },
    /// The address is one of this host.
    Local,
    /// No way, or one that leads nowhere.
    Unreachable,
}

/// A neighbour entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Neighbour {
    /// Its MAC address, as long as the kernel would use it.
    pub(in super::super) mac: Option<[u8; 6]>,
    /// The kernel has confirmed it lately, or never needs to.
    pub(in super::super) confirmed: bool,
}

/// A socket for questions. The kernel answers within the call that asks, so none of these blocks for long.
pub(in super::super) struct Client {
    socket: Socket,
    sequence: u32,
    /// Room for what the kernel sends at once.
    answer: Vec<u8>,
}

/// Most bytes of an answer: the kernel fills at most 32 KiB of an answer in parts (`netlink_dump`), and a single answer is
/// about one link, route or neighbour.
const ANSWER_BYTES: usize = 1 << 16;

impl Client {
    /// Opens a socket in the network namespace of this thread.
    pub(in super::super) fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            answer: Vec::with_capacity(ANSWER_BYTES),
        })
    }

    /// The addresses of this machine.
    pub(in super::super) fn addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        let addresses = self.link_addresses()?.into_iter();
        Ok(addresses.map(|(_, address)| address).collect())
    }

    /// The addresses of this machine, each with the index of its link.
    pub(in super::super) fn link_addresses(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        let answer = self.ask(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
        )?;
        Ok(answer.into_iter().filter_map(address).collect())
    }

    /// The way to `destination`.
    pub(in super::super) fn route(&mut self, destination: IpAddr) -> io::Result<Route> {
        match self.ask(RouteNetlinkMessage::GetRoute(route_message(destination)), 0) {
            Ok(answer) => Ok(answer.into_iter().find_map(route).unwrap_or(Route::Unreachable)),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                Ok(Route::Unreachable)
            }
            Err(e) => Err(e),
        }
    }

    /// The prefix length of the route that leads to `destination`.
    pub(in super::super) fn route_length(&mut self, destination: IpAddr) -> io::Result<Option<u8>> {
        let mut message = route_message(destination);
        message.header.flags = RouteFlags::FibMatch;
        let answer = self.ask(RouteNetlinkMessage::GetRoute(message), 0)?;
        let length = |answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route.header.destination_prefix_length),
            _ => None,
        };
        Ok(answer.into_iter().find_map(length))
    }

    /// The neighbour entry of `address` on a link, if there is one.
    pub(in super::super) fn neighbour(
        &mut self,
        ifindex: u32,
        address: IpAddr,
    ) -> io::Result<Option<Neighbour>> {
        let message = RouteNetlinkMessage::GetNeighbour(neighbour_message(ifindex, address));
        match self.ask(message, 0) {
            Ok(answer) => Ok(answer.into_iter().find_map(neighbour)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes the kernel resolve `address`, or confirm the entry it has, as if a packet were sent there.
    pub(in super::super) fn probe(&mut self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = neighbour_message(ifindex, address);
        message.header.flags = NeighbourFlags::Use;
        self.ask(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_ACK | NLM_F_CREATE,
        )
        .map(drop)
    }

    /// Sends a request and collects the whole answer.
    pub(super) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answer = Vec::new();
        loop {
            self.answer.clear();
            // With this flag the kernel returns the length of the answer, also if it does not fit.
            let length = self.socket.recv(&mut self.answer, libc::MSG_TRUNC)?;
            if length > self.answer.len() {
                return Err(io::Error::other(format!(
                    "an answer of {length} bytes does not fit"
                )));
            }
            for message in messages(&self.answer) {
                let message = message?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        answer.push(inner);
                        if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                            return Ok(answer);
                        }
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answer),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of a datagram, which stand one behind the other on multiples of four bytes.
pub(super) fn messages(
    mut datagram: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> + '_ {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let message = NetlinkMessage::deserialize(datagram);
        let length = match &message {
            Ok(message) => (message.header.length as usize).next_multiple_of(4),
            Err(_) => datagram.len(),
        };
        datagram = datagram.get(length..).unwrap_or_default();
        Some(message.map_err(io::Error::other))
    })
}

pub(super) fn family(address: IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}

fn route_message(destination: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, bits) = family(destination);
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    message
        .attributes
        .push(RouteAttribute::Destination(destination.into()));
    message
}

pub(super) fn neighbour_message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address).0;
    message.header.ifindex = ifindex;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }));
    message
}

pub(super) fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok()
}

/// The machine's own end, where the link is one with two.
pub(super) fn address(message: RouteNetlinkMessage) -> Option<(u32, IpAddr)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let (mut local, mut end) = (None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(address),
            AddressAttribute::Address(address) => end = Some(address),
            _ => {}
        }
    }
    Some((message.header.index, local.or(end)?))
}

pub(super) fn route_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

pub(super) fn route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Some(Route::Local),
        _ => return Some(Route::Unreachable),
    }
    let (mut out, mut gateway, mut source, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => out = Some(*ifindex),
            RouteAttribute::Gateway(address) => gateway = route_address(address),
            RouteAttribute::Via(RouteVia::Inet(v4)) => gateway = Some(IpAddr::V4(*v4)),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::PrefSource(address) => source = route_address(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Route::Unicast {
        ifindex: out?,
        gateway,
        source,
        mtu,
    })
}

pub(super) fn neighbour(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    // The states in which the kernel itself sends to the address: NUD_VALID of net/neighbour.h.
    let valid = matches!(
        message.header.state,
        Permanent | Noarp | Reachable | Probe | Stale | Delay
    );
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
        _ => None,
    });
    Some(Neighbour {
        mac: mac.filter(|_| valid),
        confirmed: matches!(message.header.state, Permanent | Noarp | Reachable),
    })
}
