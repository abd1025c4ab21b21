//! One echo request, as `ping` sends it, from the kernel's own ICMP sockets (icmp(7), `ping_group_range`).

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{netns::Netns, wait};

/// Longest wait for the answer: room for one retransmitted neighbour request.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Echo request header: type, code, checksum and id (both filled in by the kernel), sequence number 1.
const fn request(kind: u8) -> [u8; 16] {
    [kind, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]
}

/// Sends an echo request and waits for the answer.
///
/// # Errors
/// When none comes within `TIMEOUT`, or an ICMP error does.
pub fn ping(from: &Netns, to: IpAddr) -> Result<()> {
    from.sysctl("net/ipv4/ping_group_range", "0 0")?;
    from.enter(|| exchange(to))?
        .with_context(|| format!("ping {to} from {}", from.name()))
}

fn exchange(to: IpAddr) -> io::Result<()> {
    let (domain, protocol, kind) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
    };
    let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    socket.send(&request(kind))?;
    let mut answer = [0; 64];
    let length = wait::uninterrupted(|| socket.read(&mut answer))?;
    let same = answer.get(8..length) == Some(&request(kind)[8..]);
    if same {
        Ok(())
    } else {
        Err(io::Error::other("another payload came back"))
    }
}
