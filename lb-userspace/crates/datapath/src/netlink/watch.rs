//! The kernel's notices of changes.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "as in the module above: messages and attributes are open sets"
)]

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

use super::super::faults::{DatapathPart, PartReporter};
use crate::netlink::client::messages;

/// Time between attempts to open a socket for notices.
const RETRY: Duration = Duration::from_secs(1);

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
    /// A link changed, or notices were lost: anything may be different.
    Link,
    /// An address of this machine changed, and perhaps what follows from it.
    Address,
    /// A route changed.
    Route,
}

/// A socket for notices of changes.
pub(in super::super) struct Watch {
    socket: Socket,
}

impl Watch {
    /// Subscribes to all that may concern forwarding, in the network namespace of this thread.
    pub(in super::super) fn new() -> io::Result<Self> {
        Self::of(&GROUPS)
    }

    /// Subscribes to changes of links, in the network namespace of this thread.
    pub(in super::super) fn of_links() -> io::Result<Self> {
        Self::of(&[libc::RTNLGRP_LINK])
    }

    fn of(groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER_BYTES)?;
        socket.bind_auto()?;
        for group in groups {
            socket.add_membership(*group)?;
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
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Ok(vec![Notice::Link]),
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

/// The kernel's notices, from a socket that is opened again when it fails.
pub(in super::super) struct Notices {
    open: fn() -> io::Result<Watch>,
    watch: Option<AsyncFd<Watch>>,
    /// When to open the socket.
    at: Instant,
    failing: bool,
    part: DatapathPart,
    reporter: PartReporter,
}

impl Notices {
    /// Notices of the sockets that `open` opens. A failure is reported as one of `part`.
    pub(in super::super) fn new(
        open: fn() -> io::Result<Watch>,
        part: DatapathPart,
        reporter: PartReporter,
    ) -> Self {
        Self {
            open,
            watch: None,
            at: Instant::now(),
            failing: false,
            part,
            reporter,
        }
    }

    /// Begins with a socket that is open already. Must be called within a runtime.
    pub(in super::super) fn of(
        watch: io::Result<Watch>,
        open: fn() -> io::Result<Watch>,
        part: DatapathPart,
        reporter: PartReporter,
    ) -> Self {
        let mut notices = Self::new(open, part, reporter);
        notices.take(watch);
        notices
    }

    /// The next notices; [`Notice::Link`] where some may have been lost. Cancel-safe.
    pub(in super::super) async fn next(&mut self) -> Vec<Notice> {
        loop {
            let Some(watch) = &self.watch else {
                sleep_until(self.at).await;
                self.take((self.open)());
                if self.watch.is_some() {
                    return vec![Notice::Link];
                }
                continue;
            };
            let failed = match watch.readable().await {
                Ok(mut ready) => match ready.try_io(|watch| watch.get_ref().read()) {
                    Ok(Ok(notices)) => return notices,
                    Ok(Err(error)) => error,
                    Err(_would_block) => continue,
                },
                Err(error) => error,
            };
            self.take(Err(failed));
        }
    }

    fn take(&mut self, watch: io::Result<Watch>) {
        self.watch = None;
        let registered = watch.and_then(|watch| {
            // SAFETY: `Watch` owns its open socket and is moved in here; nothing replaces or closes it before it is dropped.
            unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }.map_err(io::Error::from)
        });
        match registered {
            Ok(watch) => {
                self.watch = Some(watch);
                if std::mem::take(&mut self.failing) {
                    self.reporter.works(
                        self.part,
                        &format!("notices about {} are received again", self.subject()),
                    );
                }
            }
            Err(error) => {
                self.at = Instant::now() + RETRY;
                self.failing = true;
                let message = format!(
                    "cannot receive the kernel's notices about {}, changes are seen up to 10 s late: {error}",
                    self.subject()
                );
                let hint = "look for a limit on file descriptors or a seccomp filter; restart the daemon if it lasts";
                self.reporter.failed(self.part, message, hint);
            }
        }
    }

    const fn subject(&self) -> &'static str {
        match self.part {
            DatapathPart::LinkNotices | DatapathPart::Links => "interfaces",
            DatapathPart::RouteNotices | DatapathPart::NextHops => "routes and neighbours",
            DatapathPart::OwnAddresses => "addresses",
            DatapathPart::Pins => "pins",
            DatapathPart::Program => "program",
        }
    }
}

pub(super) fn notice(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Notice> {
    let NetlinkPayload::InnerMessage(inner) = message.payload else {
        return Some(Notice::Link);
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
        RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => Some(Notice::Link),
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Some(Notice::Address),
        _ => Some(Notice::Route),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{
        super::super::faults::{PartChange, PartState},
        *,
    };

    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);

    fn works_the_third_time() -> io::Result<Watch> {
        match ATTEMPTS.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Watch::of_links(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_fails_is_reported_and_opened_again_and_everything_is_read_anew() {
        let (reporter, mut changes) = PartReporter::new();
        let failed = Err(io::ErrorKind::OutOfMemory.into());
        let part = DatapathPart::RouteNotices;
        let mut notices = Notices::of(failed, works_the_third_time, part, reporter);
        assert_eq!(
            notices.next().await,
            [Notice::Link],
            "anything may have changed meanwhile"
        );
        let mut works = Vec::new();
        while let Ok(PartChange { part, state }) = changes.try_recv() {
            assert_eq!(part, DatapathPart::RouteNotices);
            works.push(matches!(state, PartState::Works(_)));
        }
        assert_eq!(works, [false, false, false, true]);
    }
}
