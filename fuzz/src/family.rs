//! The part of an address family that parsing needs; the program's own trait also has its maps.

use lb_common::addr::{NetV4, NetV6};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{header::Ip, packet::Packet};

pub(crate) trait Family: Sized + Copy + PartialEq {
    /// Whether no packet may come from the address.
    fn is_martian(self) -> bool;
    /// Copies source and destination address of the header at `offset`.
    fn addresses(packet: &Packet, offset: usize, src: &mut Self, dst: &mut Self) -> Option<()>;
    /// Whether the packet is a fragment.
    fn is_fragment(packet: &Packet, ip: &Ip) -> bool;
}

impl Family for NetV4 {
    fn is_martian(self) -> bool {
        Self::is_martian(self)
    }

    fn addresses(packet: &Packet, offset: usize, src: &mut Self, dst: &mut Self) -> Option<()> {
        let header: Ipv4Hdr = packet.read(offset)?;
        (src.0, dst.0) = (
            u32::from_ne_bytes(header.src_addr),
            u32::from_ne_bytes(header.dst_addr),
        );
        Some(())
    }

    fn is_fragment(packet: &Packet, ip: &Ip) -> bool {
        let header: Option<Ipv4Hdr> = packet.read(ip.header);
        header.is_some_and(|header| u16::from_be_bytes(header.frags) & 0x3fff != 0)
    }
}

impl Family for NetV6 {
    fn is_martian(self) -> bool {
        Self::is_martian(self)
    }

    fn addresses(packet: &Packet, offset: usize, src: &mut Self, dst: &mut Self) -> Option<()> {
        let header: Ipv6Hdr = packet.read(offset)?;
        (*src, *dst) = (header.src_addr().into(), header.dst_addr().into());
        Some(())
    }

    /// A later fragment is none that parsing lets through.
    fn is_fragment(packet: &Packet, ip: &Ip) -> bool {
        const FRAGMENT: u8 = 44;
        let header: Option<Ipv6Hdr> = packet.read(ip.header);
        header.is_some_and(|header| header.next_hdr == FRAGMENT)
    }
}
