//! ICMP errors, which quote the packet that they are about.

use lb_common::{
    csum::Sum,
    flow::Tuple,
    limits::{ICMP_ERROR_V4, ICMP_ERROR_V6},
    reason::Reason,
};
use network_types::eth::EthHdr;

use super::write::{ICMP, Reply, ethernet, pseudo, sum_of};
use crate::packet::Packet;

/// Turns a packet of `ip_len` bytes into an ICMP error about it, which quotes as much of it as may be. `kind` is type and code,
/// `rest` the second word of the ICMP header as it stands in memory.
#[inline(always)]
pub(super) fn send<A: Reply>(
    packet: &Packet,
    tuple: &Tuple<A>,
    ip_len: usize,
    kind: [u8; 2],
    rest: u32,
) -> Result<(), Reason> {
    let linear = packet.linear_len() - EthHdr::LEN;
    // Whole words, since that is what is summed up.
    let quoted = ip_len.min(linear).min(A::LONGEST_QUOTE) & !3;
    let macs = packet.macs().ok_or(Reason::Internal)?;
    let more = A::LEN + ICMP;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "two headers"
    )]
    packet.grow(more as i32).ok_or(Reason::NoHeadroom)?;
    let quote = EthHdr::LEN + more;
    if !packet.cut(packet.frame_len as usize + more, quote + quoted) {
        return Err(Reason::Internal);
    }

    let protocol = A::ICMP;
    let mut sum = if A::IS_V6 {
        pseudo(tuple, protocol, ICMP + quoted)
    } else {
        Sum::ZERO
    };
    // Most packets that do not fit are longer than what may be quoted.
    let quote_sum = if quoted == A::LONGEST_QUOTE {
        A::sum_longest(packet, quote)
    } else {
        sum_quote(packet, quote, quoted)
    };
    let quote_sum = quote_sum.ok_or(Reason::Internal)?;
    let [kind, code] = kind;
    sum = sum_of(
        sum.plus(quote_sum),
        &[u32::from_ne_bytes([kind, code, 0, 0]), rest],
    );
    let [check_low, check_high] = (!sum.fold()).to_ne_bytes();

    ethernet::<A>(packet, macs)?;
    A::write_header(packet, tuple, protocol, ICMP + quoted)?;
    let words = [u32::from_ne_bytes([kind, code, check_low, check_high]), rest];
    packet.put(EthHdr::LEN + A::LEN, words).ok_or(Reason::Internal)
}

/// The partial checksum of what is quoted: `len` bytes, a multiple of 4, from `at` on.
#[inline(always)]
fn sum_quote(packet: &Packet, at: usize, len: usize) -> Option<Sum> {
    const { assert!(ICMP_ERROR_V4 < 2048 && ICMP_ERROR_V6 < 2048) };
    let mut seed = 0;
    if has_part::<1024>(len) {
        seed = packet.sum::<512>(at, seed)?;
        seed = packet.sum::<512>(at + 512, seed)?;
    }
    seed = add::<512>(packet, at, len, seed)?;
    seed = add::<256>(packet, at, len, seed)?;
    seed = add::<128>(packet, at, len, seed)?;
    // Cheaper than calls.
    let mut sum = Sum::ZERO.add32(seed);
    sum = add_words::<16>(packet, at, len, sum)?;
    sum = add_words::<8>(packet, at, len, sum)?;
    sum = add_words::<4>(packet, at, len, sum)?;
    sum = add_words::<2>(packet, at, len, sum)?;
    add_words::<1>(packet, at, len, sum)
}

/// Adds the part of `N` 32-bit words to a sum, if `len` bytes have it.
#[inline(always)]
fn add_words<const N: usize>(packet: &Packet, at: usize, len: usize, sum: Sum) -> Option<Sum> {
    if core::hint::black_box(len) & (4 * N) == 0 {
        return Some(sum);
    }
    let words = packet.raw_words::<N>(at + (len & !(8 * N - 1)))?;
    Some(sum_of(sum, &words))
}

/// Whether `len` has a part of `N` bytes, a power of 2, behind its larger ones. Asked of a copy: the verifier learns from
/// each answer, and would walk the rest once for every combination of them.
#[inline(always)]
fn has_part<const N: usize>(len: usize) -> bool {
    core::hint::black_box(len) & N != 0
}

/// Adds the part of `N` bytes to a partial checksum, if `len` has it.
#[inline(always)]
fn add<const N: usize>(packet: &Packet, at: usize, len: usize, seed: u32) -> Option<u32> {
    if !has_part::<N>(len) {
        return Some(seed);
    }
    packet.sum::<N>(at + (len & !(2 * N - 1)), seed)
}
