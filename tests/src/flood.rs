//! Many frames in little time, straight from an AF_PACKET socket: one for each of many UDP flows, or any.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Range,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

use crate::netns::Netns;

/// Source addresses are [`NET_V4`] and [`NET_V6`], source ports begin here.
const FIRST_PORT: u32 = 1024;
/// The first half of forged sources, 10.77.0.0/16.
pub const NET_V4: [u8; 2] = [10, 77];
/// The first part of forged sources, fd77::/112.
pub const NET_V6: u16 = 0xfd77;
/// `AF_PACKET` in the width that sockaddr_ll gives it.
const PACKET_FAMILY: libc::sa_family_t = 17;

/// Sends the first datagram of each flow, by its number, to `target` out of a device, to the MAC address of the next hop.
///
/// # Errors
/// When the device is not there or a frame cannot be sent.
pub fn udp_flows(
    ns: &Netns,
    device: &str,
    next_hop: [u8; 6],
    target: SocketAddr,
    mut flows: Range<u32>,
) -> Result<()> {
    let ifindex = ns.ifindex(device)?;
    let mut frame = FlowFrame::new(next_hop, target)?;
    let send = || {
        let socket = PacketSocket::open(ifindex)?;
        flows.try_for_each(|flow| socket.send(frame.of(flow)))
    };
    ns.enter(send)?.with_context(|| format!("flood {target}"))
}

/// Sends these frames over and over for some time, and gives their number.
///
/// # Errors
/// When the device is not there.
pub fn frames(ns: &Netns, device: &str, frames: &[Vec<u8>], time: Duration) -> Result<u64> {
    let ifindex = ns.ifindex(device)?;
    let send = || -> io::Result<u64> {
        let (socket, end) = (PacketSocket::open(ifindex)?, Instant::now() + time);
        let mut sent = 0;
        while Instant::now() < end {
            for frame in frames {
                // The kernel refuses some frames that are no packets.
                sent += u64::from(socket.send(frame).is_ok());
            }
        }
        Ok(sent)
    };
    ns.enter(send)?.context("flood of frames")
}

/// Sends frames out of a device.
struct PacketSocket {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl PacketSocket {
    fn open(ifindex: u32) -> io::Result<Self> {
        // SAFETY: socket takes numbers; a non-negative result is a new descriptor of ours.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = PACKET_FAMILY;
        address.sll_ifindex = ifindex.cast_signed();
        Ok(Self { socket, address })
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of_val(&self.address)).map_err(io::Error::other)?;
        // SAFETY: frame and address live for the call, with their lengths beside them.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.address).cast(),
                length,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Where a forged frame has what differs between flows.
pub(crate) struct Places {
    /// The source address's last two bytes.
    pub(crate) address: usize,
    /// What mirrors them in a header with a checksum of its own: the identification.
    pub(crate) identification: Option<usize>,
    /// The source port.
    pub(crate) port: usize,
}

/// The headers of a forged packet up to that of IP, and its places.
pub(crate) fn headers(next_hop: [u8; 6], to: IpAddr) -> (PacketBuilderStep<IpHeaders>, Places) {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], next_hop);
    let (packet, address, identification, port) = match to {
        IpAddr::V4(to) => {
            let [first, second] = NET_V4;
            let packet = ethernet.ipv4([first, second, 0, 0], to.octets(), 64);
            (packet, 28, Some(18), 34)
        }
        IpAddr::V6(to) => {
            let from = Ipv6Addr::new(NET_V6, 0, 0, 0, 0, 0, 0, 0);
            (ethernet.ipv6(from.octets(), to.octets(), 64), 36, None, 54)
        }
    };
    let places = Places {
        address,
        identification,
        port,
    };
    (packet, places)
}

/// A datagram with 4 bytes of payload, which mirror what differs between flows: so all have the same checksum.
pub struct FlowFrame {
    bytes: Vec<u8>,
    places: Places,
}

impl FlowFrame {
    /// To a target, by way of this MAC address.
    ///
    /// # Errors
    /// When it does not fit a packet.
    pub fn new(next_hop: [u8; 6], target: SocketAddr) -> Result<Self> {
        let (packet, places) = headers(next_hop, target.ip());
        let mut bytes = Vec::new();
        let mirrored = [0xff; 4];
        packet.udp(0, target.port()).write(&mut bytes, &mirrored)?;
        Ok(Self { bytes, places })
    }

    /// The frame of a flow.
    pub fn of(&mut self, flow: u32) -> &[u8] {
        let [_, high, middle, low] = flow.to_be_bytes();
        let [.., port_high, port_low] = (FIRST_PORT + u32::from(high)).to_be_bytes();
        let address = u16::from_ne_bytes([middle, low]);
        let port = u16::from_ne_bytes([port_high, port_low]);
        let places = &self.places;
        let payload = places.port + 8;
        let mirrored = places.identification.map(|at| (at, !address));
        let written = [
            (places.address, address),
            (places.port, port),
            (payload, !address),
            (payload + 2, !port),
        ];
        for (at, value) in written.into_iter().chain(mirrored) {
            self.bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Frame;

    #[test]
    fn each_frame_is_a_flow_of_its_own_with_right_checksums() {
        for target in ["192.0.2.10:80", "[2001:db8::1]:80"] {
            let target: SocketAddr = target.parse().unwrap();
            let mut frame = FlowFrame::new([2; 6], target).unwrap();
            let flows: std::collections::BTreeSet<_> = (0..200_000)
                .map(|flow| {
                    let parsed = Frame::parse(frame.of(flow)).unwrap();
                    assert!(parsed.checksums_ok && parsed.destination == target, "{flow}");
                    parsed.source
                })
                .collect();
            assert_eq!(flows.len(), 200_000);
        }
    }
}
