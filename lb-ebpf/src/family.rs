//! The differences of IPv4 and IPv6. Everything else is written once, over [`Family`].

use core::ptr;

use aya_ebpf::bindings::bpf_fib_lookup;
use lb_common::{
    addr::{NetAddr, NetV4, NetV6},
    check::Ends,
    csum::{self, Sum},
    flow::Tuple,
    hash,
    limits::MAX_SNAT_ADDRESSES,
    settings::Settings,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use lb_wire::{
    Address,
    load::{store32, store64},
};

use crate::{
    maps::{
        flows::FlowTable, fragments::FragmentTable, records::RecordTables, replies::ReplyTable,
        services::ServiceTable,
    },
    packet::Packet,
    plain::Plain,
    scratch::ScratchSpace,
};

/// An address family, which its address stands for.
pub(crate) trait Family:
    Address
    + Ends
    + ScratchSpace
    + FlowTable
    + RecordTables
    + FragmentTable
    + ReplyTable
    + ServiceTable
    + Plain
    + Default
    + 'static
{
    /// The kernel's number of the family.
    const AF: u8;
    /// Whether it is IPv6.
    const IS_V6: bool;
    /// Where this family's source NAT addresses begin in their map.
    const SNAT_BASE: u32;
    /// The header in the packet.
    type Header;

    /// Whether an ICMP message of this type is an error about the packet it quotes.
    fn is_icmp_error(kind: u8) -> bool;
    /// Whether an ICMP message of this type and code reports that its packet cannot reach its destination with any size.
    fn is_unreachable(kind: u8, code: u8) -> bool;
    /// The address of this family in a record.
    fn from_record(address: &NetAddr) -> Self;
    /// This address in a record.
    fn to_record(self) -> NetAddr;
    /// Whether the address is one host's.
    fn is_host(self) -> bool;
    /// Whether an ICMP message of this type is an echo request.
    fn is_echo_request(kind: u8) -> bool;
    /// Whether it is no address.
    fn is_unspecified(self) -> bool;
    /// Source NAT addresses given for this family.
    fn snat_count(settings: &Settings) -> u32;
    /// The flow hash.
    fn hash(tuple: &Tuple<Self>) -> u32;
    /// A hash of the source address alone.
    fn source_hash(tuple: &Tuple<Self>) -> u32;
    /// Adds the address to a checksum's sum.
    fn add_to(self, sum: Sum) -> Sum;
    /// Takes the address from a checksum's sum.
    fn take_from(self, sum: Sum) -> Sum;
    /// The part of a change of addresses that the IP header's own checksum covers.
    fn header_delta(addresses: Sum) -> u16;
    /// The part of a change of addresses that ICMP's checksum covers: its pseudo header in IPv6.
    fn icmp_delta(addresses: Sum) -> Sum;
    /// Writes addresses; `delta` is their change as [`Family::header_delta`] gives it.
    fn set_addresses(header: &mut Self::Header, src: Self, dst: Self, delta: u16);
    /// As [`Family::set_addresses`], and takes one from the TTL or hop limit, which must not be 0.
    fn route_to(header: &mut Self::Header, src: Self, dst: Self, delta: u16);
    /// The header at `offset`.
    ///
    /// # Safety
    ///
    /// As [`Packet::at`].
    #[expect(clippy::mut_from_ref, reason = "as `Packet::at`")]
    unsafe fn header(packet: &Packet, offset: usize) -> Option<&mut Self::Header>;
    /// The header's own checksum; 0 where it has none.
    fn header_checksum(header: &Self::Header) -> u16;
    /// Addresses of a look-up in the kernel's routes.
    fn set_route(params: &mut bpf_fib_lookup, src: Self, dst: Self);
}

impl Family for NetV4 {
    const AF: u8 = 2;
    const IS_V6: bool = false;
    const SNAT_BASE: u32 = 0;
    type Header = Ipv4Hdr;

    #[inline(always)]
    fn is_icmp_error(kind: u8) -> bool {
        // RFC 792: destination unreachable, time exceeded, parameter problem. Source quench is obsolete (RFC 6633).
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn is_unreachable(kind: u8, code: u8) -> bool {
        // RFC 792: all codes of "destination unreachable" but "fragmentation needed".
        kind == 3 && code != 4
    }

    #[inline(always)]
    fn from_record(address: &NetAddr) -> Self {
        address.v4()
    }

    #[inline(always)]
    fn to_record(self) -> NetAddr {
        NetAddr::from_v4(self)
    }

    #[inline(always)]
    fn is_host(self) -> bool {
        Self::is_host(self)
    }

    #[inline(always)]
    fn is_echo_request(kind: u8) -> bool {
        // RFC 792.
        kind == 8
    }

    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    fn snat_count(settings: &Settings) -> u32 {
        u32::from(settings.snat_v4_count)
    }

    #[inline(always)]
    fn hash(tuple: &Tuple<Self>) -> u32 {
        hash::tuple_v4(tuple)
    }

    #[inline(always)]
    fn source_hash(tuple: &Tuple<Self>) -> u32 {
        hash::source_v4(tuple)
    }

    #[inline(always)]
    fn add_to(self, sum: Sum) -> Sum {
        sum.add32(self.0)
    }

    #[inline(always)]
    fn take_from(self, sum: Sum) -> Sum {
        sum.sub32(self.0)
    }

    #[inline(always)]
    fn header_delta(addresses: Sum) -> u16 {
        addresses.fold()
    }

    #[inline(always)]
    fn icmp_delta(_addresses: Sum) -> Sum {
        Sum::ZERO
    }

    #[inline(always)]
    fn set_addresses(header: &mut Ipv4Hdr, src: Self, dst: Self, delta: u16) {
        // SAFETY: 4 bytes each.
        unsafe {
            store32::<0>((&raw mut header.src_addr).cast(), src.0.into());
            store32::<0>((&raw mut header.dst_addr).cast(), dst.0.into());
        }
        header.check = csum::update(u16::from_ne_bytes(header.check), delta).to_ne_bytes();
    }

    #[inline(always)]
    fn route_to(header: &mut Ipv4Hdr, src: Self, dst: Self, delta: u16) {
        // The TTL is the first byte of its 16-bit word, which becomes less by 0x0100 in network byte order.
        const TTL: u16 = 0x0100_u16.to_be();
        header.ttl = header.ttl.wrapping_sub(1);
        Self::set_addresses(header, src, dst, Sum::ZERO.add(delta).sub(TTL).fold());
    }

    #[inline(always)]
    unsafe fn header(packet: &Packet, offset: usize) -> Option<&mut Ipv4Hdr> {
        // SAFETY: by the contract.
        unsafe { packet.at(offset) }
    }

    #[inline(always)]
    fn header_checksum(header: &Ipv4Hdr) -> u16 {
        u16::from_ne_bytes(header.check)
    }

    #[inline(always)]
    fn set_route(params: &mut bpf_fib_lookup, src: Self, dst: Self) {
        params.__bindgen_anon_3.ipv4_src = src.0;
        params.__bindgen_anon_4.ipv4_dst = dst.0;
    }
}

impl Family for NetV6 {
    const AF: u8 = 10;
    const IS_V6: bool = true;
    const SNAT_BASE: u32 = MAX_SNAT_ADDRESSES;
    type Header = Ipv6Hdr;

    #[inline(always)]
    fn is_icmp_error(kind: u8) -> bool {
        // RFC 4443: destination unreachable, packet too big, time exceeded, parameter problem.
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn is_unreachable(kind: u8, _code: u8) -> bool {
        // RFC 4443: "packet too big" is a type of its own.
        kind == 1
    }

    #[inline(always)]
    fn from_record(address: &NetAddr) -> Self {
        let words = address.0.as_ptr();
        // Volatile, or it becomes a call of memmove, which goes byte by byte.
        // SAFETY: the words of the address.
        NetV6(core::array::from_fn(|word| unsafe {
            ptr::read_volatile(words.add(word))
        }))
    }

    #[inline(always)]
    fn to_record(self) -> NetAddr {
        NetAddr(self.0)
    }

    #[inline(always)]
    fn is_host(self) -> bool {
        Self::is_host(self)
    }

    #[inline(always)]
    fn is_echo_request(kind: u8) -> bool {
        // RFC 4443.
        kind == 128
    }

    #[inline(always)]
    fn is_unspecified(self) -> bool {
        // One branch and not four, which the verifier would walk one by one.
        let [a, b, c, d] = self.0;
        a | b | c | d == 0
    }

    #[inline(always)]
    fn snat_count(settings: &Settings) -> u32 {
        u32::from(settings.snat_v6_count)
    }

    #[inline(always)]
    fn hash(tuple: &Tuple<Self>) -> u32 {
        hash::tuple_v6(tuple)
    }

    #[inline(always)]
    fn source_hash(tuple: &Tuple<Self>) -> u32 {
        hash::source_v6(tuple)
    }

    #[inline(always)]
    fn add_to(self, sum: Sum) -> Sum {
        let [a, b, c, d] = self.0;
        sum.add32(a).add32(b).add32(c).add32(d)
    }

    #[inline(always)]
    fn take_from(self, sum: Sum) -> Sum {
        let [a, b, c, d] = self.0;
        sum.sub32(a).sub32(b).sub32(c).sub32(d)
    }

    #[inline(always)]
    fn header_delta(_addresses: Sum) -> u16 {
        0
    }

    #[inline(always)]
    fn icmp_delta(addresses: Sum) -> Sum {
        addresses
    }

    #[inline(always)]
    fn set_addresses(header: &mut Ipv6Hdr, src: Self, dst: Self, _delta: u16) {
        let ([first, second], [third, fourth]) = (src.halves(), dst.halves());
        let (src, dst) = (
            (&raw mut header.src_addr).cast(),
            (&raw mut header.dst_addr).cast(),
        );
        // SAFETY: 16 bytes each.
        unsafe {
            store64::<0>(src, first);
            store64::<8>(src, second);
            store64::<0>(dst, third);
            store64::<8>(dst, fourth);
        }
    }

    #[inline(always)]
    fn route_to(header: &mut Ipv6Hdr, src: Self, dst: Self, delta: u16) {
        header.hop_limit = header.hop_limit.wrapping_sub(1);
        Self::set_addresses(header, src, dst, delta);
    }

    #[inline(always)]
    unsafe fn header(packet: &Packet, offset: usize) -> Option<&mut Ipv6Hdr> {
        // SAFETY: by the contract.
        unsafe { packet.at(offset) }
    }

    #[inline(always)]
    fn header_checksum(_header: &Ipv6Hdr) -> u16 {
        0
    }

    #[inline(always)]
    fn set_route(params: &mut bpf_fib_lookup, src: Self, dst: Self) {
        params.__bindgen_anon_3.ipv6_src = src.0;
        params.__bindgen_anon_4.ipv6_dst = dst.0;
    }
}
