//! The frame under work: the only place that does arithmetic on packet pointers.

use core::{intrinsics::is_val_statically_known, marker::PhantomData, ptr};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
};
use lb_common::{own_mac::Mac, vlan::Tags};
use lb_wire::{
    Frame, MAX_OFFSET, Wire,
    header::Protocol,
    load::{load32, store16, store32, store64},
    next_stage::NextStage,
    walk,
};

/// The addresses of an Ethernet header as they lie in the frame, in words: destination, source.
#[derive(Clone, Copy)]
pub struct Macs {
    /// The destination, and the first 2 bytes of the source.
    low: u64,
    /// The last 4 bytes of the source.
    high: u64,
}

/// Bytes of both addresses.
pub const MACS_LEN: usize = 12;

impl Macs {
    /// Of addresses that stand one after the other: destination, source, and 4 more bytes.
    ///
    /// # Safety
    ///
    /// 12 bytes from `first` on can be read.
    #[inline(always)]
    pub unsafe fn at(first: *const u8) -> Self {
        // SAFETY: by the contract.
        unsafe {
            Self {
                // On the stack, where a kernel's answer stands, the verifier asks for alignment.
                low: load32::<0>(first) | (load32::<4>(first) << 32),
                high: load32::<8>(first),
            }
        }
    }

    /// The same frame on its way back.
    #[inline(always)]
    pub const fn swapped(self) -> Self {
        let destination = self.low & ((1 << Mac::BITS) - 1);
        let source = (self.low >> Mac::BITS) | (self.high << (u64::BITS - Mac::BITS));
        Self {
            low: source | (destination << Mac::BITS),
            high: destination >> (u64::BITS - Mac::BITS),
        }
    }

    /// Whether these are the addresses of `other`.
    #[inline(always)]
    pub const fn same(self, other: Self) -> bool {
        (self.low ^ other.low) | (self.high ^ other.high) == 0
    }

    /// Writes them to 12 bytes.
    ///
    /// # Safety
    ///
    /// 12 bytes from `first` on can be written.
    #[inline(always)]
    pub unsafe fn write(self, first: *mut u8) {
        // SAFETY: by the contract.
        unsafe {
            store64::<0>(first, self.low);
            store32::<8>(first, self.high);
        }
    }
}

const _: () = assert!(cfg!(target_endian = "little"), "`Macs` joins words");

/// How a program walks over extension headers of IPv6: in its place, or in functions that the verifier checks once.
pub trait Walks: Sized {
    /// As [`walk::extension_headers`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn extension_headers(
        packet: &Packet<Self>,
        first: u8,
        offset: usize,
    ) -> Result<(Protocol, usize), NextStage> {
        walk::extension_headers(packet, first, offset)
    }

    /// As [`walk::has_fragment_header`].
    #[inline(always)]
    fn has_fragment_header(packet: &Packet<Self>) -> bool {
        walk::has_fragment_header(packet)
    }
}

/// A received frame. Headers are read and written in its linear part, where drivers place them; a frame of several
/// buffers has its payload elsewhere, which is never touched.
pub struct Packet<W> {
    ctx: *mut xdp_md,
    walks: PhantomData<W>,
    /// Tags that were taken off the frame.
    pub tags: Tags,
    /// Bytes of the frame without those tags, from the Ethernet header on, as it came: over all buffers, or at least those of the
    /// first one if the IP packet ends there. What then lies in further ones is padding.
    pub frame_len: u32,
}

impl<W: Walks> Packet<W> {
    /// The frame of this run of the program.
    ///
    /// # Safety
    ///
    /// `ctx` is the context this run was called with.
    #[inline(always)]
    pub unsafe fn new(ctx: *mut xdp_md) -> Self {
        // SAFETY: by the contract.
        let frame_len = unsafe { bpf_xdp_get_buff_len(ctx) };
        Self {
            ctx,
            walks: PhantomData,
            tags: Tags::NONE,
            #[expect(clippy::cast_possible_truncation, reason = "frames are of some KiB")]
            frame_len: frame_len as u32,
        }
    }

    /// The frame of this run, of which another program or function has found out the rest.
    ///
    /// # Safety
    ///
    /// As [`Self::new`].
    #[inline(always)]
    pub unsafe fn resume(ctx: *mut xdp_md, tags: Tags, frame_len: u32) -> Self {
        Self {
            ctx,
            walks: PhantomData,
            tags,
            frame_len,
        }
    }

    /// Bytes of the frame as received.
    #[inline(always)]
    pub fn received_len(&self) -> u32 {
        self.frame_len + self.tags.len()
    }

    /// The first buffer of this run's frame, and its length without a call: enough for who does not ask for the length, and for
    /// a packet that ends there. Else [`Self::measure`] follows.
    ///
    /// # Safety
    ///
    /// As [`Self::new`].
    #[inline(always)]
    pub unsafe fn first_buffer(ctx: *mut xdp_md) -> Self {
        let mut packet = Self {
            ctx,
            walks: PhantomData,
            tags: Tags::NONE,
            frame_len: 0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "frames are of some KiB")]
        let frame_len = packet.linear_len() as u32;
        packet.frame_len = frame_len;
        packet
    }

    /// Takes the length over all buffers, of a frame from which no tags were taken.
    #[inline(always)]
    pub fn measure(&mut self) {
        // SAFETY: the context of this run.
        unsafe { self.frame_len = Self::new(self.ctx).frame_len };
    }

    /// The program's context, for helpers that ask for it.
    #[inline(always)]
    pub fn context(&self) -> *mut xdp_md {
        self.ctx
    }

    /// Index of the interface the frame came in on.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: `ctx` is the context of this run.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    /// Whether the frame lies in one buffer. If not, it may be an aggregate of segments that each fit an MTU.
    #[inline(always)]
    pub fn is_linear(&self) -> bool {
        self.linear_len() == self.frame_len as usize
    }

    /// Bytes of the frame's linear part.
    #[inline(always)]
    pub fn linear_len(&self) -> usize {
        let (start, end) = self.bounds();
        end - start
    }

    /// Cuts the frame to `len` bytes, which lie in its first buffer; whether that could be done. `from` is its length, as far as it is
    /// known: see [`Self::frame_len`].
    #[inline(always)]
    pub fn cut(&self, from: usize, len: usize) -> bool {
        if from != len && self.shorten(from, len) && self.linear_len() == len {
            return true;
        }
        // What was cut off, or is still to be cut off, lies in other buffers.
        // SAFETY: the context of this run.
        let rest = unsafe { bpf_xdp_get_buff_len(self.ctx) };
        #[expect(clippy::cast_possible_truncation, reason = "frames are of some KiB")]
        let rest = rest as usize;
        rest == len || self.shorten(rest, len)
    }

    #[inline(always)]
    fn shorten(&self, from: usize, len: usize) -> bool {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            reason = "frames are of some KiB"
        )]
        let less = len as i32 - from as i32;
        // SAFETY: the context of this run; packet pointers are derived anew for each access.
        unsafe { bpf_xdp_adjust_tail(self.ctx, less) == 0 }
    }

    /// Adds `N` bytes, a multiple of 4 and at most 512, from `offset` on to a partial checksum; `None` if they do not lie in
    /// the linear part.
    #[inline(always)]
    pub fn sum<const N: usize>(&self, offset: usize, seed: u32) -> Option<u32> {
        const { assert!(N.is_multiple_of(4) && N <= 512, "bpf_csum_diff takes no other") };
        let words = self.pointer::<[u8; N]>(offset)?;
        #[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
        // SAFETY: in bounds, as just checked; nothing is taken away.
        let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, words.cast(), N as u32, seed) };
        u32::try_from(sum).ok()
    }

    /// Where the frame begins, if its first `LEN` bytes lie in the linear part.
    #[inline(always)]
    pub fn start<const LEN: usize>(&self) -> Option<*const u8> {
        Some(self.pointer::<[u8; LEN]>(0)?.cast_const().cast())
    }

    /// Copies the frame's first bytes, at most `N`, which is a multiple of 8, as far as they lie in the linear part; returns how many.
    ///
    /// # Safety
    ///
    /// `to` can be written.
    #[inline(always)]
    pub unsafe fn copy_start<const N: usize>(&self, to: *mut [u8; N]) -> u16 {
        const { assert!(N.is_multiple_of(8) && N <= u16::MAX as usize) };
        let (data, data_end) = self.bounds();
        let to = to.cast::<u8>();
        let mut at = 0;
        /// Copies a word while there are as many bytes.
        macro_rules! copy {
            ($word:ty, $more:ident) => {
                $more at + size_of::<$word>() <= N && end_of::<{ size_of::<$word>() }>(data + at) <= data_end {
                    // SAFETY: in bounds, as just checked; `to` by the contract. Volatile: one load and one store each, where the
                    // compiler would take bytes. Where a machine asks for alignment, the verifier refuses the program.
                    unsafe {
                        let word = ptr::read_volatile((data + at) as *const $word);
                        ptr::write_volatile(to.add(at).cast::<$word>(), word);
                    }
                    at += size_of::<$word>();
                }
            };
        }
        copy!(u64, while);
        copy!(u32, if);
        copy!(u16, if);
        copy!(u8, if);
        #[expect(clippy::cast_possible_truncation, reason = "at most `N`")]
        let copied = at as u16;
        copied
    }

    /// The addresses of the frame.
    #[inline(always)]
    pub fn macs(&self) -> Option<Macs> {
        let frame = self.pointer::<[u8; MACS_LEN]>(0)?;
        // SAFETY: in bounds, as just checked.
        Some(unsafe { Macs::at(frame.cast()) })
    }

    /// Sets the addresses of the frame.
    #[inline(always)]
    pub fn set_macs(&self, macs: Macs) -> Option<()> {
        let frame = self.pointer::<[u8; MACS_LEN]>(0)?;
        // SAFETY: in bounds, as just checked.
        unsafe { macs.write(frame.cast()) };
        Some(())
    }

    /// The header `offset` bytes into the frame, to be changed in place; `None` if it does not lie in the linear part.
    ///
    /// # Safety
    ///
    /// While the reference is in use, no other one to the same bytes is, no method of this frame touches them, and the frame
    /// neither grows nor is cut.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "packet memory is not behind `self`; see above"
    )]
    pub unsafe fn at<T: Wire>(&self, offset: usize) -> Option<&mut T> {
        const { assert!(align_of::<T>() == 1, "headers stand at any address") };
        let pointer = self.pointer::<T>(offset)?;
        // SAFETY: in bounds, as just checked; `Wire` admits every bit pattern; the alignment is 1.
        Some(unsafe { &mut *pointer })
    }

    /// Puts `bytes` new bytes of undefined content before the frame, or removes as many if it is negative; offsets
    /// into the frame grow by as much. `None` if the driver left no room, or the frame is shorter.
    #[inline(always)]
    pub fn grow(&self, bytes: i32) -> Option<()> {
        // SAFETY: the context of this run; no pointer into the frame outlives a bounds check.
        (unsafe { bpf_xdp_adjust_head(self.ctx, -bytes) } == 0).then_some(())
    }

    /// Writes 2 bytes, as they stand in memory, to an offset. `None` if they do not lie in the linear part.
    #[inline(always)]
    pub fn set_half(&self, offset: usize, half: u16) -> Option<()> {
        let start = self.pointer::<[u8; 2]>(offset)?.cast();
        // SAFETY: in bounds, as just checked.
        unsafe { store16::<0>(start, half.into()) };
        Some(())
    }

    /// 32-bit words from an even `offset` on, as they stand in memory: one load each, as in [`Self::put`].
    #[inline(always)]
    pub fn raw_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let start = self.pointer::<[u32; N]>(offset)?.cast::<u32>();
        // SAFETY: in bounds, as just checked. Where a machine asks for alignment, the verifier refuses the program.
        Some(core::array::from_fn(|index| unsafe {
            ptr::read_volatile(start.add(index))
        }))
    }

    /// Writes 32-bit words, as they stand in memory, to an even offset. One store each: through [`Self::at`] they would
    /// be written byte by byte. `None` if they do not lie in the linear part.
    #[inline(always)]
    pub fn put<const N: usize>(&self, offset: usize, words: [u32; N]) -> Option<()> {
        let start = self.pointer::<[u32; N]>(offset)?.cast::<u32>();
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: in bounds, as just checked. Where a machine asks for alignment, the verifier refuses the program.
            unsafe { ptr::write_volatile(start.add(index), word) };
        }
        Some(())
    }

    /// Where the linear part begins and ends. 64-bit words, since these are pointers to the verifier.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: `ctx` is the context of this run.
        unsafe {
            (
                ptr::read_volatile(&raw const (*self.ctx).data) as usize,
                ptr::read_volatile(&raw const (*self.ctx).data_end) as usize,
            )
        }
    }
}

// SAFETY: `pointer` compares with the bounds of the frame's linear part.
unsafe impl<W: Walks> Frame for Packet<W> {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.frame_len
    }

    #[inline(always)]
    fn extension_headers(&self, first: u8, offset: usize) -> Result<(Protocol, usize), NextStage> {
        W::extension_headers(self, first, offset)
    }

    #[inline(always)]
    fn has_fragment_header(&self) -> bool {
        W::has_fragment_header(self)
    }

    /// The one bounds check. The bounds are read anew each time: if the compiler could see the same bounds in an earlier
    /// check further into the frame, it would omit this one, and the verifier does not follow that reasoning.
    #[inline(always)]
    fn pointer<T>(&self, offset: usize) -> Option<*mut T> {
        let (data, data_end) = self.bounds();
        if offset > MAX_OFFSET {
            return None;
        }
        let start = data + masked(offset);
        if start + size_of::<T>() > data_end {
            return None;
        }
        Some(start as *mut T)
    }
}

/// The end of `LEN` bytes. The sum is hidden from the compiler: it would compare the start of one byte instead, from which the verifier
/// learns nothing.
#[inline(always)]
fn end_of<const LEN: usize>(start: usize) -> usize {
    let mut end = start;
    // SAFETY: changes no more than the register it is given.
    unsafe { core::arch::asm!("{0} += {1}", inout(reg) end, const LEN, options(pure, nomem, nostack)) };
    end
}

/// Makes the bound of an offset, which is checked already, part of the register that is added to a packet pointer. The
/// compiler may check one copy of a value on the stack and add another; kernels before 6.8 do not see that the two are
/// one. An offset that the compiler knows, the verifier knows, too.
#[inline(always)]
fn masked(mut offset: usize) -> usize {
    if !is_val_statically_known(offset) {
        // SAFETY: changes no more than the register it is given.
        unsafe {
            core::arch::asm!("{0} &= {1}", inout(reg) offset, const MAX_OFFSET, options(pure, nomem, nostack));
        }
    }
    offset
}
