//! Sends packets past the kernel's routes, to the link-layer address of a neighbour, and receives answers before the kernel judges
//! them: it drops packets from an address that it has itself.

use std::{
    io,
    mem::{self, MaybeUninit},
    net::IpAddr,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// Most bytes of a packet that are read.
const PACKET: usize = 2048;
/// Types of frames.
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The family of packet sockets in an address.
#[expect(clippy::cast_possible_truncation, reason = "the kernel's number of it is 17")]
const PACKET_FAMILY: u16 = libc::AF_PACKET as u16;

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
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.0
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut packet = [MaybeUninit::new(0); PACKET];
            let (length, from) = match self.0.recv_from(&mut packet) {
                Ok(received) => received,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            // SAFETY: all of it was initialised above.
            let packet = packet.map(|byte| unsafe { byte.assume_init() });
            if from.family() != PACKET_FAMILY {
                continue;
            }
            // SAFETY: addresses of this family are of this type, and the storage of any address is aligned for it and larger.
            let from = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
            let [a, b, c, d, e, f, ..] = from.sll_addr;
            return Ok(Some(Arrived {
                ifindex: from.sll_ifindex.cast_unsigned(),
                mac: [a, b, c, d, e, f],
                packet: packet.get(..length).unwrap_or_default().to_vec(),
            }));
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the kernel's number of it is 3")]
const fn all_protocols() -> u16 {
    libc::ETH_P_ALL as u16
}

/// The address of a neighbour on a link (packet(7)).
fn link_address(ifindex: u32, ethertype: u16, mac: [u8; 6]) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is larger than any address, aligned for all, and zero is a value of every field.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = PACKET_FAMILY;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = ifindex.cast_signed();
    address.sll_halen = 6;
    let [a, b, c, d, e, f] = mac;
    address.sll_addr = [a, b, c, d, e, f, 0, 0];
    #[expect(clippy::cast_possible_truncation, reason = "20 bytes")]
    let length = const { mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t };
    // SAFETY: the storage holds an address of that length.
    unsafe { SockAddr::new(storage, length) }
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
