//! Fields of the outer headers of tunnels, and the fields that the end of a tunnel carries over. The XDP programs write
//! the bytes.

use crate::csum::Sum;

/// Protocol number of IPv4 in IP (RFC 2003).
pub const IPV4_IN_IP: u8 = 4;
/// Protocol number of IPv6 in IP (RFC 2473).
pub const IPV6_IN_IP: u8 = 41;

/// UDP port of Generic UDP Encapsulation unless another is set. Variant 1 of its draft (draft-ietf-intarea-gue section
/// 4) is used: the IP packet follows the UDP header at once, and its version field gives its family.
pub const GUE_PORT: u16 = 6080;

/// Bytes of an outer IPv4 header without options.
pub const V4_LEN: usize = 20;
/// Bytes of an outer IPv6 header.
pub const V6_LEN: usize = 40;
/// Bytes of the UDP header of GUE.
pub const UDP_LEN: usize = 8;

/// TTL or hop limit of outer headers.
pub const HOP_LIMIT: u8 = 64;

/// Bytes that a tunnel puts before a packet.
#[inline(always)]
pub const fn overhead(outer_v6: bool, gue: bool) -> usize {
    (if outer_v6 { V6_LEN } else { V4_LEN }) + if gue { UDP_LEN } else { 0 }
}

/// The UDP source port of a flow's GUE packets: from the dynamic ports (RFC 6335), spread by the flow's hash, so that
/// paths and receive queues are chosen by flow.
#[inline(always)]
pub const fn source_port(hash: u32) -> u16 {
    0xc000 | (hash >> 16) as u16
}

/// The flow label of a flow's outer IPv6 packets (RFC 6438): 20 bits, never 0, which would mean "no flow".
#[inline(always)]
pub const fn flow_label(hash: u32) -> u32 {
    (hash & 0xf_ffff) | 1
}

/// The sum of a whole TCP or UDP packet over IPv4 or IPv6, from its header alone, given that its own checksums are
/// right. The sum over the transport part and its pseudo header is zero, and so is the sum over an IPv4 header; the
/// rest is the difference of header and pseudo header. Linux calls this local checksum offload.
///
/// `first_words` are an IPv6 header's version, traffic class and flow label, and next header and hop limit; for IPv4 there
/// are none, but the pseudo header's addresses in `addresses`. All in the byte order of memory.
#[inline(always)]
pub const fn packet_sum(first_words: Sum, addresses: Sum, protocol: u8, transport_len: u16) -> Sum {
    let pseudo = addresses
        .add((protocol as u16).to_be())
        .add(transport_len.to_be())
        .fold();
    first_words.sub(pseudo)
}

/// The ECN field (RFC 3168) that a packet leaves a tunnel with: outer and inner field in, each 0 to 3; `None` where the
/// packet must be dropped (RFC 6040 section 4.2).
#[inline(always)]
pub const fn decapsulated_ecn(outer: u8, inner: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    match (outer, inner) {
        (CE, NOT_ECT) => None,
        (_, NOT_ECT) => Some(NOT_ECT),
        (CE, _) => Some(CE),
        (ECT_1, ECT_0) => Some(ECT_1),
        _ => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecn_at_the_tunnel_end_follows_rfc_6040() {
        // Figure 4: rows are the inner field Not-ECT, ECT(0), ECT(1), CE; columns the outer one in the same order.
        const ORDER: [u8; 4] = [0, 2, 1, 3];
        let table = [
            [Some(0), Some(0), Some(0), None],
            [Some(2), Some(2), Some(1), Some(3)],
            [Some(1), Some(1), Some(1), Some(3)],
            [Some(3), Some(3), Some(3), Some(3)],
        ];
        for (row, inner) in table.iter().zip(ORDER) {
            for (wanted, outer) in row.iter().zip(ORDER) {
                assert_eq!(
                    decapsulated_ecn(outer, inner),
                    *wanted,
                    "outer {outer}, inner {inner}"
                );
            }
        }
    }

    #[test]
    fn entropy_stays_in_its_field() {
        for hash in [0, 1, 0xffff_ffff, 0x1234_5678] {
            assert!(source_port(hash) >= 0xc000);
            assert!((1..1 << 20).contains(&flow_label(hash)));
        }
        assert_ne!(source_port(0), source_port(1 << 16));
    }
}
