//! The end of the tunnels of modes `ipip` and `gue`, on a backend's interface: takes the outer header off and hands the
//! packet to the kernel as if it had come without.
//!
//! A packet that is no tunnel to one of this machine's addresses passes untouched; a tunnel that does not come from a balancer
//! is dropped, since its packet could claim any sender. GUE is taken in both of its variants.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The daemon's build of the workspace sees an empty program.

#[cfg(target_arch = "bpf")]
mod entry {
    use core::ptr;

    use aya_ebpf::{
        bindings::xdp_action,
        btf_maps::{HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
        macros::{btf_map, xdp},
        programs::XdpContext,
    };
    use lb_common::{
        addr::{NetAddr, NetV4, NetV6},
        csum::{self, Sum},
        decap::{MAX_ENTRIES, Outcome, V4, V6},
        tunnel::{self, IPV4_IN_IP, IPV6_IN_IP, UDP_LEN},
    };
    use network_types::{
        eth::{EthHdr, EtherType},
        ip::{Ipv4Hdr, Ipv6Hdr},
        udp::UdpHdr,
    };

    use lb_packet::packet::{MACS_LEN, Walks};
    use lb_wire::Frame as _;

    /// This program reads no extension headers.
    enum Plain {}

    impl Walks for Plain {}

    type Packet = lb_packet::packet::Packet<Plain>;

    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    /// Protocol number of UDP.
    const UDP: u8 = 17;
    /// Bits of an address in the map of sources.
    const ADDRESS_BITS: u32 = 128;

    /// The port of GUE. Set by the command when it loads the program.
    #[unsafe(no_mangle)]
    static GUE_PORT: u16 = tunnel::GUE_PORT;

    #[btf_map]
    static SOURCES: LpmTrie<NetAddr, u8, { MAX_ENTRIES as usize }> = LpmTrie::new();
    #[btf_map]
    static ADDRESSES: HashMap<NetAddr, u8, { MAX_ENTRIES as usize }> = HashMap::new();
    #[btf_map]
    static OUTCOMES: PerCpuArray<u64, { Outcome::ALL.len() }> = PerCpuArray::new();

    /// The program.
    #[xdp(frags)]
    pub(crate) fn decap(ctx: XdpContext) -> u32 {
        // SAFETY: the context of this run.
        let packet = unsafe { Packet::new(ctx.ctx) };
        let outcome = match open(&packet) {
            Ok(()) => Outcome::Decapsulated,
            Err(outcome) => outcome,
        };
        if let Some(count) = OUTCOMES.get_ptr_mut(outcome as u32) {
            // SAFETY: from the map's look-up; a CPU runs one XDP program at a time.
            unsafe { *count += 1 };
        }
        match outcome {
            Outcome::Passed | Outcome::Decapsulated => xdp_action::XDP_PASS,
            Outcome::UnknownSource | Outcome::Malformed | Outcome::Congestion | Outcome::Failed => {
                xdp_action::XDP_DROP
            }
        }
    }

    /// An outer IP header.
    struct Outer {
        /// As its sources are marked.
        family: u8,
        source: NetAddr,
        destination: NetAddr,
        /// DSCP and ECN.
        class: u8,
        /// What it carries.
        protocol: u8,
        /// Where that begins in the frame, and where the packet ends.
        payload: usize,
        end: usize,
    }

    /// Takes the outer headers off a packet.
    #[inline(always)]
    fn open(packet: &Packet) -> Result<(), Outcome> {
        let ethernet: EthHdr = packet.read(0).ok_or(Outcome::Passed)?;
        let outer = if ethernet.ether_type == EtherType::Ipv4 as u16 {
            outer_v4(packet)
        } else if ethernet.ether_type == EtherType::Ipv6 as u16 {
            outer_v6(packet)
        } else {
            None
        };
        let outer = outer.ok_or(Outcome::Passed)?;
        let is_udp = outer.protocol == UDP;
        if is_udp {
            let udp: UdpHdr = packet.read(outer.payload).ok_or(Outcome::Passed)?;
            // SAFETY: a constant; the compiler must not take it for the one that it is built with.
            let port = unsafe { ptr::read_volatile(&raw const GUE_PORT) };
            if udp.dst != port.to_be_bytes() {
                return Err(Outcome::Passed);
            }
        } else if outer.protocol != IPV4_IN_IP && outer.protocol != IPV6_IN_IP {
            return Err(Outcome::Passed);
        }
        // SAFETY: the entry is only tested for presence, never written.
        if unsafe { ADDRESSES.get(outer.destination) }.is_none() {
            return Err(Outcome::Passed);
        }
        if SOURCES.get(&Key::new(ADDRESS_BITS, outer.source)) != Some(&outer.family) {
            return Err(Outcome::UnknownSource);
        }
        let (inner, protocol) = if is_udp {
            gue(packet, outer.payload + UDP_LEN).ok_or(Outcome::Malformed)?
        } else {
            (outer.payload, outer.protocol)
        };
        let kind = if protocol == IPV6_IN_IP {
            inner_v6(packet, inner, &outer)?;
            EtherType::Ipv6
        } else {
            inner_v4(packet, inner, &outer)?;
            EtherType::Ipv4
        };
        // The frame's addresses go with the packet.
        let macs = packet.macs().ok_or(Outcome::Failed)?;
        let taken = inner - EthHdr::LEN;
        #[expect(clippy::cast_possible_truncation, reason = "headers of some dozen bytes")]
        packet.grow(-(taken as i32)).ok_or(Outcome::Failed)?;
        packet.set_macs(macs).ok_or(Outcome::Failed)?;
        // SAFETY: in use in the next statement alone.
        let ether_type: &mut [u8; 2] = unsafe { packet.at(MACS_LEN) }.ok_or(Outcome::Failed)?;
        *ether_type = (kind as u16).to_ne_bytes();
        Ok(())
    }

    /// The outer IPv4 header; `None` for another packet, or a fragment, which the kernel reassembles first.
    #[inline(always)]
    fn outer_v4(packet: &Packet) -> Option<Outer> {
        let header: Ipv4Hdr = packet.read(EthHdr::LEN)?;
        let whole = u16::from_be_bytes(header.frags) & 0x3fff == 0;
        if header.vihl != 0x45 || !whole {
            return None;
        }
        Some(Outer {
            family: V4,
            source: mapped(header.src_addr),
            destination: mapped(header.dst_addr),
            class: header.tos,
            protocol: header.proto,
            payload: EthHdr::LEN + Ipv4Hdr::LEN,
            end: EthHdr::LEN + u16::from_be_bytes(header.tot_len) as usize,
        })
    }

    /// The outer IPv6 header; `None` for another packet. The kernel handles extension headers.
    #[inline(always)]
    fn outer_v6(packet: &Packet) -> Option<Outer> {
        let header: Ipv6Hdr = packet.read(EthHdr::LEN)?;
        let [first, second, ..] = header.vcf;
        if first >> 4 != 6 {
            return None;
        }
        Some(Outer {
            family: V6,
            source: NetAddr(words(header.src_addr)),
            destination: NetAddr(words(header.dst_addr)),
            class: first << 4 | second >> 4,
            protocol: header.next_hdr,
            payload: EthHdr::LEN + Ipv6Hdr::LEN,
            end: EthHdr::LEN + Ipv6Hdr::LEN + u16::from_be_bytes(header.payload_len) as usize,
        })
    }

    #[inline(always)]
    fn mapped(address: [u8; 4]) -> NetAddr {
        NetAddr::from_v4(NetV4(u32::from_ne_bytes(address)))
    }

    #[inline(always)]
    fn words(bytes: [u8; 16]) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        NetV6([[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)).0
    }

    /// Where the packet begins in the payload of a GUE packet, and its protocol number. A control message is none.
    #[inline(always)]
    fn gue(packet: &Packet, payload: usize) -> Option<(usize, u8)> {
        const CONTROL: u8 = 1 << 5;
        let [first, protocol]: [u8; 2] = packet.read(payload)?;
        match first >> 4 {
            4 => Some((payload, IPV4_IN_IP)),
            6 => Some((payload, IPV6_IN_IP)),
            // Variant 0: a header, with optional words.
            0 | 1 if first & CONTROL == 0 && (protocol == IPV4_IN_IP || protocol == IPV6_IN_IP) => {
                Some((payload + 4 + 4 * (first & 0x1f) as usize, protocol))
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn inner_v4(packet: &Packet, at: usize, outer: &Outer) -> Result<(), Outcome> {
        // SAFETY: in use until the end of this function, which touches no other bytes.
        let header: &mut Ipv4Hdr = unsafe { packet.at(at) }.ok_or(Outcome::Malformed)?;
        let whole = at + u16::from_be_bytes(header.tot_len) as usize <= outer.end;
        if header.vihl >> 4 != 4 || header.vihl & 0x0f < 5 || !whole {
            return Err(Outcome::Malformed);
        }
        let ecn = ecn(outer.class, header.tos)?;
        if ecn != header.tos & 3 {
            let [old, new] = [header.tos, header.tos & !3 | ecn].map(u16::from).map(u16::to_be);
            header.tos = header.tos & !3 | ecn;
            let delta = Sum::ZERO.sub(old).add(new).fold();
            header.check = csum::update(u16::from_ne_bytes(header.check), delta).to_ne_bytes();
        }
        Ok(())
    }

    #[inline(always)]
    fn inner_v6(packet: &Packet, at: usize, outer: &Outer) -> Result<(), Outcome> {
        // SAFETY: as in IPv4.
        let header: &mut Ipv6Hdr = unsafe { packet.at(at) }.ok_or(Outcome::Malformed)?;
        let whole = at + Ipv6Hdr::LEN + u16::from_be_bytes(header.payload_len) as usize <= outer.end;
        if header.vcf[0] >> 4 != 6 || !whole {
            return Err(Outcome::Malformed);
        }
        let ecn = ecn(outer.class, header.vcf[1] >> 4)?;
        header.vcf[1] = header.vcf[1] & !0x30 | ecn << 4;
        Ok(())
    }

    /// The ECN field that a packet leaves with.
    #[inline(always)]
    fn ecn(outer: u8, inner: u8) -> Result<u8, Outcome> {
        tunnel::decapsulated_ecn(outer & 3, inner & 3).ok_or(Outcome::Congestion)
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
