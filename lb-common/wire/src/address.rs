//! What headers of IPv4 and IPv6 do differently, as far as reading them goes.

use core::mem::offset_of;

use lb_common::addr::{NetV4, NetV6};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    frame::Frame,
    header::{Fragments, Ip},
    load::{load32, load64, store64},
    next_stage::NextStage,
    parse,
};

/// An address of a family, which stands for the family.
pub trait Address: Copy + PartialEq {
    /// The IP header after the Ethernet header.
    ///
    /// # Errors
    /// What becomes of a packet whose headers are refused.
    fn parse(frame: &impl Frame) -> Result<Ip, NextStage>;
    /// The IP header of a packet quoted at `offset`, which may end outside the frame.
    ///
    /// # Errors
    /// As [`Self::parse`].
    fn parse_quoted(frame: &impl Frame, offset: usize) -> Result<Ip, NextStage>;
    /// Whether the packet is a fragment. Found out each time: as a part of [`Ip`] the verifier would walk everything twice.
    fn is_fragment(frame: &impl Frame, ip: &Ip) -> bool;
    /// Whether no packet may come from the address.
    fn is_martian(self) -> bool;
    /// Copies source and destination address of the header at `offset`.
    fn addresses(frame: &impl Frame, offset: usize, src: &mut Self, dst: &mut Self) -> Option<()>;
}

impl Address for NetV4 {
    #[inline(always)]
    fn parse(frame: &impl Frame) -> Result<Ip, NextStage> {
        parse::ipv4(frame)
    }

    #[inline(always)]
    fn parse_quoted(frame: &impl Frame, offset: usize) -> Result<Ip, NextStage> {
        parse::ipv4_header(frame, offset, Fragments::First)
    }

    #[inline(always)]
    fn is_fragment(frame: &impl Frame, ip: &Ip) -> bool {
        // The offset, and "more fragments".
        const WORD: u16 = 0x3fff_u16.to_be();
        frame
            .half(ip.header + offset_of!(Ipv4Hdr, frags))
            .is_some_and(|word| word & WORD != 0)
    }

    #[inline(always)]
    fn is_martian(self) -> bool {
        Self::is_martian(self)
    }

    #[inline(always)]
    fn addresses(frame: &impl Frame, offset: usize, src: &mut Self, dst: &mut Self) -> Option<()> {
        let header = frame.pointer::<Ipv4Hdr>(offset)?.cast::<u8>();
        // SAFETY: 4 bytes each.
        let words = unsafe {
            [
                load32::<{ offset_of!(Ipv4Hdr, src_addr) }>(header),
                load32::<{ offset_of!(Ipv4Hdr, dst_addr) }>(header),
            ]
        };
        #[expect(clippy::cast_possible_truncation, reason = "words of 32 bits")]
        let [source, destination] = words.map(|word| word as u32);
        (src.0, dst.0) = (source, destination);
        Some(())
    }
}

impl Address for NetV6 {
    #[inline(always)]
    fn parse(frame: &impl Frame) -> Result<Ip, NextStage> {
        parse::ipv6(frame)
    }

    #[inline(always)]
    fn parse_quoted(frame: &impl Frame, offset: usize) -> Result<Ip, NextStage> {
        parse::ipv6_header(frame, offset)
    }

    #[inline(always)]
    fn is_fragment(frame: &impl Frame, ip: &Ip) -> bool {
        ip.payload != ip.header + Ipv6Hdr::LEN && frame.has_fragment_header()
    }

    #[inline(always)]
    fn is_martian(self) -> bool {
        Self::is_martian(self)
    }

    #[inline(always)]
    fn addresses(frame: &impl Frame, offset: usize, src: &mut Self, dst: &mut Self) -> Option<()> {
        let header = frame.pointer::<Ipv6Hdr>(offset)?.cast::<u8>();
        // SAFETY: 16 bytes each.
        unsafe {
            copy(header.add(offset_of!(Ipv6Hdr, src_addr)), (&raw mut *src).cast());
            copy(header.add(offset_of!(Ipv6Hdr, dst_addr)), (&raw mut *dst).cast());
        }
        Some(())
    }
}

/// Copies an address by two words.
///
/// # Safety
///
/// 16 bytes can be read and written.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8) {
    // SAFETY: by the contract.
    unsafe {
        store64::<0>(to, load64::<0>(from));
        store64::<8>(to, load64::<8>(from));
    }
}
