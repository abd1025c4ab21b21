//! Does the target answer an echo request (ping)?

mod message;

use std::{
    io::{self, Read},
    mem::MaybeUninit,
    net::SocketAddr,
    time::Duration,
};

use socket2::{Domain, MsgHdrMut, Protocol, SockAddr, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::coop,
};

use self::message::{Echo, Family, Notice};
use super::connect::Budget;
use crate::{
    error::{CheckError, Latency, LocalError, Stage},
    probe::{
        checker::Checker,
        connection::TooMuch,
        route::{Route, set_on},
    },
};

/// Longest message that is read: headers, an IPv4 header with options, and the payload.
const MAX_MESSAGE: usize = 512;
/// Messages of the target that are looked at for one reply: others that ping it from this machine may have some, where the
/// socket is raw.
const MAX_MESSAGES: usize = 1000;
/// Size of the kernel's report of one ICMP error, see ip(7), `IP_RECVERR`.
const MAX_CONTROL: usize = 256;

/// Sends one echo request and waits for its reply. The target's port has no meaning.
///
/// It uses the kernel's ping socket where `net.ipv4.ping_group_range` has the process's group, else a raw socket, which
/// needs `CAP_NET_RAW`. An ICMP "unreachable" from a router or the target itself fails the check at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct IcmpChecker {
    route: Route,
}

impl IcmpChecker {
    /// Sends by `route`.
    #[must_use]
    pub fn with_route(self, route: Route) -> Self {
        Self { route }
    }
}

impl Checker for IcmpChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        let exchange = async {
            let echo = Echo::new(target.ip());
            let socket = Ping::open(target, self.route)?;
            match socket.send(&echo) {
                // The kernel reports an ICMP error about an earlier message at the next call.
                Err(error) => socket.notice()?.map_or(Err(error), |notice| Ok(Err(notice))),
                Ok(()) => socket.reply(&echo).await,
            }
        };
        match budget.spend(Stage::Request, exchange).await {
            Ok(Ok(())) => Ok(Latency(budget.started.elapsed())),
            Ok(Err(Notice { from, words })) => Err(CheckError::IcmpError {
                target: target.ip(),
                from,
                words,
            }),
            Err(CheckError::TimedOut { after, .. }) => Err(CheckError::NoEcho {
                target: target.ip(),
                after,
            }),
            Err(error) => Err(error),
        }
    }
}

/// A socket for echo requests to one target.
struct Ping {
    socket: AsyncFd<Socket>,
    family: Family,
    /// Whether messages that are received begin with the IP header: raw sockets of IPv4 (raw(7)).
    with_header: bool,
}

impl Ping {
    fn open(target: SocketAddr, route: Route) -> io::Result<Self> {
        let (domain, protocol, family) = match target {
            SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, Family::V4),
            SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, Family::V6),
        };
        let (socket, raw) = match Socket::new(domain, Type::DGRAM.nonblocking(), Some(protocol)) {
            Ok(socket) => (socket, false),
            Err(error) if is_refusal(&error) => {
                let raw = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol));
                (raw.map_err(need_privilege)?, true)
            }
            Err(error) => return Err(error),
        };
        route.mark(&socket)?;
        match family {
            Family::V4 => set_on(&socket, libc::IPPROTO_IP, libc::IP_RECVERR)?,
            Family::V6 => set_on(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?,
        }
        if let Some(source) = route.source_for(target)? {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        // An unconnected raw socket would receive every ICMP message of the machine.
        socket.connect(&SockAddr::from(SocketAddr::new(target.ip(), 0)))?;
        // SAFETY: the socket owns its descriptor, which stays the same and open until the registration is dropped.
        let socket =
            unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::ERROR) }?;
        Ok(Self {
            socket,
            family,
            with_header: raw && family == Family::V4,
        })
    }

    fn send(&self, echo: &Echo) -> io::Result<()> {
        self.socket.get_ref().send(&echo.request()).map(drop)
    }

    /// Waits for the reply to `echo`, or for an ICMP error about it.
    async fn reply(&self, echo: &Echo) -> io::Result<Result<(), Notice>> {
        let mut messages = 0;
        while messages < MAX_MESSAGES {
            // Ready messages would keep the thread: during a flood this lets other tasks run.
            coop::consume_budget().await;
            let mut ready = self.socket.ready(Interest::READABLE | Interest::ERROR).await?;
            if let Some(notice) = self.notice()? {
                return Ok(Err(notice));
            }
            let mut room = [0; MAX_MESSAGE];
            match self.receive(&mut room) {
                Ok(message) if echo.is_reply(message) => return Ok(Ok(())),
                Ok(_) => messages += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return self.notice()?.map_or(Err(error), |notice| Ok(Err(notice))),
            }
        }
        Err(io::Error::other(TooMuch(MAX_MESSAGES * MAX_MESSAGE)))
    }

    /// The next ICMP message.
    fn receive<'a>(&self, room: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = self.socket.get_ref().read(room)?;
        let message = &room[..length];
        Ok(if self.with_header {
            message::without_header(message)
        } else {
            message
        })
    }

    /// The next ICMP error that the kernel has kept for this socket, if there is one.
    fn notice(&self) -> io::Result<Option<Notice>> {
        let mut control = [MaybeUninit::new(0_u8); MAX_CONTROL];
        let mut header = MsgHdrMut::new().with_control(&mut control);
        let received = self.socket.get_ref().recvmsg(&mut header, libc::MSG_ERRQUEUE);
        let length = header.control_len();
        match received {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        // SAFETY: all bytes were set above, and the kernel only writes bytes.
        let control = control.map(|byte| unsafe { byte.assume_init() });
        Ok(message::notice(
            self.family,
            control.get(..length).unwrap_or(&control),
        ))
    }
}

/// Whether the kernel refuses ping sockets to this process, or to all.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::EPROTONOSUPPORT)
    )
}

fn need_privilege(error: io::Error) -> io::Error {
    if is_refusal(&error) {
        io::Error::other(LocalError::Ping)
    } else {
        error
    }
}
