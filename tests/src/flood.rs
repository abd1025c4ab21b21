//! Many frames in little time, straight from an AF_PACKET socket: one for each of many UDP flows, or any.

use std::{
    io,
    net::SocketAddrV4,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::netns::Netns;

/// Source addresses are 10.77.0.0/16, source ports begin here.
const FIRST_PORT: u32 = 1024;
/// `AF_PACKET` in the width that sockaddr_ll gives it.
const PACKET_FAMILY: libc::sa_family_t = 17;

/// Sends the first datagram of each of `flows` flows to `target` out of a device, to the MAC address of the next hop.
///
/// # Errors
/// When the device is not there or a frame cannot be sent.
pub fn udp_flows(
    ns: &Netns,
    device: &str,
    next_hop: [u8; 6],
    target: SocketAddrV4,
    flows: u32,
) -> Result<()> {
    let ifindex = ns.ifindex(device)?;
    let send = || {
        let socket = PacketSocket::open(ifindex)?;
        (0..flows).try_for_each(|flow| socket.send(&frame(next_hop, target, flow)))
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

/// A frame with 4 bytes of payload. Its UDP checksum is 0, which means none (RFC 768).
fn frame(next_hop: [u8; 6], target: SocketAddrV4, flow: u32) -> [u8; 46] {
    let [_, high, middle, low] = flow.to_be_bytes();
    let [.., port_high, port_low] = (FIRST_PORT + u32::from(high)).to_be_bytes();
    let mut frame = [0; 46];
    frame[..6].copy_from_slice(&next_hop);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    // EtherType; version and length; total length; do not fragment; TTL and protocol; source; destination.
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[17] = 32;
    frame[20..24].copy_from_slice(&[0x40, 0, 64, 17]);
    frame[26..30].copy_from_slice(&[10, 77, middle, low]);
    frame[30..34].copy_from_slice(&target.ip().octets());
    let words = frame[14..34]
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [.., check_high, check_low] = (!((folded & 0xffff) + (folded >> 16))).to_be_bytes();
    frame[24..26].copy_from_slice(&[check_high, check_low]);
    let [to_high, to_low] = target.port().to_be_bytes();
    frame[34..42].copy_from_slice(&[port_high, port_low, to_high, to_low, 0, 12, 0, 0]);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Frame;

    #[test]
    fn each_frame_is_a_flow_of_its_own_with_right_checksums() {
        let target: SocketAddrV4 = "192.0.2.10:80".parse().unwrap();
        let flows: std::collections::BTreeSet<_> = (0..200_000)
            .map(|flow| {
                let parsed = Frame::parse(&frame([2; 6], target, flow)).unwrap();
                assert!(parsed.checksums_ok && parsed.destination == target.into());
                parsed.source
            })
            .collect();
        assert_eq!(flows.len(), 200_000);
    }
}
