//! The packets of the runs, and the order in which they come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::Pod;
use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    flow::Tuple,
};

/// Addresses of the frames: to the balancer, from a client.
pub(crate) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// See [`OWN_MAC`].
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A frame in words, as the wrapper writes it.
pub(crate) type Frame = [u64; 14];
/// Bytes of a frame.
const LEN: usize = size_of::<Frame>();
/// Bytes before the IP header.
const ETHERNET: usize = 14;
/// Port of the service.
pub(crate) const PORT: u16 = 80;
/// TCP flags.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// Common operations of both address families.
pub(crate) trait Address: Pod + Copy + Default + Eq + 'static {
    /// The letter of the family in map and program names.
    const NAME: &'static str;
    /// The service's address.
    const VIP: IpAddr;
    /// The balancer's own address towards backends.
    const SOURCE: IpAddr;
    /// An address that is no service.
    const OTHER: IpAddr;
    /// An address of another network for each number, of clients and of backends.
    fn numbered(net: u8, number: u32) -> IpAddr;
    /// As a map holds it.
    fn of(address: IpAddr) -> Self;
    /// As a type of the standard library.
    fn ip(self) -> IpAddr;
    /// A TCP packet.
    fn frame(tuple: &Tuple<Self>, flags: u8) -> Frame;
}

impl Address for NetV4 {
    const NAME: &'static str = "v4";
    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99));

    fn numbered(net: u8, number: u32) -> IpAddr {
        let [_, a, b, c] = number.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(net, a, b, c))
    }

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(_) => Self(0),
        }
    }

    fn ip(self) -> IpAddr {
        self.to_std().into()
    }

    fn frame(tuple: &Tuple<Self>, flags: u8) -> Frame {
        let mut ip = vec![
            0x45,
            0,
            0,
            (LEN - ETHERNET) as u8,
            0,
            1,
            0x40,
            0,
            64,
            6,
            0x12,
            0x34,
        ];
        ip.extend(tuple.src.0.to_ne_bytes());
        ip.extend(tuple.dst.0.to_ne_bytes());
        assemble([8, 0], &ip, tuple, flags)
    }
}

impl Address for NetV6 {
    const NAME: &'static str = "v6";
    const VIP: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));
    const SOURCE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99));

    fn numbered(net: u8, number: u32) -> IpAddr {
        let (high, low) = ((number >> 16) as u16, number as u16);
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, high, low))
    }

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V6(v6) => v6.into(),
            IpAddr::V4(_) => Self([0; 4]),
        }
    }

    fn ip(self) -> IpAddr {
        self.to_std().into()
    }

    fn frame(tuple: &Tuple<Self>, flags: u8) -> Frame {
        let mut ip = vec![0x60, 0, 0, 0, 0, (LEN - ETHERNET - 40) as u8, 6, 64];
        for word in tuple.src.0.iter().chain(&tuple.dst.0) {
            ip.extend(word.to_ne_bytes());
        }
        assemble([0x86, 0xdd], &ip, tuple, flags)
    }
}

/// Ethernet, the IP header, TCP, and zeros. Checksums are only ever updated, so any value does. Each packet
/// acknowledges the other end's SYN, so that such packets complete a handshake.
fn assemble<A>(ether_type: [u8; 2], ip: &[u8], tuple: &Tuple<A>, flags: u8) -> Frame {
    let mut bytes = [OWN_MAC, CLIENT_MAC].concat();
    bytes.extend(ether_type);
    bytes.extend(ip);
    bytes.extend(tuple.src_port.0.to_ne_bytes());
    bytes.extend(tuple.dst_port.0.to_ne_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x10, 0, 0x12, 0x34, 0, 0]);
    words(bytes)
}

/// A frame of these bytes, and zeros.
pub(crate) fn words(mut bytes: Vec<u8>) -> Frame {
    bytes.resize(LEN, 0);
    let mut frame = Frame::default();
    for (word, bytes) in frame.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    frame
}

/// The tuples of `count` clients.
pub(crate) fn clients<A: Address>(count: u32, to: IpAddr) -> Vec<Tuple<A>> {
    (0..count)
        .map(|number| {
            Tuple::new(
                A::of(A::numbered(10, number)),
                A::of(to),
                NetPort::new(20_000 + (number % 40_000) as u16),
                NetPort::new(PORT),
                6,
            )
        })
        .collect()
}

/// Puts tuples in random order, the same in each run: entries lie in memory as they were inserted.
pub(crate) fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(last, (state % (last as u64 + 1)) as usize);
    }
}
