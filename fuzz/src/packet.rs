//! A frame in memory, with the interface of `lb-ebpf/src/packet.rs` that parsing uses.

use std::cell::UnsafeCell;

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

/// Header layouts that may be laid over packet bytes.
///
/// # Safety
///
/// Every bit pattern is a valid value, and there is no padding.
pub(crate) unsafe trait Wire: Copy {}

// SAFETY: bytes and arrays of bytes.
unsafe impl Wire for EthHdr {}
// SAFETY: plain bytes of network headers, valid with any content.
unsafe impl Wire for Ipv4Hdr {}
// SAFETY: plain bytes of network headers, valid with any content.
unsafe impl Wire for Ipv6Hdr {}
// SAFETY: plain bytes of network headers, valid with any content.
unsafe impl Wire for TcpHdr {}
// SAFETY: plain bytes of network headers, valid with any content.
unsafe impl Wire for UdpHdr {}
// SAFETY: plain bytes of network headers, valid with any content.
unsafe impl<const N: usize> Wire for [u8; N] {}

/// Furthest into the frame that a header may begin, as there.
const MAX_OFFSET: usize = 4095;

/// A frame.
pub(crate) struct Packet {
    bytes: UnsafeCell<Vec<u8>>,
    /// Its length in bytes.
    pub(crate) frame_len: u32,
}

impl Packet {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: UnsafeCell::new(bytes.to_vec()),
            frame_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        }
    }

    /// Copies the value at `offset`.
    pub(crate) fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let pointer = self.pointer::<T>(offset)?;
        // SAFETY: in bounds, as just checked; `Wire` admits every bit pattern; alignment is not assumed.
        Some(unsafe { pointer.read_unaligned() })
    }

    /// The value at `offset`, if the frame has all of it. References to overlapping bytes must not be alive together.
    #[expect(clippy::mut_from_ref, reason = "as in the program")]
    pub(crate) fn at<T: Wire>(&self, offset: usize) -> Option<&mut T> {
        const { assert!(align_of::<T>() == 1, "headers stand at any address") };
        let pointer = self.pointer::<T>(offset)?;
        // SAFETY: in bounds, as just checked; `Wire` admits every bit pattern; the alignment is 1.
        Some(unsafe { &mut *pointer })
    }

    /// 2 bytes as they stand in memory.
    pub(crate) fn half(&self, offset: usize) -> Option<u16> {
        self.read(offset).map(u16::from_ne_bytes)
    }

    /// 4 bytes as they stand in memory.
    pub(crate) fn word(&self, offset: usize) -> Option<u32> {
        self.read(offset).map(u32::from_ne_bytes)
    }

    /// The first words of a header of `LEN` bytes, in big-endian order.
    pub(crate) fn head<const LEN: usize>(&self, offset: usize) -> Option<[u32; 3]> {
        self.at::<[u8; LEN]>(offset)?;
        let word = |index: usize| self.word(offset + 4 * index).map(u32::from_be);
        Some([word(0)?, word(1)?, word(2)?])
    }

    fn pointer<T>(&self, offset: usize) -> Option<*mut T> {
        // SAFETY: the vector itself is never changed, and no reference to its bytes is alive while this one is.
        let bytes = unsafe { &mut *self.bytes.get() };
        let all = bytes.get_mut(offset..)?.get_mut(..size_of::<T>())?;
        (offset <= MAX_OFFSET).then(|| all.as_mut_ptr().cast())
    }
}
