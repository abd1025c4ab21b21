//! Addresses and ports as they stand in a packet: integers in network byte order that only convert explicitly.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plain_data;

/// A TCP or UDP port in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct NetPort(pub u16);

impl NetPort {
    /// The port from its number.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// The port's number.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An IPv4 address in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct NetV4(pub u32);

/// An IPv6 address: four 32-bit words, each in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct NetV6(pub [u32; 4]);

/// An address of either family in 16 bytes: IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2). The record that holds
/// one has the family.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct NetAddr(pub [u32; 4]);

const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl NetAddr {
    /// An IPv4 address in a record.
    #[inline(always)]
    pub const fn from_v4(address: NetV4) -> Self {
        Self([0, 0, MAPPED, address.0])
    }

    /// The IPv4 address inside; meaningless if the record is of the other family.
    #[inline(always)]
    pub const fn v4(self) -> NetV4 {
        NetV4(self.0[3])
    }

    /// The IPv6 address.
    #[inline(always)]
    pub const fn v6(self) -> NetV6 {
        NetV6(self.0)
    }

    /// The address as a type of the standard library; an IPv4-mapped one becomes IPv4.
    pub const fn to_ip(self) -> IpAddr {
        self.v6().to_std().to_canonical()
    }
}

impl NetV4 {
    /// Whether no packet may come from the address: this network, loopback, multicast, broadcast (RFC 1122 section 3.2.1.3).
    /// Not the rest of the reserved 240.0.0.0/4, which some networks use.
    #[inline(always)]
    pub const fn is_martian(self) -> bool {
        // 0 if any factor is: one branch for the verifier to follow, and not five.
        let [first, ..] = self.0.to_ne_bytes();
        let first = first as u64;
        first * (first ^ 127) * ((first & 0xf0) ^ 224) * !self.0 as u64 == 0
    }

    /// Whether the address is one host's: neither this network nor loopback, and below 224.0.0.0, from where on multicast,
    /// reserved addresses and broadcast are.
    #[inline(always)]
    pub const fn is_host(self) -> bool {
        !matches!(self.0.to_ne_bytes()[0], 0 | 127 | 224..)
    }

    /// The address as the standard library knows it.
    pub const fn to_std(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::from_be(self.0))
    }
}

impl NetV6 {
    /// The address in two words of 64 bits, as it stands in memory.
    #[inline(always)]
    pub const fn halves(self) -> [u64; 2] {
        let [a, b, c, d] = self.0;
        [
            a as u64 | ((b as u64) << u32::BITS),
            c as u64 | ((d as u64) << u32::BITS),
        ]
    }

    /// Whether no packet may come from the address: unspecified, loopback, multicast (RFC 4291 section 2.5 to 2.7).
    #[inline(always)]
    pub const fn is_martian(self) -> bool {
        const LOOPBACK: u32 = 1_u32.to_be();
        let [a, b, c, d] = self.0;
        a.to_ne_bytes()[0] == 0xff || (a | b | c == 0 && (d == 0 || d == LOOPBACK))
    }

    /// Whether the address is one host's.
    #[inline(always)]
    pub const fn is_host(self) -> bool {
        !self.is_martian()
    }

    /// The address as the standard library knows it.
    pub const fn to_std(self) -> Ipv6Addr {
        let [a, b, c, d] = self.0;
        let high = ((u32::from_be(a) as u128) << 96) | ((u32::from_be(b) as u128) << 64);
        let low = ((u32::from_be(c) as u128) << 32) | (u32::from_be(d) as u128);
        Ipv6Addr::from_bits(high | low)
    }
}

impl From<Ipv4Addr> for NetV4 {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.to_bits().to_be())
    }
}

impl From<Ipv6Addr> for NetV6 {
    fn from(address: Ipv6Addr) -> Self {
        let o = address.octets();
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }
}

impl From<IpAddr> for NetAddr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(NetV4::from(v4)),
            IpAddr::V6(v6) => Self(NetV6::from(v6).0),
        }
    }
}

plain_data!(NetPort, NetV4, NetV6, NetAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_packet_may_come_from() {
        for (text, is_martian) in [
            ("0.0.0.0", true),
            ("0.255.255.255", true),
            ("1.0.0.0", false),
            ("10.1.0.2", false),
            ("126.255.255.255", false),
            ("127.0.0.1", true),
            ("127.255.255.255", true),
            ("128.0.0.1", false),
            ("223.255.255.255", false),
            ("224.0.0.5", true),
            ("239.255.255.255", true),
            ("240.0.0.1", false),
            ("255.255.255.254", false),
            ("255.255.255.255", true),
            ("::", true),
            ("::1", true),
            ("::2", false),
            ("1::", false),
            ("fe80::1", false),
            ("ff02::1", true),
            ("2001:db8::1", false),
        ] {
            let found = match text.parse().unwrap() {
                IpAddr::V4(address) => NetV4::from(address).is_martian(),
                IpAddr::V6(address) => NetV6::from(address).is_martian(),
            };
            assert_eq!(found, is_martian, "{text}");
        }
    }

    #[test]
    fn addresses_survive_the_way_through_a_packet_word() {
        for text in ["192.0.2.10", "0.0.0.0", "255.255.255.255"] {
            let v4: Ipv4Addr = text.parse().unwrap();
            assert_eq!(NetV4::from(v4).to_std(), v4);
            assert_eq!(
                NetV4::from(v4).0.to_ne_bytes(),
                v4.octets(),
                "bytes stand as on the wire"
            );
            assert_eq!(NetAddr::from(IpAddr::V4(v4)).to_ip(), IpAddr::V4(v4));
        }
        for text in ["2001:db8::1", "::", "fe80::1:2:3:4"] {
            let v6: Ipv6Addr = text.parse().unwrap();
            assert_eq!(NetV6::from(v6).to_std(), v6);
            assert_eq!(NetAddr::from(IpAddr::V6(v6)).to_ip(), IpAddr::V6(v6));
        }
        assert_eq!(NetPort::new(80).0.to_ne_bytes(), [0, 80]);
        assert_eq!(NetPort::new(8080).get(), 8080);
    }
}
