//! A frame whose headers are read.

use network_types::{
    eth::EthHdr,
    icmp::Icmpv4Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use crate::{
    header::Protocol,
    load::{load16, load32},
    next_stage::NextStage,
};

/// Header layouts that may be laid over packet bytes.
///
/// # Safety
///
/// Every bit pattern is a valid value, and there is no padding.
pub unsafe trait Wire: Copy {}

/// The first words of TCP and UDP alike, and the first 8 bytes are all an ICMP error needs to quote.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ports {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
}

/// Implements [`Wire`].
macro_rules! wire {
    ($($header:ty)+) => {$(
        // SAFETY: `#[repr(C)]` over integers and byte arrays, without padding. ICMPv6 shares the first 8 bytes of ICMP.
        unsafe impl Wire for $header {}
    )+};
}
wire! { EthHdr Ipv4Hdr Ipv6Hdr Ports TcpHdr UdpHdr Icmpv4Hdr }
// SAFETY: bytes.
unsafe impl<const N: usize> Wire for [u8; N] {}
// SAFETY: bytes.
unsafe impl<const N: usize> Wire for [[u8; 4]; N] {}

/// Furthest into the frame that a header may begin: the linear part lies in one page, and the verifier wants a bound.
pub const MAX_OFFSET: usize = 4095;

/// A frame. Headers are read in its linear part.
///
/// # Safety
///
/// What [`Frame::pointer`] leads to lies in the frame, all of it.
pub unsafe trait Frame: Sized {
    /// Bytes of the whole frame from the Ethernet header on, without VLAN tags.
    fn frame_len(&self) -> u32;

    /// Where a `T` at `offset` begins; `None` if it does not lie in the linear part. What it leads to may be read as bytes while the
    /// frame neither grows nor is cut.
    fn pointer<T>(&self, offset: usize) -> Option<*mut T>;

    /// [`crate::walk::extension_headers`], inlined or called.
    ///
    /// # Errors
    /// As there.
    fn extension_headers(&self, first: u8, offset: usize) -> Result<(Protocol, usize), NextStage>;

    /// [`crate::walk::has_fragment_header`], inlined or called.
    fn has_fragment_header(&self) -> bool;

    /// A copy of the header `offset` bytes into the frame; `None` if it does not lie in the linear part.
    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let pointer = self.pointer::<T>(offset)?;
        // SAFETY: in bounds, as just checked; `Wire` admits every bit pattern; alignment is not assumed.
        Some(unsafe { pointer.read_unaligned() })
    }

    /// 2 bytes from `offset` on, as they stand in memory; `None` if they do not lie in the linear part.
    #[inline(always)]
    fn half(&self, offset: usize) -> Option<u16> {
        let start = self.pointer::<[u8; 2]>(offset)?.cast();
        #[expect(clippy::cast_possible_truncation, reason = "a word of 16 bits")]
        // SAFETY: in bounds, as just checked.
        Some(unsafe { load16::<0>(start) } as u16)
    }

    /// 4 bytes from `offset` on, as they stand in memory; `None` if they do not lie in the linear part.
    #[inline(always)]
    fn word(&self, offset: usize) -> Option<u32> {
        let start = self.pointer::<[u8; 4]>(offset)?.cast();
        #[expect(clippy::cast_possible_truncation, reason = "a word of 32 bits")]
        // SAFETY: in bounds, as just checked.
        Some(unsafe { load32::<0>(start) } as u32)
    }

    /// The first words of a header of `LEN` bytes, in big-endian order; `None` if it does not lie in the linear part.
    #[inline(always)]
    fn head<const LEN: usize>(&self, offset: usize) -> Option<[u32; 3]> {
        const { assert!(LEN >= 12, "three words") };
        let start = self.pointer::<[u8; LEN]>(offset)?.cast();
        // SAFETY: in bounds, as just checked.
        let words = unsafe { [load32::<0>(start), load32::<4>(start), load32::<8>(start)] };
        #[expect(clippy::cast_possible_truncation, reason = "words of 32 bits")]
        Some(words.map(|word| u32::from_be(word as u32)))
    }

    /// 16 bytes from `offset` on, as words in big-endian order; `None` if they do not lie in the linear part.
    #[inline(always)]
    fn words(&self, offset: usize) -> Option<[u32; 4]> {
        let start = self.pointer::<[u32; 4]>(offset)?.cast::<u8>();
        // SAFETY: in bounds, as just checked.
        let words = unsafe {
            [
                load32::<0>(start),
                load32::<4>(start),
                load32::<8>(start),
                load32::<12>(start),
            ]
        };
        #[expect(clippy::cast_possible_truncation, reason = "words of 32 bits")]
        Some(words.map(|word| u32::from_be(word as u32)))
    }
}
