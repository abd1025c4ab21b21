//! The kernel's notices of changes.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "as in the module above: messages and attributes are open sets"
)]

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::messages;

/// Bytes the kernel may queue for us on either socket.
const RECEIVE_BUFFER_BYTES: u32 = 1 << 20;

/// Multicast groups, include/uapi/linux/rtnetlink.h: links, neighbours, addresses and routes of both families.
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// A change that may concern forwarding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Notice {
    /// A neighbour entry of this address changed.
    Neighbour(IpAddr),
    /// A link, address or route changed, or notices were lost: anything may be different.
    Anything,
}

/// A socket that hears of changes.
pub(in super::super) struct Watch {
    socket: Socket,
}

impl Watch {
    /// Subscribes in the network namespace of this thread.
    pub(in super::super) fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER_BYTES)?;
        socket.bind_auto()?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self { socket })
    }

    /// The notices of one datagram. WouldBlock: none is there.
    pub(in super::super) fn read(&self) -> io::Result<Vec<Notice>> {
        match self.socket.recv_from_full() {
            Ok((datagram, _)) => Ok(messages(&datagram)
                .filter_map(|message| notice(message.ok()?))
                .collect()),
            // The kernel dropped notices that did not fit into the socket's buffer.
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Ok(vec![Notice::Anything]),
            Err(e) => Err(e),
        }
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn notice(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Notice> {
    let NetlinkPayload::InnerMessage(inner) = message.payload else {
        return Some(Notice::Anything);
    };
    match inner {
        RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message) => {
            message.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    Some(Notice::Neighbour(IpAddr::V4(*v4)))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    Some(Notice::Neighbour(IpAddr::V6(*v6)))
                }
                _ => None,
            })
        }
        _ => Some(Notice::Anything),
    }
}
