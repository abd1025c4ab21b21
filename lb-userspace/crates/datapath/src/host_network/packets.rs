//! Sends packets past the kernel's routes, to the link-layer address of a neighbour, and receives answers before the kernel judges
//! them: it drops packets from an address that it has itself.

use std::{io, net::IpAddr, time::Instant};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::link_socket::{PACKET_FAMILY, link_address, receive};

/// Most bytes of a packet that are read.
const PACKET: usize = 2048;
/// Types of frames.
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// A socket for packets of all interfaces. It receives ICMP, and TCP to one port.
#[derive(Debug)]
pub struct PacketSocket(Socket);

/// A packet that arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// Index of the interface.
    pub ifindex: u32,
    /// Link-layer address of the neighbour that sent it.
    pub mac: [u8; 6],
    /// The packet, from its IP header on.
    pub packet: Vec<u8>,
}

impl PacketSocket {
    /// A socket that receives TCP to `port`, and ICMP.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`.
    pub fn open(port: u16) -> io::Result<Self> {
        // Without a protocol it receives nothing, so that nothing passes before the filter is in place.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.attach_filter(&filter(port))?;
        socket.bind(&link_address(0, all_protocols(), [0; 6]))?;
        Ok(Self(socket))
    }

    /// Sends a packet, which begins with its IP header, to a neighbour.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn send(&self, ifindex: u32, mac: [u8; 6], destination: IpAddr, packet: &[u8]) -> io::Result<()> {
        let ethertype = match destination {
            IpAddr::V4(_) => ETHERTYPE_IPV4,
            IpAddr::V6(_) => ETHERTYPE_IPV6,
        };
        self.0
            .send_to(packet, &link_address(ifindex, ethertype, mac))
            .map(drop)
    }

    /// The next packet; `None` when the time is over.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn receive(&self, deadline: Instant) -> io::Result<Option<Arrived>> {
        while let Some((packet, from)) = receive(&self.0, PACKET, deadline)? {
            if from.family() != PACKET_FAMILY {
                continue;
            }
            // SAFETY: addresses of this family are of this type, and the storage of any address is aligned for it and larger.
            let from = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
            let [a, b, c, d, e, f, ..] = from.sll_addr;
            return Ok(Some(Arrived {
                ifindex: from.sll_ifindex.cast_unsigned(),
                mac: [a, b, c, d, e, f],
                packet,
            }));
        }
        Ok(None)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the kernel's number of it is 3")]
const fn all_protocols() -> u16 {
    libc::ETH_P_ALL as u16
}

/// Takes ICMP, and TCP to a port, of packets that begin with their IP header (socket filters of filter.rst of the kernel).
fn filter(port: u16) -> [SockFilter; 17] {
    #[expect(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
    const fn code(parts: u32) -> u16 {
        parts as u16
    }
    const BYTE: u16 = code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
    const HALF: u16 = code(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS);
    const HALF_BEHIND: u16 = code(libc::BPF_LD | libc::BPF_H | libc::BPF_IND);
    const HEADER: u16 = code(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH);
    const AND: u16 = code(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K);
    const IS: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    const JUMP: u16 = code(libc::BPF_JMP | libc::BPF_JA);
    const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);
    const ICMP: u32 = 1;
    const ICMPV6: u32 = 58;
    const TCP: u32 = 6;
    [
        SockFilter::new(BYTE, 0, 0, 0),
        SockFilter::new(AND, 0, 0, 0xf0),
        SockFilter::new(IS, 0, 6, 0x40),
        // IPv4.
        SockFilter::new(BYTE, 0, 0, 9),
        SockFilter::new(IS, 10, 0, ICMP),
        SockFilter::new(IS, 0, 10, TCP),
        SockFilter::new(HEADER, 0, 0, 0),
        SockFilter::new(HALF_BEHIND, 0, 0, 2),
        SockFilter::new(JUMP, 0, 0, 5),
        SockFilter::new(IS, 0, 6, 0x60),
        // IPv6.
        SockFilter::new(BYTE, 0, 0, 6),
        SockFilter::new(IS, 3, 0, ICMPV6),
        SockFilter::new(IS, 0, 3, TCP),
        SockFilter::new(HALF, 0, 0, 42),
        // Both.
        SockFilter::new(IS, 0, 1, port.into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
