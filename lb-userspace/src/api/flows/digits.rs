//! Numbers and addresses as text. The standard formatting machinery takes several times as long, which counts where a list has a
//! million lines.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

/// Appends a number in decimal.
pub(super) fn decimal(out: &mut Vec<u8>, mut number: u32) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        // The remainder is below 10.
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// Appends an address with its port, as [`SocketAddr`] is displayed: an IPv6 address in brackets, in the form of RFC 5952.
pub(super) fn address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => v4(out, *address.ip()),
        SocketAddr::V6(address) => {
            out.push(b'[');
            v6(out, *address.ip());
            out.push(b']');
        }
    }
    out.push(b':');
    decimal(out, address.port().into());
}

fn v4(out: &mut Vec<u8>, address: Ipv4Addr) {
    let [a, b, c, d] = address.octets();
    decimal(out, a.into());
    for octet in [b, c, d] {
        out.push(b'.');
        decimal(out, octet.into());
    }
}

fn v6(out: &mut Vec<u8>, address: Ipv6Addr) {
    if let Some(mapped) = address.to_ipv4_mapped() {
        out.extend_from_slice(b"::ffff:");
        return v4(out, mapped);
    }
    let segments = address.segments();
    let zeros = longest_zeros(&segments);
    for (at, segment) in segments.iter().enumerate() {
        if zeros.contains(&at) {
            if at == zeros.start {
                out.extend_from_slice(b"::");
            }
            continue;
        }
        if at > 0 && at != zeros.end {
            out.push(b':');
        }
        hex(out, *segment);
    }
}

/// The first of the longest runs of at least two zeros; empty, behind all segments, without such a run.
fn longest_zeros(segments: &[u16; 8]) -> Range<usize> {
    let (mut longest, mut length) = (segments.len()..segments.len(), 0);
    for (at, segment) in segments.iter().enumerate() {
        length = if *segment == 0 { length + 1 } else { 0 };
        if length > longest.len().max(1) {
            longest = at + 1 - length..at + 1;
        }
    }
    longest
}

/// Appends a number in hexadecimal, without leading zeros.
fn hex(out: &mut Vec<u8>, number: u16) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (u16::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        out.push(DIGITS[usize::from(number >> (4 * at) & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(of: SocketAddr) -> String {
        let mut out = Vec::new();
        address(&mut out, of);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_whole() {
        for number in [0, 1, 9, 10, 99, 100, 65_535, 999_999_999, u32::MAX] {
            let mut out = b"x".to_vec();
            decimal(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), format!("x{number}"));
        }
    }

    proptest! {
        /// Few bits, so that many segments are zero, in all places.
        #[test]
        fn addresses_look_as_everywhere_else(
            v4 in any::<u32>(), full in any::<u128>(), masks in any::<[bool; 8]>(), tail in any::<u32>(), port in any::<u16>(),
        ) {
            let masked = masks.iter().fold(0, |mask: u128, keep| mask << 16 | u128::from(if *keep { u16::MAX } else { 0 }));
            let v6 = [full, full & masked, full & masked & 0x000f_00ff_0fff_ffff_0fff_00ff_000f_0001, u128::from(tail), 0xffff << 32 | u128::from(tail), 0, 1];
            for of in v6.map(|bits| SocketAddr::from((Ipv6Addr::from_bits(bits), port))) {
                prop_assert_eq!(text(of), of.to_string());
            }
            let of = SocketAddr::from((Ipv4Addr::from_bits(v4), port));
            prop_assert_eq!(text(of), of.to_string());
        }
    }
}
